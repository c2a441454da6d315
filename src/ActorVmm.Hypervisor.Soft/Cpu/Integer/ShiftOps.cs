using System.Diagnostics;
using System.Numerics;
using System.Runtime.CompilerServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>A shift or rotate: the new value; flags are left in the state. The count is already masked and not zero.</summary>
internal interface IShift
{
    static abstract unsafe long Calculate<T>(CpuState* s, long value, int count) where T : unmanaged;

    /// <summary>The value alone, where nobody sees the flags.</summary>
    static virtual unsafe long Value<T>(CpuState* s, long value, int count) where T : unmanaged => throw new UnreachableException();

    /// <summary>Whether <see cref="Value"/> exists: RCL and RCR read the carry anyway.</summary>
    static virtual bool HasValue => false;
}

internal readonly unsafe struct Shl : IShift
{
    public static bool HasValue { [MethodImpl(MethodImplOptions.AggressiveInlining)] get => true; }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static long Value<T>(CpuState* s, long value, int count) where T : unmanaged => count >= Width<T>.Bits ? 0 : value << count;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static long Calculate<T>(CpuState* s, long value, int count) where T : unmanaged
    {
        var bits = Width<T>.Bits;
        var r = Width<T>.Extend(count >= bits ? 0 : value << count);
        var carry = count <= bits ? (value >> (bits - count)) & 1 : 0;
        ShiftOps.SetBits(s, r, carry, carry ^ (r < 0 ? 1 : 0));
        return r;
    }
}

internal readonly unsafe struct Shr : IShift
{
    public static bool HasValue { [MethodImpl(MethodImplOptions.AggressiveInlining)] get => true; }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static long Value<T>(CpuState* s, long value, int count) where T : unmanaged => (long)(Width<T>.Zero(value) >> count);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static long Calculate<T>(CpuState* s, long value, int count) where T : unmanaged
    {
        var zero = Width<T>.Zero(value);
        var r = Width<T>.Extend((long)(zero >> count));
        // OF is the sign of the operand for a count of 1, undefined otherwise: the same rule serves both.
        ShiftOps.SetBits(s, r, (long)(zero >> (count - 1)) & 1, value < 0 ? 1 : 0);
        return r;
    }
}

internal readonly unsafe struct Sar : IShift
{
    public static bool HasValue { [MethodImpl(MethodImplOptions.AggressiveInlining)] get => true; }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static long Value<T>(CpuState* s, long value, int count) where T : unmanaged => value >> count;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static long Calculate<T>(CpuState* s, long value, int count) where T : unmanaged
    {
        var r = value >> count;
        ShiftOps.SetBits(s, r, (value >> (count - 1)) & 1, 0);
        return r;
    }
}

internal readonly unsafe struct Rol : IShift
{
    public static bool HasValue { [MethodImpl(MethodImplOptions.AggressiveInlining)] get => true; }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static long Value<T>(CpuState* s, long value, int count) where T : unmanaged => Rotate<T>(value, count);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static long Rotate<T>(long value, int count) where T : unmanaged
    {
        if (sizeof(T) == 8) return (long)BitOperations.RotateLeft((ulong)value, count);
        if (sizeof(T) == 4) return (int)BitOperations.RotateLeft((uint)value, count);
        var (zero, n) = (Width<T>.Zero(value), count & (Width<T>.Bits - 1));
        return (long)((zero << n) | (zero >> (Width<T>.Bits - n)));
    }

    public static long Calculate<T>(CpuState* s, long value, int count) where T : unmanaged
    {
        var bits = Width<T>.Bits;
        var n = count & (bits - 1);
        var zero = Width<T>.Zero(value);
        var r = Width<T>.Extend(n == 0 ? value : (long)((zero << n) | (zero >> (bits - n))));
        var carry = (uint)r & 1;
        Flags.Change(s, Flags.Cf | Flags.Of, carry | (carry != (r < 0 ? 1u : 0) ? Flags.Of : 0));
        return r;
    }
}

