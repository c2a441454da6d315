using System.Runtime.InteropServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>Reset, start-up, and the conversion between the native state and <see cref="VcpuState"/>.</summary>
internal sealed unsafe partial class SoftCpu
{
    private const int XsaveSize = 576, LapicPage = 1024;

    /// <summary>x2APIC id; whoever builds the machine sets it.</summary>
    internal uint ApicId { get; set; }

    /// <summary>CPUs in the machine.</summary>
    internal uint CpuCount { get; set; } = 1;

    /// <summary>TSC frequency for the hypervisor's CPUID leaf; 0: unknown.</summary>
    internal uint TscKhz { get; set; }

    /// <summary>Running, halted, or waiting for INIT or SIPI. The run loop keeps it.</summary>
    internal VcpuActivity Activity { get; set; }

    /// <summary>An NMI waits for delivery; set by other threads through <see cref="RaiseNmi"/>.</summary>
    internal bool NmiPending => Volatile.Read(ref _nmiPending) != 0;

    /// <summary>Vector of a SIPI that has arrived.</summary>
    internal byte SipiVector { get; set; }

    private int _nmiPending;

    internal CpuIdentity Identity => new(ApicId, CpuCount, (Apic.ApicBase >> 11 & 1) != 0, TscKhz);

    /// <summary>Latches an NMI. Any thread; the caller wakes the run loop.</summary>
    internal void RaiseNmi() => Volatile.Write(ref _nmiPending, 1);

    /// <summary>Takes the latched NMI if it may be delivered now.</summary>
    internal bool TryTakeNmi() => !NmiMasked && Interlocked.Exchange(ref _nmiPending, 0) != 0;

    /// <summary>Power-on reset (SDM Vol. 3 table 10-1), MSRs and TSC included. INIT is <see cref="Init"/>.</summary>
    internal void Reset()
    {
        var s = _s;
        Init();
        s->Cr0 = Cr0Bits.Et | Cr0Bits.Nw | Cr0Bits.Cd;
        s->Star = s->Lstar = s->Cstar = s->SyscallMask = s->KernelGsBase = s->TscAux = 0;
        s->SysenterCs = s->SysenterEsp = s->SysenterEip = 0;
        s->TscOffset = 0;
        _mtrrVariable.AsSpan().Clear();
        _mtrrFixed.AsSpan().Clear();
        _mtrrDefType = _debugControl = _mcgStatus = _tscAdjust = _sysCfg = _hwCr = 0;
        (_pat, _miscEnable, _decodeConfig) = (Msr.PatReset, 1, 2);
        Span<byte> fxsave = stackalloc byte[512];
        ResetFxsave(fxsave);
        Fxsave.Load(s, fxsave);
    }

    /// <summary>INIT: registers as at reset, but MSRs, TSC, x87 and SSE state stay, and so do CR0.CD and CR0.NW (SDM Vol. 3 §10.1.1).</summary>
    internal void Init()
    {
        var s = _s;
        for (var i = 0; i < 16; i++) s->Regs[i] = 0;
        s->Regs[2] = CpuFeatures.Signature;
        s->Rip = 0xFFF0;
        Flags.Set(s, 2);
        s->Cr0 = Cr0Bits.Et | s->Cr0 & (Cr0Bits.Nw | Cr0Bits.Cd);
        s->Cr2 = s->Cr3 = s->Cr4 = s->Efer = 0;
        for (var i = 0; i < 6; i++)
        {
            SegmentOf(s, i) = new Segment { Limit = 0xFFFF, Attributes = 0x93 };
            s->SegBase[i] = 0;
        }
        s->Cs = new Segment { Selector = 0xF000, Limit = 0xFFFF, Attributes = 0x9B };
        s->SegBase[SegCs] = 0xFFFF_0000;
        s->Ldtr = new Segment { Limit = 0xFFFF, Attributes = 0x82 };
        s->Tr = new Segment { Limit = 0xFFFF, Attributes = 0x8B };
        s->LdtrBase = s->TrBase = s->GdtBase = s->IdtBase = 0;
        s->GdtLimit = s->IdtLimit = 0xFFFF;
        for (var i = 0; i < 8; i++) s->Dr[i] = 0;
        (s->Dr[6], s->Dr[7]) = (Dr6Fixed, Dr7Fixed);
        s->Cpl = 0;
        s->Abort = Abort.None;
        s->InterruptShadow = 0;
        NmiMasked = false;
        _nmiPending = 0;
        FlushTlb();
        _user = null;
        UpdateMode();
    }

