using System.Numerics;
using System.Runtime.CompilerServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// IEEE 754 arithmetic as x86 defines it, on <see cref="Real"/>s: each operation forms the exact result, or its leading 128 bits with the
/// lowest as sticky bit, and rounds once. Exceptions go to <see cref="FpEnvironment.Flags"/>; when an unmasked one suppresses the result
/// the returned value has no meaning.
/// </summary>
internal static class SoftFloat
{
    /// <summary>Rounds <c>±(hi:lo) / 2^127 * 2^exponent</c>, bit 63 of <paramref name="hi"/> set, to a format.</summary>
    public static Real Round(bool negative, int exponent, ulong hi, ulong lo, in FpFormat format, ref FpEnvironment env)
    {
        env.RoundedUp = false;
        var kept = RoundBits(hi, lo, format.Precision, negative, env.Rounding, out var carry, out var inexact, out var up);
        if (exponent < format.MinExponent && !(carry && exponent == format.MinExponent - 1))
        {
            if ((env.Masks & FpFlags.Underflow) == 0)
            {
                // SDM Vol. 1 §8.5.5: tininess alone raises it; the register gets the result scaled by 2^24576.
                env.Flags |= FpFlags.Underflow | (inexact ? FpFlags.Precision : 0);
                env.RoundedUp = up;
                exponent += 24576 + (carry ? 1 : 0);
                if (exponent >= format.MinExponent) return Real.Finite(negative, exponent, kept);
                env.Flags |= FpFlags.Precision; // FSCALE can go beyond what scaling mends
                return Real.Zero(negative);
            }
            if (env.FlushToZero)
            {
                env.Flags |= FpFlags.Underflow | FpFlags.Precision;
                return Real.Zero(negative);
            }
            ShiftRightJam(ref hi, ref lo, format.MinExponent - exponent);
            kept = RoundBits(hi, lo, format.Precision, negative, env.Rounding, out _, out inexact, out up);
            if (inexact) env.Flags |= FpFlags.Underflow | FpFlags.Precision;
            env.RoundedUp = up;
            if (kept == 0) return Real.Zero(negative);
            var shift = BitOperations.LeadingZeroCount(kept);
            return Real.Finite(negative, format.MinExponent - shift, kept << shift);
        }
        if (carry) exponent++;
        if (exponent > format.MaxExponent)
        {
            if ((env.Masks & FpFlags.Overflow) == 0)
            {
                env.Flags |= FpFlags.Overflow | (inexact ? FpFlags.Precision : 0);
                env.RoundedUp = up;
                exponent -= 24576;
                if (exponent <= format.MaxExponent) return Real.Finite(negative, exponent, kept);
                env.Flags |= FpFlags.Precision;
                env.RoundedUp = true;
                return Real.Infinity(negative);
            }
            env.Flags |= FpFlags.Overflow | FpFlags.Precision;
            var toInfinity = env.Rounding switch
            {
                Rounding.Nearest => true,
                Rounding.Down => negative,
                Rounding.Up => !negative,
                _ => false,
            };
            env.RoundedUp = toInfinity;
            return toInfinity ? Real.Infinity(negative) : Real.Finite(negative, format.MaxExponent,
                ulong.MaxValue << (64 - format.Precision));
        }
        if (inexact) env.Flags |= FpFlags.Precision;
        env.RoundedUp = up;
        return Real.Finite(negative, exponent, kept);
    }

    /// <summary>
    /// Rounds hi:lo to its leading <paramref name="precision"/> bits. After a carry out of the top the result is 2^63, one exponent up.
    /// </summary>
    private static ulong RoundBits(ulong hi, ulong lo, int precision, bool negative, Rounding mode, out bool carry, out bool inexact,
        out bool up)
    {
        var kept = hi;
        var rest = lo;
        var unit = 1UL << (64 - precision);
        if (precision < 64)
        {
            kept &= ~(unit - 1);
            rest = hi << precision | (lo != 0 ? 1UL : 0);
        }
        const ulong half = 1UL << 63;
        up = mode switch
        {
            Rounding.Nearest => rest > half || (rest == half && (kept & unit) != 0),
            Rounding.Down => rest != 0 && negative,
            Rounding.Up => rest != 0 && !negative,
            _ => false,
        };
        inexact = rest != 0;
        carry = false;
        if (!up) return kept;
        kept += unit;
        carry = kept == 0;
        return carry ? half : kept;
    }

