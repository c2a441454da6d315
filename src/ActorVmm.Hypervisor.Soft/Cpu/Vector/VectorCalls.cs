using System.Runtime.Intrinsics;
using V = System.Runtime.Intrinsics.Vector128<byte>;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>The source operand of instructions that run through <see cref="Packed.Call"/>, described in the op's Aux.</summary>
internal static unsafe class VectorSource
{
    /// <summary>Bits 0-7: immediate. Bits 8-12: size of a memory operand, 0 for a register. Then the two flags.</summary>
    public const int SizeShift = 8;
    public const ushort Unaligned = 1 << 13, MmxRegister = 1 << 14;

    public static byte Immediate(Op* op) => (byte)op->Aux;

    public static int MemorySize(Op* op) => (op->Aux >> SizeShift) & 31;

    /// <summary>Reads it, zero-extended to 16 bytes. False after a fault.</summary>
    public static bool Read(CpuState* s, Op* op, out V value)
    {
        var size = MemorySize(op);
        if (size == 0)
        {
            value = (op->Aux & MmxRegister) != 0 ? Vector128.CreateScalar(Xmm.Mm(s, op->Src)).AsByte() : Xmm.At(s, op->Src);
            return true;
        }
        var at = AtAny.Of(s, op);
        value = default;
        if (size == 16)
        {
            if ((at & 15) != 0 && (op->Aux & Unaligned) == 0)
            {
                Flow.Raise(s, op, Vector.Gp, 0);
                return false;
            }
            var low = Mem.Read<ulong>(s, op, at);
            if (s->Abort != Abort.None) return false;
            var high = Mem.Read<ulong>(s, op, at + 8);
            value = Vector128.Create(low, high).AsByte();
        }
        else
        {
            var scalar = size switch
            {
                8 => Mem.Read<ulong>(s, op, at),
                4 => Mem.Read<uint>(s, op, at),
                2 => Mem.Read<ushort>(s, op, at),
                _ => Mem.Read<byte>(s, op, at),
            };
            value = Vector128.CreateScalar(scalar).AsByte();
        }
        return s->Abort == Abort.None;
    }
}

/// <summary>Compares, conversions, rounding, horizontal and dot-product arithmetic of SSE to SSE4.1.</summary>
internal static unsafe class FloatCalls
{
    /// <summary>CMPPS, CMPPD, CMPSS, CMPSD. Dst lanes are chosen by <typeparamref name="TLanes"/>.</summary>
    public static bool Compare<T, TLanes>(CpuState* s, Op* op) where T : unmanaged where TLanes : struct, ILanes
    {
        if (!VectorSource.Read(s, op, out var b)) return false;
        var a = Xmm.At(s, op->Dst);
        var predicate = VectorSource.Immediate(op) & 7;
        var run = new VectorFloatRun(s->Mxcsr);
        var lanes = TLanes.Of<T>();
        for (var lane = 0; lane < lanes; lane++)
        {
            // LT, LE, NLT, NLE signal for quiet NaNs.
            var order = SoftFloat.Compare(VectorFloatRun.Get<T>(a, lane), VectorFloatRun.Get<T>(b, lane), (predicate & 3) is 1 or 2,
                ref run.Env);
            var holds = (predicate & 3) switch
            {
                0 => order == FpOrder.Equal,
                1 => order == FpOrder.Less,
                2 => order is FpOrder.Less or FpOrder.Equal,
                _ => order == FpOrder.Unordered,
            };
            if ((predicate & 4) != 0) holds = !holds;
            if (sizeof(T) == 4) run.SetBits(lane, holds ? uint.MaxValue : 0);
            else run.SetBits(lane, holds ? ulong.MaxValue : 0);
            run.EndLane();
        }
        return run.Commit<T>(s, op, lanes);
    }

    public static bool Comis<T>(CpuState* s, Op* op) where T : unmanaged => CompareFlags<T>(s, op, quietNaNsSignal: true);

    public static bool Ucomis<T>(CpuState* s, Op* op) where T : unmanaged => CompareFlags<T>(s, op, quietNaNsSignal: false);

