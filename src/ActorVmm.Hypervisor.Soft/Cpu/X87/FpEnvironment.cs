namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>Floating-point exceptions at their places in MXCSR (SDM Vol. 1 §10.2.3) and in the x87 status word (§8.1.3).</summary>
[Flags]
internal enum FpFlags
{
    None = 0,
    Invalid = 1,
    Denormal = 2,
    ZeroDivide = 4,
    Overflow = 8,
    Underflow = 16,
    Precision = 32,

    /// <summary>x87 only.</summary>
    StackFault = 64,
    All = 63,

    /// <summary>Found before anything is computed: an unmasked one suppresses the result.</summary>
    BeforeResult = Invalid | Denormal | ZeroDivide,
}

/// <summary>The RC field of MXCSR and of the x87 control word.</summary>
internal enum Rounding
{
    Nearest = 0,
    Down = 1,
    Up = 2,
    Zero = 3,
}

/// <summary>How results are rounded, which exceptions are masked, and what has been raised.</summary>
internal struct FpEnvironment
{
    public Rounding Rounding;
    public FpFlags Masks;
    public FpFlags Flags;

    /// <summary>MXCSR.DAZ: denormal operands count as zero.</summary>
    public bool DenormalsAreZero;

    /// <summary>MXCSR.FTZ: tiny results become zero where underflow is masked.</summary>
    public bool FlushToZero;

    /// <summary>
    /// x87: NaN operands choose the larger significand instead of the first; unmasked overflow and underflow deliver a scaled result.
    /// </summary>
    public bool IsX87;

    /// <summary>The last rounding went away from zero (C1).</summary>
    public bool RoundedUp;

    /// <summary>Everything raised so far that is not masked.</summary>
    public readonly FpFlags Unmasked => Flags & ~Masks & FpFlags.All;

    public static FpEnvironment FromMxcsr(uint mxcsr) => new()
    {
        Rounding = (Rounding)((mxcsr >> 13) & 3),
        Masks = (FpFlags)(mxcsr >> 7) & FpFlags.All,
        DenormalsAreZero = (mxcsr & 0x40) != 0,
        FlushToZero = (mxcsr & 0x8000) != 0,
    };

    public static FpEnvironment FromControlWord(ushort control) => new()
    {
        Rounding = (Rounding)((control >> 10) & 3),
        Masks = (FpFlags)control & FpFlags.All,
        IsX87 = true,
    };
}

/// <summary>A binary format: significand bits with the leading one, and the exponents of its normal numbers.</summary>
internal readonly record struct FpFormat(int Precision, int MinExponent, int MaxExponent)
{
    public static readonly FpFormat Single = new(24, -126, 127);
    public static readonly FpFormat Double = new(53, -1022, 1023);
    public static readonly FpFormat Extended = new(64, -16382, 16383);

    /// <summary>
    /// The x87 register format under a control word's precision field (SDM Vol. 1 §8.1.5.2): fewer bits, full exponent range.
    /// </summary>
    public static FpFormat OfControlWord(ushort control) => ((control >> 8) & 3) switch
    {
        0 => Extended with { Precision = 24 },
        2 => Extended with { Precision = 53 },
        _ => Extended,
    };
}
