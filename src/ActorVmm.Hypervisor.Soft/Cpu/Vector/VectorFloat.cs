using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using V = System.Runtime.Intrinsics.Vector128<byte>;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// An SSE arithmetic operation in two forms: on the host's own float or double, with a test that tells whether that gave the right result
/// and left MXCSR alone, and in software for everything else.
/// </summary>
internal interface IFloatOp
{
    static abstract T Fast<T>(T a, T b) where T : unmanaged, IBinaryFloatingPointIeee754<T>;

    /// <summary>True where <paramref name="r"/> is the x86 result under <paramref name="mxcsr"/> and no new flag is to be set.</summary>
    static abstract bool Holds<T>(T a, T b, T r, uint mxcsr) where T : unmanaged, IBinaryFloatingPointIeee754<T>;

    static abstract Real Calc(in Real a, in Real b, in FpFormat format, ref FpEnvironment env);
}

/// <summary>Questions about host numbers that the fast paths ask.</summary>
internal static class HostFloat
{
    private const MethodImplOptions In = MethodImplOptions.AggressiveInlining;

    /// <summary>Round to nearest, precision exception masked (MXCSR bits 12 to 14).</summary>
    [MethodImpl(In)]
    public static bool Plain(uint mxcsr) => (mxcsr & 0x7000) == 0x1000;

    /// <summary>The precision flag is up already, so whether the result is exact does not matter.</summary>
    [MethodImpl(In)]
    public static bool InexactSeen(uint mxcsr) => (mxcsr & 0x20) != 0;

    /// <summary>Finite and at least twice the smallest normal number: rounding cannot have involved the denormal range.</summary>
    [MethodImpl(In)]
    public static bool Normal<T>(T x) where T : unmanaged => typeof(T) == typeof(double)
        ? ((Unsafe.BitCast<T, ulong>(x) >> 52) & 0x7FF) - 2 < 0x7FD
        : ((Unsafe.BitCast<T, uint>(x) >> 23) & 0xFF) - 2 < 0xFD;

    [MethodImpl(In)]
    public static bool Zero<T>(T x) where T : unmanaged => typeof(T) == typeof(double)
        ? Unsafe.BitCast<T, ulong>(x) << 1 == 0
        : Unsafe.BitCast<T, uint>(x) << 1 == 0;

    [MethodImpl(In)]
    public static bool NormalOrZero<T>(T x) where T : unmanaged => Normal(x) || Zero(x);

    /// <summary>Large enough that the rounding error of a product of this size is a normal number.</summary>
    [MethodImpl(In)]
    public static bool FarFromDenormal<T>(T x) where T : unmanaged => typeof(T) == typeof(double)
        ? ((Unsafe.BitCast<T, ulong>(x) >> 52) & 0x7FF) > 200
        : ((Unsafe.BitCast<T, uint>(x) >> 23) & 0xFF) > 60;
}

/// <summary>The arithmetic instructions ADD, SUB, MUL, DIV, SQRT, MIN, MAX.</summary>
internal static class FloatOps
{
    private const MethodImplOptions In = MethodImplOptions.AggressiveInlining;

    internal readonly struct Add : IFloatOp
    {
        [MethodImpl(In)] public static T Fast<T>(T a, T b) where T : unmanaged, IBinaryFloatingPointIeee754<T> => a + b;

        [MethodImpl(In)]
        public static bool Holds<T>(T a, T b, T r, uint mxcsr) where T : unmanaged, IBinaryFloatingPointIeee754<T> =>
            HostFloat.Plain(mxcsr) && HostFloat.NormalOrZero(a) && HostFloat.NormalOrZero(b) && HostFloat.NormalOrZero(r) &&
            (HostFloat.InexactSeen(mxcsr) || SumIsExact(a, b, r));

        public static Real Calc(in Real a, in Real b, in FpFormat format, ref FpEnvironment env) => SoftFloat.Add(a, b, format, ref env);
    }

    internal readonly struct Sub : IFloatOp
    {
        [MethodImpl(In)] public static T Fast<T>(T a, T b) where T : unmanaged, IBinaryFloatingPointIeee754<T> => a - b;

        [MethodImpl(In)]
        public static bool Holds<T>(T a, T b, T r, uint mxcsr) where T : unmanaged, IBinaryFloatingPointIeee754<T> =>
            HostFloat.Plain(mxcsr) && HostFloat.NormalOrZero(a) && HostFloat.NormalOrZero(b) && HostFloat.NormalOrZero(r) &&
            (HostFloat.InexactSeen(mxcsr) || SumIsExact(a, -b, r));

        public static Real Calc(in Real a, in Real b, in FpFormat format, ref FpEnvironment env) =>
            SoftFloat.Subtract(a, b, format, ref env);
    }

