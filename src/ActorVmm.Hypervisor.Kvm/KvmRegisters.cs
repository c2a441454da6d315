using ActorVmm.Hypervisor.Kvm.Native;

namespace ActorVmm.Hypervisor.Kvm;

/// <summary>Between the port's register records and the kernel's structures.</summary>
internal static class KvmRegisters
{
    public static GeneralRegisters General(in KvmRegs r) => new()
    {
        Rax = r.Rax, Rbx = r.Rbx, Rcx = r.Rcx, Rdx = r.Rdx, Rsi = r.Rsi, Rdi = r.Rdi, Rsp = r.Rsp, Rbp = r.Rbp,
        R8 = r.R8, R9 = r.R9, R10 = r.R10, R11 = r.R11, R12 = r.R12, R13 = r.R13, R14 = r.R14, R15 = r.R15,
        Rip = r.Rip, Rflags = r.Rflags,
    };

    public static KvmRegs General(GeneralRegisters r) => new()
    {
        Rax = r.Rax, Rbx = r.Rbx, Rcx = r.Rcx, Rdx = r.Rdx, Rsi = r.Rsi, Rdi = r.Rdi, Rsp = r.Rsp, Rbp = r.Rbp,
        R8 = r.R8, R9 = r.R9, R10 = r.R10, R11 = r.R11, R12 = r.R12, R13 = r.R13, R14 = r.R14, R15 = r.R15,
        Rip = r.Rip, Rflags = r.Rflags | 2,
    };

    public static SegmentState Segment(in KvmSegment s) =>
        new(s.Selector, s.Base, s.Limit, s.Type, s.Present != 0 && s.Unusable == 0, s.Dpl, s.S == 0, s.L != 0, s.Db != 0, s.G != 0,
            s.Avl != 0);

    public static KvmSegment Segment(SegmentState s) => new()
    {
        Selector = s.Selector, Base = s.Base, Limit = s.Limit, Type = s.Type, Present = Bit(s.Present), Dpl = s.Dpl, S = Bit(!s.System),
        L = Bit(s.Long), Db = Bit(s.Db), G = Bit(s.Granularity), Avl = Bit(s.Available), Unusable = Bit(s.Unusable),
    };

    public static SpecialRegisters Special(in KvmSregs s) => new()
    {
        Cs = Segment(s.Cs), Ds = Segment(s.Ds), Es = Segment(s.Es), Fs = Segment(s.Fs), Gs = Segment(s.Gs), Ss = Segment(s.Ss),
        Tr = Segment(s.Tr), Ldt = Segment(s.Ldt),
        Gdt = new TableRegister(s.Gdt.Base, s.Gdt.Limit), Idt = new TableRegister(s.Idt.Base, s.Idt.Limit),
        Cr0 = s.Cr0, Cr2 = s.Cr2, Cr3 = s.Cr3, Cr4 = s.Cr4, Cr8 = s.Cr8, Efer = s.Efer, ApicBase = s.ApicBase,
    };

    // The interrupt bitmap stays empty: an interrupt taken but not delivered travels in the vCPU events.
    public static KvmSregs Special(SpecialRegisters s) => new()
    {
        Cs = Segment(s.Cs), Ds = Segment(s.Ds), Es = Segment(s.Es), Fs = Segment(s.Fs), Gs = Segment(s.Gs), Ss = Segment(s.Ss),
        Tr = Segment(s.Tr), Ldt = Segment(s.Ldt),
        Gdt = new KvmTable { Base = s.Gdt.Base, Limit = s.Gdt.Limit }, Idt = new KvmTable { Base = s.Idt.Base, Limit = s.Idt.Limit },
        Cr0 = s.Cr0, Cr2 = s.Cr2, Cr3 = s.Cr3, Cr4 = s.Cr4, Cr8 = s.Cr8, Efer = s.Efer, ApicBase = s.ApicBase,
    };

    public static VcpuEvents Events(in KvmVcpuEvents e) => new()
    {
        PendingException = e.ExceptionInjected != 0 ? e.ExceptionNumber : null,
        PendingExceptionErrorCode = e.ExceptionInjected != 0 && e.ExceptionHasErrorCode != 0 ? e.ExceptionErrorCode : null,
        PendingInterrupt = e.InterruptInjected != 0 ? e.InterruptNumber : null,
        NmiPending = (e.NmiPending | e.NmiInjected) != 0,
        NmiMasked = e.NmiMasked != 0,
        InterruptShadow = e.InterruptShadow != 0,
        SipiVector = (byte)e.SipiVector,
    };

    public static KvmVcpuEvents Events(VcpuEvents e) => new()
    {
        Flags = KvmVcpuEvents.ValidNmiPending | KvmVcpuEvents.ValidSipiVector | KvmVcpuEvents.ValidShadow,
        ExceptionInjected = Bit(e.PendingException is not null),
        ExceptionNumber = e.PendingException ?? 0,
        ExceptionHasErrorCode = Bit(e.PendingExceptionErrorCode is not null),
        ExceptionErrorCode = e.PendingExceptionErrorCode ?? 0,
        InterruptInjected = Bit(e.PendingInterrupt is not null),
        InterruptNumber = e.PendingInterrupt ?? 0,
        InterruptShadow = (byte)(e.InterruptShadow ? 1 : 0),
        NmiPending = Bit(e.NmiPending),
        NmiMasked = Bit(e.NmiMasked),
        SipiVector = e.SipiVector,
    };

    private static byte Bit(bool value) => value ? (byte)1 : (byte)0;
}
