using System.Runtime.CompilerServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// Control flow and stack of 16- and 32-bit code. It runs for a few thousand instructions of a boot, so one general form serves: jumps
/// return to the run loop, the stack address follows SS.
/// </summary>
internal static unsafe class LegacyOps
{
    private const MethodImplOptions Hot = MethodImplOptions.AggressiveOptimization;

    /// <summary>Operand width in bytes, in <c>Scale</c> of the ops here.</summary>
    private static ulong Mask(Op* op) => op->Scale == 2 ? 0xFFFF : 0xFFFF_FFFF;

    private static bool BigStack(CpuState* s) => s->Ss.Big;

    public static bool Push(CpuState* s, Op* op, ulong value, int size)
    {
        var big = BigStack(s);
        var sp = big ? (uint)s->Regs[4] - (uint)size : (ushort)((uint)s->Regs[4] - (uint)size);
        if (!LegacyAddress.CheckLimit(s, op, 2, sp, (uint)size)) return false;
        Mem.Write(s, op, (uint)(sp + s->SegBase[2]), (long)value, size);
        if (s->Abort != Abort.None) return false;
        s->Regs[4] = big ? sp : (s->Regs[4] & ~0xFFFFUL) | sp;
        return true;
    }

    public static bool Pop(CpuState* s, Op* op, int size, out ulong value)
    {
        value = 0;
        var big = BigStack(s);
        var sp = big ? (uint)s->Regs[4] : (ushort)s->Regs[4];
        if (!LegacyAddress.CheckLimit(s, op, 2, sp, (uint)size)) return false;
        value = size == 2 ? Mem.Read<ushort>(s, op, (uint)(sp + s->SegBase[2])) : Mem.Read<uint>(s, op, (uint)(sp + s->SegBase[2]));
        if (s->Abort != Abort.None) return false;
        sp += (uint)size;
        s->Regs[4] = big ? sp : (s->Regs[4] & ~0xFFFFUL) | (ushort)sp;
        return true;
    }

    private static ulong Get(CpuState* s, Op* op) =>
        op->Scale == 2 ? *(ushort*)((byte*)s + op->Src) : *(uint*)((byte*)s + op->Src);

    private static void Go(CpuState* s, Op* op, ulong target)
    {
        target &= Mask(op);
        if (target > s->Cs.Limit)
        {
            Flow.Raise(s, op, Vector.Gp, 0);
            return;
        }
        s->Rip = target;
    }

    [MethodImpl(Hot)]
    public static void FallThrough(CpuState* s, Op* op) => s->Rip = (s->Rip + (ulong)op->NextOffset) & (s->Mode == CodeMode.Bits16 ? 0xFFFFUL : 0xFFFF_FFFF);

    [MethodImpl(Hot)]
    public static void Jump(CpuState* s, Op* op) => Go(s, op, s->Rip + (ulong)op->Imm);

    /// <summary>Jcc with its condition number in <c>Aux</c>.</summary>
    [MethodImpl(Hot)]
    public static void JumpIf(CpuState* s, Op* op) => Go(s, op, s->Rip + (ulong)(Test(s, op->Aux) ? op->Imm : op->NextOffset));

    [MethodImpl(Hot)]
    public static void Loop(CpuState* s, Op* op)
    {
        // Scale holds the counter's width for LoopTaken; the operand width of the jump is CS.D's.
        var taken = ControlOps.LoopTaken(s, op);
        s->Rip = (s->Rip + (ulong)(taken ? op->Imm : op->NextOffset)) & (s->Mode == CodeMode.Bits16 ? 0xFFFFUL : 0xFFFF_FFFF);
    }

    [MethodImpl(Hot)]
    public static void Call(CpuState* s, Op* op)
    {
        if (Push(s, op, (s->Rip + (ulong)op->NextOffset) & Mask(op), op->Scale)) Go(s, op, s->Rip + (ulong)op->Imm);
    }

    [MethodImpl(Hot)]
    public static void JumpReg(CpuState* s, Op* op) => Go(s, op, Get(s, op));

    [MethodImpl(Hot)]
    public static void CallReg(CpuState* s, Op* op)
    {
        var target = Get(s, op);
        if (Push(s, op, (s->Rip + (ulong)op->NextOffset) & Mask(op), op->Scale)) Go(s, op, target);
    }

    [MethodImpl(Hot)]
    public static void Return(CpuState* s, Op* op)
    {
        if (!Pop(s, op, op->Scale, out var target)) return;
        if (BigStack(s)) s->Regs[4] = (uint)(s->Regs[4] + (ulong)op->Imm);
        else s->Regs[4] = (s->Regs[4] & ~0xFFFFUL) | (ushort)(s->Regs[4] + (ulong)op->Imm);
        Go(s, op, target);
    }

