using System.Runtime.CompilerServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>The two chain links of a terminator, in the op slot behind it.</summary>
internal unsafe struct Links
{
    public Block* Taken;
    public Block* Next;
}

/// <summary>
/// Control flow of 64-bit code. A block's entry check subtracts its length from the budget and looks at the attention word; both failing
/// ways lead to the exit op, which returns to the run loop with RIP exact. Links are followed within one page only: another page's mapping
/// may change under them.
/// </summary>
internal static unsafe class ControlOps
{
    private const MethodImplOptions Hot = MethodImplOptions.AggressiveOptimization;

    /// <summary>Back to the run loop.</summary>
    [MethodImpl(Hot)]
    public static void Exit(CpuState* s, Op* op) { }

    /// <summary>Passes the entry check of a block, or gives the exit op.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Op* Enter(CpuState* s, Block* block)
    {
        var left = s->Budget - block->Count;
        if ((left | s->Attention) < 0) return s->ExitOp;
        s->Budget = left;
        return Block.Ops(block);
    }

    /// <summary>Goes to the block behind a link.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Op* Follow(CpuState* s, Block** link)
    {
        var block = *link;
        if (block == null) return Resolve(s, link);
        var left = s->Budget - block->Count;
        if ((left | s->Attention) < 0) return Stopped(s, link);
        s->Budget = left;
        return Block.Ops(block);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static Op* Stopped(CpuState* s, Block** link)
    {
        if ((*link)->Count == Block.Dead) *link = null;
        return s->ExitOp;
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static Op* Resolve(CpuState* s, Block** link)
    {
        var block = Find(s);
        if (block == null || block->SecondPage != ulong.MaxValue) return s->ExitOp;
        *link = block;
        return Enter(s, block);
    }

    /// <summary>The translated block at RIP, or null where the page is not in the code TLB or nothing is translated yet.</summary>
    public static Block* Find(CpuState* s)
    {
        var entry = Mem.Entry(s->TlbCode, s->Rip);
        if (entry->Tag != (s->Rip & ~0xFFFUL)) return null;
        var physical = s->Rip + entry->Addend;
        for (var block = s->BlockHash[BlockCache.Hash(physical, CodeMode.Bits64)]; block != null; block = block->HashNext)
            if (block->Physical == physical && block->Mode == CodeMode.Bits64) return block;
        return null;
    }

    /// <summary>Goes to a block in another page through a remembered link, which holds only where the page is still mapped to that block.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Op* FollowFar(CpuState* s, Block** link)
    {
        var block = *link;
        var entry = Mem.Entry(s->TlbCode, s->Rip);
        if (block == null || entry->Tag != (s->Rip & ~0xFFFUL) || block->Physical != s->Rip + entry->Addend) return ResolveFar(s, link);
        var left = s->Budget - block->Count;
        if ((left | s->Attention) < 0) return Stopped(s, link);
        s->Budget = left;
        return Block.Ops(block);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static Op* ResolveFar(CpuState* s, Block** link)
    {
        var block = Find(s);
        if (block == null || block->SecondPage != ulong.MaxValue) return s->ExitOp;
        *link = block;
        return Enter(s, block);
    }

    /// <summary>Notes where a call will return to.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void PushReturn(CpuState* s, ulong address, Op* op)
    {
        var top = (s->ReturnTop + 1) & (CpuState.ReturnDepth - 1);
        s->ReturnTop = top;
        s->Returns[2 * top] = address;
        s->Returns[2 * top + 1] = (ulong)&((Links*)(op + 1))->Next;
    }

    /// <summary>Forgets every noted return: their link slots are about to be reused.</summary>
    public static void ForgetReturns(CpuState* s)
    {
        // RET has refused a non-canonical target before it compares.
        for (var i = 0; i < CpuState.ReturnDepth; i++) s->Returns[2 * i] = 1UL << 63;
    }

    /// <summary>Finds the block at RIP in another page or behind an indirect jump.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    public static Op* Dispatch(CpuState* s)
    {
        var block = Find(s);
        // A block across two pages is entered by the run loop, which checks the second page's mapping.
        return block == null || block->SecondPage != ulong.MaxValue ? s->ExitOp : Enter(s, block);
    }

    /// <summary>End of a block without a jump (length limit, page end): on in the same page.</summary>
    [MethodImpl(Hot)]
    public static void FallThrough(CpuState* s, Op* op)
    {
        s->Rip += (ulong)op->NextOffset;
        var next = Follow(s, &((Links*)(op + 1))->Next);
        next->Fn(s, next);
    }

    /// <summary>End of a block at a page's end.</summary>
    [MethodImpl(Hot)]
    public static void FallThroughFar(CpuState* s, Op* op)
    {
        s->Rip += (ulong)op->NextOffset;
        var next = FollowFar(s, &((Links*)(op + 1))->Next);
        next->Fn(s, next);
    }

    [MethodImpl(Hot)]
    public static void Jump(CpuState* s, Op* op)
    {
        s->Rip += (ulong)op->Imm;
        var next = Follow(s, &((Links*)(op + 1))->Taken);
        next->Fn(s, next);
    }

    [MethodImpl(Hot)]
    public static void JumpFar(CpuState* s, Op* op)
    {
        s->Rip += (ulong)op->Imm;
        var next = FollowFar(s, &((Links*)(op + 1))->Taken);
        next->Fn(s, next);
    }

    /// <summary>Jcc with both targets in the block's page.</summary>
    [MethodImpl(Hot)]
    public static void JumpIf<TC, TK>(CpuState* s, Op* op) where TC : struct, ICondition where TK : struct, IKnownKind
    {
        Op* next;
        if (TC.Test<TK>(s))
        {
            s->Rip += (ulong)op->Imm;
            next = Follow(s, &((Links*)(op + 1))->Taken);
        }
        else
        {
            s->Rip += (ulong)op->NextOffset;
            next = Follow(s, &((Links*)(op + 1))->Next);
        }
        next->Fn(s, next);
    }

    /// <summary>Jcc with a target in another page.</summary>
    [MethodImpl(Hot)]
    public static void JumpIfFar<TC>(CpuState* s, Op* op) where TC : struct, ICondition
    {
        Op* next;
        if (TC.Test<AnyKind>(s))
        {
            s->Rip += (ulong)op->Imm;
            next = FollowFar(s, &((Links*)(op + 1))->Taken);
        }
        else
        {
            s->Rip += (ulong)op->NextOffset;
            next = FollowFar(s, &((Links*)(op + 1))->Next);
        }
        next->Fn(s, next);
    }

    /// <summary>LOOP, LOOPE, LOOPNE (<c>Aux</c> 0, 1, 2) and JRCXZ (3); <c>Scale</c> is log2 of the counter's size.</summary>
    [MethodImpl(Hot)]
    public static void Loop(CpuState* s, Op* op)
    {
        var taken = LoopTaken(s, op);
        s->Rip += (ulong)(taken ? op->Imm : op->NextOffset);
        var next = Dispatch(s);
        next->Fn(s, next);
    }

    /// <summary>Counts and decides a LOOP or JRCXZ.</summary>
    public static bool LoopTaken(CpuState* s, Op* op)
    {
        var mask = op->Scale switch { 1 => 0xFFFFUL, 2 => 0xFFFF_FFFFUL, _ => ulong.MaxValue };
        if (op->Aux == 3) return (s->Regs[1] & mask) == 0;
        var count = (s->Regs[1] - 1) & mask;
        s->Regs[1] = op->Scale switch { 1 => (s->Regs[1] & ~0xFFFFUL) | count, _ => count };
        return count != 0 && (op->Aux == 0 || Flags.Zero(s) == (op->Aux == 1));
    }

    [MethodImpl(Hot)]
    public static void Call(CpuState* s, Op* op)
    {
        var sp = s->Regs[4] - 8;
        var back = s->Rip + (ulong)op->NextOffset;
        Width<ulong>.Write(s, op, sp, (long)back);
        if (s->Abort != Abort.None) return;
        s->Regs[4] = sp;
        PushReturn(s, back, op);
        s->Rip += (ulong)op->Imm;
        var next = Follow(s, &((Links*)(op + 1))->Taken);
        next->Fn(s, next);
    }

    [MethodImpl(Hot)]
    public static void CallFar(CpuState* s, Op* op)
    {
        var sp = s->Regs[4] - 8;
        var back = s->Rip + (ulong)op->NextOffset;
        Width<ulong>.Write(s, op, sp, (long)back);
        if (s->Abort != Abort.None) return;
        s->Regs[4] = sp;
        PushReturn(s, back, op);
        s->Rip += (ulong)op->Imm;
        var next = FollowFar(s, &((Links*)(op + 1))->Taken);
        next->Fn(s, next);
    }

    /// <summary>A non-canonical target faults at the instruction that names it (SDM Vol. 2 JMP, CALL, RET).</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static bool IsTarget(CpuState* s, Op* op, ulong target)
    {
        if (SoftCpu.IsCanonical(target)) return true;
        Flow.Raise(s, op, Vector.Gp, 0);
        return false;
    }

    [MethodImpl(Hot)]
    public static void JumpReg(CpuState* s, Op* op)
    {
        var target = *(ulong*)((byte*)s + op->Src);
        if (!IsTarget(s, op, target)) return;
        s->Rip = target;
        var next = Dispatch(s);
        next->Fn(s, next);
    }

    [MethodImpl(Hot)]
    public static void JumpMem(CpuState* s, Op* op)
    {
        var target = Width<ulong>.Read(s, op, AtAny.Of(s, op));
        if (s->Abort != Abort.None || !IsTarget(s, op, (ulong)target)) return;
        s->Rip = (ulong)target;
        var next = Dispatch(s);
        next->Fn(s, next);
    }

    [MethodImpl(Hot)]
    public static void CallReg(CpuState* s, Op* op)
    {
        var target = *(ulong*)((byte*)s + op->Src);
        if (!IsTarget(s, op, target)) return;
        var sp = s->Regs[4] - 8;
        var back = s->Rip + (ulong)op->NextOffset;
        Width<ulong>.Write(s, op, sp, (long)back);
        if (s->Abort != Abort.None) return;
        s->Regs[4] = sp;
        PushReturn(s, back, op);
        s->Rip = target;
        var next = Dispatch(s);
        next->Fn(s, next);
    }

    [MethodImpl(Hot)]
    public static void CallMem(CpuState* s, Op* op)
    {
        var target = Width<ulong>.Read(s, op, AtAny.Of(s, op));
        if (s->Abort != Abort.None || !IsTarget(s, op, (ulong)target)) return;
        var sp = s->Regs[4] - 8;
        var back = s->Rip + (ulong)op->NextOffset;
        Width<ulong>.Write(s, op, sp, (long)back);
        if (s->Abort != Abort.None) return;
        s->Regs[4] = sp;
        PushReturn(s, back, op);
        s->Rip = (ulong)target;
        var next = Dispatch(s);
        next->Fn(s, next);
    }

    /// <summary>RET, with <c>Imm</c> more bytes to drop.</summary>
    [MethodImpl(Hot)]
    public static void Return(CpuState* s, Op* op)
    {
        var target = Width<ulong>.Read(s, op, s->Regs[4]);
        if (s->Abort != Abort.None || !IsTarget(s, op, (ulong)target)) return;
        s->Regs[4] += 8 + (ulong)op->Imm;
        s->Rip = (ulong)target;
        var top = s->ReturnTop;
        s->ReturnTop = (top - 1) & (CpuState.ReturnDepth - 1);
        var next = s->Returns[2 * top] == (ulong)target ? FollowFar(s, (Block**)s->Returns[2 * top + 1]) : Dispatch(s);
        next->Fn(s, next);
    }
}
