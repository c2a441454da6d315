using ActorVmm.Actors.Host.Vm.Devices.Virtio;
using ActorVmm.Boot;
using ActorVmm.Devices.Virtio.Queue;
using ActorVmm.Hypervisor;
using ActorVmm.Memory;

namespace ActorVmm.Testing.Virtio;

/// <summary>A whole VM, actors and all, whose guest is a <see cref="RingGuest"/> and whose one device is an <see
/// cref="EchoDevice"/>.</summary>
public sealed class RingVm : IAsyncDisposable
{
    /// <summary>The device's registers.</summary>
    public const ulong Window = VirtioPlan.FirstWindow;

    private const int Gsi = 10;
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(Nightly.Count(30, 600));

    private readonly TinyVm _vm;

    private RingVm(TinyVm vm, VirtioSlot slot) => (_vm, Slot) = (vm, slot);

    /// <summary>What the guest reported.</summary>
    public IReadOnlyList<ulong> Reports => _vm.Reports;

    /// <summary>The device's slot.</summary>
    public VirtioSlot Slot { get; }

    /// <summary>The VM as its units described themselves when the guest was done.</summary>
    public string Tree => _vm.Tree;

    /// <summary>Runs a guest to its end.</summary>
    /// <param name="hypervisor">What runs it.</param>
    /// <param name="rounds">Requests.</param>
    /// <param name="polls">Without interrupts.</param>
    /// <param name="hook">Looks on, or crashes the device.</param>
    public static async Task<RingVm> RunAsync(IHypervisor hypervisor, int rounds, bool polls = false, ICrashHook? hook = null)
    {
        VirtioSlot? slot = null;
        var vm = await TinyVm.RunAsync(hypervisor, TinyVm.Spec, guest => RingGuest.Load(guest, Window, Gsi, rounds, polls), s_patience,
        [
            parts =>
            {
                var place = new VirtioPlace("echo0", VirtioKind.Disk, 0, new VirtioMmioSlot(new GuestAddress(Window), 0x1000, Gsi));
                slot = new VirtioSlot(parts, place, [RingGuest.QueueSize]);
                slot.Ledger.CrashHook = hook;
                return slot.Unit(() => new EchoDevice(RingGuest.QueueSize));
            },
        ]).ConfigureAwait(false);
        return new RingVm(vm, slot!);
    }

    public ValueTask DisposeAsync() => _vm.DisposeAsync();
}
