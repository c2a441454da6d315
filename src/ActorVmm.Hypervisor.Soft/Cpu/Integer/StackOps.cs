using System.Runtime.CompilerServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>PUSH, POP, LEAVE, ENTER, PUSHF, POPF in 64-bit code; T is the operand width (2 or 8 bytes).</summary>
internal static unsafe class StackOps
{
    private const MethodImplOptions Hot = MethodImplOptions.AggressiveOptimization;

    [MethodImpl(Hot)]
    public static void PushReg<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var sp = s->Regs[4] - (ulong)sizeof(T);
        Width<T>.Write(s, op, sp, Width<T>.Get(s, op->Src));
        if (s->Abort != Abort.None) return;
        s->Regs[4] = sp;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void PushImm<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var sp = s->Regs[4] - (ulong)sizeof(T);
        Width<T>.Write(s, op, sp, op->Imm);
        if (s->Abort != Abort.None) return;
        s->Regs[4] = sp;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void PushMem<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var value = Width<T>.Read(s, op, AtAny.Of(s, op));
        if (s->Abort != Abort.None) return;
        var sp = s->Regs[4] - (ulong)sizeof(T);
        Width<T>.Write(s, op, sp, value);
        if (s->Abort != Abort.None) return;
        s->Regs[4] = sp;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void PopReg<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var value = Width<T>.Read(s, op, s->Regs[4]);
        if (s->Abort != Abort.None) return;
        s->Regs[4] += (ulong)sizeof(T);
        Width<T>.Set(s, op->Dst, value);
        op[1].Fn(s, op + 1);
    }

    /// <summary>POP m: an address based on RSP uses its value after the pop (SDM Vol. 2 POP).</summary>
    [MethodImpl(Hot)]
    public static void PopMem<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var value = Width<T>.Read(s, op, s->Regs[4]);
        if (s->Abort != Abort.None) return;
        s->Regs[4] += (ulong)sizeof(T);
        Width<T>.Write(s, op, AtAny.Of(s, op), value);
        if (s->Abort != Abort.None)
        {
            s->Regs[4] -= (ulong)sizeof(T);
            return;
        }
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void Leave<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var value = Width<T>.Read(s, op, s->Regs[5]);
        if (s->Abort != Abort.None) return;
        s->Regs[4] = s->Regs[5] + (ulong)sizeof(T);
        Width<T>.Set(s, 5 * 8, value);
        op[1].Fn(s, op + 1);
    }

    /// <summary>ENTER size, level.</summary>
    [MethodImpl(Hot)]
    public static void Enter<T>(CpuState* s, Op* op) where T : unmanaged
    {
        if (!EnterSlow<T>(s, op)) return;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static bool EnterSlow<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var level = op->Aux & 31;
        var frame = s->Regs[4] - (ulong)sizeof(T);
        var sp = frame;
        Mem.Write(s, op, sp, (long)s->Regs[5], sizeof(T));
        for (var i = 1; i <= level && s->Abort == Abort.None; i++)
        {
            var link = i == level ? (long)frame : Width<T>.Read(s, op, s->Regs[5] - (ulong)(i * sizeof(T)));
            if (s->Abort != Abort.None) return false;
            sp -= (ulong)sizeof(T);
            Mem.Write(s, op, sp, link, sizeof(T));
        }
        if (s->Abort != Abort.None) return false;
        // The new top of the stack must be writable: the fault comes here, not at the first push (SDM Vol. 2 ENTER).
        sp -= (ulong)op->Imm;
        if (!Mem.ProbeWrite(s, op, sp, sizeof(T))) return false;
        Width<T>.Set(s, 5 * 8, (long)frame);
        s->Regs[4] = sp;
        return true;
    }

    /// <summary>PUSHF; RF and VM read as zero in the image.</summary>
    [MethodImpl(Hot)]
    public static void PushFlags<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var sp = s->Regs[4] - (ulong)sizeof(T);
        Width<T>.Write(s, op, sp, Flags.Get(s) & ~(Flags.Rf | Flags.Vm));
        if (s->Abort != Abort.None) return;
        s->Regs[4] = sp;
        op[1].Fn(s, op + 1);
    }

    /// <summary>POPF. Leaves the block where an interrupt waits that IF now admits, or single-stepping begins.</summary>
    [MethodImpl(Hot)]
    public static void PopFlags<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var value = Width<T>.Read(s, op, s->Regs[4]);
        if (s->Abort != Abort.None) return;
        s->Regs[4] += (ulong)sizeof(T);
        if (LoadFlags(s, (uint)value, sizeof(T) == 2))
        {
            FlagOps.Leave(s, op);
            return;
        }
        op[1].Fn(s, op + 1);
    }

    /// <summary>Applies POPF's privilege rules (SDM Vol. 2 POPF); true where the run loop must look.</summary>
    public static bool LoadFlags(CpuState* s, uint value, bool word)
    {
        var change = Flags.Tf | Flags.Df | Flags.Nt | Flags.Ac | Flags.Id | Flags.Rf;
        if (s->Cpl == 0) change |= Flags.Iopl;
        if (s->Cpl <= (int)((s->SystemFlags & Flags.Iopl) >> 12)) change |= Flags.If;
        if (word) change &= 0xFFFF;
        value &= ~Flags.Rf;
        Flags.SetArithmetic(s, value);
        var before = s->SystemFlags;
        s->SystemFlags = (before & ~change) | (value & change);
        if (((before ^ s->SystemFlags) & Flags.Ac) != 0 && s->Cpl == 3)
        {
            SoftCpu.Of(s).UpdateMode(); // alignment checks begin or end
            return true;
        }
        return (s->SystemFlags & Flags.Tf) != 0 || (s->InterruptWaiting != 0 && (s->SystemFlags & Flags.If) != 0);
    }
}
