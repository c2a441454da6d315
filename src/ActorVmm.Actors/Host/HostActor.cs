using Akka.Actor;
using Akka.Event;
using ActorVmm.Actors.Host.Vm;
using ActorVmm.Actors.Settings;

namespace ActorVmm.Actors.Host;

/// <summary><c>/user/host</c>: many VMs in one process. One that fails is stopped and reported; the others do not notice.</summary>
internal sealed class HostActor : UntypedActor
{
    private readonly ActorSettings _settings;
    private readonly Dictionary<IActorRef, VmRun> _vms = [];
    private readonly ILoggingAdapter _log = Context.GetLogger();

    public static Props Props(ActorSettings settings) => Akka.Actor.Props.Create(() => new HostActor(settings));

    public HostActor(ActorSettings settings) => _settings = settings;

    /// <inheritdoc/>
    protected override SupervisorStrategy SupervisorStrategy() => new OneForOneStrategy(cause =>
    {
        // Also where the actor could not say so itself, because it was killed: whoever restarts VMs goes by the outcome.
        if (_vms.TryGetValue(Sender, out var run))
            run.Outcome = new VmOutcome(StopReason.Failed, $"the VM's actor failed: {cause.Message}", 0);
        return Verdicts.OfVm(cause);
    });

    /// <inheritdoc/>
    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case HostProtocol.StartVm start: OnStart(start.Run); break;
            case HostProtocol.StopAll: foreach (var vm in _vms.Keys) vm.Tell(VmProtocol.Stop.Instance); break;
            case Terminated gone when _vms.Remove(gone.ActorRef, out var run): run.Finish(_log); break;
            case UnitProtocol.Inspect:
                _ = Inspection.GatherAsync(Self.Path.Name, _vms.Keys.ToArray(), 3 * _settings.InspectDeadline).PipeTo(Sender, Self);
                break;
            default: Unhandled(message); break;
        }
    }

    /// <inheritdoc/>
    protected override void PostStop()
    {
        // The whole actor system went down: every VM has been stopped (children first), and nobody shall wait for ever.
        foreach (var run in _vms.Values) run.Finish(_log);
    }

    private void OnStart(VmRun run)
    {
        var name = run.Spec.Name;
        if (!ActorPath.IsValidPathElement(name) || name.StartsWith('$'))
        {
            Refuse(run, $"\"{name}\" cannot be a VM's name: letters, digits, - and _ are allowed");
            return;
        }

        if (_vms.Values.Any(other => string.Equals(other.Spec.Name, name, StringComparison.Ordinal)))
        {
            Refuse(run, $"a VM named {name} runs already");
            return;
        }

        var vm = Context.ActorOf(VmActor.Props(run, _settings), name);
        _vms.Add(vm, run);
        Context.Watch(vm);
    }

    private void Refuse(VmRun run, string why)
    {
        run.Started.TrySetException(new ArgumentException(why));
        run.Outcome = new VmOutcome(StopReason.Failed, why, 0);
        run.Finish(_log);
    }
}

/// <summary>What the host hears.</summary>
internal static class HostProtocol
{
    /// <summary>Command: build and start a VM; the answer is in the run's promises.</summary>
    public sealed record StartVm(VmRun Run);

    /// <summary>Command: stop every VM.</summary>
    public sealed record StopAll { public static readonly StopAll Instance = new(); }
}
