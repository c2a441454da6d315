using Akka.Actor;
using Akka.Actor.Internal;
using Akka.Event;
using Akka.Routing;
using ActorVmm.Actors.Host.Vm.Bus;
using ActorVmm.Actors.Settings;

namespace ActorVmm.Actors.Host.Vm.Devices;

/// <summary>
/// <c>devices</c>: one child per device, restarted one for one. It runs on the dispatcher of its children, so failure, verdict and restart
/// happen on the vCPU's thread within the exit that failed. It also watches for handlers that do not come back.
/// </summary>
public sealed class DevicesSupervisor : UntypedActor
{
    private readonly Dictionary<string, Member> _devices = new(StringComparer.Ordinal);
    private readonly Queue<IActorRef> _replaced = new();
    private readonly IReadOnlyList<DeviceUnit> _units;
    private readonly IActorRef _bus;
    private readonly IActorRef _vm = Context.Parent;
    private readonly ActorSettings _settings;
    private readonly int _backendLooks;
    private readonly RestartBudget _budget;
    private readonly Strategy _strategy;
    private readonly ILoggingAdapter _log = Context.GetLogger();
    private ICancelable? _nextLook;

    public static Props Props(IReadOnlyList<DeviceUnit> units, IActorRef bus, ActorSettings settings) =>
        Made.By(() => new DevicesSupervisor(units, bus, settings));

    public DevicesSupervisor(IReadOnlyList<DeviceUnit> units, IActorRef bus, ActorSettings settings)
    {
        ArgumentNullException.ThrowIfNull(settings);
        _units = units;
        _bus = bus;
        _settings = settings;
        _backendLooks = (int)Math.Ceiling(
            settings.Supervision.BackendDeadline / (settings.Supervision.HangDeadline / Member.LooksPerDeadline));
        _budget = new RestartBudget(settings.Supervision);
        _strategy = new Strategy(this);
    }

    /// <inheritdoc/>
    protected override void PreStart()
    {
        foreach (var unit in _units)
        {
            var member = new Member(unit);
            _devices.Add(unit.Name, member);
            Make(member);
        }

        LookAgain();
    }

    /// <inheritdoc/>
    protected override void PostStop() => _nextLook?.Cancel();

    /// <inheritdoc/>
    protected override SupervisorStrategy SupervisorStrategy() => _strategy;

