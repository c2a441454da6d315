namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// Far JMP, CALL and RET (SDM Vol. 2A, Vol. 3 §5.8): direct, through call gates, to inner levels. Not offered: hardware task switches;
/// a TSS or task gate as target raises #GP with its selector, as in long mode.
/// </summary>
internal sealed unsafe partial class SoftCpu
{
    /// <summary>JMP far. False: a fault is raised and nothing has changed.</summary>
    internal bool FarJump(ushort selector, ulong offset)
    {
        var s = _s;
        if (!ProtectedMode) return JumpReal(selector, offset);
        if (!OpenTarget(selector, out var target)) return false;
        if (!target.IsCodeOrData)
        {
            if (!OpenCallGate(ref selector, target, out var gate)) return false;
            if (!CheckDirectTarget(selector, gate.Code, s->Cpl) || !CheckTarget(gate.Code, gate.Offset)) return false;
            (target, offset) = (gate.Code, gate.Offset);
        }
        else if (!CheckDirectTarget(selector, target, selector & 3) || !CheckTarget(target, offset))
        {
            return false;
        }
        if (!MarkAccessed(selector, ref target)) return false;
        CommitCode(selector, target, s->Cpl);
        s->Rip = offset;
        UpdateMode();
        return true;
    }

    /// <summary>CALL far; <paramref name="size"/> is the operand size in bytes.</summary>
    internal bool FarCall(Op* op, ushort selector, ulong offset, int size)
    {
        var s = _s;
        var stack = CurrentStack();
        if (!ProtectedMode)
        {
            if (offset > 0xFFFF) return RaiseFault(Vector.Gp, 0);
            if (!Push(op, ref stack, s->Cs.Selector, size) || !Push(op, ref stack, NextRip(op), size)) return false;
            CommitStackPointer(stack);
            return JumpReal(selector, offset);
        }
        if (!OpenTarget(selector, out var target)) return false;
        if (!target.IsCodeOrData)
        {
            return OpenCallGate(ref selector, target, out var gate) && CallGate(op, selector, gate);
        }
        if (!CheckDirectTarget(selector, target, selector & 3) || !CheckTarget(target, offset)) return false;
        if (!Push(op, ref stack, s->Cs.Selector, size) || !Push(op, ref stack, NextRip(op), size) || !MarkAccessed(selector, ref target)) return false;
        CommitStackPointer(stack);
        CommitCode(selector, target, s->Cpl);
        s->Rip = offset;
        UpdateMode();
        return true;
    }

    /// <summary>RETF, releasing <paramref name="release"/> bytes of parameters.</summary>
    internal bool FarReturn(Op* op, int size, int release)
    {
        var s = _s;
        var stack = CurrentStack();
        if (!Pop(op, ref stack, size, out var rip) || !Pop(op, ref stack, size, out var csValue)) return false;
        var cs = (ushort)csValue;
        if (!ProtectedMode)
        {
            if (rip > 0xFFFF) return RaiseFault(Vector.Gp, 0);
            Release(ref stack, release);
            CommitStackPointer(stack);
            return JumpReal(cs, rip);
        }
        if (!CheckReturnSegment(cs, rip, out var code)) return false;
        Release(ref stack, release);
        var cpl = cs & 3;
        if (cpl == s->Cpl)
        {
            if (!MarkAccessed(cs, ref code)) return false;
            CommitStackPointer(stack);
            CommitCode(cs, code, cpl);
            s->Rip = rip;
            UpdateMode();
            return true;
        }
        if (!Pop(op, ref stack, size, out var rsp) || !Pop(op, ref stack, size, out var ssValue)) return false;
        var ss = (ushort)ssValue;
        if (!CheckReturnStack(ss, cpl, code.Long && LongMode, out var stackDescriptor) || !MarkAccessed(cs, ref code)) return false;
        stack.Pointer = rsp;
        stack.Mask = NewStackMask(code, stackDescriptor);
        Release(ref stack, release); // the caller's stack held the parameters too
        CommitCode(cs, code, cpl);
        s->Rip = rip;
        if ((ss & 0xFFFC) == 0) CommitNullStack(ss);
        else CommitSegment(SegSs, ss, stackDescriptor);
        CommitStackPointer(stack);
        DropInnerSegments();
        UpdateMode();
        return true;
    }

    private static void Release(ref PendingStack stack, int bytes) =>
        stack.Pointer = (stack.Pointer + (uint)bytes) & stack.Mask | stack.Pointer & ~stack.Mask;

    private bool JumpReal(ushort selector, ulong offset)
    {
        if (offset > 0xFFFF) return RaiseFault(Vector.Gp, 0);
        CommitReal(SegCs, selector);
        _s->Rip = offset;
        UpdateMode();
        return true;
    }

    private bool OpenTarget(ushort selector, out Descriptor target)
    {
        target = default;
        return (selector & 0xFFFC) == 0 ? RaiseFault(Vector.Gp, 0) : ReadDescriptor(selector, Vector.Gp, 0, out target);
    }