internal readonly unsafe struct Ror : IShift
{
    public static bool HasValue { [MethodImpl(MethodImplOptions.AggressiveInlining)] get => true; }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static long Value<T>(CpuState* s, long value, int count) where T : unmanaged => Rol.Rotate<T>(value, Width<T>.Bits - (count & (Width<T>.Bits - 1)));

    public static long Calculate<T>(CpuState* s, long value, int count) where T : unmanaged
    {
        var bits = Width<T>.Bits;
        var n = count & (bits - 1);
        var zero = Width<T>.Zero(value);
        var r = Width<T>.Extend(n == 0 ? value : (long)((zero >> n) | (zero << (bits - n))));
        var second = (r >> (bits - 2)) & 1;
        Flags.Change(s, Flags.Cf | Flags.Of, (r < 0 ? Flags.Cf : 0) | ((r < 0 ? 1 : 0) != second ? Flags.Of : 0));
        return r;
    }
}

internal readonly unsafe struct Rcl : IShift
{
    public static long Calculate<T>(CpuState* s, long value, int count) where T : unmanaged
    {
        var bits = Width<T>.Bits;
        var carry = Flags.Carry(s) ? 1UL : 0;
        var zero = Width<T>.Zero(value);
        for (var n = count % (bits + 1); n > 0; n--)
        {
            var top = (zero >> (bits - 1)) & 1;
            zero = Width<T>.Zero((long)((zero << 1) | carry));
            carry = top;
        }
        var r = Width<T>.Extend((long)zero);
        Flags.Change(s, Flags.Cf | Flags.Of, (uint)carry | (carry != (r < 0 ? 1u : 0) ? Flags.Of : 0));
        return r;
    }
}

internal readonly unsafe struct Rcr : IShift
{
    public static long Calculate<T>(CpuState* s, long value, int count) where T : unmanaged
    {
        var bits = Width<T>.Bits;
        var carry = Flags.Carry(s) ? 1UL : 0;
        var zero = Width<T>.Zero(value);
        for (var n = count % (bits + 1); n > 0; n--)
        {
            var bottom = zero & 1;
            zero = (zero >> 1) | (carry << (bits - 1));
            carry = bottom;
        }
        var r = Width<T>.Extend((long)zero);
        var second = (r >> (bits - 2)) & 1;
        Flags.Change(s, Flags.Cf | Flags.Of, (uint)carry | ((r < 0 ? 1 : 0) != second ? Flags.Of : 0));
        return r;
    }
}