    /// <inheritdoc/>
    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case UnitProtocol.Start:
                Sender.Tell(new DevicesProtocol
                    .Ready(_devices.ToDictionary(pair => pair.Key, pair => pair.Value.Actor, StringComparer.Ordinal)));
                foreach (var device in _devices.Values) device.Actor.Forward(message);
                break;
            case UnitProtocol.Inspect:
                _ = Inspection.GatherAsync(Self.Path.Name, Plugged().Select(device => device.Actor).ToArray(),
                    _settings.InspectDeadline, Health()).PipeTo(Sender, Self);
                break;
            case UnitProtocol.Reset or UnitProtocol.Save or UnitProtocol.Stop:
                foreach (var device in _devices.Values) ForwardTo(device, message);
                break;
            case UnitProtocol.Restore:
                Sender.Tell(new UnitProtocol.Done(Self.Path.Name, "the devices have states of their own: each is restored by its name"));
                break;
            case DevicesProtocol.Freeze or DevicesProtocol.Thaw:
                foreach (var device in Plugged()) device.Actor.Tell(message);
                break;
            case DevicesProtocol.RestoreDevice restore: OnRestore(restore); break;
            case DevicesProtocol.Press press when _devices.TryGetValue(press.Key.DeviceName(), out var pressed):
                pressed.Actor.Tell(press);
                break;
            case Look: OnLook(); break;
            case Routees when _replaced.TryDequeue(out var old): _vm.Tell(new DevicesProtocol.Replaced(old)); break;
            case DevicesProtocol.Retry: OnRetry(); break;
            case DevicesProtocol.Unplug unplug when _devices.TryGetValue(unplug.Device, out var member): Unplug(member); break;
            default: Unhandled(message); break;
        }
    }

    private void OnRestore(DevicesProtocol.RestoreDevice restore)
    {
        if (_devices.TryGetValue(restore.Device, out var device)) ForwardTo(device, new UnitProtocol.Restore(restore.State));
        else Sender.Tell(new UnitProtocol.Done(restore.Device, "there is no such device"));
    }

    /// <summary>Each device answers the asker itself. For an empty slot it is said here that there is nothing to do: the machine with the
    /// hole in it is reset, saved and restored like any other.</summary>
    private void ForwardTo(Member member, object command)
    {
        if (!member.IsUnplugged) member.Actor.Forward(command);
        else if (command is UnitProtocol.Save) Sender.Tell(new UnitProtocol.Saved(member.Unit.Name, State: null));
        else Sender.Tell(new UnitProtocol.Done(member.Unit.Name));
    }

    // ---- A device that fails.

    private void OnFailure(IActorContext context, Member member, Exception cause, bool mayBeRestarted)
    {
        var name = member.Unit.Name;
        if (mayBeRestarted && _budget.TryTake(name))
        {
            _log.Warning(cause, "{0} failed and is restarted from its checkpoint: {1}", name, cause.Message);
            context.System.EventStream.Publish(new VmEvents.DeviceRestarted(HostActor.NameOf(_vm), name, cause.Message));
            _strategy.Restart(member.Actor, cause);
            return;
        }

        var limits = _settings.Supervision.Of(name);
        _log.Error(cause, "{0} failed more than {1} times within {2}: {3}", name, limits.MaxRetries, limits.Within, limits.OverLimit);
        // Akka's own strategy would stop it; for an operator it stays as it is, suspended, with its mailbox and the failed access.
        if (limits.OverLimit == OverLimitPolicy.Pause && cause is not ActorKilledException)
            member.Wait("waiting for an operator", () => _strategy.Restart(member.Actor, cause));
        else
            TakeOff(context, member);
        _vm.Tell(new DevicesProtocol.GaveUp(name, cause));
    }

    private void OnRetry()
    {
        _budget.Clear(); // a fresh one: the operator has looked at it
        foreach (var member in _devices.Values) member.GoOn();
    }

    private void Unplug(Member member)
    {
        TakeOff(Context, member);
        _bus.Tell(new RemoveRoutee(member.Routee!));
    }

    private static void TakeOff(IActorContext context, Member member)
    {
        member.Unplug();
        context.Stop(member.Actor);
    }

    // ---- A device that does not come back.

    private void OnLook()
    {
        foreach (var member in _devices.Values)
        {
            if (member.BackendHasNotMoved(_backendLooks)) OnBackendOverdue(member);
            if (member.HasNotMoved() && member.Unit.Slot!.Turn.TryFence(member.LastSample)) OnHung(member);
        }

        LookAgain();
    }

    /// <summary>Looks several times per deadline: a process that was stopped for a while finds a device waiting once, not every
    /// time.</summary>
    private void LookAgain() =>
        _nextLook = Context.System.Scheduler.ScheduleTellOnceCancelable(
            _settings.Supervision.HangDeadline / Member.LooksPerDeadline, Self, Look.Instance, Self);

    private void OnBackendOverdue(Member member)
    {
        var cause = new DeviceHungException(
            $"the backend of {member.Unit.Name} has not answered for {_settings.Supervision.BackendDeadline}");
        member.Actor.Tell(new BackendOverdue(cause));
    }

    private void OnHung(Member member)
    {
        var (unit, name) = (member.Unit, member.Unit.Name);
        var cause = new DeviceHungException($"{name} has not come back from a handler within {_settings.Supervision.HangDeadline}");
        unit.Slot!.CountFailure();
        unit.Slot.LastError = cause.Message;
        _vm.Tell(new DevicesProtocol.Hung(name, unit.Slot.Mailbox!, cause, unit.RegistersOnly));
        Context.Stop(member.Actor); // when its thread comes back, if ever
        if (!unit.RegistersOnly)
        {
            member.Health = "hung";
            return;
        }

        if (_budget.TryTake(name))
        {
            _log.Warning("{0}; another instance takes its place", cause.Message);
            Replace(member);
            return;
        }

        var limits = _settings.Supervision.Of(name);
        _log.Error("{0}, and failed more than {1} times within {2}: {3}", cause.Message, limits.MaxRetries, limits.Within,
            limits.OverLimit);
        if (limits.OverLimit == OverLimitPolicy.Pause)
        {
            member.Wait("hung, waiting for an operator", () => Replace(member));
        }
        else
        {
            member.Unplug();
            _bus.Tell(new RemoveRoutee(member.Routee!));
            TellWhenRouted(member.Actor); // asked again, the open bus answers
        }

        _vm.Tell(new DevicesProtocol.GaveUp(name, cause));
    }

    /// <summary>The hung instance is fenced off: a second one from the same checkpoint, and the bus leads to that one.</summary>
    private void Replace(Member member)
    {
        var (old, route) = (member.Actor, member.Routee!);
        member.Generation++;
        member.Unit.Slot!.Renew();
        member.Unit.Slot.CountRestart();
        Make(member, route);
        TellWhenRouted(old);
    }

    private void TellWhenRouted(IActorRef old)
    {
        _replaced.Enqueue(old);
        _bus.Tell(new GetRoutees());
    }

    // ---- The rest.

    private void Make(Member member, DeviceRoutee? instead = null)
    {
        var unit = member.Unit;
        var props = unit.Props.WithDispatcher(ActorSettings.CallerRunsDispatcher).WithMailbox(ActorSettings.ExitMailbox);
        member.Actor = Context.ActorOf(props, member.Generation == 1 ? unit.Name : $"{unit.Name}-{member.Generation}");
        member.Routee = new DeviceRoutee(member.Actor, unit.Name, unit.Ranges);
        if (instead is not null) _bus.Tell(new RemoveRoutee(instead));
        _bus.Tell(new AddRoutee(member.Routee));
    }

    private IEnumerable<Member> Plugged() => _devices.Values.Where(device => !device.IsUnplugged);

    private SortedDictionary<string, string> Health()
    {
        var values = new SortedDictionary<string, string>(StringComparer.Ordinal);
        foreach (var (name, member) in _devices) values[name] = member.Health;
        return values;
    }

    /// <summary>A device and what is known of it here.</summary>
    private sealed class Member(DeviceUnit unit)
    {
        public const int LooksPerDeadline = 4;

        private Action? _goOn;
        private int _still;

        public DeviceUnit Unit { get; } = unit;
        public IActorRef Actor { get; set; } = ActorRefs.Nobody;
        public DeviceRoutee? Routee { get; set; }
        public int Generation { get; set; } = 1;
        public string Health { get; set; } = "serves";
        public long LastSample { get; private set; }

        /// <summary>Its slot is empty, for good.</summary>
        public bool IsUnplugged { get; private set; }

        public void Unplug() => (Health, IsUnplugged) = ("unplugged", true);

        /// <summary>True where the device was inside the same turn at each look within the deadline.</summary>
        public bool HasNotMoved()
        {
            if (Unit.Slot is not { } slot) return false;
            var sample = slot.Turn.Sample;
            _still = Dispatch.Turn.IsInside(sample) && sample == LastSample ? _still + 1 : 0;
            LastSample = sample;
            return _still >= LooksPerDeadline;
        }

        private long _finished;
        private int _silent;

        /// <summary>True where the backend had something to answer, and answered nothing, at this many looks.</summary>
        public bool BackendHasNotMoved(int looks)
        {
            if (Unit.Slot?.Backend is not { } backend) return false;
            var finished = backend.Finished;
            _silent = backend.Outstanding > 0 && finished == _finished ? _silent + 1 : 0;
            _finished = finished;
            if (_silent < looks) return false;
            _silent = 0;
            return true;
        }

        public void Wait(string health, Action goOn) => (Health, _goOn) = (health, goOn);

        public void GoOn()
        {
            if (_goOn is not { } goOn) return;
            (Health, _goOn, _still) = ("serves", null, 0);
            goOn();
        }
    }

    /// <summary>
    /// Passes every failure on to the supervisor. Akka's own strategy counts by itself, and its counts cannot be given a fresh budget.
    /// </summary>
    private sealed class Strategy(DevicesSupervisor owner) : OneForOneStrategy(
        owner._settings.Supervision.Standard.MaxRetries, (int)owner._settings.Supervision.Standard.Within.TotalMilliseconds,
        Verdicts.OfDevice, loggingEnabled: false)
    {
        public override void ProcessFailure(
            IActorContext context, bool restart, IActorRef child, Exception cause, ChildRestartStats stats,
            IReadOnlyCollection<ChildRestartStats> children)
        {
            var member = owner._devices.Values.FirstOrDefault(device => device.Actor.Equals(child));
            if (member is null) context.Stop(child); // one that was given up has nothing more to say
            else owner.OnFailure(context, member, cause, restart);
        }

        public void Restart(IActorRef child, Exception cause) => RestartChild(child, cause, suspendFirst: false);
    }

    private sealed record Look { public static readonly Look Instance = new(); }
}
