using Akka.Actor;
using Akka.Configuration;
using Akka.Event;
using Akka.Routing;
using ActorVmm.Actors;
using ActorVmm.Actors.Dispatch;
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
/// The exit path without a hypervisor: the real bus and the real serial actor, and a thread that does what a vCPU does. For the benchmark,
/// and for the test that nothing is allocated.
/// </summary>
public sealed class ExitRig : IDisposable
{
    private const ushort Scratch = SerialPort.Com1 + 7;
    private const ushort Data = SerialPort.Com1;

    private readonly ActorSystem _system;
    private readonly BusAccess _access = new();
    private readonly VcpuExit _exit = new();
    private readonly SerialPort _direct = new(new NoLine(), new NoSink(), new MachineTime(new StillClock()));
    private readonly Refs _refs;

    public ExitRig()
    {
        _system = ActorSystem.Create("rig", ConfigurationFactory.ParseString("akka.loglevel = OFF").WithFallback(ActorSettings.Shipped));
        var root = _system.ActorOf(Props.Create(() => new Root()), "root");
        _refs = root.Ask<Refs>("refs", TimeSpan.FromSeconds(30)).GetAwaiter().GetResult();
        while (!_refs.Bus.Ask<Routees>(new GetRoutees()).GetAwaiter().GetResult().Members.Any()) { /* the bus is told of its device */ }
        AsVcpu(WaitUntilIdle);
    }

    /// <summary>The device is made on the pool, and exits told meanwhile are served there: waits until that is over.</summary>
    private void WaitUntilIdle()
    {
        for (var inline = 0; inline < 100; inline++)
        {
            Begin(VcpuExitKind.PortRead, Scratch, 0);
            _refs.Bus.Tell(_access, _refs.Vcpu);
            if (!_access.IsDone) inline = 0;
            SpinWait.SpinUntil(() => _access.IsDone);
        }
    }

    /// <summary>Runs <paramref name="body"/> on this thread as a vCPU's: mailboxes it tells exits to run here.</summary>
    public static void AsVcpu(Action body) => new CallerRunsContext(static () => false).Bind(body);

    /// <summary>The device called directly: what the messages are measured against.</summary>
    public ulong ReadDirect() => _direct.Read(7, 1);

    /// <summary>One read exit told to the device.</summary>
    public ulong ReadOneHop()
    {
        Begin(VcpuExitKind.PortRead, Scratch, 0);
        _access.Offset = 7;
        _refs.Device.Tell(_access, _refs.Vcpu);
        return Answer();
    }

    /// <summary>One read exit through the bus.</summary>
    public ulong ReadThroughBus()
    {
        Begin(VcpuExitKind.PortRead, Scratch, 0);
        _refs.Bus.Tell(_access, _refs.Vcpu);
        return Answer();
    }

    /// <summary>One write exit through the bus, of the console's data register: with an effect.</summary>
    public void PrintThroughBus(byte value)
    {
        Begin(VcpuExitKind.PortWrite, Data, value);
        _refs.Bus.Tell(_access, _refs.Vcpu);
        _ = Answer();
    }

    public void Dispose() => _system.Terminate().GetAwaiter().GetResult();

    private void Begin(VcpuExitKind kind, ulong address, ulong data)
    {
        (_exit.Kind, _exit.Address, _exit.Size, _exit.Data) = (kind, address, 1, data);
        _access.Begin(_exit);
    }

    private ulong Answer()
    {
        if (!_access.IsDone || _access.Outcome != AccessOutcome.Answered) throw new InvalidOperationException($"not served inline: {_access.Outcome}");
        return _access.Data;
    }

    /// <param name="Vcpu">Whom exits come from; it hears nothing, since it need not wait.</param>
    private sealed record Refs(IActorRef Bus, IActorRef Device, IActorRef Vcpu);

    private sealed class Root : UntypedActor
    {
        private readonly Refs _refs;

        public Root()
        {
            var bus = Context.ActorOf(
                new BusGroup(new BusPorts(handler: null, Context.GetLogger()), Akka.Dispatch.Dispatchers.DefaultDispatcherId).Props(), "bus");
            var slot = new DeviceSlot("serial0", new EffectBuffer(new NoTarget()), new AlarmClock(new StillClock()));
            var props = SerialActor.Props(slot, new Checkpoint<SerialState>(), new SerialInput(new NoInput()), SerialPort.Com1Irq);
            var device = Context.ActorOf(props.WithDispatcher(ActorSettings.CallerRunsDispatcher).WithMailbox(ActorSettings.ExitMailbox), "serial0");
            bus.Tell(new AddRoutee(new DeviceRoutee(device, AddressRange.Ports(SerialPort.Com1, SerialPort.PortCount))));
            _refs = new Refs(bus, device, Self);
        }

        protected override void OnReceive(object message) => Sender.Tell(_refs);
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
