using Akka.Actor;
using ActorVmm.Actors.Dispatch;
using ActorVmm.Hypervisor;

namespace ActorVmm.Actors.Host.Vm.Devices;

/// <summary>
/// Puts the deadlines of all devices onto the machine's one alarm. When it rings, vCPU 0 tells each due device on its own thread, in the
/// order in which they registered: under virtual time that is the same instruction in every run.
/// </summary>
/// <param name="clock">Machine time.</param>
public sealed class AlarmClock(IMachineClock clock)
{
    private readonly Lock _lock = new();
    private readonly List<Entry> _entries = [];
    private ulong _armed = ulong.MaxValue;

    /// <summary>Machine time.</summary>
    public IMachineClock Clock { get; } = clock;

    /// <summary>A place for one more device.</summary>
    public int Register()
    {
        lock (_lock)
        {
            _entries.Add(new Entry());
            return _entries.Count - 1;
        }
    }

    /// <summary>Names the actor of a place.</summary>
    public void Attach(int entry, IActorRef device)
    {
        lock (_lock) _entries[entry].Device = device;
    }

    /// <summary>Moves a deadline (nanoseconds of machine time; <see cref="ulong.MaxValue"/>: none). Any thread.</summary>
    public void Set(int entry, ulong deadline)
    {
        lock (_lock)
        {
            _entries[entry].Deadline = deadline;
            Arm();
        }
    }

    /// <summary>The alarm rang: wakes every device that is due. Only vCPU 0's thread.</summary>
    public void Ring()
    {
        lock (_lock) _armed = ulong.MaxValue;
        var now = Clock.Nanoseconds;
        for (var i = 0; TryTakeDue(i, now, out var entry); i++)
        {
            if (entry is { Device: { } device }) device.Tell(entry.Wake);
        }

        lock (_lock) Arm();
    }

    /// <summary>Forgets all deadlines (the machine is reset; devices set theirs again).</summary>
    public void Reset()
    {
        lock (_lock)
        {
            foreach (var entry in _entries) entry.Deadline = ulong.MaxValue;
            _armed = 0; // whatever the machine's alarm was, the next Arm sets it
            Arm();
        }
    }

    /// <summary>The machine was rebuilt, and may have forgotten its alarm: it is set again, deadlines as they are.</summary>
    public void Rearm()
    {
        lock (_lock)
        {
            _armed = 0;
            Arm();
        }
    }

    private bool TryTakeDue(int index, ulong now, out Entry? due)
    {
        due = null;
        lock (_lock)
        {
            if (index >= _entries.Count) return false;
            var entry = _entries[index];
            if (entry.Deadline > now) return true;
            entry.Deadline = ulong.MaxValue;
            due = entry;
            return true;
        }
    }

    private void Arm()
    {
        var first = ulong.MaxValue;
        foreach (var entry in _entries) first = Math.Min(first, entry.Deadline);
        if (first == _armed) return;
        _armed = first;
        Clock.SetAlarm(first);
    }

    private sealed class Entry
    {
        public IActorRef? Device { get; set; }
        public ulong Deadline { get; set; } = ulong.MaxValue;
        public AlarmRang Wake { get; } = new();
    }
}

/// <summary>Tells a device that its deadline has come. It may come late, or twice; a device looks at the time itself.</summary>
public sealed class AlarmRang : ISyncExit
{
    /// <inheritdoc/>
    public void Undeliverable() { /* A device that is gone has nothing to do at any time. */ }
}
