namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// FSIN, FCOS, FSINCOS, FPTAN, FPATAN, F2XM1, FYL2X, FYL2XP1. Accuracy: correctly rounded in practice (see <see cref="WideFunctions"/>),
/// that is better than the one ulp that processors promise, which is why their last bit may differ; the angle is reduced with an exact π.
/// </summary>
internal static unsafe partial class X87
{
    /// <summary>Loads ST0 for a one-operand function. False: the instruction is finished.</summary>
    private static bool BeginUnary(CpuState* s, out Real x, out FpEnvironment env)
    {
        env = Environment(s);
        x = default;
        if (IsEmpty(s, 0))
        {
            UnderflowTop(s);
            return false;
        }
        x = Get(s, 0);
        return true;
    }

    public static bool Sine(CpuState* s, Op* op) => Trigonometric(s, cosine: false);

    public static bool Cosine(CpuState* s, Op* op) => Trigonometric(s, cosine: true);

    private static bool Trigonometric(CpuState* s, bool cosine)
    {
        if (!BeginUnary(s, out var x, out var env)) return true;
        if (OutOfRange(s, x)) return true;
        var result = Angle(x, ref env, out var sine, out var cos) ? x : cosine ? cos : sine;
        if (x.Class == RealClass.Infinity) result = Real.Indefinite;
        else if (x.IsNaN || x.Class == RealClass.Unsupported) SoftFloat.Special(ref x, ref env);
        if (x.IsNaN) result = x;
        Deliver(s, 0, result, env);
        s->FpuStatus &= unchecked((ushort)~C2);
        return true;
    }

    /// <summary>|x| of 2^63 or more: C2 is set and nothing else happens.</summary>
    private static bool OutOfRange(CpuState* s, in Real x)
    {
        if (x.Class != RealClass.Finite || x.Exponent < 63) return false;
        s->FpuStatus = (ushort)((s->FpuStatus & ~C1) | C2);
        return true;
    }

    /// <summary>Sine and cosine of an operand. True: it has none (NaN or infinity).</summary>
    private static bool Angle(in Real x, ref FpEnvironment env, out Real sine, out Real cosine)
    {
        (sine, cosine) = (Real.Zero(x.Negative), Real.FromInteger(1));
        if (x.Class == RealClass.Infinity) env.Flags |= FpFlags.Invalid;
        if (x.Class is not (RealClass.Finite or RealClass.Zero)) return true;
        if (x.Class == RealClass.Zero) return false;
        if (x.Denormal) env.Flags |= FpFlags.Denormal;
        var z = WideFunctions.ReduceAngle(x, out var quadrant);
        var (sin, cos) = (WideFunctions.Sine(z), WideFunctions.Cosine(z));
        if ((quadrant & 1) != 0) (sin, cos) = (cos, -sin);
        if ((quadrant & 2) != 0) (sin, cos) = (-sin, -cos);
        sine = sin.Round(exact: false, ref env);
        var sineUp = env.RoundedUp;
        cosine = cos.Round(exact: false, ref env);
        env.RoundedUp = sineUp;
        return false;
    }

    public static bool SineCosine(CpuState* s, Op* op)
    {
        if (!BeginUnary(s, out var x, out var env)) return true;
        if (OutOfRange(s, x)) return true;
        if (Angle(x, ref env, out var sine, out var cosine)) sine = cosine = NoAngle(x, ref env);
        return DeliverTwo(s, sine, cosine, env);
    }

    /// <summary>FPTAN: ST0 becomes the tangent, then 1 is pushed.</summary>
    public static bool Tangent(CpuState* s, Op* op)
    {
        if (!BeginUnary(s, out var x, out var env)) return true;
        if (OutOfRange(s, x)) return true;
        var (result, one) = (x, Real.FromInteger(1));
        if (x.Class is not (RealClass.Finite or RealClass.Zero))
        {
            if (x.Class == RealClass.Infinity) env.Flags |= FpFlags.Invalid;
            result = one = NoAngle(x, ref env);
        }
        else if (x.Class == RealClass.Finite)
        {
            if (x.Denormal) env.Flags |= FpFlags.Denormal;
            var z = WideFunctions.ReduceAngle(x, out var quadrant);
            var (sin, cos) = (WideFunctions.Sine(z), WideFunctions.Cosine(z));
            result = ((quadrant & 1) != 0 ? -(cos / sin) : sin / cos).Round(exact: false, ref env);
        }
        return DeliverTwo(s, result, one, env);
    }

