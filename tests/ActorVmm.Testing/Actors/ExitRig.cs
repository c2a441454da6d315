using Akka.Actor;
using Akka.Configuration;
using Akka.Event;
using Akka.Routing;
using ActorVmm.Actors;
using ActorVmm.Actors.Host.Vm.Bus;
using ActorVmm.Actors.Host.Vm.Devices;
using ActorVmm.Actors.Host.Vm.Devices.Serial;
using ActorVmm.Actors.Settings;
using ActorVmm.Devices;
using ActorVmm.Devices.Power;
using ActorVmm.Devices.Serial;
using ActorVmm.Hypervisor;

namespace ActorVmm.Testing.Actors;

/// <summary>
/// The exit path without a VM: the real bus, real serial actors, and threads that do what vCPUs do. For benchmarks, and for the test that
/// nothing is allocated.
/// </summary>
public sealed class ExitRig : IDisposable
{
    private const ushort Scratch = SerialPort.Com1 + 7;
    private const ushort Data = SerialPort.Com1;

    private readonly ActorSystem _system;
    private readonly VcpuExit _exit = new();
    private readonly ExitLane _first;

    /// <param name="lanes">vCPUs, each with a device of its own on the one bus.</param>
    public ExitRig(int lanes = 1)
    {
        _system = ActorSystem.Create("rig", ConfigurationFactory.ParseString("akka.loglevel = OFF").WithFallback(ActorSettings.Shipped));
        var root = _system.ActorOf(Props.Create(() => new Root(lanes)), "root");
        Lanes = root.Ask<IReadOnlyList<ExitLane>>("lanes", TimeSpan.FromSeconds(90)).GetAwaiter().GetResult();
        _first = Lanes[0];
        foreach (var lane in Lanes) lane.AsVcpu(lane.WaitUntilIdle);
    }

    /// <summary>One per vCPU.</summary>
    public IReadOnlyList<ExitLane> Lanes { get; }

    /// <summary>Runs <paramref name="body"/> on this thread as the first vCPU's.</summary>
    public void AsVcpu(Action body) => _first.AsVcpu(body);

    /// <summary>The device called directly: what the messages are measured against.</summary>
    public ulong ReadDirect() => _first.Direct.Read(7, 1);

    /// <summary>One read exit told to the device.</summary>
    public ulong ReadOneHop()
    {
        Begin(VcpuExitKind.PortRead, Scratch, 0);
        _first.ServeByDevice(_exit, offset: 7);
        return _exit.Data;
    }

    /// <summary>One read exit through the bus.</summary>
    public ulong ReadThroughBus()
    {
        Begin(VcpuExitKind.PortRead, Scratch, 0);
        _first.ServeThroughBus(_exit);
        return _exit.Data;
    }

    /// <summary>One write exit through the bus, of the console's data register: with an effect.</summary>
    public void PrintThroughBus(byte value)
    {
        Begin(VcpuExitKind.PortWrite, Data, value);
        _first.ServeThroughBus(_exit);
    }

    public void Dispose() => _system.Terminate().GetAwaiter().GetResult();

    private void Begin(VcpuExitKind kind, ulong address, ulong data) =>
        (_exit.Kind, _exit.Address, _exit.Size, _exit.Data) = (kind, address, 1, data);

    private sealed class Root : UntypedActor
    {
        private readonly IReadOnlyList<ExitLane> _lanes;

        public Root(int lanes)
        {
            var ports = new BusPorts(handler: null, Context.GetLogger());
            var bus = Context.ActorOf(new BusGroup(ports, Akka.Dispatch.Dispatchers.DefaultDispatcherId).Props(), "bus");
            _lanes = [.. Enumerable.Range(0, lanes).Select(number => Build(number, bus))];
        }

        protected override void OnReceive(object message) => Sender.Tell(_lanes);

        private ExitLane Build(int number, IActorRef bus)
        {
            var name = $"serial{number}";
            var slot = new DeviceSlot(name, new EffectBuffer(new NoTarget()), new AlarmClock(new StillClock()));
            var props = SerialActor.Props(slot, new Checkpoint<SerialState>(), new SerialInput(new NoInput()), SerialPort.Com1Irq);
            props = props.WithDispatcher(ActorSettings.CallerRunsDispatcher).WithMailbox(ActorSettings.ExitMailbox);
            var device = Context.ActorOf(props, name);
            var ports = AddressRange.Ports(ExitLane.PortOf(number), SerialPort.PortCount);
            var mmio = AddressRange.Mmio(ExitLane.MmioOf(number), SerialPort.PortCount);
            var routee = new DeviceRoutee(device, ports, mmio);
            bus.Tell(new AddRoutee(routee));
            var direct = new SerialPort(new NoLine(), new NoSink(), new MachineTime(new StillClock()));
            return new ExitLane(number, bus, device, Self, AddressTable.Build([routee], AddressTable.Empty), direct);
        }
    }

    private sealed class StillClock : IMachineClock
    {
        public ulong Nanoseconds => 0;
        public ClockMode Mode => ClockMode.Virtual;
        public void SetAlarm(ulong nanoseconds) { }
    }

    private sealed class NoTarget : IEffectTarget
    {
        public void WriteConsole(ReadOnlySpan<byte> bytes) { }
        public void SetInterruptLine(int gsi, bool level) { }
        public void Signal(PowerEvent signal) { }
    }

    private sealed class NoInput : IConsoleInput
    {
        public int Take(Span<byte> into) => 0;
        public void OnAvailable(Action available) { }
    }

    private sealed class NoLine : IInterruptLine { public void Drive(bool level) { } }

    private sealed class NoSink : IByteSink { public void Write(ReadOnlySpan<byte> bytes) { } }
}
