using Akka.Actor;
using ActorVmm.Actors.Host.Vm;

namespace ActorVmm.Actors.Fleet;

/// <summary>
/// One VM of a fleet as everybody may see it, at any time and from any thread. It is also what its keeper resumes from after a failure of
/// its own: definition, status and the handle of the run.
/// </summary>
public sealed class ManagedVm
{
    private readonly TaskCompletionSource _removed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly CancellationTokenSource _gone = new();

    internal ManagedVm(VmDefinition definition, VmStatus status)
    {
        Definition = definition;
        Status = status;
    }

    public string Name => Definition.Spec.Name;

    /// <summary>What the next start builds.</summary>
    public VmDefinition Definition
    {
        get => Volatile.Read(ref field);
        internal set => Volatile.Write(ref field, value);
    }

    /// <summary>Where it is in its life.</summary>
    public VmStatus Status
    {
        get => Volatile.Read(ref field);
        internal set => Volatile.Write(ref field, value);
    }

    /// <summary>The present or last run; null before the first, and while one is being started.</summary>
    public IVmHandle? Handle
    {
        get => Volatile.Read(ref field);
        internal set => Volatile.Write(ref field, value);
    }

    /// <summary>The counters of the present or last run.</summary>
    public VmReadings Readings => Handle?.Readings ?? VmReadings.None;

    /// <summary>Completes when the VM has been removed.</summary>
    public Task Removed => _removed.Task;

    /// <summary>
    /// Cancelled when the VM has been removed. For what ends before it, as a rule: unlike a continuation, a registration goes when it is
    /// given back.
    /// </summary>
    public CancellationToken Gone => _gone.Token;

    internal IActorRef Keeper { get; set; } = ActorRefs.Nobody;

    /// <summary>Restarts in a row.</summary>
    internal int InARow { get; set; }

    internal void MarkRemoved()
    {
        if (_removed.TrySetResult()) _ = _gone.CancelAsync();
    }
}
