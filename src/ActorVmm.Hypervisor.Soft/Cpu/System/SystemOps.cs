using System.Runtime.CompilerServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// System instructions. They are rare, so most of them are plain methods ("bodies") that three handlers call: one goes on with the block,
/// one ends it, and one ends it at an address that the body has set. A body answers false after raising a fault or asking for an exit;
/// it has then changed nothing. <see cref="Op.Imm"/> holds the body, <see cref="Op.Aux"/> its small operand.
/// </summary>
internal static unsafe partial class SystemOps
{
    /// <summary>#UD: what no group of the decoder takes.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void InvalidOpcode(CpuState* s, Op* op) => Flow.Raise(s, op, Vector.Ud);

    /// <summary>Runs a body and goes on with the block.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Step(CpuState* s, Op* op)
    {
        if (!Run(s, op)) return;
        op[1].Fn(s, op + 1);
    }

    /// <summary>Runs a body and ends the block: what it changed concerns translation, time or interrupts.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void StepAndEnd(CpuState* s, Op* op)
    {
        if (Run(s, op)) s->Rip = SoftCpu.Of(s).NextRip(op);
    }

    /// <summary>Runs a body that sets RIP.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Transfer(CpuState* s, Op* op) => Run(s, op);

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static bool Run(CpuState* s, Op* op)
    {
        if (((delegate*<SoftCpu, CpuState*, Op*, bool>)op->Imm)(SoftCpu.Of(s), s, op)) return true;
        s->AbortOp = op;
        return false;
    }

    /// <summary>Raises #GP(0) above ring 0.</summary>
    private static bool Privileged(CpuState* s, Op* op)
    {
        if (s->Cpl == 0) return true;
        Flow.Raise(s, op, Vector.Gp, 0);
        return false;
    }

    private static bool Ud(CpuState* s, Op* op)
    {
        Flow.Raise(s, op, Vector.Ud);
        return false;
    }

    private static bool Gp(CpuState* s, Op* op)
    {
        Flow.Raise(s, op, Vector.Gp, 0);
        return false;
    }

    private static ulong Pair(CpuState* s) => (s->Regs[2] << 32) | (uint)s->Regs[0];

    private static void SetPair(CpuState* s, ulong value)
    {
        s->Regs[0] = (uint)value;
        s->Regs[2] = value >> 32;
    }

    /// <summary>Writes a register of 2, 4 or 8 bytes.</summary>
    private static void SetRegister(CpuState* s, byte offset, ulong value, int size)
    {
        switch (size)
        {
            case 2: Reg.Set(s, offset, (ushort)value); break;
            case 4: Reg.Set(s, offset, (uint)value); break;
            default: Reg.Set(s, offset, value); break;
        }
    }
}
