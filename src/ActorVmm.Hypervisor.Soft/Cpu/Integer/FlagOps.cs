using System.Runtime.CompilerServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>CLC, STC, CMC, CLD, STD, CLI, STI, LAHF, SAHF, and port I/O.</summary>
internal static unsafe class FlagOps
{
    private const MethodImplOptions Hot = MethodImplOptions.AggressiveOptimization;

    /// <summary>CLC and STC: <c>Imm</c> is the new carry; CMC: <c>Imm</c> 2.</summary>
    [MethodImpl(Hot)]
    public static void Carry(CpuState* s, Op* op)
    {
        var flags = Flags.GetArithmetic(s);
        Flags.SetArithmetic(s, op->Imm == 2 ? flags ^ Flags.Cf : (flags & ~Flags.Cf) | (uint)op->Imm);
        op[1].Fn(s, op + 1);
    }

    /// <summary>CLD and STD.</summary>
    [MethodImpl(Hot)]
    public static void Direction(CpuState* s, Op* op)
    {
        s->SystemFlags = op->Imm != 0 ? s->SystemFlags | Flags.Df : s->SystemFlags & ~Flags.Df;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void Cli(CpuState* s, Op* op)
    {
        if (s->Cpl > (int)((s->SystemFlags & Flags.Iopl) >> 12) && (s->Cr0 & 1) != 0)
        {
            Flow.Raise(s, op, Vector.Gp, 0);
            return;
        }
        s->SystemFlags &= ~Flags.If;
        op[1].Fn(s, op + 1);
    }

    /// <summary>
    /// STI. The next instruction runs before any interrupt: it stands in the same block (the decoder sees to that), or, where an interrupt
    /// already waits, the run loop executes it alone.
    /// </summary>
    [MethodImpl(Hot)]
    public static void Sti(CpuState* s, Op* op)
    {
        if (s->Cpl > (int)((s->SystemFlags & Flags.Iopl) >> 12) && (s->Cr0 & 1) != 0)
        {
            Flow.Raise(s, op, Vector.Gp, 0);
            return;
        }
        var was = s->SystemFlags & Flags.If;
        s->SystemFlags |= Flags.If;
        if (was == 0 && (s->InterruptWaiting != 0 || op->Aux != 0))
        {
            s->InterruptShadow = 1;
            Leave(s, op);
            return;
        }
        op[1].Fn(s, op + 1);
    }

    /// <summary>Leaves the block behind an instruction that is not its last: the rest of the block has not retired.</summary>
    public static void Leave(CpuState* s, Op* op)
    {
        s->Budget += op->Left - 1;
        Flow.EndBlock(s, op);
    }

    [MethodImpl(Hot)]
    public static void Lahf(CpuState* s, Op* op)
    {
        *((byte*)s + 1) = (byte)((Flags.GetArithmetic(s) & 0xD5) | 2);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void Sahf(CpuState* s, Op* op)
    {
        Flags.Change(s, 0xD5, *((byte*)s + 1));
        op[1].Fn(s, op + 1);
    }

    /// <summary>IN: the port is <c>Imm</c>, or DX where that is negative. Ends the block; the answer arrives on the next entry.</summary>
    [MethodImpl(Hot)]
    public static void In<T>(CpuState* s, Op* op) where T : unmanaged => SoftCpu.Of(s).PortRead(op, Port(s, op), sizeof(T));

    /// <summary>OUT.</summary>
    [MethodImpl(Hot)]
    public static void Out<T>(CpuState* s, Op* op) where T : unmanaged =>
        SoftCpu.Of(s).PortWrite(op, Port(s, op), sizeof(T), Width<T>.Zero(Width<T>.Get(s, 0)));

    private static ushort Port(CpuState* s, Op* op) => (ushort)(op->Imm >= 0 ? (ulong)op->Imm : s->Regs[2]);
}
