using System.Runtime.CompilerServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>Address forms that an op cannot carry: they compute into the temporary register, with segment limits in the 16- and 32-bit modes.</summary>
internal static unsafe class LegacyAddress
{
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Compute64(CpuState* s, Op* op)
    {
        s->Regs[17] = Sum(s, op) + *(ulong*)((byte*)s + op->Seg);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Compute32In64(CpuState* s, Op* op)
    {
        s->Regs[17] = (uint)Sum(s, op) + *(ulong*)((byte*)s + op->Seg);
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Compute32(CpuState* s, Op* op)
    {
        if (!InLimit(s, op, (uint)Sum(s, op))) return;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Compute16(CpuState* s, Op* op)
    {
        if (!InLimit(s, op, (ushort)Sum(s, op))) return;
        op[1].Fn(s, op + 1);
    }

    private static ulong Sum(CpuState* s, Op* op) =>
        *(ulong*)((byte*)s + op->Base) + (*(ulong*)((byte*)s + op->Index) << op->Scale) + (ulong)op->Imm;

    private static bool InLimit(CpuState* s, Op* op, uint offset)
    {
        var number = op->Aux >> 8;
        if (!CheckLimit(s, op, number, offset, (uint)(op->Aux & 0xFF))) return false;
        s->Regs[17] = (uint)(offset + s->SegBase[number]);
        return true;
    }

    /// <summary>Segment limit and presence check of the legacy modes (SDM Vol. 3 §5.3); raises #GP or #SS.</summary>
    public static bool CheckLimit(CpuState* s, Op* op, int number, uint offset, uint size)
    {
        var segment = (&s->Es)[number];
        var last = (ulong)offset + size - 1;
        bool inside;
        if ((segment.Type & 0xC) == 4 && segment.IsCodeOrData) // expand-down data
            inside = offset > segment.Limit && last <= (segment.Big ? 0xFFFF_FFFFUL : 0xFFFFUL);
        else
            inside = last <= segment.Limit;
        if (inside && segment.Present) return true;
        Flow.Raise(s, op, number == 2 ? Vector.Ss : Vector.Gp, 0);
        return false;
    }
}