    private static bool CompareFlags<T>(CpuState* s, Op* op, bool quietNaNsSignal) where T : unmanaged
    {
        if (!VectorSource.Read(s, op, out var b)) return false;
        var a = Xmm.At(s, op->Dst);
        FpOrder order;
        var (x, y) = sizeof(T) == 4
            ? (a.AsSingle().ToScalar(), b.AsSingle().ToScalar())
            : (a.AsDouble().ToScalar(), b.AsDouble().ToScalar());
        var tame = sizeof(T) == 4
            ? HostFloat.NormalOrZero(a.AsSingle().ToScalar()) && HostFloat.NormalOrZero(b.AsSingle().ToScalar())
            : HostFloat.NormalOrZero(x) && HostFloat.NormalOrZero(y);
        if (tame)
        {
            order = x < y ? FpOrder.Less : x == y ? FpOrder.Equal : FpOrder.Greater;
        }
        else
        {
            var run = new VectorFloatRun(s->Mxcsr);
            order = SoftFloat.Compare(VectorFloatRun.Get<T>(a, 0), VectorFloatRun.Get<T>(b, 0), quietNaNsSignal, ref run.Env);
            if (!run.Finish(s, op)) return false;
        }
        Flags.SetArithmetic(s, order switch
        {
            FpOrder.Unordered => Flags.Zf | Flags.Pf | Flags.Cf,
            FpOrder.Less => Flags.Cf,
            FpOrder.Equal => Flags.Zf,
            _ => 0,
        });
        return true;
    }

    /// <summary>ROUNDPS, ROUNDPD, ROUNDSS, ROUNDSD: immediate bit 2 takes MXCSR.RC, bit 3 hides the precision exception.</summary>
    public static bool RoundTo<T, TLanes>(CpuState* s, Op* op) where T : unmanaged where TLanes : struct, ILanes
    {
        if (!VectorSource.Read(s, op, out var b)) return false;
        var immediate = VectorSource.Immediate(op);
        var run = new VectorFloatRun(s->Mxcsr);
        var rounding = (immediate & 4) != 0 ? run.Env.Rounding : (Rounding)(immediate & 3);
        var lanes = TLanes.Of<T>();
        for (var lane = 0; lane < lanes; lane++)
        {
            var value = VectorFloatRun.Get<T>(b, lane);
            // No denormal exception here, but DAZ counts.
            if (value.Denormal) value = run.Env.DenormalsAreZero ? Real.Zero(value.Negative) : value with { Denormal = false };
            run.Set<T>(lane, SoftFloat.RoundToIntegral(value, rounding, ref run.Env));
            if ((immediate & 8) != 0) run.Env.Flags &= ~FpFlags.Precision;
            run.EndLane();
        }
        return run.Commit<T>(s, op, lanes);
    }

    /// <summary>ADDSUBPS, ADDSUBPD: even lanes subtract.</summary>
    public static bool AddSub<T>(CpuState* s, Op* op) where T : unmanaged
    {
        if (!VectorSource.Read(s, op, out var b)) return false;
        var a = Xmm.At(s, op->Dst);
        var run = new VectorFloatRun(s->Mxcsr);
        for (var lane = 0; lane < 16 / sizeof(T); lane++)
        {
            var (x, y) = (VectorFloatRun.Get<T>(a, lane), VectorFloatRun.Get<T>(b, lane));
            run.Set<T>(lane, (lane & 1) == 0
                ? SoftFloat.Subtract(x, y, VectorFloatRun.Format<T>(), ref run.Env)
                : SoftFloat.Add(x, y, VectorFloatRun.Format<T>(), ref run.Env));
            run.EndLane();
        }
        return run.Commit<T>(s, op, 16 / sizeof(T));
    }

    public static bool HorizontalAdd<T>(CpuState* s, Op* op) where T : unmanaged => Horizontal<T>(s, op, subtract: false);

    public static bool HorizontalSub<T>(CpuState* s, Op* op) where T : unmanaged => Horizontal<T>(s, op, subtract: true);

    private static bool Horizontal<T>(CpuState* s, Op* op, bool subtract) where T : unmanaged
    {
        if (!VectorSource.Read(s, op, out var b)) return false;
        var a = Xmm.At(s, op->Dst);
        var run = new VectorFloatRun(s->Mxcsr);
        var lanes = 16 / sizeof(T);
        for (var lane = 0; lane < lanes; lane++)
        {
            var from = lane < lanes / 2 ? a : b;
            var pair = lane * 2 % lanes;
            var (x, y) = (VectorFloatRun.Get<T>(from, pair), VectorFloatRun.Get<T>(from, pair + 1));
            run.Set<T>(lane, subtract
                ? SoftFloat.Subtract(x, y, VectorFloatRun.Format<T>(), ref run.Env)
                : SoftFloat.Add(x, y, VectorFloatRun.Format<T>(), ref run.Env));
            run.EndLane();
        }
        return run.Commit<T>(s, op, lanes);
    }

