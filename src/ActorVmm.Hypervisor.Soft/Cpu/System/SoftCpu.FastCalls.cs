namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>SYSCALL, SYSRET, SYSENTER, SYSEXIT (SDM Vol. 2B; AMD APM Vol. 3): no descriptors are read, flat segments are assumed.</summary>
internal sealed unsafe partial class SoftCpu
{
    private const uint SyscallReturnFlags = 0x3C7FD7;

    /// <summary>SYSCALL, from 64-bit, compatibility and (as AMD has it) protected mode.</summary>
    internal bool Syscall(Op* op)
    {
        var s = _s;
        if ((s->Efer & EferBits.Sce) == 0 || !ProtectedMode) return RaiseFault(Vector.Ud);
        var selector = (ushort)(s->Star >> 32);
        var next = NextRip(op);
        if (LongMode)
        {
            var flags = Flags.Get(s) & ~Flags.Rf;
            s->Regs[1] = next;
            s->Regs[11] = flags;
            s->Rip = Mode64 ? s->Lstar : s->Cstar;
            Flags.Set(s, flags & ~(uint)s->SyscallMask);
            CommitFlat(SegCs, (ushort)(selector & 0xFFFC), FlatCode64, 0);
        }
        else
        {
            s->Regs[1] = next;
            s->Rip = (uint)s->Star;
            s->SystemFlags &= ~(Flags.If | Flags.Vm | Flags.Rf);
            CommitFlat(SegCs, (ushort)(selector & 0xFFFC), FlatCode32, 0);
        }
        CommitFlat(SegSs, (ushort)((selector & 0xFFFC) + 8), FlatData, 0);
        s->Cpl = 0;
        UpdateMode();
        return true;
    }

    /// <summary>SYSRET; <paramref name="wide"/> with REX.W returns to 64-bit mode.</summary>
    internal bool Sysret(bool wide)
    {
        var s = _s;
        if ((s->Efer & EferBits.Sce) == 0) return RaiseFault(Vector.Ud);
        if (!ProtectedMode || s->Cpl != 0) return RaiseFault(Vector.Gp, 0);
        var selector = (ushort)(s->Star >> 48);
        // Checked here rather than at the fetch in ring 3: a fault after the switch would run the handler on the user's stack.
        if (wide && !IsCanonical(s->Regs[1])) return RaiseFault(Vector.Gp, 0);
        if (wide) CommitFlat(SegCs, (ushort)((selector + 16) | 3), FlatCode64, 3);
        else CommitFlat(SegCs, (ushort)(selector | 3), FlatCode32, 3);
        CommitFlat(SegSs, (ushort)((selector + 8) | 3), FlatData, 3);
        s->Rip = wide ? s->Regs[1] : (uint)s->Regs[1];
        if (LongMode) Flags.Set(s, (uint)s->Regs[11] & SyscallReturnFlags);
        else s->SystemFlags |= Flags.If;
        s->Cpl = 3;
        UpdateMode();
        return true;
    }

    /// <summary>SYSENTER. Offered in every protected mode; in long mode that is Intel's rule, which no guest can be hurt by.</summary>
    internal bool Sysenter()
    {
        var s = _s;
        if (!ProtectedMode || (s->SysenterCs & 0xFFFC) == 0) return RaiseFault(Vector.Gp, 0);
        var selector = (ushort)(s->SysenterCs & 0xFFFC);
        s->SystemFlags &= ~(Flags.If | Flags.Vm | Flags.Rf);
        s->Regs[4] = LongMode ? s->SysenterEsp : (uint)s->SysenterEsp;
        s->Rip = LongMode ? s->SysenterEip : (uint)s->SysenterEip;
        CommitFlat(SegCs, selector, LongMode ? FlatCode64 : FlatCode32, 0);
        CommitFlat(SegSs, (ushort)(selector + 8), FlatData, 0);
        s->Cpl = 0;
        UpdateMode();
        return true;
    }

    /// <summary>SYSEXIT; <paramref name="wide"/> with REX.W returns to 64-bit mode.</summary>
    internal bool Sysexit(bool wide)
    {
        var s = _s;
        if (!ProtectedMode || s->Cpl != 0 || (s->SysenterCs & 0xFFFC) == 0) return RaiseFault(Vector.Gp, 0);
        if (wide && !(IsCanonical(s->Regs[1]) && IsCanonical(s->Regs[2]))) return RaiseFault(Vector.Gp, 0);
        var selector = (ushort)(s->SysenterCs & 0xFFFC);
        CommitFlat(SegCs, (ushort)((selector + (wide ? 32 : 16)) | 3), wide ? FlatCode64 : FlatCode32, 3);
        CommitFlat(SegSs, (ushort)((selector + (wide ? 40 : 24)) | 3), FlatData, 3);
        s->Regs[4] = wide ? s->Regs[1] : (uint)s->Regs[1];
        s->Rip = wide ? s->Regs[2] : (uint)s->Regs[2];
        s->Cpl = 3;
        UpdateMode();
        return true;
    }
}
