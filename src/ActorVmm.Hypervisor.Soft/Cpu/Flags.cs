using System.Numerics;
using System.Runtime.CompilerServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// How the arithmetic flags follow from FlagA, FlagB and FlagR. Operands and results are kept sign-extended to 64 bits: that keeps signed
/// and unsigned order, so no flag needs to know the operand size.
/// </summary>
internal enum FlagKind
{
    /// <summary>FlagA holds CF PF AF ZF SF OF at their RFLAGS places.</summary>
    Raw = 0,

    /// <summary>CF = FlagA (0/1), OF = FlagB (0/1), AF = 0; ZF SF PF from FlagR (shifts, multiplications).</summary>
    Bits,

    /// <summary>CF = OF = AF = 0; ZF SF PF from FlagR.</summary>
    Logic,

    /// <summary>FlagR = FlagA + FlagB (+ carry).</summary>
    Add,

    /// <summary>FlagR = FlagA - FlagB (- borrow).</summary>
    Sub,

    /// <summary>FlagR = FlagA + 1; CF = FlagB (0/1).</summary>
    Inc,

    /// <summary>FlagR = FlagA - 1; CF = FlagB (0/1).</summary>
    Dec,
}

/// <summary>Reading and writing RFLAGS over the lazy form.</summary>
internal static unsafe class Flags
{
    public const uint Cf = 1, Pf = 4, Af = 0x10, Zf = 0x40, Sf = 0x80, Tf = 0x100, If = 0x200, Df = 0x400, Of = 0x800;
    public const uint Iopl = 0x3000, Nt = 0x4000, Rf = 0x10000, Vm = 0x20000, Ac = 0x40000, Vif = 0x80000, Vip = 0x100000, Id = 0x200000;
    public const uint Arithmetic = Cf | Pf | Af | Zf | Sf | Of;

    public static bool Carry(CpuState* s) => s->FlagKind switch
    {
        FlagKind.Sub => (ulong)((~s->FlagA & s->FlagB) | ((~s->FlagA | s->FlagB) & s->FlagR)) >> 63 != 0,
        FlagKind.Logic => false,
        FlagKind.Add => (ulong)((s->FlagA & s->FlagB) | ((s->FlagA | s->FlagB) & ~s->FlagR)) >> 63 != 0,
        FlagKind.Bits => s->FlagA != 0,
        FlagKind.Inc or FlagKind.Dec => s->FlagB != 0,
        _ => (s->FlagA & Cf) != 0,
    };

    public static bool Overflow(CpuState* s) => s->FlagKind switch
    {
        FlagKind.Sub => ((s->FlagA ^ s->FlagB) & (s->FlagA ^ s->FlagR)) < 0,
        FlagKind.Logic => false,
        FlagKind.Add => ((s->FlagA ^ s->FlagR) & (s->FlagB ^ s->FlagR)) < 0,
        FlagKind.Bits => s->FlagB != 0,
        FlagKind.Inc => (~s->FlagA & s->FlagR) < 0,
        FlagKind.Dec => (s->FlagA & ~s->FlagR) < 0,
        _ => (s->FlagA & Of) != 0,
    };

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool Zero(CpuState* s) => s->FlagKind == FlagKind.Raw ? (s->FlagA & Zf) != 0 : s->FlagR == 0;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool Sign(CpuState* s) => s->FlagKind == FlagKind.Raw ? (s->FlagA & Sf) != 0 : s->FlagR < 0;

    public static bool Parity(CpuState* s) =>
        s->FlagKind == FlagKind.Raw ? (s->FlagA & Pf) != 0 : (BitOperations.PopCount((byte)s->FlagR) & 1) == 0;

    public static bool Adjust(CpuState* s) => s->FlagKind switch
    {
        FlagKind.Add or FlagKind.Sub => ((s->FlagA ^ s->FlagB ^ s->FlagR) & 0x10) != 0,
        FlagKind.Inc or FlagKind.Dec => ((s->FlagA ^ s->FlagR) & 0x10) != 0,
        FlagKind.Raw => (s->FlagA & Af) != 0,
        _ => false,
    };

    /// <summary>CF PF AF ZF SF OF at their RFLAGS places.</summary>
    public static uint GetArithmetic(CpuState* s)
    {
        if (s->FlagKind == FlagKind.Raw) return (uint)s->FlagA;
        return (Carry(s) ? Cf : 0) | (Parity(s) ? Pf : 0) | (Adjust(s) ? Af : 0) | (Zero(s) ? Zf : 0) | (Sign(s) ? Sf : 0) | (Overflow(s) ? Of : 0);
    }

    /// <summary>Sets all six arithmetic flags.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void SetArithmetic(CpuState* s, uint flags)
    {
        s->FlagKind = FlagKind.Raw;
        s->FlagA = flags & Arithmetic;
    }

    /// <summary>Replaces some of the arithmetic flags, keeps the others.</summary>
    public static void Change(CpuState* s, uint mask, uint value) => SetArithmetic(s, (GetArithmetic(s) & ~mask) | (value & mask));

    /// <summary>The whole RFLAGS.</summary>
    public static uint Get(CpuState* s) => s->SystemFlags | 2 | GetArithmetic(s);

    /// <summary>Replaces the whole RFLAGS; privilege checks are the caller's.</summary>
    public static void Set(CpuState* s, uint value)
    {
        SetArithmetic(s, value);
        s->SystemFlags = (value & ~Arithmetic & 0x3F7FD7) | 2;
    }
}
