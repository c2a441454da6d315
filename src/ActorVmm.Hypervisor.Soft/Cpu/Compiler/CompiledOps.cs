using System.Runtime.CompilerServices;

namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>The handlers between the tiers.</summary>
internal static unsafe class CompiledOps
{
    private const MethodImplOptions Hot = MethodImplOptions.AggressiveOptimization;

    /// <summary>First op of a block that may be compiled: counts its entries down in <c>Imm</c>, then has it compiled.</summary>
    [MethodImpl(Hot)]
    public static void Heat(CpuState* s, Op* op)
    {
        var next = --op->Imm > 0 ? op + 1 : Compile(s, op);
        next->Fn(s, next);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static Op* Compile(CpuState* s, Op* op)
    {
        SoftCpu.Of(s).CompileBlock((Block*)op - 1);
        return op;
    }

    /// <summary>A jump of compiled code that is not patched (yet).</summary>
    [MethodImpl(Hot)]
    public static void Follow(CpuState* s, Op* op)
    {
        s->Rip = s->Page + (ulong)(long)op->Disp;
        var next = Resolve(s, (Link*)op);
        next->Fn(s, next);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static Op* Resolve(CpuState* s, Link* link)
    {
        var block = ControlOps.Find(s);
        if (block == null || block->SecondPage != ulong.MaxValue) return s->ExitOp;
        if (block->Code != null) SoftCpu.Of(s).Connect(link, block);
        return ControlOps.Enter(s, block);
    }

    /// <summary>Finds the block at RIP for compiled code that could not.</summary>
    [MethodImpl(Hot)]
    public static void Dispatch(CpuState* s, Op* op)
    {
        var next = ControlOps.Dispatch(s);
        next->Fn(s, next);
    }
}