    internal readonly struct Mul : IFloatOp
    {
        [MethodImpl(In)] public static T Fast<T>(T a, T b) where T : unmanaged, IBinaryFloatingPointIeee754<T> => a * b;

        [MethodImpl(In)]
        public static bool Holds<T>(T a, T b, T r, uint mxcsr) where T : unmanaged, IBinaryFloatingPointIeee754<T>
        {
            if (!HostFloat.Plain(mxcsr) || !HostFloat.NormalOrZero(a) || !HostFloat.NormalOrZero(b)) return false;
            if (!HostFloat.Normal(r)) return HostFloat.Zero(a) || HostFloat.Zero(b);
            return HostFloat.InexactSeen(mxcsr) || (HostFloat.FarFromDenormal(r) && T.FusedMultiplyAdd(a, b, -r) == T.Zero);
        }

        public static Real Calc(in Real a, in Real b, in FpFormat format, ref FpEnvironment env) =>
            SoftFloat.Multiply(a, b, format, ref env);
    }

    internal readonly struct Div : IFloatOp
    {
        [MethodImpl(In)] public static T Fast<T>(T a, T b) where T : unmanaged, IBinaryFloatingPointIeee754<T> => a / b;

        [MethodImpl(In)]
        public static bool Holds<T>(T a, T b, T r, uint mxcsr) where T : unmanaged, IBinaryFloatingPointIeee754<T>
        {
            if (!HostFloat.Plain(mxcsr) || !HostFloat.NormalOrZero(a) || !HostFloat.Normal(b)) return false;
            if (!HostFloat.Normal(r)) return HostFloat.Zero(a);
            return HostFloat.InexactSeen(mxcsr) || (HostFloat.FarFromDenormal(a) && T.FusedMultiplyAdd(r, b, -a) == T.Zero);
        }

        public static Real Calc(in Real a, in Real b, in FpFormat format, ref FpEnvironment env) => SoftFloat.Divide(a, b, format, ref env);
    }

    internal readonly struct Sqrt : IFloatOp
    {
        [MethodImpl(In)] public static T Fast<T>(T a, T b) where T : unmanaged, IBinaryFloatingPointIeee754<T> => T.Sqrt(b);

        [MethodImpl(In)]
        public static bool Holds<T>(T a, T b, T r, uint mxcsr) where T : unmanaged, IBinaryFloatingPointIeee754<T>
        {
            if (HostFloat.Zero(b)) return true;
            if (!HostFloat.Plain(mxcsr) || !HostFloat.Normal(b) || !HostFloat.Normal(r)) return false;
            return HostFloat.InexactSeen(mxcsr) || (HostFloat.FarFromDenormal(b) && T.FusedMultiplyAdd(r, r, -b) == T.Zero);
        }

        public static Real Calc(in Real a, in Real b, in FpFormat format, ref FpEnvironment env) =>
            SoftFloat.SquareRoot(b, format, ref env);
    }

    internal readonly struct Min : IFloatOp
    {
        [MethodImpl(In)] public static T Fast<T>(T a, T b) where T : unmanaged, IBinaryFloatingPointIeee754<T> => a < b ? a : b;

        [MethodImpl(In)]
        public static bool Holds<T>(T a, T b, T r, uint mxcsr) where T : unmanaged, IBinaryFloatingPointIeee754<T> =>
            HostFloat.NormalOrZero(a) && HostFloat.NormalOrZero(b);

        public static Real Calc(in Real a, in Real b, in FpFormat format, ref FpEnvironment env) => Select(a, b, FpOrder.Less, ref env);
    }

    internal readonly struct Max : IFloatOp
    {
        [MethodImpl(In)] public static T Fast<T>(T a, T b) where T : unmanaged, IBinaryFloatingPointIeee754<T> => a > b ? a : b;

        [MethodImpl(In)]
        public static bool Holds<T>(T a, T b, T r, uint mxcsr) where T : unmanaged, IBinaryFloatingPointIeee754<T> =>
            HostFloat.NormalOrZero(a) && HostFloat.NormalOrZero(b);

        public static Real Calc(in Real a, in Real b, in FpFormat format, ref FpEnvironment env) => Select(a, b, FpOrder.Greater, ref env);
    }