    /// <summary>SIPI: real mode at page <paramref name="vector"/> (SDM Vol. 3 §9.4.4).</summary>
    internal void StartUp(byte vector)
    {
        CommitReal(SegCs, (ushort)(vector << 8));
        _s->Rip = 0;
        SipiVector = vector;
        Activity = VcpuActivity.Running;
        UpdateMode();
    }

    /// <summary>FCW 0x37F, MXCSR 0x1F80, all registers empty and zero: how firmware hands the FPU over (FNINIT).</summary>
    private static void ResetFxsave(Span<byte> image)
    {
        image.Clear();
        MemoryMarshal.Write(image, (ushort)0x37F);
        MemoryMarshal.Write(image[24..], 0x1F80u);
    }

    /// <summary>The full architectural state. No exit may be pending.</summary>
    internal VcpuState GetState()
    {
        var s = _s;
        var xsave = new byte[XsaveSize];
        Fxsave.Save(s, xsave.AsSpan(0, 512));
        xsave[512] = 3; // XSTATE_BV: x87 and SSE
        var lapic = new byte[LapicPage];
        Apic.SavePage(lapic);
        var msrs = new List<MsrValue>();
        foreach (var index in Msr.Saved)
            if (TryReadMsr(null, index, out var value)) msrs.Add(new MsrValue(index, value));
        var pending = s->Abort == Abort.Exception;
        return new VcpuState
        {
            General = new GeneralRegisters
            {
                Rax = s->Regs[0], Rcx = s->Regs[1], Rdx = s->Regs[2], Rbx = s->Regs[3], Rsp = s->Regs[4], Rbp = s->Regs[5], Rsi = s->Regs[6],
                Rdi = s->Regs[7], R8 = s->Regs[8], R9 = s->Regs[9], R10 = s->Regs[10], R11 = s->Regs[11], R12 = s->Regs[12], R13 = s->Regs[13],
                R14 = s->Regs[14], R15 = s->Regs[15], Rip = s->Rip, Rflags = Flags.Get(s),
            },
            Special = new SpecialRegisters
            {
                Es = SaveSegment(s->Es, s->SegBase[SegEs]), Cs = SaveSegment(s->Cs, s->SegBase[SegCs]), Ss = SaveSegment(s->Ss, s->SegBase[SegSs]),
                Ds = SaveSegment(s->Ds, s->SegBase[SegDs]), Fs = SaveSegment(s->Fs, s->SegBase[SegFs]), Gs = SaveSegment(s->Gs, s->SegBase[SegGs]),
                Tr = SaveSegment(s->Tr, s->TrBase), Ldt = SaveSegment(s->Ldtr, s->LdtrBase),
                Gdt = new TableRegister(s->GdtBase, (ushort)s->GdtLimit), Idt = new TableRegister(s->IdtBase, (ushort)s->IdtLimit),
                Cr0 = s->Cr0, Cr2 = s->Cr2, Cr3 = s->Cr3, Cr4 = s->Cr4, Cr8 = Apic.TaskPriority, Efer = s->Efer, ApicBase = Apic.ApicBase,
            },
            Xsave = xsave,
            Debug = [s->Dr[0], s->Dr[1], s->Dr[2], s->Dr[3], s->Dr[6], s->Dr[7]],
            Lapic = lapic,
            Msrs = msrs,
            Events = new VcpuEvents
            {
                PendingException = pending ? (byte)s->ExceptionVector : null,
                PendingExceptionErrorCode = pending && s->HasErrorCode != 0 ? s->ExceptionErrorCode : null,
                NmiPending = NmiPending,
                NmiMasked = NmiMasked,
                InterruptShadow = s->InterruptShadow != 0,
                SipiVector = SipiVector,
            },
            Activity = Activity,
        };
    }

