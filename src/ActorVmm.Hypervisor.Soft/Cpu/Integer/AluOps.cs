using System.Runtime.CompilerServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>A two-operand instruction: how its result follows and which lazy flags it leaves.</summary>
internal interface IBinary
{
    static abstract bool Stores { get; }
    static abstract FlagKind Kind { get; }
    static abstract unsafe long Calculate(CpuState* s, long a, long b);
}

internal readonly unsafe struct Add : IBinary
{
    public static bool Stores { [MethodImpl(MethodImplOptions.AggressiveInlining)] get => true; }
    public static FlagKind Kind { [MethodImpl(MethodImplOptions.AggressiveInlining)] get => FlagKind.Add; }
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static long Calculate(CpuState* s, long a, long b) => a + b;
}

internal readonly unsafe struct Adc : IBinary
{
    public static bool Stores { [MethodImpl(MethodImplOptions.AggressiveInlining)] get => true; }
    public static FlagKind Kind { [MethodImpl(MethodImplOptions.AggressiveInlining)] get => FlagKind.Add; }
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static long Calculate(CpuState* s, long a, long b) => a + b + (Flags.Carry(s) ? 1 : 0);
}

internal readonly unsafe struct Sub : IBinary
{
    public static bool Stores { [MethodImpl(MethodImplOptions.AggressiveInlining)] get => true; }
    public static FlagKind Kind { [MethodImpl(MethodImplOptions.AggressiveInlining)] get => FlagKind.Sub; }
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static long Calculate(CpuState* s, long a, long b) => a - b;
}

internal readonly unsafe struct Sbb : IBinary
{
    public static bool Stores { [MethodImpl(MethodImplOptions.AggressiveInlining)] get => true; }
    public static FlagKind Kind { [MethodImpl(MethodImplOptions.AggressiveInlining)] get => FlagKind.Sub; }
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static long Calculate(CpuState* s, long a, long b) => a - b - (Flags.Carry(s) ? 1 : 0);
}

internal readonly unsafe struct Cmp : IBinary
{
    public static bool Stores { [MethodImpl(MethodImplOptions.AggressiveInlining)] get => false; }
    public static FlagKind Kind { [MethodImpl(MethodImplOptions.AggressiveInlining)] get => FlagKind.Sub; }
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static long Calculate(CpuState* s, long a, long b) => a - b;
}

internal readonly unsafe struct And : IBinary
{
    public static bool Stores { [MethodImpl(MethodImplOptions.AggressiveInlining)] get => true; }
    public static FlagKind Kind { [MethodImpl(MethodImplOptions.AggressiveInlining)] get => FlagKind.Logic; }
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static long Calculate(CpuState* s, long a, long b) => a & b;
}

internal readonly unsafe struct Test : IBinary
{
    public static bool Stores { [MethodImpl(MethodImplOptions.AggressiveInlining)] get => false; }
    public static FlagKind Kind { [MethodImpl(MethodImplOptions.AggressiveInlining)] get => FlagKind.Logic; }
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static long Calculate(CpuState* s, long a, long b) => a & b;
}

internal readonly unsafe struct Or : IBinary
{
    public static bool Stores { [MethodImpl(MethodImplOptions.AggressiveInlining)] get => true; }
    public static FlagKind Kind { [MethodImpl(MethodImplOptions.AggressiveInlining)] get => FlagKind.Logic; }
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static long Calculate(CpuState* s, long a, long b) => a | b;
}

internal readonly unsafe struct Xor : IBinary
{
    public static bool Stores { [MethodImpl(MethodImplOptions.AggressiveInlining)] get => true; }
    public static FlagKind Kind { [MethodImpl(MethodImplOptions.AggressiveInlining)] get => FlagKind.Logic; }
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static long Calculate(CpuState* s, long a, long b) => a ^ b;
}

/// <summary>A one-operand instruction. <c>NOT</c> leaves no flags (<see cref="FlagKind.Raw"/> stands for that).</summary>
internal interface IUnary
{
    static abstract FlagKind Kind { get; }
    static abstract long Calculate(long a);
}

internal readonly struct Inc : IUnary
{
    public static FlagKind Kind { [MethodImpl(MethodImplOptions.AggressiveInlining)] get => FlagKind.Inc; }
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static long Calculate(long a) => a + 1;
}

internal readonly struct Dec : IUnary
{
    public static FlagKind Kind { [MethodImpl(MethodImplOptions.AggressiveInlining)] get => FlagKind.Dec; }
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static long Calculate(long a) => a - 1;
}