    /// <summary>Knuth's two-sum: the rounding error of an addition is itself a float; none means exact.</summary>
    [MethodImpl(In)]
    private static bool SumIsExact<T>(T a, T b, T r) where T : unmanaged, IBinaryFloatingPointIeee754<T>
    {
        var part = r - a;
        return (a - (r - part)) + (b - part) == T.Zero;
    }

    /// <summary>
    /// MIN and MAX (SDM Vol. 2): the second operand unless the first is strictly better; any NaN is invalid and gives the second.
    /// </summary>
    private static Real Select(in Real a, in Real b, FpOrder wanted, ref FpEnvironment env)
    {
        var order = SoftFloat.Compare(a, b, quietNaNsSignal: true, ref env);
        var chosen = order == wanted ? a : b;
        return chosen.Denormal && env.DenormalsAreZero ? Real.Zero(chosen.Negative) : chosen;
    }
}

/// <summary>Handlers of SSE arithmetic: scalar and packed, register and memory.</summary>
internal static unsafe class VectorFloat
{
    private const MethodImplOptions Opt = MethodImplOptions.AggressiveOptimization;

    [MethodImpl(Opt)]
    public static void ScalarRr<TOp, T>(CpuState* s, Op* op)
        where TOp : struct, IFloatOp where T : unmanaged, IBinaryFloatingPointIeee754<T>
    {
        var a = Xmm.Low<T>(s, op->Dst);
        var b = Xmm.Low<T>(s, op->Src);
        var r = TOp.Fast(a, b);
        if (TOp.Holds(a, b, r, s->Mxcsr)) Xmm.Low<T>(s, op->Dst) = r;
        else if (!Slow<TOp, T>(s, op, Scalar.Xmm<T>(s, op->Src), 0, 1)) return;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Opt)]
    public static void ScalarRm<TOp, T>(CpuState* s, Op* op)
        where TOp : struct, IFloatOp where T : unmanaged, IBinaryFloatingPointIeee754<T>
    {
        var bits = Scalar.Read<T>(s, op, AtAny.Of(s, op));
        if (s->Abort != Abort.None) return;
        // The address temporary has served; through it the bits become a number without a local's address being taken.
        s->Regs[17] = bits;
        var a = Xmm.Low<T>(s, op->Dst);
        var b = *(T*)((byte*)s + CpuState.TempRegister);
        var r = TOp.Fast(a, b);
        if (TOp.Holds(a, b, r, s->Mxcsr)) Xmm.Low<T>(s, op->Dst) = r;
        else if (!Slow<TOp, T>(s, op, bits, 0, 1)) return;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Opt)]
    public static void PackedRr<TOp, T>(CpuState* s, Op* op)
        where TOp : struct, IFloatOp where T : unmanaged, IBinaryFloatingPointIeee754<T>
    {
        if (!PackedBody<TOp, T>(s, op, Xmm.Low<ulong>(s, op->Src), Xmm.Low<ulong>(s, (byte)(op->Src + 8)))) return;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Opt)]
    public static void PackedRm<TOp, T>(CpuState* s, Op* op)
        where TOp : struct, IFloatOp where T : unmanaged, IBinaryFloatingPointIeee754<T>
    {
        var at = AtAny.Of(s, op);
        if ((at & 15) != 0)
        {
            Flow.Raise(s, op, Vector.Gp, 0);
            return;
        }
        var low = Scalar.Read<ulong>(s, op, at);
        if (s->Abort != Abort.None) return;
        var high = Scalar.Read<ulong>(s, op, at + 8);
        if (s->Abort != Abort.None) return;
        if (!PackedBody<TOp, T>(s, op, low, high)) return;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(MethodImplOptions.NoInlining | Opt)]
    private static bool PackedBody<TOp, T>(CpuState* s, Op* op, ulong low, ulong high)
        where TOp : struct, IFloatOp where T : unmanaged, IBinaryFloatingPointIeee754<T>
    {
        var a = Xmm.At(s, op->Dst).As<byte, T>();
        var b = Vector128.Create(low, high).As<ulong, T>();
        var r = a;
        for (var lane = 0; lane < Vector128<T>.Count; lane++)
        {
            var value = TOp.Fast(a[lane], b[lane]);
            if (!TOp.Holds(a[lane], b[lane], value, s->Mxcsr)) return Slow<TOp, T>(s, op, low, high, Vector128<T>.Count);
            r = r.WithElement(lane, value);
        }
        Xmm.At(s, op->Dst) = r.As<T, byte>();
        return true;
    }

    /// <summary>The software path over the low <paramref name="lanes"/> elements; false after an unmasked exception.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static bool Slow<TOp, T>(CpuState* s, Op* op, ulong low, ulong high, int lanes) where TOp : struct, IFloatOp where T : unmanaged
    {
        var a = Xmm.At(s, op->Dst);
        var b = Vector128.Create(low, high).AsByte();
        var run = new VectorFloatRun(s->Mxcsr);
        for (var lane = 0; lane < lanes; lane++)
        {
            run.Set<T>(lane, TOp.Calc(VectorFloatRun.Get<T>(a, lane), VectorFloatRun.Get<T>(b, lane), VectorFloatRun.Format<T>(),
                ref run.Env));
            run.EndLane();
        }
        return run.Commit<T>(s, op, lanes);
    }
}

