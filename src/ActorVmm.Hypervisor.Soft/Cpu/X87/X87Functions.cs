using System.Numerics;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>FPREM, FPREM1, FRNDINT, FSCALE, FXTRACT.</summary>
internal static unsafe partial class X87
{
    public static bool Remainder(CpuState* s, Op* op) => Remainder(s, nearest: false);

    public static bool RemainderIeee(CpuState* s, Op* op) => Remainder(s, nearest: true);

    private static bool Remainder(CpuState* s, bool nearest)
    {
        if (IsEmpty(s, 0) || IsEmpty(s, 1)) return UnderflowTop(s);
        var env = Environment(s);
        var (a, b) = (Get(s, 0), Get(s, 1));
        if (SoftFloat.NaNs(a, b, ref env, out var result)) return Deliver(s, 0, result, env);
        if (a.Class == RealClass.Infinity || b.Class == RealClass.Zero)
        {
            env.Flags |= FpFlags.Invalid;
            return Deliver(s, 0, Real.Indefinite, env);
        }
        SoftFloat.Denormal(ref a, ref env);
        SoftFloat.Denormal(ref b, ref env);
        var quotient = 0UL;
        var partial = false;
        result = a;
        if (a.Class == RealClass.Finite && b.Class == RealClass.Finite) result = Reduce(a, b, nearest, out quotient, out partial);
        if (result.Class == RealClass.Finite)
        {
            result = SoftFloat.Round(result.Negative, result.Exponent, result.Significand, 0, FpFormat.Extended, ref env);
        }
        if (!Accept(s, env)) return true;
        Set(s, 0, result);
        // SDM Vol. 2: C2 = incomplete; else C0, C3, C1 are the low three bits of the quotient, from the top.
        SetConditions(s, partial ? C2 : ((quotient & 4) != 0 ? C0 : 0) | ((quotient & 2) != 0 ? C3 : 0) | ((quotient & 1) != 0 ? C1 : 0));
        return true;
    }

    /// <summary>
    /// The remainder of finite numbers. Exponents that differ by 64 or more are brought nearer by 32 to 63 in one step, as the processor
    /// does, and reported as partial.
    /// </summary>
    private static Real Reduce(in Real a, in Real b, bool nearest, out ulong quotient, out bool partial)
    {
        quotient = 0;
        partial = false;
        var distance = a.Exponent - b.Exponent;
        if (distance < (nearest ? -1 : 0)) return a;
        partial = distance >= 64;
        var steps = partial ? (distance & 31) | 32 : distance;
        // Both in units of 2^(a.Exponent - 63 - steps); with steps = -1 the unit is a's own and b takes two of them.
        UInt128 divisor = steps < 0 ? (UInt128)b.Significand << 1 : b.Significand;
        var unit = a.Exponent - 63 - Math.Max(steps, 0);
        var (q, rest) = UInt128.DivRem((UInt128)a.Significand << Math.Max(steps, 0), divisor);
        quotient = (ulong)q;
        var negative = a.Negative;
        if (nearest && !partial && (rest << 1 > divisor || (rest << 1 == divisor && (quotient & 1) != 0)))
        {
            rest = divisor - rest;
            quotient++;
            negative = !negative;
        }
        if (rest == 0) return Real.Zero(a.Negative);
        // The rest is below 2^64: at most half of a 65-bit divisor, or below a 64-bit one.
        var bits = (ulong)rest;
        var shift = BitOperations.LeadingZeroCount(bits);
        return Real.Finite(negative, unit + 63 - shift, bits << shift);
    }

    public static bool RoundToInteger(CpuState* s, Op* op)
    {
        if (IsEmpty(s, 0)) return UnderflowTop(s);
        var env = Environment(s);
        return Deliver(s, 0, SoftFloat.RoundToIntegral(Get(s, 0), env.Rounding, ref env), env);
    }

    /// <summary>FSCALE (SDM Vol. 2 table 3-30): ST0 times two to the truncated ST1.</summary>
    public static bool Scale(CpuState* s, Op* op)
    {
        if (IsEmpty(s, 0) || IsEmpty(s, 1)) return UnderflowTop(s);
        var env = Environment(s);
        var (a, b) = (Get(s, 0), Get(s, 1));
        if (SoftFloat.NaNs(a, b, ref env, out var result)) return Deliver(s, 0, result, env);
        if (b.Class == RealClass.Infinity && a.Class == (b.Negative ? RealClass.Infinity : RealClass.Zero))
        {
            env.Flags |= FpFlags.Invalid;
            return Deliver(s, 0, Real.Indefinite, env);
        }
        SoftFloat.Denormal(ref a, ref env);
        SoftFloat.Denormal(ref b, ref env);
        if (a.Class == RealClass.Finite)
        {
            if (b.Class == RealClass.Infinity)
            {
                a = b.Negative ? Real.Zero(a.Negative) : Real.Infinity(a.Negative);
            }
            else
            {
                // Beyond 2^16 every result over- or underflows in the same way.
                var by = b.Class == RealClass.Zero || b.Exponent < 0 ? 0
                    : b.Exponent > 16 ? 1 << 17 : (int)(b.Significand >> (63 - b.Exponent));
                a = SoftFloat.Round(a.Negative, a.Exponent + (b.Negative ? -by : by), a.Significand, 0, FpFormat.Extended, ref env);
            }
        }
        return Deliver(s, 0, a, env);
    }

    /// <summary>FXTRACT: ST0 becomes the exponent, then the significand is pushed.</summary>
    public static bool Extract(CpuState* s, Op* op)
    {
        if (IsEmpty(s, 0) || !IsEmpty(s, 7))
        {
            var overflow = !IsEmpty(s, 0);
            if (!StackFault(s, overflow)) return true;
            Set(s, 0, Real.Indefinite);
            PushSlot(s);
            Set(s, 0, Real.Indefinite);
            return true;
        }
        var env = Environment(s);
        var value = Get(s, 0);
        Real exponent;
        if (SoftFloat.Special(ref value, ref env))
        {
            exponent = value;
        }
        else
        {
            if (value.Class == RealClass.Zero) env.Flags |= FpFlags.ZeroDivide;
            exponent = value.Class switch
            {
                RealClass.Zero => Real.Infinity(true),
                RealClass.Infinity => Real.Infinity(false),
                _ => Real.FromInteger(value.Exponent),
            };
            value.Exponent = 0;
        }
        if (!Accept(s, env)) return true;
        Set(s, 0, exponent);
        PushSlot(s);
        Set(s, 0, value);
        return true;
    }
}
