using ActorVmm.Devices;
using ActorVmm.Hypervisor.Soft.Cpu;

namespace ActorVmm.Hypervisor.Soft;

/// <summary>Machine time: the host's monotonic clock, or retired instructions plus what was skipped while halted.</summary>
internal sealed class SoftClock : IMachineClock, IClock
{
    private readonly TimeProvider _host = TimeProvider.System;
    private readonly Lock _gate = new(); // between those who change the reckoning; readers see one or the other whole
    private SoftCpu? _cpu;
    private ulong _skipped; // under virtual time
    private HostReckoning _reckoning;
    private ulong _alarm = ulong.MaxValue;

    public SoftClock(MachineOptions options)
    {
        Mode = options.Clock;
        NanosecondsPerInstruction = options.VirtualNanosecondsPerInstruction;
        BootUnixNanoseconds = options.BootUnixNanoseconds;
        _reckoning = new HostReckoning(_host.GetTimestamp(), 0, Paused: false);
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
        if (Mode == ClockMode.Virtual) return retired * NanosecondsPerInstruction + Volatile.Read(ref _skipped);
        var reckoning = Volatile.Read(ref _reckoning);
        return reckoning.Paused ? reckoning.Base : reckoning.Base + Since(reckoning.Since);
    }

    private ulong Since(long timestamp) =>
        (ulong)((Int128)(_host.GetTimestamp() - timestamp) * 1_000_000_000 / _host.TimestampFrequency);

    /// <summary>Virtual time jumps ahead while nothing runs.</summary>
    public void SkipTo(ulong nanoseconds, ulong retired)
    {
        var now = NanosecondsAt(retired);
        if (nanoseconds > now) _skipped += nanoseconds - now;
    }

    public void SetAlarm(ulong nanoseconds)
    {
        Volatile.Write(ref _alarm, nanoseconds);
        _cpu?.TimeChanged();
    }

    /// <inheritdoc/>
    public bool TryAdvance(ulong nanoseconds)
    {
        lock (_gate)
        {
            if (Mode == ClockMode.Virtual) Volatile.Write(ref _skipped, _skipped + nanoseconds);
            else Volatile.Write(ref _reckoning, _reckoning with { Base = _reckoning.Base + nanoseconds });
        }
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
            if (_reckoning.Paused || Mode == ClockMode.Virtual) return;
            Volatile.Write(ref _reckoning, _reckoning with { Base = NanosecondsAt(0), Paused = true });
        }
    }

    public void Resume()
    {
        lock (_gate)
        {
            if (_reckoning.Paused) Volatile.Write(ref _reckoning, _reckoning with { Since = _host.GetTimestamp(), Paused = false });
        }
    }

    public void Restore(ulong nanoseconds)
    {
        lock (_gate)
        {
            if (Mode == ClockMode.Virtual)
                Volatile.Write(ref _skipped, unchecked(nanoseconds - (_cpu?.Elapsed ?? 0) * NanosecondsPerInstruction));
            else
                Volatile.Write(ref _reckoning, _reckoning with { Since = _host.GetTimestamp(), Base = nanoseconds });
        }
    }

    /// <summary>Machine time by the host's clock: <paramref name="Base"/>, and where it is not paused what has passed since.</summary>
    private sealed record HostReckoning(long Since, ulong Base, bool Paused);
}