    private static Real NoAngle(Real x, ref FpEnvironment env)
    {
        if (x.Class == RealClass.Infinity) return Real.Indefinite;
        SoftFloat.Special(ref x, ref env);
        return x;
    }

    private static bool DeliverTwo(CpuState* s, in Real below, in Real top, in FpEnvironment env)
    {
        s->FpuStatus &= unchecked((ushort)~C2);
        if (!IsEmpty(s, 7))
        {
            if (!StackFault(s, overflow: true)) return true;
            Set(s, 0, Real.Indefinite);
            PushSlot(s);
            Set(s, 0, Real.Indefinite);
            return true;
        }
        if (!Accept(s, env)) return true;
        Set(s, 0, below);
        PushSlot(s);
        Set(s, 0, top);
        return true;
    }

    public static bool PowerMinusOne(CpuState* s, Op* op)
    {
        if (!BeginUnary(s, out var x, out var env)) return true;
        if (SoftFloat.Special(ref x, ref env)) return Deliver(s, 0, x, env);
        // Outside [-1, 1] the result is undefined; the operand stays, but -infinity has a limit.
        if (x.Class == RealClass.Infinity && x.Negative) x = Real.FromInteger(-1);
        else if (x.Class == RealClass.Finite && x.Exponent <= 0) x = PowerMinusOne(x, ref env);
        return Deliver(s, 0, x, env);
    }

    private static Real PowerMinusOne(in Real x, ref FpEnvironment env)
    {
        // 1 and -1 have exact results.
        if (x.Exponent == 0 && x.Significand == 1UL << 63) return x.Negative ? Real.Finite(true, -1, 1UL << 63) : Real.FromInteger(1);
        return WideFunctions.PowerMinusOne(WideFloat.Of(x)).Round(exact: false, ref env);
    }

    /// <summary>Loads ST0 and ST1 for a function that leaves its result in ST1 and pops. False: the instruction is finished.</summary>
    private static bool BeginBinary(CpuState* s, out Real x, out Real y, out FpEnvironment env)
    {
        env = Environment(s);
        (x, y) = (Get(s, 0), Get(s, 1));
        if (IsEmpty(s, 0) || IsEmpty(s, 1))
        {
            if (StackFault(s, overflow: false))
            {
                Set(s, 1, Real.Indefinite);
                Pop(s);
            }
            return false;
        }
        if (!SoftFloat.NaNs(x, y, ref env, out var nan)) return true;
        Deliver(s, 1, nan, env, pops: 1);
        return false;
    }

    private static bool DeliverInvalid(CpuState* s, FpEnvironment env)
    {
        env.Flags |= FpFlags.Invalid;
        return Deliver(s, 1, Real.Indefinite, env, pops: 1);
    }

    /// <summary>FYL2X: ST1 * log2(ST0).</summary>
    public static bool Logarithm(CpuState* s, Op* op)
    {
        if (!BeginBinary(s, out var x, out var y, out var env)) return true;
        if (x.Negative && x.Class != RealClass.Zero) return DeliverInvalid(s, env);
        if (x.Class == RealClass.Zero && y.Class is RealClass.Finite)
        {
            env.Flags |= FpFlags.ZeroDivide;
            return Deliver(s, 1, Real.Infinity(!y.Negative), env, pops: 1);
        }
        SoftFloat.Denormal(ref x, ref env);
        SoftFloat.Denormal(ref y, ref env);
        var (logarithm, limit) = (WideFloat.Zero, x);
        if (x.Class == RealClass.Finite)
        {
            // log2(x) = exponent + log2(m), the latter zero for powers of two.
            var one = x with { Exponent = 0 };
            logarithm = x.Exponent == -1 || x.Exponent == 0
                ? WideFunctions.LogOnePlus(WideFloat.Of(x) - WideFloat.One)
                : WideFloat.Of(x.Exponent) + WideFunctions.LogOnePlus(WideFloat.Of(one) - WideFloat.One);
            limit = logarithm.IsZero ? Real.Zero(false) : Real.Finite(logarithm.Negative, 0, 1UL << 63);
        }
        else if (x.Class == RealClass.Zero)
        {
            limit = Real.Infinity(true);
        }
        return Product(s, y, logarithm, limit, x.Class == RealClass.Finite && x.Significand == 1UL << 63, env);
    }

