using System.Diagnostics;
using Akka.Actor;
using Akka.Actor.Internal;
using Akka.Event;
using Akka.Routing;
using ActorVmm.Actors.Host.Vm.Bus;
using ActorVmm.Actors.Settings;

namespace ActorVmm.Actors.Host.Vm.Devices;

/// <summary>
/// <c>devices</c>: one child per device, restarted one for one. It runs on the dispatcher of its children, so failure, verdict and restart
/// happen on the vCPU's thread within the exit that failed.
/// </summary>
public sealed class DevicesSupervisor : UntypedActor
{
    private readonly Dictionary<string, IActorRef> _devices = new(StringComparer.Ordinal);
    private readonly IReadOnlyList<DeviceUnit> _units;
    private readonly IActorRef _bus;
    private readonly ActorSettings _settings;
    private readonly Strategy _strategy;

    public static Props Props(IReadOnlyList<DeviceUnit> units, IActorRef bus, ActorSettings settings) =>
        Akka.Actor.Props.Create(() => new DevicesSupervisor(units, bus, settings));

    public DevicesSupervisor(IReadOnlyList<DeviceUnit> units, IActorRef bus, ActorSettings settings)
    {
        _units = units;
        _bus = bus;
        _settings = settings;
        var vm = Context.Parent;
        _strategy = new Strategy(settings.Supervision, Context.GetLogger(), (device, cause) =>
            vm.Tell(new DevicesProtocol.GaveUp(device, cause)));
    }

    /// <inheritdoc/>
    protected override void PreStart()
    {
        foreach (var unit in _units)
        {
            var props = unit.Props.WithDispatcher(ActorSettings.CallerRunsDispatcher).WithMailbox(ActorSettings.ExitMailbox);
            var device = Context.ActorOf(props, unit.Name);
            _devices.Add(unit.Name, device);
            _bus.Tell(new AddRoutee(new DeviceRoutee(device, unit.Ranges)));
        }
    }

    /// <inheritdoc/>
    protected override SupervisorStrategy SupervisorStrategy() => _strategy;

    /// <inheritdoc/>
    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case UnitProtocol.Start:
                Sender.Tell(new DevicesProtocol.Ready(_devices.ToDictionary(StringComparer.Ordinal)));
                foreach (var device in _devices.Values) device.Forward(message);
                break;
            case UnitProtocol.Inspect:
                _ = Inspection.GatherAsync(Self.Path.Name, _devices.Values, _settings.InspectDeadline).PipeTo(Sender, Self);
                break;
            case UnitProtocol.Reset or UnitProtocol.Save or UnitProtocol.Stop:
                foreach (var device in _devices.Values) device.Forward(message); // each answers the asker itself
                break;
            case DevicesProtocol.Press press when _devices.TryGetValue(press.Key.DeviceName(), out var pressed): pressed.Tell(press); break;
            case DevicesProtocol.Retry: _strategy.RetryAll(); break;
            case DevicesProtocol.Unplug unplug when _devices.Remove(unplug.Device, out var device): Context.Stop(device); break;
            default: Unhandled(message); break;
        }
    }

    /// <summary>
    /// The verdicts, with their reasons. Akka's own strategy would stop a device over its limit; under <c>pause</c> it has to stay as it
    /// is, suspended, with its mailbox and the failed access, until an operator resumes the VM.
    /// </summary>
    private sealed class Strategy(SupervisionSettings settings, ILoggingAdapter log, Action<string, Exception> gaveUp) : OneForOneStrategy(
        settings.MaxRetries, (int)settings.Within.TotalMilliseconds, static cause => cause switch
        {
            ActorInitializationException => Directive.Stop,   // it cannot even start: report it, do not spin
            ActorKilledException         => Directive.Stop,   // somebody meant it
            _                            => Directive.Restart, // resume from the checkpoint
        }, loggingEnabled: false)
    {
        private readonly List<(IActorRef Device, Exception Cause)> _waiting = [];
        private readonly Dictionary<string, Queue<long>> _restarts = new(StringComparer.Ordinal);

        public override void ProcessFailure(
            IActorContext context, bool restart, IActorRef child, Exception cause, ChildRestartStats stats,
            IReadOnlyCollection<ChildRestartStats> children)
        {
            var name = child.Path.Name;
            if (restart && MayRestart(name))
            {
                context.System.EventStream.Publish(new VmEvents.DeviceRestarted(context.Parent.Path.Name, name, cause.Message));
                log.Warning(cause, "{0} failed and is restarted from its checkpoint: {1}", name, cause.Message);
                RestartChild(child, cause, suspendFirst: false);
                return;
            }

            log.Error(cause, "{0} failed more than {1} times within {2}: {3}", name, settings.MaxRetries, settings.Within,
                settings.OverLimit);
            if (restart && settings.OverLimit == OverLimitPolicy.Pause) _waiting.Add((child, cause));
            else context.Stop(child);
            gaveUp(name, cause);
        }

        public void RetryAll()
        {
            _restarts.Clear(); // a fresh budget: the operator has looked at it
            foreach (var (device, cause) in _waiting) RestartChild(device, cause, suspendFirst: false);
            _waiting.Clear();
        }

        // Counted here and not by Akka's statistics, because those cannot be given a fresh budget.
        private bool MayRestart(string device)
        {
            if (!_restarts.TryGetValue(device, out var times)) _restarts.Add(device, times = new Queue<long>());
            while (times.TryPeek(out var oldest) && Stopwatch.GetElapsedTime(oldest) > settings.Within) times.Dequeue();
            if (times.Count >= settings.MaxRetries) return false;
            times.Enqueue(Stopwatch.GetTimestamp());
            return true;
        }
    }
}