    /// <summary>A code segment reached without changing level: conforming from DPL up, else exactly at DPL.</summary>
    private bool CheckDirectTarget(ushort selector, Descriptor code, int rpl)
    {
        var cpl = _s->Cpl;
        if (!code.IsCode || (LongMode && code.Long && code.Big)) return SelectorFault(Vector.Gp, selector);
        if (code.IsConforming ? code.Dpl > cpl : rpl > cpl || code.Dpl != cpl) return SelectorFault(Vector.Gp, selector);
        return code.Present || SelectorFault(Vector.Np, selector);
    }

    /// <summary>What a call gate leads to.</summary>
    private struct Gate
    {
        public Descriptor Code;
        public ulong Offset;
        public int Size;
        public int Parameters;
    }

    /// <summary>
    /// Opens a call gate: privilege and presence of the gate, then its code segment. <paramref name="selector"/> becomes the code segment's.
    /// </summary>
    private bool OpenCallGate(ref ushort selector, Descriptor descriptor, out Gate gate)
    {
        gate = default;
        var s = _s;
        if (descriptor.Type != SystemType.CallGate32 && (LongMode || descriptor.Type != SystemType.CallGate16)) return SelectorFault(Vector.Gp, selector);
        if (descriptor.Dpl < Math.Max(s->Cpl, selector & 3)) return SelectorFault(Vector.Gp, selector);
        ulong high = 0;
        if (LongMode)
        {
            // 16 bytes; the type field of the upper half must be zero.
            if (!TryDescriptorAddress(selector, 16, out var address)) return SelectorFault(Vector.Gp, selector);
            if (!ReadSystem64(address + 8, out high)) return false;
            if ((high >> 40 & 0x1F) != 0) return SelectorFault(Vector.Gp, selector);
        }
        if (!descriptor.Present) return SelectorFault(Vector.Np, selector);
        gate.Size = LongMode ? 8 : descriptor.Type == SystemType.CallGate32 ? 4 : 2;
        gate.Offset = gate.Size == 2 ? descriptor.GateOffset & 0xFFFF : descriptor.GateOffset | (ulong)(uint)high << 32;
        gate.Parameters = LongMode ? 0 : descriptor.GateParameters;
        selector = descriptor.GateSelector;
        if (!OpenTarget(selector, out gate.Code)) return false;
        if (!gate.Code.IsCode || gate.Code.Dpl > s->Cpl) return SelectorFault(Vector.Gp, selector);
        if (LongMode && (!gate.Code.Long || gate.Code.Big)) return SelectorFault(Vector.Gp, selector);
        return gate.Code.Present || SelectorFault(Vector.Np, selector);
    }

    private bool CallGate(Op* op, ushort selector, in Gate gate)
    {
        var s = _s;
        var code = gate.Code;
        var size = gate.Size;
        var cpl = code.IsConforming ? s->Cpl : code.Dpl;
        var inward = cpl < s->Cpl;
        var stack = LongMode ? FlatStack(s->Regs[4], 0) : CurrentStack();
        ushort stackSelector = (ushort)cpl;
        Descriptor stackDescriptor = default;
        if (!CheckTarget(code, gate.Offset)) return false;
        if (inward)
        {
            var outer = CurrentStack();
            if (LongMode)
            {
                if (!ReadTssStack64(4 + 8 * cpl, 0, out var pointer)) return false;
                stack = FlatStack(pointer, 0);
            }
            else if (!OpenInnerStack(cpl, 0, out stackSelector, out stackDescriptor, out stack))
            {
                return false;
            }
            if (!Push(op, ref stack, s->Ss.Selector, size) || !Push(op, ref stack, s->Regs[4], size)) return false;
            if (!CopyParameters(op, outer, ref stack, gate.Parameters, size)) return false;
        }
        else
        {
            stack.User = s->Cpl == 3;
        }
        if (!Push(op, ref stack, s->Cs.Selector, size) || !Push(op, ref stack, NextRip(op), size) || !MarkAccessed(selector, ref code)) return false;
        if (inward)
        {
            if (LongMode) CommitNullStack(stackSelector);
            else CommitSegment(SegSs, stackSelector, stackDescriptor);
        }
        CommitStackPointer(stack);
        CommitCode(selector, code, cpl);
        s->Rip = gate.Offset;
        UpdateMode();
        return true;
    }

    /// <summary>Copies a legacy gate's parameters in the order in which they lie.</summary>
    private bool CopyParameters(Op* op, PendingStack from, ref PendingStack to, int count, int size)
    {
        for (var i = count - 1; i >= 0; i--)
        {
            var at = from;
            at.Pointer = (from.Pointer + (uint)(i * size)) & from.Mask;
            if (!Pop(op, ref at, size, out var value) || !Push(op, ref to, value, size)) return false;
        }
        return true;
    }
}