    /// <summary>Replaces the full architectural state.</summary>
    /// <exception cref="HypervisorException">The state does not fit this CPU; nothing has changed where that can be told beforehand.</exception>
    internal void SetState(VcpuState state)
    {
        CheckState(state);
        var s = _s;
        var (g, special) = (state.General, state.Special);
        ReadOnlySpan<ulong> registers =
        [
            g.Rax, g.Rcx, g.Rdx, g.Rbx, g.Rsp, g.Rbp, g.Rsi, g.Rdi, g.R8, g.R9, g.R10, g.R11, g.R12, g.R13, g.R14, g.R15,
        ];
        for (var i = 0; i < 16; i++) s->Regs[i] = registers[i];
        s->Rip = g.Rip;
        Flags.Set(s, (uint)g.Rflags);

        LoadSegment(SegEs, special.Es);
        LoadSegment(SegCs, special.Cs);
        LoadSegment(SegSs, special.Ss);
        LoadSegment(SegDs, special.Ds);
        LoadSegment(SegFs, special.Fs);
        LoadSegment(SegGs, special.Gs);
        (s->Tr, s->TrBase) = (LoadSegment(special.Tr), special.Tr.Base);
        (s->Ldtr, s->LdtrBase) = (LoadSegment(special.Ldt), special.Ldt.Base);
        (s->GdtBase, s->GdtLimit) = (special.Gdt.Base, special.Gdt.Limit);
        (s->IdtBase, s->IdtLimit) = (special.Idt.Base, special.Idt.Limit);
        s->Cr0 = special.Cr0 & Cr0Bits.All | Cr0Bits.Et;
        (s->Cr2, s->Cr3, s->Cr4, s->Efer) = (special.Cr2, special.Cr3, special.Cr4, special.Efer);
        // As in KVM, SS.DPL is the CPL: CS.RPL is not, between setting CR0.PE and the far jump.
        s->Cpl = (s->Cr0 & Cr0Bits.Pe) == 0 ? 0 : s->Ss.Dpl;
        for (var i = 0; i < 4; i++) s->Dr[i] = state.Debug[i];
        s->Dr[6] = state.Debug[4] & Dr6Writable | Dr6Fixed;
        s->Dr[7] = state.Debug[5] & Dr7Writable | Dr7Fixed;
        Fxsave.Load(s, state.Xsave.AsSpan(0, 512));

        ulong deadline = 0;
        foreach (var msr in state.Msrs)
            if (msr.Index == Msr.TscDeadline) deadline = msr.Value;
        // The time stamp first: the deadline is in its ticks.
        foreach (var msr in state.Msrs) RestoreMsr(msr);
        Apic.LoadPage(state.Lapic, special.ApicBase, deadline);
        if (Apic.TaskPriority != special.Cr8) Apic.TaskPriority = (byte)(special.Cr8 & 15); // the page has the lower bits too

        var events = state.Events;
        s->Abort = Abort.None;
        if (events.PendingException is { } vector)
        {
            s->Abort = Abort.Exception;
            s->AbortOp = null;
            s->ExceptionVector = vector;
            s->HasErrorCode = events.PendingExceptionErrorCode.HasValue ? 1 : 0;
            s->ExceptionErrorCode = events.PendingExceptionErrorCode ?? 0;
        }
        NmiMasked = events.NmiMasked;
        _nmiPending = events.NmiPending ? 1 : 0;
        s->InterruptShadow = events.InterruptShadow ? 1 : 0;
        SipiVector = events.SipiVector;
        Activity = state.Activity;
        FlushTlb();
        _user = null;
        UpdateMode();
    }

