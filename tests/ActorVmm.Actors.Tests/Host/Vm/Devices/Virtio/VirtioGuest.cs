using ActorVmm.Actors.Host.Vm.Devices.Virtio;
using ActorVmm.Boot;
using ActorVmm.Devices.Power;
using ActorVmm.Devices.Virtio;
using ActorVmm.Memory;
using ActorVmm.Testing.Actors;
using ActorVmm.Testing.Virtio;

namespace ActorVmm.Actors.Tests.Host.Vm.Devices.Virtio;

/// <summary>A VM with one virtio device and a driver that the test drives.</summary>
internal sealed class VirtioGuest : IAsyncDisposable
{
    public const int Gsi = 11;
    private const ulong Window = 0xD010_0000;

    private readonly VmFixture _fixture;
    private readonly DrivenGuest _guest = new(Window);

    private VirtioGuest(string hocon) => _fixture = new VmFixture(hocon);

    public VirtioSlot Slot { get; private set; } = null!;
    public ScriptedHypervisor Hypervisor { get; private set; } = null!;
    public IVmHandle Vm { get; private set; } = null!;
    public VirtioDriver Driver { get; private set; } = null!;
    public VmFixture Fixture => _fixture;

    /// <summary>Starts the VM and its driver up to DRIVER_OK.</summary>
    public static async Task<VirtioGuest> StartAsync<TDevice>(Func<TDevice> make, bool doorbells = false, string hocon = "",
        IExitHandler? handler = null)
        where TDevice : IVirtioDevice
    {
        var guest = new VirtioGuest(hocon);
        guest.Hypervisor = new ScriptedHypervisor(guest._guest.Play) { HasDoorbells = doorbells };
        guest.Vm = await guest._fixture.StartAsync(guest.Hypervisor, VmFixture.Spec() with { MemoryMib = 16 }, handler, parts =>
        {
            var place = new VirtioPlace("echo0", VirtioKind.Disk, 0, new VirtioMmioSlot(new GuestAddress(Window), 0x1000, Gsi));
            guest.Slot = new VirtioSlot(parts, place, make().QueueSizes);
            return guest.Slot.Unit(() => make());
        });
        guest.Driver = new VirtioDriver(guest._guest, guest.Hypervisor.Machine!.Memory);
        guest.Driver.Start();
        return guest;
    }

    /// <summary>The level of the device's interrupt line.</summary>
    public bool Interrupted => Hypervisor.Machine!.Lines.LastOrDefault(line => line.Gsi == Gsi).Level;

    /// <summary>Makes a request available without ringing.</summary>
    public (int Head, GuestBuffer Answer) Add(string text, int queue = 0)
    {
        var answer = Driver.Writable((uint)text.Length);
        return (Driver.Rings[queue].Add(Driver.Readable(System.Text.Encoding.ASCII.GetBytes(text)), answer), answer);
    }

    public string Text(GuestBuffer buffer) => System.Text.Encoding.ASCII.GetString(Driver.Bytes(buffer));

    /// <summary>Waits for the device's answers.</summary>
    public async Task<IReadOnlyList<UsedBuffer>> AnswersAsync(int count, int queue = 0)
    {
        var all = new List<UsedBuffer>();
        await VmFixture.EventuallyAsync(() => { all.AddRange(Driver.Rings[queue].Collect()); return all.Count >= count; },
            $"{count} answers");
        return all;
    }

    /// <summary>Resets the machine through the chipset's reset register.</summary>
    public void ResetMachine()
    {
        _guest.Out(PowerPorts.ResetControl, 2);
        _guest.Out(PowerPorts.ResetControl, 6);
    }

    /// <summary>Halts the guest; the VM ends.</summary>
    public async Task<VmOutcome> HaltAsync()
    {
        _guest.Dispose();
        return await Vm.Completion.WaitAsync(VmFixture.Patience);
    }

    public async ValueTask DisposeAsync()
    {
        _guest.Dispose();
        await _fixture.DisposeAsync();
    }
}
