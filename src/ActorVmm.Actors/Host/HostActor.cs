using System.Globalization;
using Akka.Actor;
using Akka.Event;
using ActorVmm.Actors.Dispatch;
using ActorVmm.Actors.Host.Vm;
using ActorVmm.Actors.Settings;

namespace ActorVmm.Actors.Host;

/// <summary><c>/user/host</c>: many VMs in one process. One that fails is stopped and reported; the others do not notice.</summary>
internal sealed class HostActor : UntypedActor
{
    // In no VM's name.
    private const char Again = '~';

    private readonly ActorSettings _settings;
    private readonly Dictionary<IActorRef, VmRun> _vms = [];
    private readonly ILoggingAdapter _log = Context.GetLogger();

    public static Props Props(ActorSettings settings) => Made.By(() => new HostActor(settings));

    public HostActor(ActorSettings settings) => _settings = settings;

    /// <inheritdoc/>
    protected override void PreStart()
    {
        if (!MailboxAccess.IsComplete)
            _log.Warning("this Akka lacks the members that an idle device is invoked by: every exit goes through its mailbox");
    }

    /// <inheritdoc/>
    protected override SupervisorStrategy SupervisorStrategy() => new OneForOneStrategy(maxNrOfRetries: 0, withinTimeMilliseconds: 0, cause =>
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
            case Terminated: break; // one that was abandoned: its lost thread has come back
            case HostProtocol.Abandoned: OnAbandoned(); break;
            case UnitProtocol.Inspect:
                _ = Inspection.GatherAsync(Self.Path.Name, _vms.Keys.ToArray(), 3 * _settings.InspectDeadline, Describe()).PipeTo(Sender, Self);
                break;
            default: Unhandled(message); break;
        }
    }

    private SortedDictionary<string, string> Describe() => new(StringComparer.Ordinal)
    {
        ["vms"] = $"{_vms.Count}",
        ["mailbox"] = $"{((ActorCell)Context).NumberOfMessages}",
    };

    /// <inheritdoc/>
    protected override void PostStop()
    {
        // The whole actor system went down: every VM has been stopped (children first), and nobody shall wait for ever.
        foreach (var run in _vms.Values) run.Finish(_log);
    }

    private void OnStart(VmRun run)
    {
        var name = run.Spec.Name;
        if (!ActorPath.IsValidPathElement(name) || name.StartsWith('$') || name.Contains(Again, StringComparison.Ordinal))
        {
            Refuse(run, $"\"{name}\" cannot be a VM's name: letters, digits, - and _ are allowed");
            return;
        }

        if (_vms.Values.Any(other => string.Equals(other.Spec.Name, name, StringComparison.Ordinal)))
        {
            Refuse(run, $"a VM named {name} runs already");
            return;
        }

        var vm = Context.ActorOf(VmActor.Props(run, _settings), FreePath(name));
        _vms.Add(vm, run);
        Context.Watch(vm);
    }

    /// <summary>What is left of it holds its memory and its disks' locks, but not its name: another VM may have that.</summary>
    private void OnAbandoned()
    {
        if (!_vms.Remove(Sender, out var run)) return;
        _log.Warning("{0} is left with a thread that has not come back; its name is free again", run.Spec.Name);
        run.Finish(_log);
    }

    /// <summary>A VM's path ends with its name, unless an abandoned one of that name is still there.</summary>
    private static string FreePath(string name)
    {
        var path = name;
        for (var number = 2; !Context.Child(path).IsNobody(); number++) path = string.Create(CultureInfo.InvariantCulture, $"{name}{Again}{number}");
        return path;
    }

    /// <summary>The name of the VM that an actor is.</summary>
    internal static string NameOf(IActorRef vm) => vm.Path.Name.Split(Again)[0];

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

    /// <summary>Event: a VM has ended as far as it can; a thread of it is lost, and with it its memory.</summary>
    public sealed record Abandoned { public static readonly Abandoned Instance = new(); }

    /// <summary>Command: stop every VM.</summary>
    public sealed record StopAll { public static readonly StopAll Instance = new(); }
}