    /// <summary>Refuses what would make the CPU leave the rules that its own instructions keep.</summary>
    private static void CheckState(VcpuState state)
    {
        var special = state.Special;
        if (state.Xsave.Length < 512) throw new HypervisorException($"vCPU state: the XSAVE area has {state.Xsave.Length} bytes; at least 512 are needed.");
        if ((MemoryMarshal.Read<uint>(state.Xsave.AsSpan(24)) & ~Fxsave.MxcsrMask) != 0) throw new HypervisorException("vCPU state: MXCSR has reserved bits set.");
        if (state.Lapic.Length != LapicPage) throw new HypervisorException($"vCPU state: the local APIC page has {state.Lapic.Length} bytes, not {LapicPage}.");
        if (state.Debug.Length != 6) throw new HypervisorException("vCPU state: DR0 to DR3, DR6 and DR7 are needed.");
        if ((special.Cr4 & ~Cr4Bits.All) != 0) throw new HypervisorException($"vCPU state: CR4 0x{special.Cr4:x} has bits that this CPU does not offer.");
        if ((special.Efer & ~EferBits.All) != 0) throw new HypervisorException($"vCPU state: EFER 0x{special.Efer:x} has bits that this CPU does not offer.");
        if (special.Cr0 >> 32 != 0 || (special.Cr0 & (Cr0Bits.Pg | Cr0Bits.Pe)) == Cr0Bits.Pg)
            throw new HypervisorException($"vCPU state: CR0 0x{special.Cr0:x} is not a value that the CPU can have.");
        var active = (special.Efer & EferBits.Lme) != 0 && (special.Cr0 & Cr0Bits.Pg) != 0;
        if (active != ((special.Efer & EferBits.Lma) != 0) || (active && (special.Cr4 & Cr4Bits.Pae) == 0))
            throw new HypervisorException("vCPU state: EFER.LMA, EFER.LME, CR0.PG and CR4.PAE contradict each other.");
    }

    private void RestoreMsr(MsrValue msr)
    {
        // The time stamp and its adjustment move each other through WRMSR; here both are given.
        if (msr.Index == Msr.TscAdjust) _tscAdjust = msr.Value;
        else if (msr.Index == Msr.Tsc) MoveTsc(msr.Value - ReadTsc(null));
        else if (msr.Index is Msr.TscDeadline or Msr.ApicBase or Msr.Efer) return;
        else if (!TryWriteMsr(null, msr.Index, msr.Value))
            throw new HypervisorException($"vCPU state: MSR 0x{msr.Index:x} does not take 0x{msr.Value:x}.");
    }

    private static SegmentState SaveSegment(Segment segment, ulong address) => new(
        segment.Selector, address, segment.Limit, (byte)segment.Type, segment.Present, (byte)segment.Dpl, System: !segment.IsCodeOrData,
        segment.Long, segment.Big, Granularity: (segment.Attributes & 0x8000) != 0, Available: (segment.Attributes & 0x1000) != 0);

    private void LoadSegment(int number, SegmentState state)
    {
        SegmentOf(_s, number) = LoadSegment(state);
        _s->SegBase[number] = state.Base;
    }

    private static Segment LoadSegment(SegmentState state) => new()
    {
        Selector = state.Selector,
        Limit = state.Limit,
        Attributes = (ushort)((state.Type & 15) | (state.System ? 0 : 0x10) | (state.Dpl & 3) << 5 | (state.Present ? 0x80 : 0) |
            (state.Available ? 0x1000 : 0) | (state.Long ? 0x2000 : 0) | (state.Db ? 0x4000 : 0) | (state.Granularity ? 0x8000 : 0)),
    };
}
