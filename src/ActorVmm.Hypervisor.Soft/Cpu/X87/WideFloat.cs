namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// A float with a 128-bit significand, for evaluating the transcendental functions: <c>±Significand / 2^127 * 2^Exponent</c>, top bit
/// set, or zero. Each operation truncates, with an error below 2^-120 relative; nothing overflows in the ranges used.
/// </summary>
internal readonly struct WideFloat(bool negative, int exponent, UInt128 significand)
{
    public readonly bool Negative = negative;
    public readonly int Exponent = exponent;
    public readonly UInt128 Significand = significand;

    public static readonly WideFloat Zero;
    public static readonly WideFloat One = new(false, 0, UInt128.One << 127);
    public static readonly WideFloat HalfPi = Of(0xC90F_DAA2_2168_C234, 0xC4C6_628B_80DC_1CD1, 0);
    public static readonly WideFloat Ln2 = Of(0xB172_17F7_D1CF_79AB, 0xC9E3_B398_03F2_F6AF, -1);
    public static readonly WideFloat Log2E = Of(0xB8AA_3B29_5C17_F0BB, 0xBE87_FED0_691D_3E89, 0);

    public bool IsZero => Significand == UInt128.Zero;

    public WideFloat Absolute => new(false, Exponent, Significand);

    public static WideFloat Of(ulong hi, ulong lo, int exponent) => new(false, exponent, new UInt128(hi, lo));

    public static WideFloat Of(in Real value) =>
        value.Class == RealClass.Finite ? new(value.Negative, value.Exponent, new UInt128(value.Significand, 0)) : Zero;

    public static WideFloat Of(long value) => Of(Real.FromInteger(value));

    /// <summary>From a 128-bit fixed-point number with the value <c>fraction / 2^128 * 2^exponent</c>.</summary>
    public static WideFloat Normalized(bool negative, int exponent, UInt128 fraction)
    {
        if (fraction == UInt128.Zero) return Zero;
        var shift = (int)UInt128.LeadingZeroCount(fraction);
        return new WideFloat(negative, exponent - 1 - shift, fraction << shift);
    }

    public WideFloat Scaled(int by) => IsZero ? this : new WideFloat(Negative, Exponent + by, Significand);

    public static WideFloat operator -(WideFloat a) => new(!a.Negative, a.Exponent, a.Significand);

    public static WideFloat operator +(WideFloat a, WideFloat b)
    {
        if (a.IsZero) return b;
        if (b.IsZero) return a;
        if (a.Exponent < b.Exponent || (a.Exponent == b.Exponent && a.Significand < b.Significand)) (a, b) = (b, a);
        var distance = a.Exponent - b.Exponent;
        var small = distance >= 128 ? UInt128.Zero : b.Significand >> distance;
        if (a.Negative != b.Negative) return Normalized(a.Negative, a.Exponent + 1, a.Significand - small);
        var sum = a.Significand + small;
        if (sum >= small) return new WideFloat(a.Negative, a.Exponent, sum);
        return new WideFloat(a.Negative, a.Exponent + 1, sum >> 1 | UInt128.One << 127);
    }

    public static WideFloat operator -(WideFloat a, WideFloat b) => a + -b;

    public static WideFloat operator *(WideFloat a, WideFloat b)
    {
        if (a.IsZero || b.IsZero) return Zero;
        var (ah, al) = ((ulong)(a.Significand >> 64), (ulong)a.Significand);
        var (bh, bl) = ((ulong)(b.Significand >> 64), (ulong)b.Significand);
        var carries = Math.BigMul(al, bl, out _);
        var cross1 = (UInt128)ah * bl;
        var cross2 = (UInt128)al * bh;
        var middle = (UInt128)carries + (ulong)cross1 + (ulong)cross2;
        var high = (UInt128)ah * bh + (cross1 >> 64) + (cross2 >> 64) + (middle >> 64);
        var negative = a.Negative != b.Negative;
        if (high >> 127 != UInt128.Zero) return new WideFloat(negative, a.Exponent + b.Exponent + 1, high);
        return new WideFloat(negative, a.Exponent + b.Exponent, high << 1 | (middle >> 63 & UInt128.One));
    }

    public static WideFloat operator /(WideFloat a, WideFloat b)
    {
        if (a.IsZero) return Zero;
        // Two Newton steps on a 64-bit reciprocal would do as well; long division is simple and needed once per function.
        var (rest, quotient) = (a.Significand, UInt128.Zero);
        var exponent = a.Exponent - b.Exponent;
        if (rest < b.Significand) exponent--;
        else (rest, quotient) = (rest - b.Significand, UInt128.One);
        for (var bits = quotient == UInt128.Zero ? 128 : 127; bits > 0; bits--)
        {
            var carry = rest >> 127 != UInt128.Zero;
            rest <<= 1;
            quotient <<= 1;
            if (!carry && rest < b.Significand) continue;
            rest -= b.Significand;
            quotient |= UInt128.One;
        }
        return new WideFloat(a.Negative != b.Negative, exponent, quotient);
    }

    /// <summary>Division by a small positive integer.</summary>
    public WideFloat Over(uint divisor)
    {
        if (IsZero) return this;
        var (quotient, rest) = UInt128.DivRem(Significand, divisor);
        var shift = (int)UInt128.LeadingZeroCount(quotient);
        var tail = shift == 0 ? UInt128.Zero : (rest << shift) / divisor;
        return new WideFloat(Negative, Exponent - shift, quotient << shift | tail);
    }

    /// <summary>Rounds to the 80-bit format; <paramref name="exact"/> false adds the information that digits follow.</summary>
    public Real Round(bool exact, ref FpEnvironment env) => IsZero
        ? Real.Zero(Negative)
        : SoftFloat.Round(Negative, Exponent, (ulong)(Significand >> 64), (ulong)Significand | (exact ? 0UL : 1UL), FpFormat.Extended,
            ref env);
}
