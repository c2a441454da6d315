using System.Runtime.CompilerServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// Guest memory as handlers see it: a TLB probe inline, everything else (miss, page crossing, MMIO, pages with translated code, faults) in
/// a slow path. A slow path that cannot finish sets <see cref="CpuState.Abort"/>; the handler then returns at once having changed nothing.
/// </summary>
internal static unsafe class Mem
{
    public const int TlbSize = 1024;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static TlbEntry* Entry(TlbEntry* tlb, ulong address) => tlb + ((address >> 12) & (TlbSize - 1));

    /// <summary>True where the whole access lies in the page that the entry maps: the last byte's page must equal the tag.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool Hit(TlbEntry* entry, ulong address, int size) => entry->Tag == ((address + (uint)(size - 1)) & ~0xFFFUL);

    /// <summary>Loads a value; the caller checks <see cref="CpuState.Abort"/> afterwards.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Read<T>(CpuState* s, Op* op, ulong address) where T : unmanaged
    {
        var entry = Entry(s->TlbRead, address);
        // SAFETY: the tag proves that the page is RAM mapped for reading at this privilege; Addend leads into the live guest mapping.
        if (Hit(entry, address, sizeof(T))) return *(T*)(address + entry->Addend);
        // Through the state rather than a local: a local with its address taken would keep handlers from ending in a jump.
        s->Transfer = ReadSlow(s, op, address, sizeof(T));
        return *(T*)&s->Transfer;
    }

    /// <summary>Stores a value.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Write<T>(CpuState* s, Op* op, ulong address, T value) where T : unmanaged
    {
        var entry = Entry(s->TlbWrite, address);
        // SAFETY: as in Read, for writing; pages that hold translated code never have a write tag.
        if (Hit(entry, address, sizeof(T))) *(T*)(address + entry->Addend) = value;
        else WriteThrough(s, op, address, value);
    }

    /// <summary>
    /// Host pointer to a location that may be read and written in place, or null: then use <see cref="ReadForWrite"/> and
    /// <see cref="WriteSlow"/>.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T* TryPointer<T>(CpuState* s, ulong address) where T : unmanaged
    {
        var entry = Entry(s->TlbWrite, address);
        return Hit(entry, address, sizeof(T)) ? (T*)(address + entry->Addend) : null;
    }

    /// <summary>16 bytes. Faults on either half leave everything unchanged.</summary>
    public static UInt128 Read128(CpuState* s, Op* op, ulong address)
    {
        var entry = Entry(s->TlbRead, address);
        // SAFETY: as in Read.
        if (Hit(entry, address, 16)) return *(UInt128*)(address + entry->Addend);
        var low = ReadSlow(s, op, address, 8);
        if (s->Abort != Abort.None) return default;
        var high = ReadSlow(s, op, address + 8, 8);
        return new UInt128(high, low);
    }

    /// <summary>16 bytes. Both halves are checked before either is written.</summary>
    public static void Write128(CpuState* s, Op* op, ulong address, UInt128 value)
    {
        var entry = Entry(s->TlbWrite, address);
        // SAFETY: as in Write.
        if (Hit(entry, address, 16)) { *(UInt128*)(address + entry->Addend) = value; return; }
        if (!ProbeWrite(s, op, address, 16)) return;
        WriteSlow(s, op, address, (ulong)value, 8);
        if (s->Abort != Abort.None) return;
        WriteSlow(s, op, address + 8, (ulong)(value >> 64), 8);
    }

    /// <summary>The slow load: 1 to 8 bytes, zero-extended.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    public static ulong ReadSlow(CpuState* s, Op* op, ulong address, int size) => SoftCpu.Of(s).ReadSlow(op, address, size, forWrite: false);

    /// <summary>The slow load of a read-modify-write: faults as a write.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    public static ulong ReadForWrite(CpuState* s, Op* op, ulong address, int size) => SoftCpu.Of(s).ReadSlow(op, address, size, forWrite: true);

    /// <summary>The slow store.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    public static void WriteSlow(CpuState* s, Op* op, ulong address, ulong value, int size) => SoftCpu.Of(s).WriteSlow(op, address, value, size);

    /// <summary>A store of 1 to 8 bytes from a sign-extended value.</summary>
    public static void Write(CpuState* s, Op* op, ulong address, long value, int size)
    {
        var entry = Entry(s->TlbWrite, address);
        if (!Hit(entry, address, size))
        {
            WriteSlow(s, op, address, (ulong)value & (ulong.MaxValue >> (64 - 8 * size)), size);
            return;
        }
        // SAFETY: the tag proves that the whole access is writable RAM of one page.
        var p = (byte*)(address + entry->Addend);
        switch (size)
        {
            case 1: *p = (byte)value; break;
            case 2: *(ushort*)p = (ushort)value; break;
            case 4: *(uint*)p = (uint)value; break;
            default: *(long*)p = value; break;
        }
    }

    /// <summary>Checks that all of a range may be written (raising the fault otherwise) without writing it.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    public static bool ProbeWrite(CpuState* s, Op* op, ulong address, int size) => SoftCpu.Of(s).ProbeWrite(op, address, size);

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void WriteThrough<T>(CpuState* s, Op* op, ulong address, T value) where T : unmanaged
    {
        s->Transfer = 0;
        *(T*)&s->Transfer = value;
        WriteSlow(s, op, address, s->Transfer, sizeof(T));
    }
}

/// <summary>Effective addresses; which form an op needs is chosen when it is decoded.</summary>
internal interface IAddress
{
    static abstract unsafe ulong Of(CpuState* s, Op* op);
}

/// <summary>Base + displacement (also RIP-relative and absolute: the base is then RIP or the zero register).</summary>
internal readonly struct AtBase : IAddress
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static unsafe ulong Of(CpuState* s, Op* op) => *(ulong*)((byte*)s + op->Base) + (ulong)op->Disp;
}

/// <summary>Base + index * scale + displacement + segment base: every form.</summary>
internal readonly struct AtAny : IAddress
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static unsafe ulong Of(CpuState* s, Op* op) =>
        *(ulong*)((byte*)s + op->Base) + (*(ulong*)((byte*)s + op->Index) << op->Scale) + (ulong)op->Disp + *(ulong*)((byte*)s + op->Seg);
}

/// <summary>How handlers raise exceptions and go on.</summary>
internal static unsafe class Flow
{
    /// <summary>Raises an exception without an error code; the handler returns after this and has changed nothing.</summary>
    public static void Raise(CpuState* s, Op* op, int vector)
    {
        s->Abort = Abort.Exception;
        s->AbortOp = op;
        s->ExceptionVector = vector;
        s->HasErrorCode = 0;
    }

    /// <summary>Raises an exception with an error code.</summary>
    public static void Raise(CpuState* s, Op* op, int vector, uint errorCode)
    {
        Raise(s, op, vector);
        s->HasErrorCode = 1;
        s->ExceptionErrorCode = errorCode;
    }

    /// <summary>Ends the block: RIP is the next instruction and the run loop looks at everything anew (mode, interrupts, translation).</summary>
    public static void EndBlock(CpuState* s, Op* op) => s->Rip += (ulong)op->NextOffset;
}

/// <summary>Exception vectors (SDM Vol. 3 §6.3.1).</summary>
internal static class Vector
{
    public const int De = 0, Db = 1, Nmi = 2, Bp = 3, Of = 4, Br = 5, Ud = 6, Nm = 7, Df = 8, Ts = 10, Np = 11, Ss = 12, Gp = 13, Pf = 14, Mf = 16, Ac = 17, Xm = 19;
}
