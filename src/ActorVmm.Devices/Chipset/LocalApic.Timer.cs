namespace ActorVmm.Devices.Chipset;

public sealed partial class LocalApic
{
    /// <summary>Ticks of the undivided timer per second: one per nanosecond (CPUID leaf 0x15's crystal, where it is offered).</summary>
    public const ulong BusFrequencyHz = 1_000_000_000;

    const uint TimerModeMask = 3 << 17;
    const uint TimerPeriodic = 1 << 17;
    const uint TimerTscDeadline = 2 << 17;
    const ulong Never = ulong.MaxValue;

    readonly ulong _tscFrequency;
    uint _initialCount;
    uint _divide;
    ulong _deadline = Never;
    ulong _tscDeadline;
    ulong _tscOffset;

    /// <inheritdoc/>
    public ulong? Deadline => _deadline == Never ? null : _deadline;

    /// <summary>
    /// What the guest's TSC is ahead of machine time's (set by a write to IA32_TSC or IA32_TSC_ADJUST); a running TSC deadline follows.
    /// </summary>
    public ulong TscOffset
    {
        get => _tscOffset;
        set
        {
            _tscOffset = value;
            if (_tscDeadline != 0) ArmTscDeadline(_tscDeadline);
        }
    }

    /// <summary>IA32_TSC_DEADLINE: reads 0 and ignores writes outside TSC-deadline mode (SDM Vol. 3 §11.5.4.1); 0 disarms.</summary>
    public ulong TscDeadline
    {
        get => _tscDeadline;
        set
        {
            if (TimerMode == TimerTscDeadline) ArmTscDeadline(value);
        }
    }

    uint TimerMode => _lvt[(int)LvtEntry.Timer] & TimerModeMask;

    // SDM Vol. 3 Figure 11-10: bits 3,1,0; 111 divides by 1, otherwise by 2^(n+1).
    ulong Divisor
    {
        get
        {
            var exponent = (int)(((_divide >> 1) & 4) | (_divide & 3));
            return exponent == 7 ? 1 : 2UL << exponent;
        }
    }

    /// <summary>The guest's TSC at a machine time.</summary>
    public ulong TscAt(ulong nanoseconds) => unchecked(TscScale.Ticks(nanoseconds, _tscFrequency) + _tscOffset);

    /// <inheritdoc/>
    public void Advance(ulong nanoseconds)
    {
        if (nanoseconds < _deadline || _deadline == Never) return;
        switch (TimerMode)
        {
            case TimerPeriodic:
                // Periods that nobody could see are one interrupt: IRR has one bit.
                var period = Math.Max(_initialCount * Divisor, 1);
                _deadline += ((nanoseconds - _deadline) / period + 1) * period;
                break;
            case TimerTscDeadline:
                _tscDeadline = 0;
                _deadline = Never;
                break;
            default:
                _deadline = Never;
                break;
        }

        RaiseLocal(LvtEntry.Timer);
    }

    void ResetTimer()
    {
        _initialCount = 0;
        _divide = 0;
        _deadline = Never;
        _tscDeadline = 0;
    }

    uint CurrentCount()
    {
        if (_deadline == Never || TimerMode == TimerTscDeadline) return 0;
        var now = _clock.Nanoseconds;
        if (now < _deadline) return (uint)Math.Min((_deadline - now + Divisor - 1) / Divisor, _initialCount);
        if (TimerMode != TimerPeriodic || _initialCount == 0) return 0;
        var period = _initialCount * Divisor;
        return (uint)((period - (now - _deadline) % period + Divisor - 1) / Divisor);
    }

    void StartCount(uint value)
    {
        if (TimerMode == TimerTscDeadline) return;
        _initialCount = value;
        _deadline = value == 0 ? Never : _clock.Nanoseconds + value * Divisor;
    }

    void ResumeTimer(uint currentCount)
    {
        if (TimerMode == TimerTscDeadline) return;
        _deadline = currentCount == 0 ? Never : _clock.Nanoseconds + currentCount * Divisor;
    }

    void WriteDivide(uint value)
    {
        var remaining = CurrentCount();
        _divide = value;
        if (_deadline != Never && TimerMode != TimerTscDeadline) _deadline = _clock.Nanoseconds + remaining * Divisor;
    }

    void ChangeTimerMode(uint lvt)
    {
        // Only the step into or out of TSC-deadline mode disarms (SDM Vol. 3 §11.5.4.1).
        if (((TimerMode == TimerTscDeadline) ^ ((lvt & TimerModeMask) == TimerTscDeadline)) is false) return;
        _initialCount = 0;
        _tscDeadline = 0;
        _deadline = Never;
    }

    void ArmTscDeadline(ulong value)
    {
        _tscDeadline = value;
        _deadline = Never;
        if (value == 0) return;
        var now = _clock.Nanoseconds;
        var tsc = TscAt(now);
        if (value <= tsc)
        {
            _deadline = now;
            Advance(now);
            return;
        }

        _deadline = TscScale.Nanoseconds(TscScale.Ticks(now, _tscFrequency), value - tsc, _tscFrequency);
    }
}
