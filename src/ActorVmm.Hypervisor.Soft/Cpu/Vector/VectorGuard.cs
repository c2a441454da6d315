using System.Runtime.CompilerServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// Whether the operating system allows the instruction: tested at run time, because one block may run under different CR0 and CR4. CR
/// writes end a block, so one SSE test per block is enough; pending x87 faults come and go, so MMX tests at each instruction.
/// </summary>
internal static unsafe class VectorGuard
{
    public const ulong Cr0Em = 1 << 2, Cr0Ts = 1 << 3, Cr4Osfxsr = 1 << 9, Cr4Osxmmexcpt = 1 << 10;

    /// <summary>Status word: an unmasked exception waits (ES).</summary>
    public const ushort PendingFault = 0x80;

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Sse(CpuState* s, Op* op)
    {
        if (((s->Cr0 & (Cr0Em | Cr0Ts)) | (~s->Cr4 & Cr4Osfxsr)) != 0)
        {
            Flow.Raise(s, op, (s->Cr0 & Cr0Em) != 0 || (s->Cr4 & Cr4Osfxsr) == 0 ? Vector.Ud : Vector.Nm);
            return;
        }
        op[1].Fn(s, op + 1);
    }

    /// <summary>Imm is 1 for instructions that use XMM registers too, which need CR4.OSFXSR.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Mmx(CpuState* s, Op* op)
    {
        var forbidden = (s->Cr0 & Cr0Em) != 0 || (op->Imm != 0 && (s->Cr4 & Cr4Osfxsr) == 0);
        if (forbidden || (s->Cr0 & Cr0Ts) != 0 || (s->FpuStatus & PendingFault) != 0)
        {
            Flow.Raise(s, op, forbidden ? Vector.Ud : (s->Cr0 & Cr0Ts) != 0 ? Vector.Nm : Vector.Mf);
            return;
        }
        op[1].Fn(s, op + 1);
    }

    /// <summary>FXSAVE and FXRSTOR: #NM for either bit (SDM Vol. 2).</summary>
    public static bool AllowsFxsave(CpuState* s, Op* op)
    {
        if ((s->Cr0 & (Cr0Em | Cr0Ts)) == 0) return true;
        Flow.Raise(s, op, Vector.Nm);
        return false;
    }
}
