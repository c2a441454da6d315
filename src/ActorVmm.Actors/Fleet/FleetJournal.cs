namespace ActorVmm.Actors.Fleet;

/// <summary>One thing that happened to a VM.</summary>
/// <param name="Number">Counts from 1 without gaps.</param>
/// <param name="At">When.</param>
/// <param name="Vm">To which VM; empty for the host itself.</param>
/// <param name="Kind">A word: <c>started</c>, <c>stopped</c>, <c>device-restarted</c>, ...</param>
/// <param name="Detail">One line for people.</param>
public sealed record FleetEvent(long Number, DateTimeOffset At, string Vm, string Kind, string Detail);

/// <summary>The last events, bounded; any number of readers follow at their own speed.</summary>
/// <param name="time">The clock of the events.</param>
/// <param name="capacity">How many are kept.</param>
public sealed class FleetJournal(TimeProvider time, int capacity = 4096)
{
    private readonly Lock _lock = new();
    private readonly Queue<FleetEvent> _events = new();
    private readonly Signal _appended = new();
    private long _last;

    /// <summary>The number of the last event; 0 before the first.</summary>
    public long Last
    {
        get { lock (_lock) return _last; }
    }

    /// <summary>Adds an event. Any thread.</summary>
    public void Append(string vm, string kind, string detail)
    {
        lock (_lock)
        {
            _events.Enqueue(new FleetEvent(++_last, time.GetUtcNow(), vm, kind, detail));
            if (_events.Count > capacity) _events.Dequeue();
        }

        _appended.Raise();
    }

    /// <summary>The events after number <paramref name="after"/> that are still kept, oldest first.</summary>
    public IReadOnlyList<FleetEvent> ReadAfter(long after)
    {
        lock (_lock) return [.. _events.Where(e => e.Number > after)];
    }

    /// <summary>The events after number <paramref name="after"/>, and then each one as it comes.</summary>
    public async IAsyncEnumerable<FleetEvent> FollowAsync(
        long after, [System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken cancel = default)
    {
        while (true)
        {
            var more = _appended.Next;
            foreach (var e in ReadAfter(after))
            {
                after = e.Number;
                yield return e;
            }

            await more.WaitAsync(cancel).ConfigureAwait(false);
        }
    }
}