/// <summary>One SSE floating-point instruction in software: its environment, the results of its lanes, and the exception rules.</summary>
internal unsafe struct VectorFloatRun(uint mxcsr)
{
    public FpEnvironment Env = FpEnvironment.FromMxcsr(mxcsr);
    private FpFlags _all;
    private FpFlags _earlier;
    private V _result;

    public static FpFormat Format<T>() where T : unmanaged => sizeof(T) == 4 ? FpFormat.Single : FpFormat.Double;

    public static Real Get<T>(V vector, int lane) where T : unmanaged => sizeof(T) == 4
        ? Real.FromSingle(vector.AsUInt32().GetElement(lane))
        : Real.FromDouble(vector.AsUInt64().GetElement(lane));

    public void Set<T>(int lane, in Real value) where T : unmanaged => _result = sizeof(T) == 4
        ? _result.AsUInt32().WithElement(lane, value.ToSingle()).AsByte()
        : _result.AsUInt64().WithElement(lane, value.ToDouble()).AsByte();

    public void SetBits(int lane, uint value) => _result = _result.AsUInt32().WithElement(lane, value).AsByte();

    public void SetBits(int lane, ulong value) => _result = _result.AsUInt64().WithElement(lane, value).AsByte();

    public readonly V Result => _result;

    /// <summary>Takes over the flags of one lane; lanes do not see each other's.</summary>
    public void EndLane()
    {
        _all |= Env.Flags;
        Env.Flags = FpFlags.None;
    }

    /// <summary>The next step of an instruction of several: what this one has raised stays, whatever the next one meets.</summary>
    public void EndStep()
    {
        EndLane();
        _earlier |= _all;
        _all = FpFlags.None;
    }

    /// <summary>An unmasked exception has been raised: instructions of several steps stop here.</summary>
    public readonly bool MustStop => ((_all | Env.Flags) & ~Env.Masks) != 0;

    /// <summary>
    /// Updates MXCSR. An unmasked exception that is found before computing (in any lane) hides those found after (SDM Vol. 1 §11.5.3).
    /// False: #XM (or #UD without OSXMMEXCPT) is raised and the destination stays.
    /// </summary>
    public bool Finish(CpuState* s, Op* op)
    {
        EndLane();
        var flags = _all;
        if ((flags & FpFlags.BeforeResult & ~Env.Masks) != 0) flags &= FpFlags.BeforeResult;
        s->Mxcsr |= (uint)(flags | _earlier);
        if ((flags & ~Env.Masks) == 0) return true;
        Flow.Raise(s, op, (s->Cr4 & VectorGuard.Cr4Osxmmexcpt) != 0 ? Vector.Xm : Vector.Ud);
        return false;
    }

    /// <summary><see cref="Finish"/>, then writes the low <paramref name="lanes"/> results over the destination.</summary>
    public bool Commit<T>(CpuState* s, Op* op, int lanes) where T : unmanaged
    {
        if (!Finish(s, op)) return false;
        if (lanes * sizeof(T) == 16) Xmm.At(s, op->Dst) = _result;
        else if (lanes * sizeof(T) == 8) Xmm.Low<ulong>(s, op->Dst) = _result.AsUInt64().ToScalar();
        else Xmm.Low<uint>(s, op->Dst) = _result.AsUInt32().ToScalar();
        return true;
    }
}