/// <summary>Shifts and rotates by an immediate or CL, on registers and memory; SHLD and SHRD.</summary>
internal static unsafe class ShiftOps
{
    private const MethodImplOptions Hot = MethodImplOptions.AggressiveOptimization;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void SetBits(CpuState* s, long result, long carry, long overflow)
    {
        s->FlagR = result;
        s->FlagA = carry;
        s->FlagB = overflow;
        s->FlagKind = FlagKind.Bits;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static int Count<T>(long raw) where T : unmanaged => (int)raw & (sizeof(T) == 8 ? 63 : 31);

    /// <summary>The count is <c>Imm</c>, decoded to be in range and not zero.</summary>
    [MethodImpl(Hot)]
    public static void RegImm<TOp, T>(CpuState* s, Op* op) where TOp : struct, IShift where T : unmanaged
    {
        Width<T>.Set(s, op->Dst, TOp.Calculate<T>(s, Width<T>.Get(s, op->Dst), (int)op->Imm));
        op[1].Fn(s, op + 1);
    }

    /// <summary>As above with flags that nobody sees.</summary>
    [MethodImpl(Hot)]
    public static void RegImmPlain<TOp, T>(CpuState* s, Op* op) where TOp : struct, IShift where T : unmanaged
    {
        Width<T>.Set(s, op->Dst, TOp.Value<T>(s, Width<T>.Get(s, op->Dst), (int)op->Imm));
        op[1].Fn(s, op + 1);
    }

    /// <summary>The count is CL. A count of zero changes no flag, but a 32-bit register still loses its upper half.</summary>
    [MethodImpl(Hot)]
    public static void RegCl<TOp, T>(CpuState* s, Op* op) where TOp : struct, IShift where T : unmanaged
    {
        var count = Count<T>((long)s->Regs[1]);
        var value = Width<T>.Get(s, op->Dst);
        if (count != 0) value = TOp.Calculate<T>(s, value, count);
        Width<T>.Set(s, op->Dst, value);
        op[1].Fn(s, op + 1);
    }

    /// <summary>Memory by <c>Imm</c>, or by CL where <c>Aux</c> is 1.</summary>
    [MethodImpl(Hot)]
    public static void Mem<TOp, T>(CpuState* s, Op* op) where TOp : struct, IShift where T : unmanaged
    {
        if (!MemSlow<TOp, T>(s, op)) return;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static bool MemSlow<TOp, T>(CpuState* s, Op* op) where TOp : struct, IShift where T : unmanaged
    {
        var address = AtAny.Of(s, op);
        var count = Count<T>(op->Aux == 1 ? (long)s->Regs[1] : op->Imm);
        var value = Width<T>.Extend((long)Cpu.Mem.ReadForWrite(s, op, address, sizeof(T)));
        if (s->Abort != Abort.None) return false;
        if (count == 0) return true;
        var (flagA, flagB, flagR, kind) = (s->FlagA, s->FlagB, s->FlagR, s->FlagKind);
        var r = TOp.Calculate<T>(s, value, count);
        Cpu.Mem.Write(s, op, address, r, sizeof(T));
        if (s->Abort == Abort.None) return true;
        (s->FlagA, s->FlagB, s->FlagR, s->FlagKind) = (flagA, flagB, flagR, kind);
        return false;
    }

    /// <summary>SHLD/SHRD on a register: <c>Aux</c> bit 0 = count in CL, bit 1 = right.</summary>
    [MethodImpl(Hot)]
    public static void DoubleReg<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var count = Count<T>((op->Aux & 1) != 0 ? (long)s->Regs[1] : op->Imm);
        var value = Width<T>.Get(s, op->Dst);
        if (count != 0) value = Double<T>(s, op, value, count);
        Width<T>.Set(s, op->Dst, value);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void DoubleMem<T>(CpuState* s, Op* op) where T : unmanaged
    {
        if (!DoubleMemSlow<T>(s, op)) return;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static bool DoubleMemSlow<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var address = AtAny.Of(s, op);
        var count = Count<T>((op->Aux & 1) != 0 ? (long)s->Regs[1] : op->Imm);
        var value = Width<T>.Extend((long)Cpu.Mem.ReadForWrite(s, op, address, sizeof(T)));
        if (s->Abort != Abort.None) return false;
        if (count == 0) return true;
        var (flagA, flagB, flagR, kind) = (s->FlagA, s->FlagB, s->FlagR, s->FlagKind);
        Cpu.Mem.Write(s, op, address, Double<T>(s, op, value, count), sizeof(T));
        if (s->Abort == Abort.None) return true;
        (s->FlagA, s->FlagB, s->FlagR, s->FlagKind) = (flagA, flagB, flagR, kind);
        return false;
    }

    private static long Double<T>(CpuState* s, Op* op, long value, int count) where T : unmanaged
    {
        var bits = Width<T>.Bits;
        var fill = Width<T>.Zero(Width<T>.Get(s, op->Src));
        var zero = Width<T>.Zero(value);
        UInt128 wide;
        ulong r, carry;
        if ((op->Aux & 2) == 0)
        {
            // A 16-bit count above 16 is undefined; the silicon goes on with the operand itself behind the fill bits.
            wide = bits == 16 ? ((UInt128)zero << 32) | (fill << 16) | zero : ((UInt128)zero << bits) | fill;
            var width = bits == 16 ? 48 : 2 * bits;
            r = (ulong)((wide << count) >> (width - bits));
            carry = (ulong)(wide >> (width - count)) & 1;
        }
        else
        {
            wide = bits == 16 ? ((UInt128)zero << 32) | (fill << 16) | zero : ((UInt128)fill << bits) | zero;
            r = (ulong)(wide >> count);
            carry = (ulong)(wide >> (count - 1)) & 1;
        }
        var result = Width<T>.Extend((long)r);
        SetBits(s, result, (long)carry, (result ^ value) < 0 ? 1 : 0);
        return result;
    }
}