internal readonly struct Neg : IUnary
{
    public static FlagKind Kind { [MethodImpl(MethodImplOptions.AggressiveInlining)] get => FlagKind.Sub; }
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static long Calculate(long a) => -a;
}

internal readonly struct Not : IUnary
{
    public static FlagKind Kind { [MethodImpl(MethodImplOptions.AggressiveInlining)] get => FlagKind.Raw; }
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static long Calculate(long a) => ~a;
}

/// <summary>The arithmetic and logic group in all its operand forms.</summary>
internal static unsafe class AluOps
{
    private const MethodImplOptions Hot = MethodImplOptions.AggressiveOptimization;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void SetFlags<TOp>(CpuState* s, long a, long b, long r) where TOp : struct, IBinary
    {
        if (TOp.Kind != FlagKind.Logic)
        {
            s->FlagA = a;
            s->FlagB = b;
        }
        s->FlagR = r;
        s->FlagKind = TOp.Kind;
    }

    [MethodImpl(Hot)]
    public static void RegReg<TOp, T, TF>(CpuState* s, Op* op) where TOp : struct, IBinary where T : unmanaged where TF : struct, IFlagPolicy
    {
        var a = Width<T>.Get(s, op->Dst);
        var b = Width<T>.Get(s, op->Src);
        var r = Width<T>.Extend(TOp.Calculate(s, a, b));
        if (TOp.Stores) Width<T>.Set(s, op->Dst, r);
        if (TF.Keep) SetFlags<TOp>(s, a, b, r);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void RegImm<TOp, T, TF>(CpuState* s, Op* op) where TOp : struct, IBinary where T : unmanaged where TF : struct, IFlagPolicy
    {
        var a = Width<T>.Get(s, op->Dst);
        var b = op->Imm;
        var r = Width<T>.Extend(TOp.Calculate(s, a, b));
        if (TOp.Stores) Width<T>.Set(s, op->Dst, r);
        if (TF.Keep) SetFlags<TOp>(s, a, b, r);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void RegMem<TOp, T, TA>(CpuState* s, Op* op) where TOp : struct, IBinary where T : unmanaged where TA : struct, IAddress
    {
        var b = Width<T>.Read(s, op, TA.Of(s, op));
        if (s->Abort != Abort.None) return;
        var a = Width<T>.Get(s, op->Dst);
        var r = Width<T>.Extend(TOp.Calculate(s, a, b));
        if (TOp.Stores) Width<T>.Set(s, op->Dst, r);
        SetFlags<TOp>(s, a, b, r);
        op[1].Fn(s, op + 1);
    }

    /// <summary>Memory with a register or (no register: the zero register's offset) an immediate. Compare and test only read.</summary>
    [MethodImpl(Hot)]
    public static void MemRead<TOp, T, TA>(CpuState* s, Op* op) where TOp : struct, IBinary where T : unmanaged where TA : struct, IAddress
    {
        var a = Width<T>.Read(s, op, TA.Of(s, op));
        if (s->Abort != Abort.None) return;
        var b = Width<T>.Extend(*(long*)((byte*)s + op->Src) + op->Imm);
        SetFlags<TOp>(s, a, b, Width<T>.Extend(TOp.Calculate(s, a, b)));
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void MemWrite<TOp, T, TA>(CpuState* s, Op* op) where TOp : struct, IBinary where T : unmanaged where TA : struct, IAddress
    {
        var address = TA.Of(s, op);
        var b = Width<T>.Extend(*(long*)((byte*)s + op->Src) + op->Imm);
        var p = Width<T>.Pointer(s, address);
        long a, r;
        if (p != null)
        {
            a = Width<T>.Load(p);
            r = Width<T>.Extend(TOp.Calculate(s, a, b));
            Width<T>.Store(p, r);
        }
        else
        {
            a = Width<T>.Extend((long)Mem.ReadForWrite(s, op, address, sizeof(T)));
            if (s->Abort != Abort.None) return;
            r = Width<T>.Extend(TOp.Calculate(s, a, b));
            Mem.WriteSlow(s, op, address, Width<T>.Zero(r), sizeof(T));
            if (s->Abort != Abort.None) return;
        }
        SetFlags<TOp>(s, a, b, r);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void MemLocked<TOp, T>(CpuState* s, Op* op) where TOp : struct, IBinary where T : unmanaged
    {
        var b = Width<T>.Extend(*(long*)((byte*)s + op->Src) + op->Imm);
        var p = Locked.Pointer<T>(s, op, AtAny.Of(s, op));
        if (p == null) return;
        long a, r;
        do
        {
            a = Width<T>.Load(p);
            r = Width<T>.Extend(TOp.Calculate(s, a, b));
        }
        while (!Width<T>.CompareExchange(p, r, a));
        if (!Locked.Finish<T>(s, op, AtAny.Of(s, op), p)) return;
        SetFlags<TOp>(s, a, b, r);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void SetUnary<TOp>(CpuState* s, long a, long r) where TOp : struct, IUnary
    {
        if (TOp.Kind == FlagKind.Raw) return;
        if (TOp.Kind == FlagKind.Sub)
        {
            s->FlagA = 0;
            s->FlagB = a;
        }
        else
        {
            s->FlagB = Flags.Carry(s) ? 1 : 0;
            s->FlagA = a;
        }
        s->FlagR = r;
        s->FlagKind = TOp.Kind;
    }

    [MethodImpl(Hot)]
    public static void UnaryReg<TOp, T, TF>(CpuState* s, Op* op) where TOp : struct, IUnary where T : unmanaged where TF : struct, IFlagPolicy
    {
        var a = Width<T>.Get(s, op->Dst);
        var r = Width<T>.Extend(TOp.Calculate(a));
        Width<T>.Set(s, op->Dst, r);
        if (TF.Keep) SetUnary<TOp>(s, a, r);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void UnaryMem<TOp, T>(CpuState* s, Op* op) where TOp : struct, IUnary where T : unmanaged
    {
        var address = AtAny.Of(s, op);
        var p = Width<T>.Pointer(s, address);
        long a, r;
        if (p != null)
        {
            a = Width<T>.Load(p);
            r = Width<T>.Extend(TOp.Calculate(a));
            Width<T>.Store(p, r);
        }
        else
        {
            a = Width<T>.Extend((long)Mem.ReadForWrite(s, op, address, sizeof(T)));
            if (s->Abort != Abort.None) return;
            r = Width<T>.Extend(TOp.Calculate(a));
            Mem.WriteSlow(s, op, address, Width<T>.Zero(r), sizeof(T));
            if (s->Abort != Abort.None) return;
        }
        SetUnary<TOp>(s, a, r);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void UnaryLocked<TOp, T>(CpuState* s, Op* op) where TOp : struct, IUnary where T : unmanaged
    {
        var p = Locked.Pointer<T>(s, op, AtAny.Of(s, op));
        if (p == null) return;
        long a, r;
        do
        {
            a = Width<T>.Load(p);
            r = Width<T>.Extend(TOp.Calculate(a));
        }
        while (!Width<T>.CompareExchange(p, r, a));
        if (!Locked.Finish<T>(s, op, AtAny.Of(s, op), p)) return;
        SetUnary<TOp>(s, a, r);
        op[1].Fn(s, op + 1);
    }
}

/// <summary>
/// LOCK-prefixed access: atomic on the host pointer where the location is RAM of one page; elsewhere (page crossing, MMIO) the value is
/// worked on in a buffer of this vCPU and stored through the slow path.
/// </summary>
internal static unsafe class Locked
{
    /// <summary>Where to perform the atomic operation, or null after a fault.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static byte* Pointer<T>(CpuState* s, Op* op, ulong address) where T : unmanaged
    {
        var p = Width<T>.Pointer(s, address);
        return p != null ? p : Slow(s, op, address, sizeof(T));
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static byte* Slow(CpuState* s, Op* op, ulong address, int size)
    {
        var host = SoftCpu.Of(s).LockPointer(op, address, size);
        if (host != null || s->Abort != Abort.None) return host;
        var value = Mem.ReadForWrite(s, op, address, size);
        if (s->Abort != Abort.None) return null;
        s->LockBuffer = value;
        return (byte*)&s->LockBuffer;
    }

    /// <summary>Stores the buffer where the operation was done there; false after a fault.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool Finish<T>(CpuState* s, Op* op, ulong address, byte* p) where T : unmanaged
    {
        if (p != (byte*)&s->LockBuffer) return true;
        Mem.WriteSlow(s, op, address, Width<T>.Zero((long)s->LockBuffer), sizeof(T));
        return s->Abort == Abort.None;
    }
}
