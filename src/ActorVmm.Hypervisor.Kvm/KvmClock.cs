using System.Diagnostics;

namespace ActorVmm.Hypervisor.Kvm;

/// <summary>Machine time under KVM: the host's monotonic clock without the pauses.</summary>
internal sealed class KvmClock : IMachineClock, IDisposable
{
    private readonly Lock _lock = new();
    private readonly Action _alarmDue;
    private readonly Timer _timer;
    private long _origin = Stopwatch.GetTimestamp();
    private ulong _before;      // nanoseconds collected before _origin
    private bool _paused;
    private ulong _alarm = ulong.MaxValue;

    /// <param name="alarmDue">Called on a pool thread when <see cref="TakeDueAlarm"/> may have something.</param>
    public KvmClock(Action alarmDue)
    {
        _alarmDue = alarmDue;
        _timer = new Timer(static self => ((KvmClock)self!)._alarmDue(), this, Timeout.Infinite, Timeout.Infinite);
    }

    /// <inheritdoc/>
    public ClockMode Mode => ClockMode.Host;

    /// <inheritdoc/>
    public ulong Nanoseconds
    {
        get { lock (_lock) return Now(); }
    }

    /// <inheritdoc/>
    public void SetAlarm(ulong nanoseconds)
    {
        lock (_lock)
        {
            _alarm = nanoseconds;
            Arm();
        }
    }

    /// <summary>True once for an alarm whose time has come.</summary>
    public bool TakeDueAlarm()
    {
        lock (_lock)
        {
            if (_alarm == ulong.MaxValue) return false;
            if (Now() < _alarm) { Arm(); return false; }
            _alarm = ulong.MaxValue;
            return true;
        }
    }

    public void Pause()
    {
        lock (_lock)
        {
            if (_paused) return;
            _before = Now();
            _paused = true;
            Arm();
        }
    }

    public void Resume()
    {
        lock (_lock)
        {
            if (!_paused) return;
            _origin = Stopwatch.GetTimestamp();
            _paused = false;
            Arm();
        }
    }

    /// <summary>Goes on from a saved time.</summary>
    public void Set(ulong nanoseconds)
    {
        lock (_lock)
        {
            _before = nanoseconds;
            _origin = Stopwatch.GetTimestamp();
            Arm();
        }
    }

    public void Dispose() => _timer.Dispose();

    private ulong Now() => _paused ? _before : _before + (ulong)Stopwatch.GetElapsedTime(_origin).Ticks * 100;

    private void Arm()
    {
        if (_alarm == ulong.MaxValue || _paused) { _timer.Change(Timeout.Infinite, Timeout.Infinite); return; }
        var now = Now();
        var milliseconds = _alarm <= now ? 0 : Math.Min((_alarm - now + 999_999) / 1_000_000, int.MaxValue);
        _timer.Change((int)milliseconds, Timeout.Infinite);
    }
}