    [MethodImpl(Hot)]
    public static void PushReg(CpuState* s, Op* op)
    {
        if (!Push(s, op, Get(s, op), op->Scale)) return;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void PushImm(CpuState* s, Op* op)
    {
        if (!Push(s, op, (ulong)op->Imm, op->Scale)) return;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void PopReg(CpuState* s, Op* op)
    {
        if (!PopTo(s, op)) return;
        op[1].Fn(s, op + 1);
    }

    private static bool PopTo(CpuState* s, Op* op)
    {
        if (!Pop(s, op, op->Scale, out var value)) return false;
        if (op->Scale == 2) *(ushort*)((byte*)s + op->Dst) = (ushort)value;
        else *(ulong*)((byte*)s + op->Dst) = (uint)value;
        return true;
    }

    /// <summary>POP m: the address op has run before; the decoder has corrected a base of ESP.</summary>
    [MethodImpl(Hot)]
    public static void PopMem(CpuState* s, Op* op)
    {
        if (!PopMemSlow(s, op)) return;
        op[1].Fn(s, op + 1);
    }

    private static bool PopMemSlow(CpuState* s, Op* op)
    {
        if (!Mem.ProbeWrite(s, op, s->Regs[17], op->Scale) || !Pop(s, op, op->Scale, out var value)) return false;
        Mem.Write(s, op, s->Regs[17], (long)value, op->Scale);
        return s->Abort == Abort.None;
    }

    [MethodImpl(Hot)]
    public static void PushFlags(CpuState* s, Op* op)
    {
        if (!Push(s, op, Flags.Get(s) & ~(Flags.Rf | Flags.Vm), op->Scale)) return;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void PopFlags(CpuState* s, Op* op)
    {
        if (!PopFlagsSlow(s, op)) return;
        Flow.EndBlock(s, op);
    }

    private static bool PopFlagsSlow(CpuState* s, Op* op)
    {
        if (!Pop(s, op, op->Scale, out var value)) return false;
        StackOps.LoadFlags(s, (uint)value, op->Scale == 2);
        return true;
    }

    [MethodImpl(Hot)]
    public static void Leave(CpuState* s, Op* op)
    {
        if (!LeaveSlow(s, op)) return;
        op[1].Fn(s, op + 1);
    }

    private static bool LeaveSlow(CpuState* s, Op* op)
    {
        var sp = s->Regs[4];
        s->Regs[4] = BigStack(s) ? (uint)s->Regs[5] : (sp & ~0xFFFFUL) | (ushort)s->Regs[5];
        if (!Pop(s, op, op->Scale, out var value))
        {
            s->Regs[4] = sp;
            return false;
        }
        if (op->Scale == 2) *(ushort*)&s->Regs[5] = (ushort)value;
        else s->Regs[5] = (uint)value;
        return true;
    }

    /// <summary>ENTER size, level.</summary>
    [MethodImpl(Hot)]
    public static void Enter(CpuState* s, Op* op)
    {
        if (!EnterSlow(s, op)) return;
        op[1].Fn(s, op + 1);
    }

    private static bool EnterSlow(CpuState* s, Op* op)
    {
        var (sp, size, level) = (s->Regs[4], op->Scale, op->Aux & 31);
        var big = BigStack(s);
        var ok = Push(s, op, s->Regs[5], size);
        var frame = s->Regs[4];
        for (var i = 1; ok && i <= level; i++)
        {
            var link = frame;
            if (i < level)
            {
                var at = big ? (uint)s->Regs[5] - (uint)(i * size) : (ushort)(s->Regs[5] - (uint)(i * size));
                ok = LegacyAddress.CheckLimit(s, op, 2, at, size);
                if (!ok) break;
                link = size == 2 ? Mem.Read<ushort>(s, op, (uint)(at + s->SegBase[2])) : Mem.Read<uint>(s, op, (uint)(at + s->SegBase[2]));
                ok = s->Abort == Abort.None;
            }
            ok = ok && Push(s, op, link, size);
        }
        if (!ok)
        {
            s->Regs[4] = sp;
            return false;
        }
        s->Regs[4] = big ? (uint)(s->Regs[4] - (ulong)op->Imm) : (s->Regs[4] & ~0xFFFFUL) | (ushort)(s->Regs[4] - (ulong)op->Imm);
        if (size == 2) *(ushort*)&s->Regs[5] = (ushort)frame;
        else s->Regs[5] = (uint)frame;
        return true;
    }

    /// <summary>PUSHA and POPA.</summary>
    [MethodImpl(Hot)]
    public static void PushAll(CpuState* s, Op* op)
    {
        if (!PushAllSlow(s, op)) return;
        op[1].Fn(s, op + 1);
    }

    private static bool PushAllSlow(CpuState* s, Op* op)
    {
        var sp = s->Regs[4];
        for (var i = 0; i < 8; i++)
        {
            if (Push(s, op, i == 4 ? sp : s->Regs[i], op->Scale)) continue;
            s->Regs[4] = sp;
            return false;
        }
        return true;
    }

    [MethodImpl(Hot)]
    public static void PopAll(CpuState* s, Op* op)
    {
        if (!PopAllSlow(s, op)) return;
        op[1].Fn(s, op + 1);
    }

    private static bool PopAllSlow(CpuState* s, Op* op)
    {
        var sp = s->Regs[4];
        var values = stackalloc ulong[8];
        for (var i = 7; i >= 0; i--)
        {
            if (Pop(s, op, op->Scale, out values[i])) continue;
            s->Regs[4] = sp;
            return false;
        }
        for (var i = 0; i < 8; i++)
        {
            if (i == 4) continue;
            if (op->Scale == 2) *(ushort*)&s->Regs[i] = (ushort)values[i];
            else s->Regs[i] = (uint)values[i];
        }
        return true;
    }

    /// <summary>A condition by its number in the opcode (SDM Vol. 1 Appendix B).</summary>
    public static bool Test(CpuState* s, int condition)
    {
        var result = (condition >> 1) switch
        {
            0 => Flags.Overflow(s),
            1 => Flags.Carry(s),
            2 => Flags.Zero(s),
            3 => Flags.Carry(s) || Flags.Zero(s),
            4 => Flags.Sign(s),
            5 => Flags.Parity(s),
            6 => Flags.Sign(s) != Flags.Overflow(s),
            _ => Flags.Zero(s) || Flags.Sign(s) != Flags.Overflow(s),
        };
        return result != ((condition & 1) != 0);
    }
}
