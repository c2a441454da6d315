using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using V = System.Runtime.Intrinsics.Vector128<byte>;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// Moves between vector registers, general registers and memory. "Element" handlers take operands that are byte offsets of one element
/// (register number times 16 plus its place), so that MOVSS, MOVHPS, PINSRW, PEXTRD and their like are one handler per width.
/// </summary>
internal static unsafe class Moves
{
    private const MethodImplOptions Opt = MethodImplOptions.AggressiveOptimization;

    [MethodImpl(Opt)]
    public static void Register(CpuState* s, Op* op)
    {
        Xmm.At(s, op->Dst) = Xmm.At(s, op->Src);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Opt)]
    public static void Load(CpuState* s, Op* op)
    {
        var at = AtAny.Of(s, op);
        var entry = Mem.Entry(s->TlbRead, at);
        if (Mem.Hit(entry, at, 16))
        {
            // SAFETY: the tag proves that these 16 bytes are guest RAM readable at this privilege.
            Xmm.At(s, op->Dst) = *(V*)(at + entry->Addend);
        }
        else
        {
            var low = Mem.ReadSlow(s, op, at, 8);
            if (s->Abort != Abort.None) return;
            var high = Mem.ReadSlow(s, op, at + 8, 8);
            if (s->Abort != Abort.None) return;
            Xmm.At(s, op->Dst) = Vector128.Create(low, high).AsByte();
        }
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Opt)]
    public static void LoadAligned(CpuState* s, Op* op)
    {
        var at = AtAny.Of(s, op);
        var entry = Mem.Entry(s->TlbRead, at);
        if ((at & 15) == 0 && entry->Tag == (at & ~0xFFFUL))
        {
            // SAFETY: as in Load; an aligned operand lies in one page.
            Xmm.At(s, op->Dst) = *(V*)(at + entry->Addend);
        }
        else
        {
            if ((at & 15) != 0)
            {
                Flow.Raise(s, op, Vector.Gp, 0);
                return;
            }
            var low = Mem.ReadSlow(s, op, at, 8);
            if (s->Abort != Abort.None) return;
            var high = Mem.ReadSlow(s, op, at + 8, 8);
            if (s->Abort != Abort.None) return;
            Xmm.At(s, op->Dst) = Vector128.Create(low, high).AsByte();
        }
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Opt)]
    public static void Store(CpuState* s, Op* op)
    {
        var at = AtAny.Of(s, op);
        var entry = Mem.Entry(s->TlbWrite, at);
        if (Mem.Hit(entry, at, 16))
        {
            // SAFETY: as in Load, for writing.
            *(V*)(at + entry->Addend) = Xmm.At(s, op->Src);
        }
        else
        {
            StoreSlow(s, op, at);
            if (s->Abort != Abort.None) return;
        }
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void StoreSlow(CpuState* s, Op* op, ulong at) => Mem.Write128(s, op, at, Xmm.Low<UInt128>(s, op->Src));

    [MethodImpl(Opt)]
    public static void StoreAligned(CpuState* s, Op* op)
    {
        var at = AtAny.Of(s, op);
        var entry = Mem.Entry(s->TlbWrite, at);
        if ((at & 15) == 0 && entry->Tag == (at & ~0xFFFUL))
        {
            // SAFETY: as in Store; an aligned operand lies in one page.
            *(V*)(at + entry->Addend) = Xmm.At(s, op->Src);
        }
        else
        {
            if ((at & 15) != 0)
            {
                Flow.Raise(s, op, Vector.Gp, 0);
                return;
            }
            StoreSlow(s, op, at);
            if (s->Abort != Abort.None) return;
        }
        op[1].Fn(s, op + 1);
    }

    /// <summary>MOVD, MOVQ, MOVSS, MOVSD from memory: the rest of the register becomes zero.</summary>
    [MethodImpl(Opt)]
    public static void LoadScalar<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var value = Scalar.Read<T>(s, op, AtAny.Of(s, op));
        if (s->Abort != Abort.None) return;
        Xmm.At(s, op->Dst) = Vector128.CreateScalar(value).AsByte();
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Opt)]
    public static void ScalarFromGeneral<T>(CpuState* s, Op* op) where T : unmanaged
    {
        Xmm.At(s, op->Dst) = Vector128.CreateScalar(Scalar.Load<T>((byte*)s + op->Src)).AsByte();
        op[1].Fn(s, op + 1);
    }

    /// <summary>MOVQ xmm, xmm and MOVQ2DQ's counterpart: low half, upper half zero.</summary>
    [MethodImpl(Opt)]
    public static void LowHalf(CpuState* s, Op* op)
    {
        Xmm.At(s, op->Dst) = Vector128.CreateScalar(Xmm.Low<ulong>(s, op->Src)).AsByte();
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Opt)]
    public static void Element<T>(CpuState* s, Op* op) where T : unmanaged
    {
        Xmm.Low<T>(s, op->Dst) = Xmm.Low<T>(s, op->Src);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Opt)]
    public static void LoadElement<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var value = Scalar.Read<T>(s, op, AtAny.Of(s, op));
        if (s->Abort != Abort.None) return;
        Scalar.Store<T>((byte*)s->Xmm + op->Dst, value);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Opt)]
    public static void StoreElement<T>(CpuState* s, Op* op) where T : unmanaged
    {
        Scalar.Write<T>(s, op, AtAny.Of(s, op), Scalar.Xmm<T>(s, op->Src));
        if (s->Abort != Abort.None) return;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Opt)]
    public static void ElementFromGeneral<T>(CpuState* s, Op* op) where T : unmanaged
    {
        Scalar.Store<T>((byte*)s->Xmm + op->Dst, Scalar.Load<T>((byte*)s + op->Src));
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Opt)]
    public static void ElementToGeneral<T>(CpuState* s, Op* op) where T : unmanaged
    {
        *(ulong*)((byte*)s + op->Dst) = Scalar.Xmm<T>(s, op->Src);
        op[1].Fn(s, op + 1);
    }

    /// <summary>PMOVMSKB, MOVMSKPS, MOVMSKPD: T is the element.</summary>
    [MethodImpl(Opt)]
    public static void SignMask<T>(CpuState* s, Op* op) where T : unmanaged
    {
        *(ulong*)((byte*)s + op->Dst) = (Xmm.At(s, op->Src).As<byte, T>().ExtractMostSignificantBits());
        op[1].Fn(s, op + 1);
    }

    // --- MMX ---

    [MethodImpl(Opt)]
    public static void MmxRegister(CpuState* s, Op* op)
    {
        Xmm.Mm(s, op->Dst) = Xmm.Mm(s, op->Src);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Opt)]
    public static void MmxLoad<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var value = Scalar.Read<T>(s, op, AtAny.Of(s, op));
        if (s->Abort != Abort.None) return;
        Xmm.Mm(s, op->Dst) = value;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Opt)]
    public static void MmxStore<T>(CpuState* s, Op* op) where T : unmanaged
    {
        Scalar.Write<T>(s, op, AtAny.Of(s, op), Scalar.Load<T>((byte*)s->St + op->Src));
        if (s->Abort != Abort.None) return;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Opt)]
    public static void MmxFromGeneral<T>(CpuState* s, Op* op) where T : unmanaged
    {
        Xmm.Mm(s, op->Dst) = Scalar.Load<T>((byte*)s + op->Src);
        op[1].Fn(s, op + 1);
    }

    /// <summary>MOVD, MOVQ and PEXTRW: the operand is the place of one element.</summary>
    [MethodImpl(Opt)]
    public static void MmxToGeneral<T>(CpuState* s, Op* op) where T : unmanaged
    {
        *(ulong*)((byte*)s + op->Dst) = Scalar.Load<T>((byte*)s->St + op->Src);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Opt)]
    public static void MmxInsertWord(CpuState* s, Op* op)
    {
        *(ushort*)((byte*)s->St + op->Dst) = *(ushort*)((byte*)s + op->Src);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Opt)]
    public static void MmxInsertWordMemory(CpuState* s, Op* op)
    {
        var value = Scalar.Read<ushort>(s, op, AtAny.Of(s, op));
        if (s->Abort != Abort.None) return;
        *(ushort*)((byte*)s->St + op->Dst) = (ushort)value;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Opt)]
    public static void MmxSignMask(CpuState* s, Op* op)
    {
        *(ulong*)((byte*)s + op->Dst) = (Vector128.CreateScalar(Xmm.Mm(s, op->Src)).AsByte().ExtractMostSignificantBits());
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Opt)]
    public static void XmmFromMmx(CpuState* s, Op* op)
    {
        Xmm.At(s, op->Dst) = Vector128.CreateScalar(Xmm.Mm(s, op->Src)).AsByte();
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Opt)]
    public static void MmxFromXmm(CpuState* s, Op* op)
    {
        Xmm.Mm(s, op->Dst) = Xmm.Low<ulong>(s, op->Src);
        op[1].Fn(s, op + 1);
    }

    // --- general registers ---

    /// <summary>MOVNTI.</summary>
    [MethodImpl(Opt)]
    public static void StoreGeneral<T>(CpuState* s, Op* op) where T : unmanaged
    {
        Scalar.Write<T>(s, op, AtAny.Of(s, op), Scalar.Load<T>((byte*)s + op->Src));
        if (s->Abort != Abort.None) return;
        op[1].Fn(s, op + 1);
    }

    /// <summary>LFENCE, SFENCE, MFENCE.</summary>
    [MethodImpl(Opt)]
    public static void Fence(CpuState* s, Op* op)
    {
        Interlocked.MemoryBarrier();
        op[1].Fn(s, op + 1);
    }

    /// <summary>Prefetch hints.</summary>
    [MethodImpl(Opt)]
    public static void Nothing(CpuState* s, Op* op) => op[1].Fn(s, op + 1);

    [MethodImpl(Opt)]
    public static void Emms(CpuState* s, Op* op)
    {
        s->FpuTop = 0;
        s->FpuEmpty = 0xFF;
        op[1].Fn(s, op + 1);
    }
}