    /// <summary>Shifts right; bits that fall off leave a one in the lowest place.</summary>
    private static void ShiftRightJam(ref ulong hi, ref ulong lo, int count)
    {
        if (count == 0) return;
        if (count < 64)
        {
            var lost = lo << (64 - count);
            lo = hi << (64 - count) | lo >> count | (lost != 0 ? 1UL : 0);
            hi >>= count;
        }
        else if (count < 128)
        {
            var lost = lo | (count == 64 ? 0 : hi << (128 - count));
            lo = hi >> (count - 64) | (lost != 0 ? 1UL : 0);
            hi = 0;
        }
        else
        {
            lo = (hi | lo) != 0 ? 1UL : 0;
            hi = 0;
        }
    }

    /// <summary>Rounds a value again: conversion between formats, and the final step of operations with one operand.</summary>
    public static Real Convert(in Real a, in FpFormat format, ref FpEnvironment env)
    {
        var x = a;
        if (Special(ref x, ref env)) return x;
        if (x.Class != RealClass.Finite) return x;
        return Round(x.Negative, x.Exponent, x.Significand, 0, format, ref env);
    }

    /// <summary>Operand checks of one-operand instructions. True: <paramref name="a"/> is the NaN result.</summary>
    public static bool Special(ref Real a, ref FpEnvironment env)
    {
        if (a.Class == RealClass.Unsupported)
        {
            env.Flags |= FpFlags.Invalid;
            a = Real.Indefinite;
            return true;
        }
        if (a.IsNaN)
        {
            if (a.Class == RealClass.SignalingNaN) env.Flags |= FpFlags.Invalid;
            a = a.Quieted();
            return true;
        }
        Denormal(ref a, ref env);
        return false;
    }

    /// <summary>Applies DAZ or raises the denormal exception.</summary>
    public static void Denormal(ref Real a, ref FpEnvironment env)
    {
        if (!a.Denormal) return;
        if (env.DenormalsAreZero) a = Real.Zero(a.Negative);
        else env.Flags |= FpFlags.Denormal;
    }

    /// <summary>Only DAZ: where an invalid operation or a zero divide must win over the denormal exception.</summary>
    private static void FlushOperand(ref Real a, in FpEnvironment env)
    {
        if (a.Denormal && env.DenormalsAreZero) a = Real.Zero(a.Negative);
    }

    private static void RaiseDenormal(in Real a, in Real b, ref FpEnvironment env)
    {
        if (a.Denormal || b.Denormal) env.Flags |= FpFlags.Denormal;
    }

    /// <summary>
    /// NaN and unsupported operands of two-operand instructions (SDM Vol. 1 §4.8.3.5). True: <paramref name="result"/> is final.
    /// </summary>
    public static bool NaNs(in Real a, in Real b, ref FpEnvironment env, out Real result)
    {
        result = default;
        if (a.Class < RealClass.QuietNaN && b.Class < RealClass.QuietNaN) return false;
        if (a.Class == RealClass.Unsupported || b.Class == RealClass.Unsupported)
        {
            result = Invalid(ref env);
            return true;
        }
        if (a.Class == RealClass.SignalingNaN || b.Class == RealClass.SignalingNaN) env.Flags |= FpFlags.Invalid;
        result = Choose(a, b, env.IsX87).Quieted();
        return true;
    }

    private static Real Choose(in Real a, in Real b, bool isX87)
    {
        if (!a.IsNaN) return b;
        if (!b.IsNaN || !isX87) return a;
        // x87: a quiet NaN wins over a signaling one, then the larger significand, then the positive sign.
        if (a.Class != b.Class) return a.Class == RealClass.QuietNaN ? a : b;
        if (a.Significand != b.Significand) return a.Significand > b.Significand ? a : b;
        return a.Negative ? b : a;
    }

    private static Real Invalid(ref FpEnvironment env)
    {
        env.Flags |= FpFlags.Invalid;
        return Real.Indefinite;
    }

