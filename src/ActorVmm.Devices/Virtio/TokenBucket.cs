namespace ActorVmm.Devices.Virtio;

/// <summary>
/// A token bucket as Firecracker's configuration describes one: it begins full, refills evenly from empty to <see cref="Size"/> in
/// <see cref="RefillMilliseconds"/>, and holds <see cref="OneTimeBurst"/> more tokens that are used first and never come back.
/// </summary>
/// <param name="Size">Tokens that the bucket holds: bytes, or operations.</param>
/// <param name="OneTimeBurst">Extra tokens for the start.</param>
/// <param name="RefillMilliseconds">Milliseconds of machine time from empty to full.</param>
public readonly record struct TokenBucketSpec(ulong Size, ulong OneTimeBurst, ulong RefillMilliseconds)
{
    /// <summary>A bucket without limit.</summary>
    public static readonly TokenBucketSpec Off;

    /// <summary>A bucket of size 0, or one that refills in no time, limits nothing.</summary>
    public bool Enabled => Size != 0 && RefillMilliseconds != 0;
}

/// <summary>
/// What a bucket holds at one moment; a value, to be kept with its device's state. Time is machine time, in nanoseconds, so that a limit
/// holds under virtual time too, and what a bucket does repeats with the run.
/// </summary>
/// <param name="Budget">Tokens that can be taken, up to the bucket's size.</param>
/// <param name="Burst">What is left of the one-time burst.</param>
/// <param name="At">When <paramref name="Budget"/> was reckoned; in the future while a request that was larger than the bucket is being paid
/// off.</param>
public readonly record struct TokenBucket(ulong Budget, ulong Burst, ulong At)
{
    private const ulong NanosecondsPerMillisecond = 1_000_000;

    /// <summary>A full bucket.</summary>
    public static TokenBucket Full(TokenBucketSpec spec, ulong now) => new(spec.Size, spec.OneTimeBurst, now);

    /// <summary>
    /// The bucket after <paramref name="tokens"/> are taken; false, and unchanged but for its refilling, where they are not there. What is
    /// larger than the bucket goes as soon as no debt is left, and whatever the bucket lacks is then paid off before anything else goes: so
    /// the rate holds for requests of any size, and none waits for ever.
    /// </summary>
    public bool TryTake(TokenBucketSpec spec, ulong tokens, ulong now, out TokenBucket after)
    {
        after = this;
        if (!spec.Enabled || tokens == 0) return true;
        if (now < At) return false;
        var filled = Refilled(spec, now);
        after = filled;
        var fromBurst = Math.Min(tokens, filled.Burst);
        var rest = tokens - fromBurst;
        if (rest <= filled.Budget)
        {
            after = filled with { Burst = filled.Burst - fromBurst, Budget = filled.Budget - rest };
            return true;
        }
        if (rest <= spec.Size) return false;
        after = new TokenBucket(0, 0, SaturatingAdd(filled.At, Time(spec, rest - filled.Budget)));
        return true;
    }

    /// <summary>Machine time in nanoseconds at which <see cref="TryTake"/> will grant <paramref name="tokens"/>; 0 where it would have.</summary>
    public ulong ReadyAt(TokenBucketSpec spec, ulong tokens)
    {
        if (!spec.Enabled || tokens == 0) return 0;
        var rest = tokens - Math.Min(tokens, Burst);
        return rest <= Budget || rest > spec.Size ? At : SaturatingAdd(At, Time(spec, rest - Budget));
    }

    private TokenBucket Refilled(TokenBucketSpec spec, ulong now)
    {
        var period = (UInt128)spec.RefillMilliseconds * NanosecondsPerMillisecond;
        var grown = (UInt128)(now - At) * spec.Size / period;
        // A full bucket forgets the time that filled it; else the fraction of a token that has grown stays in At.
        return grown >= spec.Size - Budget
            ? this with { Budget = spec.Size, At = now }
            : this with { Budget = Budget + (ulong)grown, At = At + (ulong)(grown * period / spec.Size) };
    }

    /// <summary>The time in which so many tokens grow, rounded up.</summary>
    private static ulong Time(TokenBucketSpec spec, ulong tokens)
    {
        // At most 2^64 * 2^64 * 10^6 / 1: the two factors of ten are kept apart so that the product fits.
        var product = (UInt128)tokens * spec.RefillMilliseconds;
        var whole = product / spec.Size;
        if (whole > ulong.MaxValue / NanosecondsPerMillisecond - 1) return ulong.MaxValue;
        var fraction = ((product % spec.Size * NanosecondsPerMillisecond) + spec.Size - 1) / spec.Size;
        return (ulong)(whole * NanosecondsPerMillisecond) + (ulong)fraction;
    }

    private static ulong SaturatingAdd(ulong at, ulong more) => at + more < at ? ulong.MaxValue : at + more;
}

