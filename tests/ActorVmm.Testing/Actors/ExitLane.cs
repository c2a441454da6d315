using Akka.Actor;
using ActorVmm.Actors.Dispatch;
using ActorVmm.Actors.Host.Vm.Bus;
using ActorVmm.Devices.Serial;
using ActorVmm.Hypervisor;
using ActorVmm.Testing.Guests;

namespace ActorVmm.Testing.Actors;

/// <summary>What one vCPU of an <see cref="ExitRig"/> has: its access, a serial port behind the bus, and one to be called directly.</summary>
public sealed class ExitLane
{
    private readonly CallerRunsContext _context = new(static () => false);
    private readonly BusAccess _access = new();
    private readonly IActorRef _bus;
    private readonly IActorRef _device;
    private readonly IActorRef _vcpu;
    private readonly AddressTable _table;

    internal ExitLane(int number, IActorRef bus, IActorRef device, IActorRef vcpu, AddressTable table, SerialPort direct)
    {
        Port = PortOf(number);
        Mmio = MmioOf(number);
        _bus = bus;
        _device = device;
        _vcpu = vcpu;
        _table = table;
        Direct = direct;
    }

    /// <summary>The device's first port.</summary>
    public ushort Port { get; }

    /// <summary>The same registers in memory.</summary>
    public ulong Mmio { get; }

    /// <summary>A port like the actor's.</summary>
    public SerialPort Direct { get; }

    /// <summary>Runs <paramref name="body"/> on this thread as this vCPU's: mailboxes it tells exits to run here.</summary>
    public void AsVcpu(Action body) => _context.Bind(body);

    /// <summary>Serves an exit by a look at the same table and a call of the device.</summary>
    public void ServeDirect(VcpuExit exit)
    {
        ArgumentNullException.ThrowIfNull(exit);
        if (!_table.TryFind(exit.Kind is VcpuExitKind.PortRead or VcpuExitKind.PortWrite, exit.Address, exit.Size, out var entry))
            throw new InvalidOperationException($"not the device's: {exit}");
        var offset = entry.OffsetOf(exit.Address);
        if (exit.Kind is VcpuExitKind.PortRead or VcpuExitKind.MmioRead) exit.Data = Direct.Read(offset, exit.Size);
        else Direct.Write(offset, exit.Size, exit.Data);
    }

    /// <summary>Serves an exit by telling it to the bus.</summary>
    public void ServeThroughBus(VcpuExit exit)
    {
        _access.Begin(exit);
        _bus.Tell(_access, _vcpu);
        Finish(exit);
    }

    internal static ushort PortOf(int number) => (ushort)(SerialPort.Com1 - (0x100 * number));

    internal static ulong MmioOf(int number) => GuestLayout.Mmio + (0x1000UL * (ulong)number);

    internal void ServeByDevice(VcpuExit exit, ulong offset)
    {
        _access.Begin(exit);
        _access.Offset = offset;
        _device.Tell(_access, _vcpu);
        Finish(exit);
    }

    /// <summary>
    /// The bus is told of its device, and the device is made, on the pool; exits told meanwhile are open bus, or served there. Waits until
    /// that is over.
    /// </summary>
    internal void WaitUntilIdle()
    {
        var exit = new VcpuExit { Kind = VcpuExitKind.PortRead, Address = Port + 7UL, Size = 1 };
        for (var inline = 0; inline < 100; inline++)
        {
            _access.Begin(exit);
            _bus.Tell(_access, _vcpu);
            if (!_access.IsDone || _access.Outcome != AccessOutcome.Answered) inline = 0;
            SpinWait.SpinUntil(() => _access.IsDone);
        }
    }

    private void Finish(VcpuExit exit)
    {
        if (!_access.IsDone || _access.Outcome != AccessOutcome.Answered)
            throw new InvalidOperationException($"not served inline: {_access.Outcome}");
        if (!_access.IsWrite) exit.Data = _access.Data;
    }
}
