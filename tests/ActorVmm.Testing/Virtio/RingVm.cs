using Akka.Configuration;
using ActorVmm.Actors;
using ActorVmm.Actors.Host.Vm.Devices.Virtio;
using ActorVmm.Boot;
using ActorVmm.Devices;
using ActorVmm.Devices.Virtio.Queue;
using ActorVmm.Hypervisor;
using ActorVmm.Memory;
using ActorVmm.Testing.Guests;

namespace ActorVmm.Testing.Virtio;

/// <summary>A whole VM, actors and all, whose guest is a <see cref="RingGuest"/> and whose one device is an <see
/// cref="EchoDevice"/>.</summary>
public sealed class RingVm : IAsyncDisposable, IGuestLoader, IExitHandler, IByteSink, IConsoleInput
{
    /// <summary>The device's registers.</summary>
    public const ulong Window = VirtioPlan.FirstWindow;

    private const int Gsi = 10;
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(Nightly.Count(30, 600));

    private readonly VmHost _host;
    private readonly int _rounds;
    private readonly bool _polls;
    private readonly TaskCompletionSource _done = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private IVmHandle? _vm;

    private RingVm(int rounds, bool polls)
    {
        (_rounds, _polls) = (rounds, polls);
        const string Settings = "akka.loglevel = OFF\nactorvmm.supervision { max-retries = 1000, within = 1s }";
        _host = VmHost.Create(ConfigurationFactory.ParseString(Settings), this);
    }

    /// <summary>What the guest reported.</summary>
    public List<ulong> Reports { get; } = [];

    /// <summary>The device's slot.</summary>
    public VirtioSlot Slot { get; private set; } = null!;

    /// <summary>Writes to the device's registers that left the guest.</summary>
    public string Tree { get; private set; } = "";

    /// <summary>Runs a guest to its end.</summary>
    /// <param name="hypervisor">What runs it.</param>
    /// <param name="rounds">Requests.</param>
    /// <param name="polls">Without interrupts.</param>
    /// <param name="hook">Looks on, or crashes the device.</param>
    public static async Task<RingVm> RunAsync(IHypervisor hypervisor, int rounds, bool polls = false, ICrashHook? hook = null)
    {
        var ring = new RingVm(rounds, polls);
        try
        {
            var spec = new VmSpec { Name = "ring", Kernel = new KernelSpec { Path = "none" },
                MemoryMib = (int)(GuestLayout.MemorySize >> 20) };
            ring._vm = await ring._host.StartAsync(spec, hypervisor, new VmConsole(ring, ring), ring,
            [
                parts =>
                {
                    var place = new VirtioPlace("echo0", VirtioKind.Disk, 0, new VirtioMmioSlot(new GuestAddress(Window), 0x1000, Gsi));
                    ring.Slot = new VirtioSlot(parts, place, [RingGuest.QueueSize]);
                    ring.Slot.Ledger.CrashHook = hook;
                    return ring.Slot.Unit(() => new EchoDevice(RingGuest.QueueSize));
                },
            ]).ConfigureAwait(false);
            await Task.WhenAny(ring._done.Task, ring._vm.Completion).WaitAsync(s_patience).ConfigureAwait(false);
            if (!ring._vm.Completion.IsCompleted) ring.Tree = (await ring._vm.InspectAsync().ConfigureAwait(false)).ToString();
            return ring;
        }
        catch (TimeoutException) when (ring._vm is { } vm)
        {
            var tree = await vm.InspectAsync().ConfigureAwait(false);
            await ring.DisposeAsync().ConfigureAwait(false);
            throw new TimeoutException($"the guest did not end:\n{tree}");
        }
    }

    public IReadOnlyList<string> Load(VmSpec spec, IMachine machine)
    {
        // Not disposed: the machine is its owner's.
        RingGuest.Load(new TinyGuest(machine), Window, Gsi, _rounds, _polls);
        return [];
    }

    public bool TryHandle(VcpuExit access)
    {
        ArgumentNullException.ThrowIfNull(access);
        if (access.Kind != VcpuExitKind.PortWrite) return false;
        switch (access.Address)
        {
            case GuestLayout.ReportPort: Reports.Add(access.Data); return true;
            case GuestLayout.DonePort: _done.TrySetResult(); return true;
            case GuestLayout.FaultPort: Reports.Add(access.Data); return true;
            case GuestLayout.FaultEndPort: _done.TrySetException(new InvalidOperationException("the guest faulted")); return true;
            default: return false;
        }
    }

    public void Write(ReadOnlySpan<byte> bytes) { }

    public int Take(Span<byte> into) => 0;

    public void OnAvailable(Action available) { }

    public ValueTask DisposeAsync() => _host.DisposeAsync();
}
