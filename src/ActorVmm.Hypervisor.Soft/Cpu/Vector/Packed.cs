using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using V = System.Runtime.Intrinsics.Vector128<byte>;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// A two-operand vector operation without side effects. MMX forms run it on the low eight bytes, the upper ones being zero.
/// </summary>
internal interface IPacked
{
    static abstract V Calc(V a, V b);
}

/// <summary>Places of the vector registers; op operands are byte offsets from XMM0 or MM0.</summary>
internal static unsafe class Xmm
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ref V At(CpuState* s, byte offset) => ref *(V*)((byte*)s->Xmm + offset);

    /// <summary>The low element of a register.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ref T Low<T>(CpuState* s, byte offset) where T : unmanaged => ref *(T*)((byte*)s->Xmm + offset);

    /// <summary>An MMX register: the significand of the physical x87 register of the same number.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ref ulong Mm(CpuState* s, byte offset) => ref *(ulong*)((byte*)s->St + offset);
}

/// <summary>Byte selection as PSHUFB does it: a control byte with bit 7 set gives zero; the others must be below 16.</summary>
internal static class Bytes
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Select(V from, V control) => Ssse3.IsSupported ? Ssse3.Shuffle(from, control) : Vector128.Shuffle(from, control);
}

/// <summary>
/// Handlers of pure vector operations, one method per operand form. RR: register, register; Rm16: aligned 16-byte memory; RmN: N bytes,
/// zero-extended, no alignment; Ri: shift count in the instruction. The Mmx forms are the same on the 64-bit registers.
/// </summary>
internal static unsafe class Packed
{
    private const MethodImplOptions Opt = MethodImplOptions.AggressiveOptimization;

    [MethodImpl(Opt)]
    public static void Rr<T>(CpuState* s, Op* op) where T : struct, IPacked
    {
        Xmm.At(s, op->Dst) = T.Calc(Xmm.At(s, op->Dst), Xmm.At(s, op->Src));
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Opt)]
    public static void Ri<T>(CpuState* s, Op* op) where T : struct, IPacked
    {
        Xmm.At(s, op->Dst) = T.Calc(Xmm.At(s, op->Dst), Vector128.CreateScalar((ulong)op->Imm).AsByte());
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Opt)]
    public static void Rm16<T>(CpuState* s, Op* op) where T : struct, IPacked
    {
        var at = AtAny.Of(s, op);
        if ((at & 15) != 0)
        {
            Flow.Raise(s, op, Vector.Gp, 0);
            return;
        }
        var entry = Mem.Entry(s->TlbRead, at);
        if (Mem.Hit(entry, at, 16))
        {
            // SAFETY: the tag proves that these 16 bytes are guest RAM readable at this privilege.
            Xmm.At(s, op->Dst) = T.Calc(Xmm.At(s, op->Dst), *(V*)(at + entry->Addend));
        }
        else
        {
            var low = Mem.ReadSlow(s, op, at, 8);
            if (s->Abort != Abort.None) return;
            var high = Mem.ReadSlow(s, op, at + 8, 8);
            if (s->Abort != Abort.None) return;
            Xmm.At(s, op->Dst) = T.Calc(Xmm.At(s, op->Dst), Vector128.Create(low, high).AsByte());
        }
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Opt)]
    public static void RmSmall<T, TSize>(CpuState* s, Op* op) where T : struct, IPacked where TSize : unmanaged
    {
        var value = Scalar.Read<TSize>(s, op, AtAny.Of(s, op));
        if (s->Abort != Abort.None) return;
        Xmm.At(s, op->Dst) = T.Calc(Xmm.At(s, op->Dst), Vector128.CreateScalar(value).AsByte());
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Opt)]
    public static void MmxRr<T>(CpuState* s, Op* op) where T : struct, IPacked
    {
        Xmm.Mm(s, op->Dst) = Scalar.Calc<T>(Xmm.Mm(s, op->Dst), Xmm.Mm(s, op->Src));
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Opt)]
    public static void MmxRi<T>(CpuState* s, Op* op) where T : struct, IPacked
    {
        Xmm.Mm(s, op->Dst) = Scalar.Calc<T>(Xmm.Mm(s, op->Dst), (ulong)op->Imm);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Opt)]
    public static void MmxRm<T, TSize>(CpuState* s, Op* op) where T : struct, IPacked where TSize : unmanaged
    {
        var value = Scalar.Read<TSize>(s, op, AtAny.Of(s, op));
        if (s->Abort != Abort.None) return;
        Xmm.Mm(s, op->Dst) = Scalar.Calc<T>(Xmm.Mm(s, op->Dst), value);
        op[1].Fn(s, op + 1);
    }

    /// <summary>
    /// The last op of an MMX instruction: all tags valid, TOP 0, exponent of the written register all ones (SDM Vol. 1 §9.6). It comes
    /// last because the instruction may fault before. Imm is 1 where a register was written.
    /// </summary>
    [MethodImpl(Opt)]
    public static void MmxCommit(CpuState* s, Op* op)
    {
        s->FpuTop = 0;
        s->FpuEmpty = 0;
        if (op->Imm != 0) s->StExponent[op->Dst >> 3] = 0xFFFF;
        op[1].Fn(s, op + 1);
    }

    /// <summary>
    /// Byte selection from both operands by the two control vectors that Imm points to: shuffles, blends, byte shifts. A control byte
    /// above 15 selects zero.
    /// </summary>
    [MethodImpl(Opt)]
    public static void PermuteRr(CpuState* s, Op* op)
    {
        var control = (V*)op->Imm;
        Xmm.At(s, op->Dst) = Bytes.Select(Xmm.At(s, op->Dst), control[0]) | Bytes.Select(Xmm.At(s, op->Src), control[1]);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Opt)]
    public static void PermuteRm(CpuState* s, Op* op)
    {
        var at = AtAny.Of(s, op);
        if ((at & 15) != 0)
        {
            Flow.Raise(s, op, Vector.Gp, 0);
            return;
        }
        var control = (V*)op->Imm;
        var entry = Mem.Entry(s->TlbRead, at);
        if (Mem.Hit(entry, at, 16))
        {
            // SAFETY: as in Rm16.
            Xmm.At(s, op->Dst) = Bytes.Select(Xmm.At(s, op->Dst), control[0]) | Bytes.Select(*(V*)(at + entry->Addend), control[1]);
        }
        else
        {
            var low = Mem.ReadSlow(s, op, at, 8);
            if (s->Abort != Abort.None) return;
            var high = Mem.ReadSlow(s, op, at + 8, 8);
            if (s->Abort != Abort.None) return;
            Xmm.At(s, op->Dst) = Bytes.Select(Xmm.At(s, op->Dst), control[0]) |
                Bytes.Select(Vector128.Create(low, high).AsByte(), control[1]);
        }
        op[1].Fn(s, op + 1);
    }

    /// <summary>The same with a narrow memory operand, zero-extended (INSERTPS, MOVDDUP).</summary>
    [MethodImpl(Opt)]
    public static void PermuteRmSmall<TSize>(CpuState* s, Op* op) where TSize : unmanaged
    {
        var value = Scalar.Read<TSize>(s, op, AtAny.Of(s, op));
        if (s->Abort != Abort.None) return;
        var control = (V*)op->Imm;
        Xmm.At(s, op->Dst) = Bytes.Select(Xmm.At(s, op->Dst), control[0]) |
            Bytes.Select(Vector128.CreateScalar(value).AsByte(), control[1]);
        op[1].Fn(s, op + 1);
    }

    /// <summary>
    /// Everything with side effects or that is too long for a tail-calling handler: Imm is the body, which answers false after an abort.
    /// Aux carries an immediate operand.
    /// </summary>
    [MethodImpl(Opt)]
    public static void Call(CpuState* s, Op* op)
    {
        if (((delegate*<CpuState*, Op*, bool>)op->Imm)(s, op)) op[1].Fn(s, op + 1);
    }
}

