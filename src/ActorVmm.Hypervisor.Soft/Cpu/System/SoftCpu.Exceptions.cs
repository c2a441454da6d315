namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>Where an event comes from; decides privilege checks, the EXT bit and what a failed delivery means.</summary>
internal enum InterruptKind
{
    /// <summary>From the local APIC or the 8259.</summary>
    External,
    Nmi,

    /// <summary>INT n.</summary>
    Software,

    /// <summary>INT3 and INTO: the gate's DPL is checked as for INT n.</summary>
    SoftwareException,

    /// <summary>INT1: no DPL check.</summary>
    PrivilegedSoftware,

    /// <summary>An exception of the CPU itself.</summary>
    Exception,
}

/// <summary>
/// Delivery of exceptions and interrupts (SDM Vol. 3 ch. 6, Vol. 2A INT n) through the 64-bit IDT, the 32-bit IDT and the real-mode table.
/// Not offered: task gates and virtual-8086 mode; a task gate raises #GP with the gate as error code, as in long mode.
/// </summary>
internal sealed unsafe partial class SoftCpu
{
    /// <summary>NMIs are held back until the next IRET.</summary>
    internal bool NmiMasked { get; set; }

    /// <summary>
    /// Delivers the exception that the state describes. <see cref="CpuState.Rip"/> is what the handler shall return to. Afterwards
    /// <see cref="CpuState.Abort"/> is None, or Shutdown after a triple fault.
    /// </summary>
    public void DeliverException()
    {
        var s = _s;
        for (; ; )
        {
            var vector = s->ExceptionVector;
            s->Abort = Abort.None;
            if (Deliver(null, vector, InterruptKind.Exception, s->Rip, s->HasErrorCode != 0, s->ExceptionErrorCode))
            {
                if (vector == Vector.Db) s->Dr[7] &= ~0x2000UL; // GD is cleared on entry to a debug handler
                return;
            }
            // A second exception came up while the first was being delivered (SDM Vol. 3 table 6-5).
            var second = s->ExceptionVector;
            if (vector == Vector.Df)
            {
                s->Abort = Abort.Shutdown;
                return;
            }
            if ((IsContributory(vector) && IsContributory(second)) || (vector == Vector.Pf && (IsContributory(second) || second == Vector.Pf)))
            {
                s->ExceptionVector = Vector.Df;
                s->HasErrorCode = 1;
                s->ExceptionErrorCode = 0;
            }
        }
    }

    /// <summary>Delivers an external interrupt or NMI between two instructions. Ends as <see cref="DeliverException"/>.</summary>
    public void DeliverInterrupt(int vector, InterruptKind kind)
    {
        var s = _s;
        s->InterruptShadow = 0;
        if (!Deliver(null, vector, kind, s->Rip, false, 0))
        {
            DeliverException();
            return;
        }
        if (kind == InterruptKind.Nmi) NmiMasked = true;
    }

    /// <summary>INT n, INT3, INTO, INT1. False: a fault of the instruction is raised.</summary>
    internal bool SoftwareInterrupt(Op* op, int vector, InterruptKind kind) =>
        Deliver(op, vector, kind, NextRip(op), false, 0);

    /// <summary>Address of the instruction behind <paramref name="op"/>, in the width of the mode.</summary>
    internal ulong NextRip(Op* op)
    {
        var next = _s->Rip + (ulong)op->NextOffset;
        return Mode64 ? next : _s->Mode == CodeMode.Bits32 ? (uint)next : (ushort)next;
    }

    private static bool IsContributory(int vector) => vector is Vector.De or Vector.Ts or Vector.Np or Vector.Ss or Vector.Gp;

    private bool Deliver(Op* op, int vector, InterruptKind kind, ulong returnRip, bool hasErrorCode, uint errorCode)
    {
        if (!ProtectedMode) return DeliverReal(op, vector, returnRip);
        var frame = new Frame
        {
            Op = op,
            Vector = vector,
            Kind = kind,
            ReturnRip = returnRip,
            HasErrorCode = hasErrorCode,
            ErrorCode = errorCode,
            External = kind is InterruptKind.Software or InterruptKind.SoftwareException ? 0u : 1u,
        };
        return LongMode ? DeliverLong(ref frame) : DeliverProtected(ref frame);
    }

    /// <summary>One delivery under way.</summary>
    private struct Frame
    {
        public Op* Op;
        public int Vector;
        public InterruptKind Kind;
        public ulong ReturnRip;
        public bool HasErrorCode;
        public uint ErrorCode;

        /// <summary>The EXT bit of error codes that arise here.</summary>
        public uint External;
    }

    /// <summary>#GP or #NP that names the IDT entry.</summary>
    private bool GateFault(int vector, in Frame frame) => RaiseFault(vector, (uint)frame.Vector * 8 | 2 | frame.External);

