using Akka.Actor;
using Akka.Event;
using ActorVmm.Actors.Host.Vm;

namespace ActorVmm.Actors.Fleet;

/// <summary>
/// <c>/user/fleet</c>: the VMs that this host keeps, one keeper each. It makes and removes keepers, holds the limits, and passes on what
/// the VMs below <c>/user/host</c> tell about themselves.
/// </summary>
internal sealed class FleetActor : UntypedActor
{
    private const int KeeperRetries = 10;
    private static readonly TimeSpan s_keeperWindow = TimeSpan.FromMinutes(1);

    private readonly FleetParts _parts;
    private readonly Dictionary<string, TaskCompletionSource<VmStatus>> _leaving = new(StringComparer.Ordinal);
    private readonly ILoggingAdapter _log = Context.GetLogger();

    public static Props Props(FleetParts parts) => Made.By(() => new FleetActor(parts));

    public FleetActor(FleetParts parts) => _parts = parts;

    /// <inheritdoc/>
    protected override void PreStart()
    {
        foreach (var type in (Type[])[typeof(VmEvents.StateChanged), typeof(VmEvents.DeviceRestarted), typeof(VmEvents.GuestRestarted)])
            Context.System.EventStream.Subscribe(Self, type);
    }

    /// <inheritdoc/>
    protected override void PostStop() => Context.System.EventStream.Unsubscribe(Self);

    /// <summary>A keeper resumes from its <see cref="ManagedVm"/>: its VM does not notice.</summary>
    protected override SupervisorStrategy SupervisorStrategy() =>
        new OneForOneStrategy(KeeperRetries, s_keeperWindow, cause =>
    {
        _log.Error(cause, "the keeper of {0} failed: {1}", Sender.Path.Name, cause.Message);
        return cause is ActorInitializationException ? Directive.Stop : Directive.Restart;
    });