/// <summary>
/// Scalar operands as zero-extended integers, by pointers only: a local whose address is taken (as in a bit cast between type parameters)
/// would keep a handler from ending in a jump.
/// </summary>
internal static unsafe class Scalar
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ulong Load<T>(void* from) where T : unmanaged
    {
        if (sizeof(T) == 1) return *(byte*)from;
        if (sizeof(T) == 2) return *(ushort*)from;
        return sizeof(T) == 4 ? *(uint*)from : *(ulong*)from;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store<T>(void* to, ulong value) where T : unmanaged
    {
        if (sizeof(T) == 1) *(byte*)to = (byte)value;
        else if (sizeof(T) == 2) *(ushort*)to = (ushort)value;
        else if (sizeof(T) == 4) *(uint*)to = (uint)value;
        else *(ulong*)to = value;
    }

    /// <summary>Guest memory; the caller checks <see cref="CpuState.Abort"/>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ulong Read<T>(CpuState* s, Op* op, ulong at) where T : unmanaged
    {
        var entry = Mem.Entry(s->TlbRead, at);
        // SAFETY: the tag proves that the operand is guest RAM readable at this privilege.
        return Mem.Hit(entry, at, sizeof(T)) ? Load<T>((void*)(at + entry->Addend)) : Mem.ReadSlow(s, op, at, sizeof(T));
    }

    /// <summary>Guest memory; the caller checks <see cref="CpuState.Abort"/>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Write<T>(CpuState* s, Op* op, ulong at, ulong value) where T : unmanaged
    {
        var entry = Mem.Entry(s->TlbWrite, at);
        // SAFETY: as in Read, for writing.
        if (Mem.Hit(entry, at, sizeof(T))) Store<T>((void*)(at + entry->Addend), value);
        else Mem.WriteSlow(s, op, at, value, sizeof(T));
    }

    /// <summary>An element of an XMM register.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ulong Xmm<T>(CpuState* s, byte offset) where T : unmanaged => Load<T>((byte*)s->Xmm + offset);

    /// <summary>A vector operation on 64-bit operands.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ulong Calc<T>(ulong a, ulong b) where T : struct, IPacked =>
        T.Calc(Vector128.CreateScalar(a).AsByte(), Vector128.CreateScalar(b).AsByte()).AsUInt64().ToScalar();
}
