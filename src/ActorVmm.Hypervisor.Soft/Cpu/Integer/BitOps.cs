using System.Numerics;
using System.Runtime.CompilerServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>What BT, BTS, BTR, BTC do to the bit.</summary>
internal enum BitAction
{
    Test = 0,
    Set = 1,
    Reset = 2,
    Complement = 3,
}

/// <summary>BT and its kin, BSF, BSR, XADD, CMPXCHG, CMPXCHG8B/16B.</summary>
internal static unsafe class BitOps
{
    private const MethodImplOptions Hot = MethodImplOptions.AggressiveOptimization;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static long Apply(BitAction action, long value, long mask) => action switch
    {
        BitAction.Set => value | mask,
        BitAction.Reset => value & ~mask,
        BitAction.Complement => value ^ mask,
        _ => value,
    };

    /// <summary>Only CF changes: the others are kept (they are undefined but for ZF).</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void SetCarry(CpuState* s, bool carry) => Flags.SetArithmetic(s, (Flags.GetArithmetic(s) & ~Flags.Cf) | (carry ? 1u : 0));

    /// <summary>Register operand; bit number from <c>Src</c> plus <c>Imm</c>; <c>Aux</c> is the action.</summary>
    [MethodImpl(Hot)]
    public static void Reg<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var bit = (int)(*(long*)((byte*)s + op->Src) + op->Imm) & (Width<T>.Bits - 1);
        var value = Width<T>.Get(s, op->Dst);
        SetCarry(s, ((value >> bit) & 1) != 0);
        if (op->Aux != 0) Width<T>.Set(s, op->Dst, Apply((BitAction)op->Aux, value, 1L << bit));
        op[1].Fn(s, op + 1);
    }

    /// <summary>Memory operand; a register bit number reaches beyond the operand (bit string addressing). Aux bit 2 = locked, bit 3 = 32-bit address.</summary>
    [MethodImpl(Hot)]
    public static void Memory<T>(CpuState* s, Op* op) where T : unmanaged
    {
        if (!MemorySlow<T>(s, op)) return;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static bool MemorySlow<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var address = AtAny.Of(s, op);
        int bit;
        if (op->Src == CpuState.ZeroRegister)
        {
            bit = (int)op->Imm & (Width<T>.Bits - 1);
        }
        else
        {
            var index = Width<T>.Get(s, op->Src);
            bit = (int)index & (Width<T>.Bits - 1);
            address += (ulong)((index >> (sizeof(T) == 2 ? 4 : sizeof(T) == 4 ? 5 : 6)) * sizeof(T));
            if ((op->Aux & 8) != 0) address = (uint)address;
        }
        var mask = 1L << bit;
        var action = (BitAction)(op->Aux & 3);
        long value;
        if (action == BitAction.Test)
        {
            value = Width<T>.Read(s, op, address);
            if (s->Abort != Abort.None) return false;
        }
        else if ((op->Aux & 4) != 0)
        {
            var p = Locked.Pointer<T>(s, op, address);
            if (p == null) return false;
            do value = Width<T>.Load(p);
            while (!Width<T>.CompareExchange(p, Apply(action, value, mask), value));
            if (!Locked.Finish<T>(s, op, address, p)) return false;
        }
        else
        {
            value = Width<T>.Extend((long)Mem.ReadForWrite(s, op, address, sizeof(T)));
            if (s->Abort != Abort.None) return false;
            Mem.Write(s, op, address, Apply(action, value, mask), sizeof(T));
            if (s->Abort != Abort.None) return false;
        }
        SetCarry(s, (value & mask) != 0);
        return true;
    }

    /// <summary>BSF (<c>Aux</c> 0) and BSR (1): a zero source sets ZF and keeps the destination, as all 64-bit silicon does.</summary>
    [MethodImpl(Hot)]
    public static void Scan<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var value = Width<T>.Zero(Width<T>.Get(s, op->Src));
        if (value == 0)
        {
            Flags.SetArithmetic(s, Flags.Zf | Flags.Pf);
        }
        else
        {
            var index = op->Aux == 0 ? BitOperations.TrailingZeroCount(value) : 63 - BitOperations.LeadingZeroCount(value);
            Width<T>.Set(s, op->Dst, index);
            Flags.SetArithmetic(s, (BitOperations.PopCount((uint)index) & 1) == 0 ? Flags.Pf : 0);
        }
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void SetFlags(CpuState* s, FlagKind kind, long a, long b, long r)
    {
        s->FlagA = a;
        s->FlagB = b;
        s->FlagR = r;
        s->FlagKind = kind;
    }

    [MethodImpl(Hot)]
    public static void ExchangeAddReg<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var a = Width<T>.Get(s, op->Dst);
        var b = Width<T>.Get(s, op->Src);
        var r = Width<T>.Extend(a + b);
        Width<T>.Set(s, op->Src, a);
        Width<T>.Set(s, op->Dst, r);
        SetFlags(s, FlagKind.Add, a, b, r);
        op[1].Fn(s, op + 1);
    }

    /// <summary>XADD with memory; performed atomically whether locked or not.</summary>
    [MethodImpl(Hot)]
    public static void ExchangeAddMem<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var address = AtAny.Of(s, op);
        var p = Locked.Pointer<T>(s, op, address);
        if (p == null) return;
        var b = Width<T>.Get(s, op->Src);
        long a, r;
        do
        {
            a = Width<T>.Load(p);
            r = Width<T>.Extend(a + b);
        }
        while (!Width<T>.CompareExchange(p, r, a));
        if (!Locked.Finish<T>(s, op, address, p)) return;
        Width<T>.Set(s, op->Src, a);
        SetFlags(s, FlagKind.Add, a, b, r);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void CompareExchangeReg<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var a = Width<T>.Get(s, 0);
        var old = Width<T>.Get(s, op->Dst);
        if (a == old)
        {
            Width<T>.Set(s, op->Dst, Width<T>.Get(s, op->Src));
        }
        else
        {
            Width<T>.Set(s, 0, old);
        }
        SetFlags(s, FlagKind.Sub, a, old, Width<T>.Extend(a - old));
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void CompareExchangeMem<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var address = AtAny.Of(s, op);
        var p = Locked.Pointer<T>(s, op, address);
        if (p == null) return;
        var a = Width<T>.Get(s, 0);
        var value = Width<T>.Get(s, op->Src);
        long old;
        while (true)
        {
            old = Width<T>.Load(p);
            if (old != a || Width<T>.CompareExchange(p, value, old)) break;
        }
        if (!Locked.Finish<T>(s, op, address, p)) return;
        if (old != a) Width<T>.Set(s, 0, old);
        SetFlags(s, FlagKind.Sub, a, old, Width<T>.Extend(a - old));
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void CompareExchange8B(CpuState* s, Op* op)
    {
        var address = AtAny.Of(s, op);
        var p = Locked.Pointer<ulong>(s, op, address);
        if (p == null) return;
        var expected = (long)((s->Regs[2] << 32) | (uint)s->Regs[0]);
        var value = (long)((s->Regs[3 + 0] & 0xFFFF_FFFF) | (s->Regs[1] << 32));
        long old;
        while (true)
        {
            old = *(long*)p;
            if (old != expected || Width<ulong>.CompareExchange(p, value, old)) break;
        }
        if (!Locked.Finish<ulong>(s, op, address, p)) return;
        if (old != expected)
        {
            s->Regs[0] = (uint)old;
            s->Regs[2] = (uint)(old >> 32);
        }
        Flags.Change(s, Flags.Zf, old == expected ? Flags.Zf : 0);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void CompareExchange16B(CpuState* s, Op* op)
    {
        if (!SoftCpu.Of(s).CompareExchange16(op, AtAny.Of(s, op))) return;
        op[1].Fn(s, op + 1);
    }
}
