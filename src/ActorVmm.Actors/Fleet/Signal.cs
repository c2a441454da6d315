namespace ActorVmm.Actors.Fleet;

/// <summary>Wakes everybody who waits for something to be appended. Costs one volatile read where nobody waits.</summary>
public sealed class Signal
{
    private TaskCompletionSource? _waiting;

    /// <summary>Completes at the next <see cref="Raise"/>. Take it first, then look, then wait: nothing is missed in between.</summary>
    public Task Next
    {
        get
        {
            var waiting = Volatile.Read(ref _waiting);
            if (waiting is not null) return waiting.Task;
            var fresh = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            return (Interlocked.CompareExchange(ref _waiting, fresh, null) ?? fresh).Task;
        }
    }

    /// <summary>Something was appended. Any thread.</summary>
    public void Raise()
    {
        // A full fence between what was appended and this look, as there is one between Next and the waiter's look.
        Interlocked.MemoryBarrier();
        if (Volatile.Read(ref _waiting) is not null) Interlocked.Exchange(ref _waiting, null)?.TrySetResult();
    }
}
