using System.Runtime.CompilerServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>MUL, IMUL, DIV, IDIV. The one-operand forms take their operand from a register or (via <c>ReadOperand</c>) from memory.</summary>
internal static unsafe class MulDivOps
{
    private const MethodImplOptions Hot = MethodImplOptions.AggressiveOptimization;

    /// <summary>Loads the memory operand of the next op into the temporary register.</summary>
    [MethodImpl(Hot)]
    public static void ReadOperand<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var value = Width<T>.Read(s, op, AtAny.Of(s, op));
        if (s->Abort != Abort.None) return;
        s->Regs[17] = (ulong)value;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void Mul<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var a = Width<T>.Zero(Width<T>.Get(s, 0));
        var b = Width<T>.Zero(Width<T>.Get(s, op->Src));
        ulong low, high;
        if (sizeof(T) == 8)
        {
            var wide = (UInt128)a * b;
            low = (ulong)wide;
            high = (ulong)(wide >> 64);
        }
        else
        {
            low = a * b;
            high = low >> Width<T>.Bits;
        }
        SetProduct<T>(s, (long)low, (long)high);
        var overflow = high != 0 ? 1 : 0;
        ShiftOps.SetBits(s, Width<T>.Extend((long)low), overflow, overflow);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void Imul<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var a = Width<T>.Get(s, 0);
        var b = Width<T>.Get(s, op->Src);
        long low, high;
        if (sizeof(T) == 8)
        {
            high = (long)Math.BigMul(a, b, out low);
        }
        else
        {
            low = a * b;
            high = low >> Width<T>.Bits;
            low = Width<T>.Extend(low);
        }
        SetProduct<T>(s, low, high);
        var overflow = high != low >> 63 ? 1 : 0;
        ShiftOps.SetBits(s, low, overflow, overflow);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void SetProduct<T>(CpuState* s, long low, long high) where T : unmanaged
    {
        if (sizeof(T) == 1)
        {
            *(ushort*)s = (ushort)((byte)low | (high << 8));
            return;
        }
        Width<T>.Set(s, 0, low);
        Width<T>.Set(s, 2 * 8, high);
    }

    /// <summary>IMUL r, r.</summary>
    [MethodImpl(Hot)]
    public static void ImulReg<T, TF>(CpuState* s, Op* op) where T : unmanaged where TF : struct, IFlagPolicy
    {
        Width<T>.Set(s, op->Dst, Truncated<T, TF>(s, Width<T>.Get(s, op->Dst), Width<T>.Get(s, op->Src)));
        op[1].Fn(s, op + 1);
    }

    /// <summary>IMUL r, r, imm.</summary>
    [MethodImpl(Hot)]
    public static void ImulImm<T, TF>(CpuState* s, Op* op) where T : unmanaged where TF : struct, IFlagPolicy
    {
        Width<T>.Set(s, op->Dst, Truncated<T, TF>(s, Width<T>.Get(s, op->Src), op->Imm));
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static long Truncated<T, TF>(CpuState* s, long a, long b) where T : unmanaged where TF : struct, IFlagPolicy
    {
        var r = Width<T>.Extend(a * b);
        if (!TF.Keep) return r;
        long overflow = sizeof(T) == 8
            ? Math.BigMul(a, b, out _) != r >> 63 ? 1 : 0
            : a * b != r ? 1 : 0;
        ShiftOps.SetBits(s, r, overflow, overflow);
        return r;
    }

    [MethodImpl(Hot)]
    public static void Div<T>(CpuState* s, Op* op) where T : unmanaged
    {
        if (!Divide<T>(s, op)) return;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void Idiv<T>(CpuState* s, Op* op) where T : unmanaged
    {
        if (!DivideSigned<T>(s, op)) return;
        op[1].Fn(s, op + 1);
    }

    private static bool Divide<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var divisor = Width<T>.Zero(Width<T>.Get(s, op->Src));
        if (divisor == 0) return Error(s, op);
        if (sizeof(T) == 8)
        {
            var high = s->Regs[2];
            if (high >= divisor) return Error(s, op);
            if (high == 0)
            {
                var (quotient, remainder) = Math.DivRem(s->Regs[0], divisor);
                (s->Regs[0], s->Regs[2]) = (quotient, remainder);
                return true;
            }
            var dividend = new UInt128(high, s->Regs[0]);
            var q = dividend / divisor;
            s->Regs[2] = (ulong)(dividend - q * divisor);
            s->Regs[0] = (ulong)q;
            return true;
        }
        var wide = sizeof(T) == 1 ? *(ushort*)s : (Width<T>.Zero((long)s->Regs[2]) << Width<T>.Bits) | Width<T>.Zero((long)s->Regs[0]);
        var result = wide / divisor;
        if (result >> Width<T>.Bits != 0) return Error(s, op);
        SetQuotient<T>(s, (long)result, (long)(wide % divisor));
        return true;
    }

    private static bool DivideSigned<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var divisor = Width<T>.Get(s, op->Src);
        if (divisor == 0) return Error(s, op);
        if (sizeof(T) == 8)
        {
            var dividend = new Int128(s->Regs[2], s->Regs[0]);
            if (divisor == -1 && dividend == Int128.MinValue) return Error(s, op);
            var q = dividend / divisor;
            if (q > long.MaxValue || q < long.MinValue) return Error(s, op);
            s->Regs[2] = (ulong)(long)(dividend - q * divisor);
            s->Regs[0] = (ulong)(long)q;
            return true;
        }
        var wide = sizeof(T) == 1 ? *(short*)s
            : sizeof(T) == 2 ? (int)(((uint)s->Regs[2] << 16) | (ushort)s->Regs[0])
            : (long)((s->Regs[2] << 32) | (uint)s->Regs[0]);
        if (divisor == -1 && wide == long.MinValue) return Error(s, op);
        var result = wide / divisor;
        if (Width<T>.Extend(result) != result) return Error(s, op);
        SetQuotient<T>(s, result, wide % divisor);
        return true;
    }

    private static void SetQuotient<T>(CpuState* s, long quotient, long remainder) where T : unmanaged
    {
        if (sizeof(T) == 1)
        {
            *(ushort*)s = (ushort)((byte)quotient | ((byte)remainder << 8));
            return;
        }
        Width<T>.Set(s, 0, quotient);
        Width<T>.Set(s, 2 * 8, remainder);
    }

    private static bool Error(CpuState* s, Op* op)
    {
        Flow.Raise(s, op, Vector.De);
        return false;
    }
}