    public static Real Subtract(in Real a, in Real b, in FpFormat format, ref FpEnvironment env) => Add(a, b, true, format, ref env);

    public static Real Add(in Real a, in Real b, in FpFormat format, ref FpEnvironment env) => Add(a, b, false, format, ref env);

    private static Real Add(Real a, Real b, bool subtract, in FpFormat format, ref FpEnvironment env)
    {
        env.RoundedUp = false;
        if (NaNs(a, b, ref env, out var nan)) return nan;
        if (subtract) b.Negative = !b.Negative;
        if (a.Class == RealClass.Infinity && b.Class == RealClass.Infinity && a.Negative != b.Negative) return Invalid(ref env);
        Denormal(ref a, ref env);
        Denormal(ref b, ref env);
        if (a.Class == RealClass.Infinity) return a;
        if (b.Class == RealClass.Infinity) return b;
        if (a.Class == RealClass.Zero && b.Class == RealClass.Zero)
        {
            return a.Negative == b.Negative ? a : Real.Zero(env.Rounding == Rounding.Down);
        }
        if (a.Class == RealClass.Zero) return Round(b.Negative, b.Exponent, b.Significand, 0, format, ref env);
        if (b.Class == RealClass.Zero) return Round(a.Negative, a.Exponent, a.Significand, 0, format, ref env);

        if (a.Exponent < b.Exponent || (a.Exponent == b.Exponent && a.Significand < b.Significand)) (a, b) = (b, a);
        var (hi, lo) = (b.Significand, 0UL);
        ShiftRightJam(ref hi, ref lo, a.Exponent - b.Exponent);
        if (a.Negative == b.Negative)
        {
            var sum = a.Significand + hi;
            if (sum >= hi) return Round(a.Negative, a.Exponent, sum, lo, format, ref env);
            lo = sum << 63 | lo >> 1 | (lo & 1);
            return Round(a.Negative, a.Exponent + 1, sum >> 1 | 1UL << 63, lo, format, ref env);
        }
        var (high, low) = (a.Significand - hi - (lo != 0 ? 1UL : 0), 0 - lo);
        if ((high | low) == 0) return Real.Zero(env.Rounding == Rounding.Down);
        Normalize(ref high, ref low, out var shift);
        return Round(a.Negative, a.Exponent - shift, high, low, format, ref env);
    }

    private static void Normalize(ref ulong hi, ref ulong lo, out int shift)
    {
        if (hi == 0)
        {
            shift = 64 + BitOperations.LeadingZeroCount(lo);
            hi = lo << (shift - 64);
            lo = 0;
            return;
        }
        shift = BitOperations.LeadingZeroCount(hi);
        if (shift == 0) return;
        hi = hi << shift | lo >> (64 - shift);
        lo <<= shift;
    }

    public static Real Multiply(Real a, Real b, in FpFormat format, ref FpEnvironment env)
    {
        env.RoundedUp = false;
        if (NaNs(a, b, ref env, out var nan)) return nan;
        FlushOperand(ref a, env);
        FlushOperand(ref b, env);
        var negative = a.Negative != b.Negative;
        if (a.Class == RealClass.Infinity || b.Class == RealClass.Infinity)
        {
            if (a.Class == RealClass.Zero || b.Class == RealClass.Zero) return Invalid(ref env);
            RaiseDenormal(a, b, ref env);
            return Real.Infinity(negative);
        }
        RaiseDenormal(a, b, ref env);
        if (a.Class == RealClass.Zero || b.Class == RealClass.Zero) return Real.Zero(negative);
        var hi = Math.BigMul(a.Significand, b.Significand, out var lo);
        var exponent = a.Exponent + b.Exponent + 1;
        if (hi >> 63 == 0)
        {
            hi = hi << 1 | lo >> 63;
            lo <<= 1;
            exponent--;
        }
        return Round(negative, exponent, hi, lo, format, ref env);
    }

