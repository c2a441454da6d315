using System.Runtime.Intrinsics;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>Conversions between integers, singles and doubles (SDM Vol. 1 §11.4.1.6), run through <see cref="Packed.Call"/>.</summary>
internal static unsafe class Conversions
{
    private static Rounding RoundingOf(in VectorFloatRun run, bool truncate) => truncate ? Rounding.Zero : run.Env.Rounding;

    /// <summary>CVTSI2SS, CVTSI2SD from a general register (Src) or memory of the integer's size; low element only.</summary>
    public static bool FromGeneral<TInteger, T>(CpuState* s, Op* op) where TInteger : unmanaged where T : unmanaged
    {
        ulong raw;
        if (VectorSource.MemorySize(op) == 0)
        {
            raw = Scalar.Load<TInteger>((byte*)s + op->Src);
        }
        else
        {
            raw = Scalar.Read<TInteger>(s, op, AtAny.Of(s, op));
            if (s->Abort != Abort.None) return false;
        }
        var value = sizeof(TInteger) == 4 ? (int)raw : (long)raw;
        if (sizeof(TInteger) == 4 && sizeof(T) == 8)
        {
            Xmm.Low<double>(s, op->Dst) = value; // always exact
            return true;
        }
        var run = new VectorFloatRun(s->Mxcsr);
        run.Set<T>(0, SoftFloat.Convert(Real.FromInteger(value), VectorFloatRun.Format<T>(), ref run.Env));
        return run.Commit<T>(s, op, 1);
    }

    public static bool ToGeneral<T, TInteger>(CpuState* s, Op* op) where T : unmanaged where TInteger : unmanaged =>
        ToGeneral<T, TInteger>(s, op, truncate: false);

    public static bool ToGeneralTruncated<T, TInteger>(CpuState* s, Op* op) where T : unmanaged where TInteger : unmanaged =>
        ToGeneral<T, TInteger>(s, op, truncate: true);

    private static bool ToGeneral<T, TInteger>(CpuState* s, Op* op, bool truncate) where T : unmanaged where TInteger : unmanaged
    {
        if (!VectorSource.Read(s, op, out var b)) return false;
        var run = new VectorFloatRun(s->Mxcsr);
        var value = SoftFloat.ToInteger(VectorFloatRun.Get<T>(b, 0), sizeof(TInteger) * 8, RoundingOf(run, truncate), ref run.Env);
        if (!run.Finish(s, op)) return false;
        if (sizeof(TInteger) == 4) Reg.Set(s, op->Dst, (uint)value);
        else Reg.Set(s, op->Dst, (ulong)value);
        return true;
    }

    /// <summary>CVTDQ2PS and CVTPI2PS: <typeparamref name="TLanes"/> 32-bit integers to singles.</summary>
    public static bool IntegersToSingles<TLanes>(CpuState* s, Op* op) where TLanes : struct, IConversionLanes
    {
        if (!VectorSource.Read(s, op, out var b)) return false;
        var run = new VectorFloatRun(s->Mxcsr);
        for (var lane = 0; lane < TLanes.Count; lane++)
        {
            run.Set<float>(lane, SoftFloat.Convert(Real.FromInteger(b.AsInt32().GetElement(lane)), FpFormat.Single, ref run.Env));
            run.EndLane();
        }
        if (run.Commit<float>(s, op, TLanes.Count)) return true;
        if ((op->Aux & VectorSource.MmxRegister) != 0) EnterMmxAtFault(s);
        return false;
    }

    /// <summary>The step from x87 to MMX comes before the conversion and stands when that raises #XM.</summary>
    private static void EnterMmxAtFault(CpuState* s)
    {
        if (s->Abort != Abort.Exception || s->ExceptionVector != Vector.Xm) return;
        s->FpuTop = 0;
        s->FpuEmpty = 0;
    }

    /// <summary>CVTDQ2PD, CVTPI2PD: exact.</summary>
    public static bool IntegersToDoubles(CpuState* s, Op* op)
    {
        if (!VectorSource.Read(s, op, out var b)) return false;
        Xmm.At(s, op->Dst) = Vector128.Create((double)b.AsInt32().GetElement(0), b.AsInt32().GetElement(1)).AsByte();
        return true;
    }

