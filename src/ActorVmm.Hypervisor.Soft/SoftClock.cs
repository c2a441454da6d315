using ActorVmm.Devices;
using ActorVmm.Hypervisor.Soft.Cpu;

namespace ActorVmm.Hypervisor.Soft;

/// <summary>Machine time: the host's monotonic clock, or retired instructions plus what was skipped while halted.</summary>
internal sealed class SoftClock : IMachineClock, IClock
{
    private readonly TimeProvider _host = TimeProvider.System;
    private readonly Lock _gate = new();
    private SoftCpu? _cpu;
    private long _started;
    private ulong _offset;
    private ulong _alarm = ulong.MaxValue;
    private bool _paused;

    public SoftClock(MachineOptions options)
    {
        Mode = options.Clock;
        NanosecondsPerInstruction = options.VirtualNanosecondsPerInstruction;
        BootUnixNanoseconds = options.BootUnixNanoseconds;
        _started = _host.GetTimestamp();
    }

    public ClockMode Mode { get; }

    public ulong NanosecondsPerInstruction { get; }

    public ulong BootUnixNanoseconds { get; }

    public ulong Nanoseconds => NanosecondsAt(Volatile.Read(ref _cpu)?.Elapsed ?? 0);

    /// <summary>When <see cref="TakeAlarm"/> fires.</summary>
    public ulong Alarm => Volatile.Read(ref _alarm);

    /// <summary>Whose instructions count from now on: vCPU 0's, or of several under virtual time the one's that has the turn.</summary>
    public void Bind(SoftCpu cpu) => Volatile.Write(ref _cpu, cpu);

    /// <summary>Machine time at a count of retired instructions (which the host clock ignores).</summary>
    public ulong NanosecondsAt(ulong retired)
    {
        if (Mode == ClockMode.Virtual) return retired * NanosecondsPerInstruction + Volatile.Read(ref _offset);
        return Volatile.Read(ref _paused) ? _offset : Running();
    }

    private ulong Running() => _offset + (ulong)((Int128)(_host.GetTimestamp() - _started) * 1_000_000_000 / _host.TimestampFrequency);

    /// <summary>Virtual time jumps ahead while nothing runs.</summary>
    public void SkipTo(ulong nanoseconds, ulong retired)
    {
        var now = NanosecondsAt(retired);
        if (nanoseconds > now) _offset += nanoseconds - now;
    }

    public void SetAlarm(ulong nanoseconds)
    {
        Volatile.Write(ref _alarm, nanoseconds);
        _cpu?.TimeChanged();
    }

    /// <inheritdoc/>
    public bool TryAdvance(ulong nanoseconds)
    {
        lock (_gate) Volatile.Write(ref _offset, _offset + nanoseconds);
        _cpu?.TimeChanged();
        return true;
    }

    /// <summary>True, once, where the alarm is due.</summary>
    public bool TakeAlarm(ulong now)
    {
        var alarm = Volatile.Read(ref _alarm);
        return alarm <= now && Interlocked.CompareExchange(ref _alarm, ulong.MaxValue, alarm) == alarm;
    }

    public void Pause()
    {
        lock (_gate)
        {
            if (_paused || Mode == ClockMode.Virtual) return;
            _offset = Running();
            _paused = true;
        }
    }

    public void Resume()
    {
        lock (_gate)
        {
            if (!_paused) return;
            _started = _host.GetTimestamp();
            _paused = false;
        }
    }

    public void Restore(ulong nanoseconds)
    {
        lock (_gate)
        {
            _started = _host.GetTimestamp();
            _offset = Mode == ClockMode.Virtual ? unchecked(nanoseconds - (_cpu?.Elapsed ?? 0) * NanosecondsPerInstruction) : nanoseconds;
        }
    }
}
