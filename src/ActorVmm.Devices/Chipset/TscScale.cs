namespace ActorVmm.Devices.Chipset;

/// <summary>
/// Nanoseconds to ticks of a counter and back, exactly: at the returned time the ticks have reached the wanted count, and not a nanosecond
/// before. Everything that compares ticks uses this one rounding.
/// </summary>
public static class TscScale
{
    const ulong Second = 1_000_000_000;

    // Up to here a remainder times the other unit fits 64 bits, and both directions are two short divisions.
    const ulong FastLimitHz = 9_000_000_000;

    const ulong LastSecond = ulong.MaxValue / Second - 1;

    /// <summary>⌊ns · frequency / 10⁹⌋, modulo 2⁶⁴.</summary>
    public static ulong Ticks(ulong nanoseconds, ulong frequencyHz)
    {
        if (frequencyHz == Second) return nanoseconds;
        if (frequencyHz > FastLimitHz) return unchecked((ulong)((UInt128)nanoseconds * frequencyHz / Second));
        var (seconds, rest) = Math.DivRem(nanoseconds, Second);
        return unchecked(seconds * frequencyHz + rest * frequencyHz / Second);
    }

    /// <summary>
    /// The first nanosecond at which <see cref="Ticks"/> is at least <paramref name="ticks"/> + <paramref name="ahead"/>; beyond the end of
    /// time, <see cref="ulong.MaxValue"/> - 1.
    /// </summary>
    public static ulong Nanoseconds(ulong ticks, ulong ahead, ulong frequencyHz)
    {
        var target = unchecked(ticks + ahead);
        if (target < ticks || frequencyHz == 0) return ulong.MaxValue - 1;
        if (frequencyHz == Second) return Math.Min(target, ulong.MaxValue - 1);
        if (frequencyHz > FastLimitHz) return Saturate(((UInt128)target * Second + (frequencyHz - 1)) / frequencyHz);
        var (seconds, rest) = Math.DivRem(target, frequencyHz);
        if (seconds > LastSecond) return ulong.MaxValue - 1;
        return seconds * Second + (rest * Second + (frequencyHz - 1)) / frequencyHz;
    }

    static ulong Saturate(UInt128 value) => value >= ulong.MaxValue ? ulong.MaxValue - 1 : (ulong)value;
}
