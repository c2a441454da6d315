using System.Runtime.CompilerServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// Operands of one width: <c>T</c> is byte, ushort, uint or ulong and stands for the width only. Values travel sign-extended to 64 bits,
/// the form in which the lazy flags keep them.
/// </summary>
internal static unsafe class Width<T> where T : unmanaged
{
    public static int Bits
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => sizeof(T) * 8;
    }

    /// <summary>Sign-extends the low bits of a value.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static long Extend(long value) => sizeof(T) switch { 1 => (sbyte)value, 2 => (short)value, 4 => (int)value, _ => value };

    /// <summary>Zero-extends the low bits of a value.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ulong Zero(long value) => sizeof(T) switch { 1 => (byte)value, 2 => (ushort)value, 4 => (uint)value, _ => (ulong)value };

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static long Load(byte* p) => sizeof(T) switch { 1 => *(sbyte*)p, 2 => *(short*)p, 4 => *(int*)p, _ => *(long*)p };

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(byte* p, long value)
    {
        if (sizeof(T) == 1) *p = (byte)value;
        else if (sizeof(T) == 2) *(ushort*)p = (ushort)value;
        else if (sizeof(T) == 4) *(uint*)p = (uint)value;
        else *(long*)p = value;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static long Get(CpuState* s, byte offset) => Load((byte*)s + offset);

    /// <summary>Writes a register: 32-bit writes clear the upper half, narrower ones keep the rest.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Set(CpuState* s, byte offset, long value)
    {
        if (sizeof(T) == 4) *(ulong*)((byte*)s + offset) = (uint)value;
        else Store((byte*)s + offset, value);
    }

    /// <summary>Loads from guest memory; check <see cref="CpuState.Abort"/> afterwards.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static long Read(CpuState* s, Op* op, ulong address)
    {
        var entry = Mem.Entry(s->TlbRead, address);
        // SAFETY: the tag proves that the page is RAM mapped for reading at this privilege.
        return Mem.Hit(entry, address, sizeof(T)) ? Load((byte*)(address + entry->Addend)) : Extend((long)Mem.ReadSlow(s, op, address, sizeof(T)));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Write(CpuState* s, Op* op, ulong address, long value)
    {
        var entry = Mem.Entry(s->TlbWrite, address);
        // SAFETY: as above, for writing.
        if (Mem.Hit(entry, address, sizeof(T))) Store((byte*)(address + entry->Addend), value);
        else Mem.WriteSlow(s, op, address, Zero(value), sizeof(T));
    }

    /// <summary>Host pointer for a read-modify-write in place, or null.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static byte* Pointer(CpuState* s, ulong address)
    {
        var entry = Mem.Entry(s->TlbWrite, address);
        return Mem.Hit(entry, address, sizeof(T)) ? (byte*)(address + entry->Addend) : null;
    }

    /// <summary>Atomic compare-and-swap on guest memory; true where it took place.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool CompareExchange(byte* p, long value, long expected)
    {
        if (sizeof(T) == 1) return Interlocked.CompareExchange(ref *p, (byte)value, (byte)expected) == (byte)expected;
        if (sizeof(T) == 2) return Interlocked.CompareExchange(ref *(ushort*)p, (ushort)value, (ushort)expected) == (ushort)expected;
        if (sizeof(T) == 4) return Interlocked.CompareExchange(ref *(uint*)p, (uint)value, (uint)expected) == (uint)expected;
        return Interlocked.CompareExchange(ref *(long*)p, value, expected) == expected;
    }
}

/// <summary>Whether an op keeps the flags of its instruction; decided by the liveness pass.</summary>
internal interface IFlagPolicy
{
    static abstract bool Keep { get; }
}

internal readonly struct KeepFlags : IFlagPolicy
{
    public static bool Keep
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => true;
    }
}

internal readonly struct DropFlags : IFlagPolicy
{
    public static bool Keep
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => false;
    }
}