/// <summary>Limits of one direction of a device; a bucket that is <see cref="TokenBucketSpec.Off"/> limits nothing.</summary>
/// <param name="Bandwidth">Bytes.</param>
/// <param name="Operations">Requests or packets.</param>
public readonly record struct RateLimiterSpec(TokenBucketSpec Bandwidth, TokenBucketSpec Operations)
{
    /// <summary>No limit.</summary>
    public static readonly RateLimiterSpec Off;

    /// <summary>False where nothing is limited.</summary>
    public bool Enabled => Bandwidth.Enabled || Operations.Enabled;
}

/// <summary>Both buckets of a direction; a value, to be kept with its device's state.</summary>
public readonly record struct RateLimiterState(TokenBucket Bandwidth, TokenBucket Operations)
{
    /// <summary>Full buckets.</summary>
    public static RateLimiterState Full(RateLimiterSpec spec, ulong now) =>
        new(TokenBucket.Full(spec.Bandwidth, now), TokenBucket.Full(spec.Operations, now));
}

/// <summary>
/// Holds back what goes over a rate. It has no timer: where something has to wait, <see cref="Deadline"/> says until when, and the device
/// gives that to the machine as its own (<see cref="ITimedDevice"/>). Unlike Firecracker, which looks again every 100 ms, that is the
/// nanosecond at which the tokens are there.
/// </summary>
/// <param name="spec">The limits.</param>
/// <param name="now">Machine time in nanoseconds.</param>
public sealed class RateLimiter(RateLimiterSpec spec, ulong now)
{
    private RateLimiterState _state = RateLimiterState.Full(spec, now);

    /// <summary>The limits.</summary>
    public RateLimiterSpec Spec { get; private set; } = spec;

    /// <summary>What the buckets hold.</summary>
    public RateLimiterState State
    {
        get => _state;
        set => _state = value;
    }

    /// <summary>When what was refused last can go, in nanoseconds of machine time; null where nothing waits.</summary>
    public ulong? Deadline { get; private set; }

    /// <summary>How often something had to wait.</summary>
    public long Throttled { get; private set; }

    /// <summary>
    /// Takes one operation of <paramref name="bytes"/> bytes, or nothing: false where it has to wait until <see cref="Deadline"/>.
    /// </summary>
    public bool TryTake(ulong bytes, ulong now, ulong operations = 1)
    {
        if (!Spec.Enabled) return true;
        var go = _state.Operations.TryTake(Spec.Operations, operations, now, out var fewer)
            & _state.Bandwidth.TryTake(Spec.Bandwidth, bytes, now, out var less);
        if (go)
        {
            _state = new RateLimiterState(less, fewer);
            Deadline = null;
            return true;
        }
        if (Deadline is null) Throttled++;
        Deadline = Math.Max(_state.Operations.ReadyAt(Spec.Operations, operations), _state.Bandwidth.ReadyAt(Spec.Bandwidth, bytes));
        return false;
    }

    /// <summary>Nothing waits any more (the device was reset); the buckets keep what they hold.</summary>
    public void Forget() => Deadline = null;

    /// <summary>New limits at run time; buckets whose limit is new are full, the others go on.</summary>
    public void Change(RateLimiterSpec spec, ulong now)
    {
        var full = RateLimiterState.Full(spec, now);
        _state = new RateLimiterState(
            spec.Bandwidth == Spec.Bandwidth ? _state.Bandwidth : full.Bandwidth,
            spec.Operations == Spec.Operations ? _state.Operations : full.Operations);
        Spec = spec;
        Deadline = null;
    }
}
