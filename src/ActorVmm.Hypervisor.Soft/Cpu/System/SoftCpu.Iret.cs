namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>IRET (SDM Vol. 2A). Not offered: returns to virtual-8086 mode and to a nested task; both raise #GP(0).</summary>
internal sealed unsafe partial class SoftCpu
{
    /// <summary>IRET, IRETD, IRETQ by operand size (2, 4, 8). False: a fault is raised and nothing has changed.</summary>
    internal bool InterruptReturn(Op* op, int size)
    {
        bool done;
        if (!ProtectedMode) done = ReturnReal(op, size);
        else if ((_s->SystemFlags & Flags.Nt) != 0) done = RaiseFault(Vector.Gp, 0);
        else done = ReturnProtected(op, size);
        if (done) NmiMasked = false;
        return done;
    }

    private bool ReturnReal(Op* op, int size)
    {
        var s = _s;
        var stack = CurrentStack();
        if (!Pop(op, ref stack, size, out var rip) || !Pop(op, ref stack, size, out var cs) || !Pop(op, ref stack, size, out var flags)) return false;
        if (rip > 0xFFFF) return RaiseFault(Vector.Gp, 0);
        CommitStackPointer(stack);
        CommitReal(SegCs, (ushort)cs);
        s->Rip = rip;
        SetReturnFlags((uint)flags, size, Flags.If | Flags.Iopl);
        UpdateMode();
        return true;
    }

    private bool ReturnProtected(Op* op, int size)
    {
        var s = _s;
        var mode64 = Mode64;
        var stack = CurrentStack();
        if (!Pop(op, ref stack, size, out var rip) || !Pop(op, ref stack, size, out var csValue) || !Pop(op, ref stack, size, out var flags)) return false;
        var cs = (ushort)csValue;
        if (!LongMode && size == 4 && (flags & Flags.Vm) != 0 && s->Cpl == 0) return RaiseFault(Vector.Gp, 0);
        if (!CheckReturnSegment(cs, rip, out var code)) return false;

        var cpl = cs & 3;
        var outward = cpl != s->Cpl;
        ushort ss = 0;
        Descriptor stackDescriptor = default;
        if (outward || mode64)
        {
            // 64-bit mode always pops SS:RSP.
            if (!Pop(op, ref stack, size, out var rsp) || !Pop(op, ref stack, size, out var ssValue)) return false;
            ss = (ushort)ssValue;
            if (!CheckReturnStack(ss, cpl, code.Long && LongMode, out stackDescriptor)) return false;
            stack.Pointer = rsp;
            stack.Mask = NewStackMask(code, stackDescriptor);
        }
        if (!MarkAccessed(cs, ref code)) return false;

        var changeable = s->Cpl == 0 ? Flags.If | Flags.Iopl | Flags.Vif | Flags.Vip : IsIoPrivileged ? Flags.If : 0;
        CommitCode(cs, code, cpl);
        s->Rip = rip;
        if (outward || mode64)
        {
            if ((ss & 0xFFFC) == 0) CommitNullStack(ss);
            else CommitSegment(SegSs, ss, stackDescriptor);
        }
        if (size == 2 && (outward || mode64)) s->Regs[4] = stack.Pointer & 0xFFFF | s->Regs[4] & ~0xFFFFUL;
        else CommitStackPointer(stack);
        SetReturnFlags((uint)flags, size, changeable);
        if (outward) DropInnerSegments();
        UpdateMode();
        return true;
    }

    private bool IsIoPrivileged => _s->Cpl <= (int)(_s->SystemFlags >> 12 & 3);

    /// <summary>Width of the stack pointer after a return: 64 bits in 64-bit mode, else SS.B.</summary>
    private ulong NewStackMask(Descriptor code, Descriptor stack) =>
        LongMode && code.Long ? ulong.MaxValue : stack.Big ? uint.MaxValue : 0xFFFF;

    /// <summary>The code segment of IRET and RETF: same or outer level, present, and RIP inside it.</summary>
    private bool CheckReturnSegment(ushort selector, ulong rip, out Descriptor code)
    {
        code = default;
        var rpl = selector & 3;
        if ((selector & 0xFFFC) == 0) return RaiseFault(Vector.Gp, 0);
        if (!ReadDescriptor(selector, Vector.Gp, 0, out code)) return false;
        if (rpl < _s->Cpl || !code.IsCode) return SelectorFault(Vector.Gp, selector);
        if (code.IsConforming ? code.Dpl > rpl : code.Dpl != rpl) return SelectorFault(Vector.Gp, selector);
        if (LongMode && code.Long && code.Big) return SelectorFault(Vector.Gp, selector);
        if (!code.Present) return SelectorFault(Vector.Np, selector);
        return CheckTarget(code, rip);
    }

    /// <summary>A new RIP: canonical in 64-bit code, within the limit elsewhere; else #GP(0).</summary>
    private bool CheckTarget(Descriptor code, ulong rip) =>
        (LongMode && code.Long ? IsCanonical(rip) : rip <= code.Limit) || RaiseFault(Vector.Gp, 0);

    /// <summary>The stack segment that IRET and RETF return to; null is allowed for 64-bit code below ring 3.</summary>
    private bool CheckReturnStack(ushort selector, int cpl, bool toLong, out Descriptor descriptor)
    {
        descriptor = default;
        if ((selector & 0xFFFC) != 0) return CheckStackSegment(selector, cpl, Vector.Gp, 0, out descriptor);
        return (toLong && cpl != 3 && (selector & 3) == cpl) || RaiseFault(Vector.Gp, 0);
    }

    /// <summary>
    /// Takes over a flags image. RF is not kept: it only suppresses instruction breakpoints for one instruction, and this CPU has none.
    /// </summary>
    private void SetReturnFlags(uint image, int size, uint privileged)
    {
        var mask = Flags.Arithmetic | Flags.Tf | Flags.Df | Flags.Nt | Flags.Ac | Flags.Id | privileged;
        if (size == 2) mask &= 0xFFFF;
        Flags.Set(_s, Flags.Get(_s) & ~mask & ~(Flags.Rf | Flags.Vm) | image & mask);
    }
}