    public static Real Divide(Real a, Real b, in FpFormat format, ref FpEnvironment env)
    {
        env.RoundedUp = false;
        if (NaNs(a, b, ref env, out var nan)) return nan;
        FlushOperand(ref a, env);
        FlushOperand(ref b, env);
        var negative = a.Negative != b.Negative;
        if (a.Class == b.Class && a.Class != RealClass.Finite) return Invalid(ref env);
        if (a.Class == RealClass.Infinity)
        {
            RaiseDenormal(a, b, ref env);
            return Real.Infinity(negative);
        }
        if (b.Class == RealClass.Zero)
        {
            env.Flags |= FpFlags.ZeroDivide;
            return Real.Infinity(negative);
        }
        RaiseDenormal(a, b, ref env);
        if (a.Class == RealClass.Zero || b.Class == RealClass.Infinity) return Real.Zero(negative);
        var exponent = a.Exponent - b.Exponent;
        var (hi, lo) = (a.Significand, 0UL);
        if (hi >= b.Significand) (hi, lo) = (hi >> 1, hi << 63);
        else exponent--;
        var high = Divide128(hi, lo, b.Significand, out var remainder);
        var low = Divide128(remainder, 0, b.Significand, out remainder);
        return Round(negative, exponent, high, low | (remainder != 0 ? 1UL : 0), format, ref env);
    }

    /// <summary>
    /// hi:lo / divisor where hi is below the divisor and the divisor's top bit is set (Knuth, TAOCP 4.3.1 algorithm D with 32-bit
    /// digits).
    /// </summary>
    public static ulong Divide128(ulong hi, ulong lo, ulong divisor, out ulong remainder)
    {
        var high = Digit(hi, lo >> 32, divisor, out var rest);
        var low = Digit(rest, lo & 0xFFFF_FFFF, divisor, out remainder);
        return high << 32 | low;

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        static ulong Digit(ulong top, ulong next, ulong divisor, out ulong rest)
        {
            var q = Math.Min(top / (divisor >> 32), 0xFFFF_FFFF);
            // The estimate is at most two too large: correct by the full 96-bit remainder.
            var productHigh = Math.BigMul(q, divisor, out var productLow);
            var numeratorLow = top << 32 | next;
            var numeratorHigh = top >> 32;
            while (productHigh > numeratorHigh || (productHigh == numeratorHigh && productLow > numeratorLow))
            {
                q--;
                if (productLow < divisor) productHigh--;
                productLow -= divisor;
            }
            rest = numeratorLow - productLow;
            return q;
        }
    }

    public static Real SquareRoot(Real a, in FpFormat format, ref FpEnvironment env)
    {
        env.RoundedUp = false;
        if (a.IsNaN || a.Class == RealClass.Unsupported)
        {
            Special(ref a, ref env);
            return a;
        }
        FlushOperand(ref a, env);
        if (a.Class == RealClass.Zero) return a;
        if (a.Negative) return Invalid(ref env);
        Denormal(ref a, ref env);
        if (a.Class == RealClass.Infinity) return a;
        // An even exponent leaves a radicand in [1, 4), that is [2^126, 2^128) as an integer, whose root has exactly 64 bits.
        var odd = a.Exponent & 1;
        var radicand = (UInt128)a.Significand << (63 + odd);
        var root = IntegerRoot(radicand);
        var remainder = radicand - (UInt128)root * root;
        // (root + 1/2)^2 lies strictly between root^2 + root and root^2 + root + 1: no tie is possible.
        var lo = remainder == 0 ? 0UL : remainder > root ? 0xC000_0000_0000_0000 : 0x4000_0000_0000_0000;
        return Round(false, (a.Exponent - odd) / 2, root, lo, format, ref env);
    }

    private static ulong IntegerRoot(UInt128 value)
    {
        var estimate = Math.Sqrt((double)value);
        var root = estimate >= 18446744073709551615.0 ? ulong.MaxValue : (ulong)estimate;
        // The estimate is right to about 52 bits; one Newton step makes the error at most one.
        var next = ((UInt128)root + value / root) >> 1;
        root = next > ulong.MaxValue ? ulong.MaxValue : (ulong)next;
        while ((UInt128)root * root > value) root--;
        while (root != ulong.MaxValue && (UInt128)(root + 1) * (root + 1) <= value) root++;
        return root;
    }