    /// <inheritdoc/>
    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case FleetProtocol.Define define: OnDefine(define); break;
            case FleetProtocol.Remove remove: OnRemove(remove); break;
            case FleetProtocol.Removable removable: OnRemovable(removable); break;
            case VmEvents.StateChanged changed: Find(changed.Vm)?.Keeper.Tell(changed); break;
            case VmEvents.GuestRestarted restarted: Find(restarted.Vm)?.Keeper.Tell(restarted); break;
            case VmEvents.DeviceRestarted device when Find(device.Vm) is not null:
                _parts.Journal.Append(device.Vm, "device-restarted", $"{device.Device}: {device.Cause}");
                break;
            case VmEvents.DeviceRestarted: break; // of a VM that somebody else runs
            case Terminated gone: OnGone(gone.ActorRef.Path.Name); break;
            case UnitProtocol.Inspect: Sender.Tell(new UnitProtocol.Inspected(Inspect())); break;
            default: Unhandled(message); break;
        }
    }

    private ManagedVm? Find(string name) => _parts.Board.GetValueOrDefault(name);

    private void OnDefine(FleetProtocol.Define define)
    {
        var spec = define.Definition.Spec;
        if (Find(spec.Name) is { } known)
        {
            if (!define.Replace)
                define.Done.TrySetException(new FleetException(FleetFault.Conflict, $"there is a VM named {spec.Name} already"));
            else if (MemoryLimitAgainst(spec, instead: known) is { } tooMuch)
                define.Done.TrySetException(new FleetException(FleetFault.Limit, tooMuch));
            else known.Keeper.Tell(new FleetProtocol.Redefine(define.Definition, define.Done));
            return;
        }

        if (!ActorPath.IsValidPathElement(spec.Name) || spec.Name.StartsWith('$'))
        {
            define.Done.TrySetException(new FleetException(FleetFault.Conflict, $"\"{spec.Name}\" cannot be a VM's name"));
            return;
        }

        if (LimitAgainst(spec) is { } limit)
        {
            define.Done.TrySetException(new FleetException(FleetFault.Limit, limit));
            return;
        }

        var vm = new ManagedVm(define.Definition, new VmStatus
        {
            Name = spec.Name, State = VmState.Stopped, Since = _parts.Time.GetUtcNow(), Vcpus = spec.Vcpus, MemoryMib = spec.MemoryMib,
        });
        vm.Keeper = Context.ActorOf(KeeperActor.Props(vm, _parts), spec.Name);
        Context.Watch(vm.Keeper);
        _parts.Board[spec.Name] = vm;
        _parts.Journal.Append(spec.Name, "defined", $"{spec.Vcpus} vCPU, {spec.MemoryMib} MiB");
        define.Done.TrySetResult(vm.Status);
    }

    private string? LimitAgainst(VmSpec spec) => _parts.Board.Count >= _parts.Limits.MaxVms
        ? $"this host has {_parts.Board.Count} VMs and may have {_parts.Limits.MaxVms}"
        : MemoryLimitAgainst(spec, instead: null);

    /// <summary>What the limit of memory has against a VM that is new, or that comes instead of another description of itself.</summary>
    private string? MemoryLimitAgainst(VmSpec spec, ManagedVm? instead)
    {
        var before = (long)(instead?.Definition.Spec.MemoryMib ?? 0);
        var memory = _parts.Board.Values.Sum(static vm => (long)vm.Definition.Spec.MemoryMib) - before + spec.MemoryMib;
        // Whoever does not grow is not refused for what others have.
        return memory > _parts.Limits.MaxMemoryMib && spec.MemoryMib > before
            ? $"with {spec.Name} the VMs of this host would have {memory} MiB of memory; allowed are {_parts.Limits.MaxMemoryMib}"
            : null;
    }

    private void OnRemove(FleetProtocol.Remove remove)
    {
        if (Find(remove.Name) is { } vm) vm.Keeper.Tell(new FleetProtocol.PrepareRemoval(remove.Force, remove.Done));
        else remove.Done.TrySetException(new FleetException(FleetFault.NotFound, $"there is no VM named {remove.Name}"));
    }

    private void OnRemovable(FleetProtocol.Removable removable)
    {
        if (!_leaving.TryAdd(removable.Name, removable.Done))
        {
            removable.Done.TrySetException(new FleetException(FleetFault.Conflict, $"{removable.Name} is being removed"));
            return;
        }

        Context.Stop(Sender);
    }

    private void OnGone(string name)
    {
        if (!_parts.Board.TryRemove(name, out var vm)) return;
        vm.MarkRemoved();
        _parts.Journal.Append(name, "removed", "");
        if (_leaving.Remove(name, out var done)) done.TrySetResult(vm.Status);
    }

    private InspectNode Inspect() => new(Self.Path.Name, new SortedDictionary<string, string>(StringComparer.Ordinal)
    {
        ["vms"] = $"{_parts.Board.Count}",
        ["max-vms"] = $"{_parts.Limits.MaxVms}",
        ["max-memory-mib"] = $"{_parts.Limits.MaxMemoryMib}",
        ["events"] = $"{_parts.Journal.Last}",
        ["mailbox"] = $"{((ActorCell)Context).NumberOfMessages}",
    }, [.. _parts.Board.Values.OrderBy(vm => vm.Name, StringComparer.Ordinal).Select(KeeperActor.Describe)]);
}

/// <summary>What fleet and keepers share.</summary>
/// <param name="Host">Runs VMs.</param>
/// <param name="Board">The VMs by name; written by the fleet's actor only.</param>
/// <param name="Journal">Hears of everything.</param>
/// <param name="Limits">Of the host.</param>
/// <param name="Time">The wall clock.</param>
internal sealed record FleetParts(IVmHost Host, System.Collections.Concurrent.ConcurrentDictionary<string, ManagedVm> Board,
    FleetJournal Journal, FleetLimits Limits, TimeProvider Time);