    /// <summary>CVTPS2DQ, CVTTPS2DQ, CVTPD2DQ, CVTTPD2DQ: the rest of the destination becomes zero.</summary>
    public static bool ToIntegers<T, TTruncate>(CpuState* s, Op* op) where T : unmanaged where TTruncate : struct, ITruncate
    {
        if (!ComputeIntegers<T>(s, op, TTruncate.Value, 16 / sizeof(T), out var run)) return false;
        Xmm.At(s, op->Dst) = run.Result;
        return true;
    }

    /// <summary>CVTPS2PI, CVTPD2PI and their truncating forms: two integers to an MMX register.</summary>
    public static bool ToMmx<T, TTruncate>(CpuState* s, Op* op) where T : unmanaged where TTruncate : struct, ITruncate
    {
        if (!ComputeIntegers<T>(s, op, TTruncate.Value, 2, out var run))
        {
            EnterMmxAtFault(s);
            return false;
        }
        Xmm.Mm(s, op->Dst) = run.Result.AsUInt64().ToScalar();
        return true;
    }

    private static bool ComputeIntegers<T>(CpuState* s, Op* op, bool truncate, int lanes, out VectorFloatRun run) where T : unmanaged
    {
        run = new VectorFloatRun(s->Mxcsr);
        if (!VectorSource.Read(s, op, out var b)) return false;
        for (var lane = 0; lane < lanes; lane++)
        {
            run.SetBits(lane, (uint)SoftFloat.ToInteger(VectorFloatRun.Get<T>(b, lane), 32, RoundingOf(run, truncate), ref run.Env));
            run.EndLane();
        }
        return run.Finish(s, op);
    }

    /// <summary>CVTSS2SD, CVTSD2SS: low element, the rest of the destination stays.</summary>
    public static bool ScalarTo<TFrom, TTo>(CpuState* s, Op* op) where TFrom : unmanaged where TTo : unmanaged
    {
        if (!VectorSource.Read(s, op, out var b)) return false;
        if (sizeof(TFrom) == 4 && HostFloat.NormalOrZero(b.AsSingle().ToScalar()))
        {
            Xmm.Low<double>(s, op->Dst) = b.AsSingle().ToScalar();
            return true;
        }
        var run = new VectorFloatRun(s->Mxcsr);
        run.Set<TTo>(0, SoftFloat.Convert(VectorFloatRun.Get<TFrom>(b, 0), VectorFloatRun.Format<TTo>(), ref run.Env));
        return run.Commit<TTo>(s, op, 1);
    }

    /// <summary>CVTPS2PD, CVTPD2PS: two elements, the rest of the destination becomes zero.</summary>
    public static bool PackedTo<TFrom, TTo>(CpuState* s, Op* op) where TFrom : unmanaged where TTo : unmanaged
    {
        if (!VectorSource.Read(s, op, out var b)) return false;
        var run = new VectorFloatRun(s->Mxcsr);
        for (var lane = 0; lane < 2; lane++)
        {
            run.Set<TTo>(lane, SoftFloat.Convert(VectorFloatRun.Get<TFrom>(b, lane), VectorFloatRun.Format<TTo>(), ref run.Env));
            run.EndLane();
        }
        if (!run.Finish(s, op)) return false;
        Xmm.At(s, op->Dst) = run.Result;
        return true;
    }
}

/// <summary>Lane count of a conversion.</summary>
internal interface IConversionLanes
{
    static abstract int Count { get; }
}

internal readonly struct TwoLanes : IConversionLanes
{
    public static int Count => 2;
}

internal readonly struct FourLanes : IConversionLanes
{
    public static int Count => 4;
}

/// <summary>Whether a conversion truncates (CVTT...) or rounds as MXCSR says.</summary>
internal interface ITruncate
{
    static abstract bool Value { get; }
}

internal readonly struct Truncating : ITruncate
{
    public static bool Value => true;
}

internal readonly struct AsMxcsrSays : ITruncate
{
    public static bool Value => false;
}