    /// <summary>
    /// DPPS, DPPD: products chosen by the upper immediate bits, summed pairwise, delivered to lanes chosen by the lower ones.
    /// </summary>
    public static bool DotProduct<T>(CpuState* s, Op* op) where T : unmanaged
    {
        if (!VectorSource.Read(s, op, out var b)) return false;
        var a = Xmm.At(s, op->Dst);
        var immediate = VectorSource.Immediate(op);
        var run = new VectorFloatRun(s->Mxcsr);
        var format = VectorFloatRun.Format<T>();
        var lanes = 16 / sizeof(T);
        Span<Real> products = stackalloc Real[4];
        for (var lane = 0; lane < lanes; lane++)
        {
            products[lane] = ((immediate >> (4 + lane)) & 1) == 0
                ? Real.Zero(false)
                : Reload<T>(SoftFloat.Multiply(VectorFloatRun.Get<T>(a, lane), VectorFloatRun.Get<T>(b, lane), format, ref run.Env));
            run.EndLane();
        }
        if (run.MustStop) return run.Finish(s, op);
        run.EndStep();
        var sum = Reload<T>(SoftFloat.Add(products[0], products[1], format, ref run.Env));
        if (lanes == 4)
        {
            var upper = Reload<T>(SoftFloat.Add(products[2], products[3], format, ref run.Env));
            if (run.MustStop) return run.Finish(s, op);
            run.EndStep();
            sum = SoftFloat.Add(sum, upper, format, ref run.Env);
        }
        for (var lane = 0; lane < lanes; lane++) run.Set<T>(lane, ((immediate >> lane) & 1) != 0 ? sum : Real.Zero(false));
        return run.Commit<T>(s, op, lanes);
    }

    /// <summary>An intermediate result as the next step sees it: denormal numbers are denormal operands again.</summary>
    private static Real Reload<T>(in Real value) where T : unmanaged =>
        sizeof(T) == 4 ? Real.FromSingle(value.ToSingle()) : Real.FromDouble(value.ToDouble());

    /// <summary>
    /// RCPPS, RCPSS, RSQRTPS, RSQRTSS. The architecture asks for a relative error of at most 1.5 * 2^-12 and raises nothing; processors
    /// differ in the bits. This gives the correctly rounded value, the same on every host.
    /// </summary>
    public static bool Reciprocal<TLanes>(CpuState* s, Op* op) where TLanes : struct, ILanes => Approximate<TLanes>(s, op, root: false);

    public static bool ReciprocalRoot<TLanes>(CpuState* s, Op* op) where TLanes : struct, ILanes => Approximate<TLanes>(s, op, root: true);

    private static bool Approximate<TLanes>(CpuState* s, Op* op, bool root) where TLanes : struct, ILanes
    {
        if (!VectorSource.Read(s, op, out var b)) return false;
        // Masked, denormals are zero, tiny results are zero: none of it depends on MXCSR.
        var env = FpEnvironment.FromMxcsr(0x9FC0);
        var one = Real.FromInteger(1);
        for (var lane = 0; lane < TLanes.Of<float>(); lane++)
        {
            var value = Real.FromSingle(b.AsUInt32().GetElement(lane));
            if (root) value = SoftFloat.SquareRoot(value, FpFormat.Extended, ref env);
            Xmm.At(s, op->Dst) = Xmm.At(s, op->Dst).AsUInt32()
                .WithElement(lane, SoftFloat.Divide(one, value, FpFormat.Single, ref env).ToSingle()).AsByte();
        }
        return true;
    }
}

/// <summary>How many elements of a type an instruction works on: all, or the lowest.</summary>
internal interface ILanes
{
    static abstract int Of<T>() where T : unmanaged;
}

internal readonly struct AllLanes : ILanes
{
    public static unsafe int Of<T>() where T : unmanaged => 16 / sizeof(T);
}

internal readonly struct OneLane : ILanes
{
    public static int Of<T>() where T : unmanaged => 1;
}