    /// <summary>The RFLAGS image of the frame. RF is set for faults, so that a restarted instruction meets no breakpoint twice (SDM Vol. 3 §17.3.1.1).</summary>
    private uint FlagsImage(in Frame frame)
    {
        var flags = Flags.Get(_s);
        return frame.Kind == InterruptKind.Exception && frame.Vector is not (Vector.Db or Vector.Bp or Vector.Of) ? flags | Flags.Rf : flags;
    }

    private void ClearFlagsForHandler(bool clearInterrupts) =>
        _s->SystemFlags &= ~(Flags.Tf | Flags.Nt | Flags.Rf | Flags.Vm | (clearInterrupts ? Flags.If : 0));

    /// <summary>IA-32e mode: 16-byte gates, IST, a stack aligned to 16 bytes that always gets SS:RSP (SDM Vol. 3 §6.14).</summary>
    private bool DeliverLong(ref Frame frame)
    {
        var s = _s;
        var ext = frame.External;
        if ((uint)frame.Vector * 16 + 15 > s->IdtLimit) return GateFault(Vector.Gp, frame);
        var gateAddress = s->IdtBase + (uint)frame.Vector * 16;
        if (!ReadSystem64(gateAddress, out var raw) || !ReadSystem64(gateAddress + 8, out var high)) return false;
        var gate = new Descriptor(raw);
        if (gate.IsCodeOrData || gate.Type is not (SystemType.InterruptGate32 or SystemType.TrapGate32)) return GateFault(Vector.Gp, frame);
        if (frame.Kind is InterruptKind.Software or InterruptKind.SoftwareException && gate.Dpl < s->Cpl) return GateFault(Vector.Gp, frame);
        if (!gate.Present) return GateFault(Vector.Np, frame);

        var selector = gate.GateSelector;
        if (!CheckHandlerSegment(selector, ext, out var code)) return false;
        if (!code.Long || code.Big) return SelectorFault(Vector.Gp, selector, ext);
        var cpl = code.IsConforming ? s->Cpl : code.Dpl;
        var inward = cpl < s->Cpl;
        ulong pointer;
        if (gate.GateStack != 0)
        {
            if (!ReadTssStack64(28 + 8 * gate.GateStack, ext, out pointer)) return false;
        }
        else if (inward)
        {
            if (!ReadTssStack64(4 + 8 * cpl, ext, out pointer)) return false;
        }
        else
        {
            pointer = s->Regs[4];
        }
        var target = gate.GateOffset | high << 32;
        if (!IsCanonical(target)) return RaiseFault(Vector.Gp, ext);

        var stack = FlatStack(pointer & ~15UL, ext);
        stack.User = cpl == 3;
        var op = frame.Op;
        if (!Push(op, ref stack, s->Ss.Selector, 8) || !Push(op, ref stack, s->Regs[4], 8) || !Push(op, ref stack, FlagsImage(frame), 8) ||
            !Push(op, ref stack, s->Cs.Selector, 8) || !Push(op, ref stack, frame.ReturnRip, 8) ||
            (frame.HasErrorCode && !Push(op, ref stack, frame.ErrorCode, 8)) || !MarkAccessed(selector, ref code)) return false;

        if (inward) CommitNullStack((ushort)cpl);
        s->Regs[4] = stack.Pointer;
        CommitCode(selector, code, cpl);
        s->Rip = target;
        ClearFlagsForHandler(gate.Type == SystemType.InterruptGate32);
        UpdateMode();
        return true;
    }

    /// <summary>The checks on a handler's code segment that all modes share.</summary>
    private bool CheckHandlerSegment(ushort selector, uint external, out Descriptor code)
    {
        code = default;
        if ((selector & 0xFFFC) == 0) return RaiseFault(Vector.Gp, external);
        if (!ReadDescriptor(selector, Vector.Gp, external, out code)) return false;
        if (!code.IsCode || code.Dpl > _s->Cpl) return SelectorFault(Vector.Gp, selector, external);
        return code.Present || SelectorFault(Vector.Np, selector, external);
    }

    /// <summary>A stack pointer of the 64-bit TSS.</summary>
    private bool ReadTssStack64(int offset, uint external, out ulong pointer)
    {
        pointer = 0;
        if ((uint)offset + 7 > _s->Tr.Limit) return SelectorFault(Vector.Ts, _s->Tr.Selector, external);
        if (!ReadSystem64(_s->TrBase + (uint)offset, out pointer)) return false;
        return IsCanonical(pointer) || RaiseFault(Vector.Ss, external);
    }