    /// <summary>FYL2XP1: ST1 * log2(ST0 + 1).</summary>
    public static bool LogarithmPlusOne(CpuState* s, Op* op)
    {
        if (!BeginBinary(s, out var x, out var y, out var env)) return true;
        var belowDomain = x.Class == RealClass.Infinity || (x.Class == RealClass.Finite && x.Exponent >= 0);
        if (x.Negative && belowDomain) return DeliverInvalid(s, env);
        SoftFloat.Denormal(ref x, ref env);
        SoftFloat.Denormal(ref y, ref env);
        var logarithm = x.Class == RealClass.Finite ? WideFunctions.LogOnePlus(WideFloat.Of(x)) : WideFloat.Zero;
        var limit = x.Class == RealClass.Finite ? Real.Finite(x.Negative, 0, 1UL << 63) : x;
        return Product(s, y, logarithm, limit, exact: false, env);
    }

    /// <summary>
    /// y times a logarithm. <paramref name="limit"/> tells what the logarithm is where that decides alone: zero, infinite, or its sign.
    /// </summary>
    private static bool Product(CpuState* s, in Real y, WideFloat logarithm, in Real limit, bool exact, FpEnvironment env)
    {
        var negative = y.Negative != limit.Negative;
        if ((y.Class == RealClass.Infinity && limit.Class == RealClass.Zero) ||
            (y.Class == RealClass.Zero && limit.Class == RealClass.Infinity))
        {
            return DeliverInvalid(s, env);
        }
        Real result;
        if (y.Class == RealClass.Infinity || limit.Class == RealClass.Infinity) result = Real.Infinity(negative);
        else if (y.Class == RealClass.Zero || limit.Class == RealClass.Zero) result = Real.Zero(negative);
        else result = (WideFloat.Of(y) * logarithm).Round(exact, ref env);
        return Deliver(s, 1, result, env, pops: 1);
    }

    /// <summary>FPATAN: the angle of the point (ST0, ST1), SDM Vol. 2 table 3-26.</summary>
    public static bool ArcTangent(CpuState* s, Op* op)
    {
        if (!BeginBinary(s, out var x, out var y, out var env)) return true;
        SoftFloat.Denormal(ref x, ref env);
        SoftFloat.Denormal(ref y, ref env);
        WideFloat angle;
        if (y.Class == RealClass.Infinity)
        {
            angle = x.Class != RealClass.Infinity ? WideFloat.HalfPi
                : x.Negative ? WideFloat.HalfPi + WideFloat.HalfPi.Scaled(-1) : WideFloat.HalfPi.Scaled(-1);
        }
        else if (y.Class == RealClass.Zero || x.Class == RealClass.Infinity)
        {
            if (!x.Negative) return Deliver(s, 1, Real.Zero(y.Negative), env, pops: 1);
            angle = WideFloat.HalfPi.Scaled(1);
        }
        else if (x.Class == RealClass.Zero)
        {
            angle = WideFloat.HalfPi;
        }
        else
        {
            angle = WideFunctions.ArcTangent(WideFloat.Of(y).Absolute, WideFloat.Of(x).Absolute);
            if (x.Negative) angle = WideFloat.HalfPi.Scaled(1) - angle;
        }
        if (y.Negative) angle = -angle;
        return Deliver(s, 1, angle.Round(exact: false, ref env), env, pops: 1);
    }
}
