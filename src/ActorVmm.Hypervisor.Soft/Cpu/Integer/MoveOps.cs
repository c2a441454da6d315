using System.Buffers.Binary;
using System.Runtime.CompilerServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>Data movement: MOV, MOVZX, MOVSX, LEA, XCHG, CMOV, SETcc, conversions.</summary>
internal static unsafe class MoveOps
{
    private const MethodImplOptions Hot = MethodImplOptions.AggressiveOptimization;

    [MethodImpl(Hot)]
    public static void RegReg<T>(CpuState* s, Op* op) where T : unmanaged
    {
        Width<T>.Set(s, op->Dst, Width<T>.Get(s, op->Src));
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void RegImm<T>(CpuState* s, Op* op) where T : unmanaged
    {
        Width<T>.Set(s, op->Dst, op->Imm);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void Load<T, TA>(CpuState* s, Op* op) where T : unmanaged where TA : struct, IAddress
    {
        var value = Width<T>.Read(s, op, TA.Of(s, op));
        if (s->Abort != Abort.None) return;
        Width<T>.Set(s, op->Dst, value);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void Store<T, TA>(CpuState* s, Op* op) where T : unmanaged where TA : struct, IAddress
    {
        Width<T>.Write(s, op, TA.Of(s, op), Width<T>.Get(s, op->Src));
        if (s->Abort != Abort.None) return;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void StoreImm<T, TA>(CpuState* s, Op* op) where T : unmanaged where TA : struct, IAddress
    {
        Width<T>.Write(s, op, TA.Of(s, op), op->Imm);
        if (s->Abort != Abort.None) return;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void ZeroExtendReg<TD, TS>(CpuState* s, Op* op) where TD : unmanaged where TS : unmanaged
    {
        Width<TD>.Set(s, op->Dst, (long)Width<TS>.Zero(Width<TS>.Get(s, op->Src)));
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void SignExtendReg<TD, TS>(CpuState* s, Op* op) where TD : unmanaged where TS : unmanaged
    {
        Width<TD>.Set(s, op->Dst, Width<TS>.Get(s, op->Src));
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void ZeroExtendMem<TD, TS, TA>(CpuState* s, Op* op) where TD : unmanaged where TS : unmanaged where TA : struct, IAddress
    {
        var value = Width<TS>.Read(s, op, TA.Of(s, op));
        if (s->Abort != Abort.None) return;
        Width<TD>.Set(s, op->Dst, (long)Width<TS>.Zero(value));
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void SignExtendMem<TD, TS, TA>(CpuState* s, Op* op) where TD : unmanaged where TS : unmanaged where TA : struct, IAddress
    {
        var value = Width<TS>.Read(s, op, TA.Of(s, op));
        if (s->Abort != Abort.None) return;
        Width<TD>.Set(s, op->Dst, value);
        op[1].Fn(s, op + 1);
    }

    /// <summary>LEA with its address in an op; segment bases do not count.</summary>
    [MethodImpl(Hot)]
    public static void Lea<T, TA>(CpuState* s, Op* op) where T : unmanaged where TA : struct, IAddress
    {
        Width<T>.Set(s, op->Dst, (long)TA.Of(s, op));
        op[1].Fn(s, op + 1);
    }

    /// <summary>LEA with 16- or 32-bit addressing: <c>Aux</c> is the address size.</summary>
    [MethodImpl(Hot)]
    public static void LeaNarrow<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var sum = *(ulong*)((byte*)s + op->Base) + (*(ulong*)((byte*)s + op->Index) << op->Scale) + (ulong)op->Imm;
        Width<T>.Set(s, op->Dst, op->Aux == 16 ? (ushort)sum : op->Aux == 32 ? (uint)sum : (long)sum);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void ExchangeReg<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var a = Width<T>.Get(s, op->Dst);
        Width<T>.Set(s, op->Dst, Width<T>.Get(s, op->Src));
        Width<T>.Set(s, op->Src, a);
        op[1].Fn(s, op + 1);
    }

    /// <summary>XCHG with memory is always locked.</summary>
    [MethodImpl(Hot)]
    public static void ExchangeMem<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var address = AtAny.Of(s, op);
        var p = Locked.Pointer<T>(s, op, address);
        if (p == null) return;
        var value = Width<T>.Get(s, op->Src);
        long old;
        do old = Width<T>.Load(p);
        while (!Width<T>.CompareExchange(p, value, old));
        if (!Locked.Finish<T>(s, op, address, p)) return;
        Width<T>.Set(s, op->Src, old);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void SetReg<TC, TK>(CpuState* s, Op* op) where TC : struct, ICondition where TK : struct, IKnownKind
    {
        *((byte*)s + op->Dst) = TC.Test<TK>(s) ? (byte)1 : (byte)0;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void SetMem<TC, TK>(CpuState* s, Op* op) where TC : struct, ICondition where TK : struct, IKnownKind
    {
        Width<byte>.Write(s, op, AtAny.Of(s, op), TC.Test<TK>(s) ? 1 : 0);
        if (s->Abort != Abort.None) return;
        op[1].Fn(s, op + 1);
    }

    /// <summary>CMOVcc r, r: a 32-bit move not taken still clears the upper half.</summary>
    [MethodImpl(Hot)]
    public static void ConditionalReg<T, TC, TK>(CpuState* s, Op* op) where T : unmanaged where TC : struct, ICondition where TK : struct, IKnownKind
    {
        Width<T>.Set(s, op->Dst, Width<T>.Get(s, TC.Test<TK>(s) ? op->Src : op->Dst));
        op[1].Fn(s, op + 1);
    }

    /// <summary>CMOVcc r, m: the load takes place (and may fault) either way.</summary>
    [MethodImpl(Hot)]
    public static void ConditionalMem<T, TC>(CpuState* s, Op* op) where T : unmanaged where TC : struct, ICondition
    {
        var value = Width<T>.Read(s, op, AtAny.Of(s, op));
        if (s->Abort != Abort.None) return;
        Width<T>.Set(s, op->Dst, TC.Test<AnyKind>(s) ? value : Width<T>.Get(s, op->Dst));
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void ByteSwap<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var value = Width<T>.Get(s, op->Dst);
        // BSWAP of a 16-bit register is undefined; the silicon clears it.
        Width<T>.Set(s, op->Dst, sizeof(T) == 8 ? BinaryPrimitives.ReverseEndianness(value)
            : sizeof(T) == 4 ? BinaryPrimitives.ReverseEndianness((int)value) : 0);
        op[1].Fn(s, op + 1);
    }

    /// <summary>CBW, CWDE, CDQE.</summary>
    [MethodImpl(Hot)]
    public static void ExtendAccumulator<TD, TS>(CpuState* s, Op* op) where TD : unmanaged where TS : unmanaged
    {
        Width<TD>.Set(s, 0, Width<TS>.Get(s, 0));
        op[1].Fn(s, op + 1);
    }

    /// <summary>CWD, CDQ, CQO: RDX filled with the sign of RAX.</summary>
    [MethodImpl(Hot)]
    public static void SignToRdx<T>(CpuState* s, Op* op) where T : unmanaged
    {
        Width<T>.Set(s, 2 * 8, Width<T>.Get(s, 0) >> 63);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void Xlat(CpuState* s, Op* op)
    {
        // The address op has put segment base + rBX into the temporary; AL is added within the address size by the decoder's choice.
        var value = Width<byte>.Read(s, op, s->Regs[17]);
        if (s->Abort != Abort.None) return;
        *(byte*)s = (byte)value;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void XlatAddress(CpuState* s, Op* op)
    {
        var sum = s->Regs[3] + (byte)s->Regs[0];
        if (op->Aux == 16) sum = (ushort)sum;
        else if (op->Aux == 32) sum = (uint)sum;
        s->Regs[17] = sum + *(ulong*)((byte*)s + op->Seg);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void Nop(CpuState* s, Op* op) => op[1].Fn(s, op + 1);
}