    /// <summary>SS:ESP of a privilege level from the 32- or 16-bit TSS (SDM Vol. 3 §7.2.1, §7.6).</summary>
    private bool ReadTssStack(int cpl, uint external, out ushort selector, out uint pointer)
    {
        var s = _s;
        (selector, pointer) = (0, 0);
        var wide = (s->Tr.Type & 8) != 0;
        var offset = wide ? 4 + 8 * (uint)cpl : 2 + 4 * (uint)cpl;
        var size = wide ? 4 : 2;
        if (offset + (uint)size + 1 > s->Tr.Limit) return SelectorFault(Vector.Ts, s->Tr.Selector, external);
        if (!SystemRead((uint)(s->TrBase + offset), size, out var sp) || !SystemRead((uint)(s->TrBase + offset + (uint)size), 2, out var ss)) return false;
        (selector, pointer) = ((ushort)ss, (uint)sp);
        return true;
    }

    /// <summary>The stack of an inner level in the legacy modes; what is wrong with it is #TS, or #SS where it is not present.</summary>
    private bool OpenInnerStack(int cpl, uint external, out ushort selector, out Descriptor descriptor, out PendingStack stack)
    {
        (descriptor, stack) = (default, default);
        if (!ReadTssStack(cpl, external, out selector, out var pointer)) return false;
        if ((selector & 0xFFFC) == 0) return RaiseFault(Vector.Ts, external);
        if (!CheckStackSegment(selector, cpl, Vector.Ts, external, out descriptor)) return false;
        stack = StackOf(selector, descriptor, pointer, (selector & 0xFFFCu) | external);
        return true;
    }

    /// <summary>Protected mode: 8-byte gates of 16 or 32 bits (SDM Vol. 3 §6.12.1).</summary>
    private bool DeliverProtected(ref Frame frame)
    {
        var s = _s;
        var ext = frame.External;
        if ((uint)frame.Vector * 8 + 7 > s->IdtLimit) return GateFault(Vector.Gp, frame);
        if (!ReadSystem64((uint)(s->IdtBase + (uint)frame.Vector * 8), out var raw)) return false;
        var gate = new Descriptor(raw);
        if (gate.IsCodeOrData ||
            gate.Type is not (SystemType.InterruptGate16 or SystemType.TrapGate16 or SystemType.InterruptGate32 or SystemType.TrapGate32))
            return GateFault(Vector.Gp, frame);
        if (frame.Kind is InterruptKind.Software or InterruptKind.SoftwareException && gate.Dpl < s->Cpl) return GateFault(Vector.Gp, frame);
        if (!gate.Present) return GateFault(Vector.Np, frame);

        var selector = gate.GateSelector;
        if (!CheckHandlerSegment(selector, ext, out var code)) return false;
        var cpl = code.IsConforming ? s->Cpl : code.Dpl;
        var inward = cpl < s->Cpl;
        var size = (gate.Type & 8) != 0 ? 4 : 2;
        var target = size == 4 ? gate.GateOffset : gate.GateOffset & 0xFFFF;
        if (target > code.Limit) return RaiseFault(Vector.Gp, ext);

        var op = frame.Op;
        PendingStack stack;
        ushort stackSelector = 0;
        Descriptor stackDescriptor = default;
        if (inward)
        {
            if (!OpenInnerStack(cpl, ext, out stackSelector, out stackDescriptor, out stack)) return false;
            if (!Push(op, ref stack, s->Ss.Selector, size) || !Push(op, ref stack, s->Regs[4], size)) return false;
        }
        else
        {
            stack = CurrentStack(ext);
        }
        if (!Push(op, ref stack, FlagsImage(frame), size) || !Push(op, ref stack, s->Cs.Selector, size) || !Push(op, ref stack, frame.ReturnRip, size) ||
            (frame.HasErrorCode && !Push(op, ref stack, frame.ErrorCode, size)) || !MarkAccessed(selector, ref code)) return false;

        if (inward) CommitSegment(SegSs, stackSelector, stackDescriptor);
        CommitStackPointer(stack);
        CommitCode(selector, code, cpl);
        s->Rip = target;
        ClearFlagsForHandler((gate.Type & 1) == 0);
        UpdateMode();
        return true;
    }

    /// <summary>Real mode: four bytes per vector, no error codes (SDM Vol. 3 §20.1.4).</summary>
    private bool DeliverReal(Op* op, int vector, ulong returnRip)
    {
        var s = _s;
        if ((uint)vector * 4 + 3 > s->IdtLimit) return RaiseFault(Vector.Gp, 0);
        if (!SystemRead((uint)(s->IdtBase + (uint)vector * 4), 4, out var entry)) return false;
        var stack = CurrentStack();
        if (!Push(op, ref stack, Flags.Get(s), 2) || !Push(op, ref stack, s->Cs.Selector, 2) || !Push(op, ref stack, returnRip, 2)) return false;
        CommitStackPointer(stack);
        CommitReal(SegCs, (ushort)(entry >> 16));
        s->Rip = (ushort)entry;
        s->SystemFlags &= ~(Flags.If | Flags.Tf | Flags.Ac | Flags.Rf);
        UpdateMode();
        return true;
    }
}