    /// <summary>Ordering as compare instructions see it: raises invalid for signaling NaNs, and for quiet ones where asked.</summary>
    public static FpOrder Compare(Real a, Real b, bool quietNaNsSignal, ref FpEnvironment env)
    {
        if (a.Class >= RealClass.QuietNaN || b.Class >= RealClass.QuietNaN)
        {
            if (quietNaNsSignal || a.Class > RealClass.QuietNaN || b.Class > RealClass.QuietNaN) env.Flags |= FpFlags.Invalid;
            return FpOrder.Unordered;
        }
        Denormal(ref a, ref env);
        Denormal(ref b, ref env);
        return Order(a, b);
    }

    /// <summary>Ordering of two numbers that are not NaN.</summary>
    public static FpOrder Order(in Real a, in Real b)
    {
        if (a.Class == RealClass.Zero && b.Class == RealClass.Zero) return FpOrder.Equal;
        if (a.Class == RealClass.Zero) return b.Negative ? FpOrder.Greater : FpOrder.Less;
        if (b.Class == RealClass.Zero || a.Negative != b.Negative) return a.Negative ? FpOrder.Less : FpOrder.Greater;
        var magnitude = a.Class == RealClass.Infinity || b.Class == RealClass.Infinity
            ? (a.Class == RealClass.Infinity).CompareTo(b.Class == RealClass.Infinity)
            : a.Exponent != b.Exponent ? a.Exponent.CompareTo(b.Exponent) : a.Significand.CompareTo(b.Significand);
        if (magnitude == 0) return FpOrder.Equal;
        return magnitude < 0 == a.Negative ? FpOrder.Greater : FpOrder.Less;
    }

    /// <summary>
    /// Rounds to a signed integer of <paramref name="bits"/> bits; what does not fit (or is NaN) raises invalid and gives the "integer
    /// indefinite" value, the most negative one.
    /// </summary>
    public static long ToInteger(Real a, int bits, Rounding rounding, ref FpEnvironment env)
    {
        env.RoundedUp = false;
        var indefinite = long.MinValue >> (64 - bits);
        if (a.Class == RealClass.Zero) return 0;
        FlushOperand(ref a, env);
        if (a.Class == RealClass.Zero) return 0;
        if (a.Class != RealClass.Finite || a.Exponent >= bits)
        {
            env.Flags |= FpFlags.Invalid;
            return indefinite;
        }
        // The binary point of the value sits Exponent + 1 bits below the top.
        var magnitude = RoundToUnits(a, rounding, out var inexact, out var up);
        var limit = 1UL << (bits - 1);
        if (magnitude > limit || (magnitude == limit && !a.Negative))
        {
            env.Flags |= FpFlags.Invalid;
            return indefinite;
        }
        if (inexact) env.Flags |= FpFlags.Precision;
        env.RoundedUp = up;
        return a.Negative ? -(long)magnitude : (long)magnitude;
    }

    /// <summary>The magnitude of a finite value below 2^64, rounded to an integer.</summary>
    private static ulong RoundToUnits(in Real a, Rounding rounding, out bool inexact, out bool up)
    {
        if (a.Exponent >= 63)
        {
            inexact = up = false;
            return a.Significand;
        }
        var (hi, lo) = (a.Significand, 0UL);
        ShiftRightJam(ref hi, ref lo, 63 - a.Exponent);
        var units = RoundBits(hi, lo, 64, a.Negative, rounding, out _, out inexact, out up);
        return units;
    }

    /// <summary>
    /// Rounds to an integer in floating point (FRNDINT, ROUNDSD). The precision exception is the caller's to keep or drop.
    /// </summary>
    public static Real RoundToIntegral(Real a, Rounding rounding, ref FpEnvironment env)
    {
        env.RoundedUp = false;
        if (Special(ref a, ref env)) return a;
        if (a.Class != RealClass.Finite || a.Exponent >= 63) return a;
        var units = RoundToUnits(a, rounding, out var inexact, out var up);
        if (inexact) env.Flags |= FpFlags.Precision;
        env.RoundedUp = up;
        if (units == 0) return Real.Zero(a.Negative);
        var shift = BitOperations.LeadingZeroCount(units);
        return Real.Finite(a.Negative, 63 - shift, units << shift);
    }
}

internal enum FpOrder
{
    Less,
    Equal,
    Greater,
    Unordered,
}
