namespace ActorVmm.Hypervisor;

/// <summary>General registers (Intel SDM Vol. 1 §3.4).</summary>
public sealed record GeneralRegisters
{
    public ulong Rax { get; init; }
    public ulong Rbx { get; init; }
    public ulong Rcx { get; init; }
    public ulong Rdx { get; init; }
    public ulong Rsi { get; init; }
    public ulong Rdi { get; init; }
    public ulong Rsp { get; init; }
    public ulong Rbp { get; init; }
    public ulong R8 { get; init; }
    public ulong R9 { get; init; }
    public ulong R10 { get; init; }
    public ulong R11 { get; init; }
    public ulong R12 { get; init; }
    public ulong R13 { get; init; }
    public ulong R14 { get; init; }
    public ulong R15 { get; init; }
    public ulong Rip { get; init; }
    public ulong Rflags { get; init; } = 2;
}

/// <summary>A segment register with its hidden part. <paramref name="Limit"/> is in bytes (scaled).</summary>
public sealed record SegmentState(ushort Selector, ulong Base, uint Limit, byte Type, bool Present, byte Dpl, bool System,
    bool Long, bool Db, bool Granularity, bool Available = false)
{
    /// <summary>A null or never loaded segment (KVM's <c>unusable</c>).</summary>
    public bool Unusable => !Present;
}

/// <summary>GDTR or IDTR.</summary>
public sealed record TableRegister(ulong Base, ushort Limit);

/// <summary>Control, segment and table registers (KVM's sregs). <c>Cr8</c> is the task priority.</summary>
public sealed record SpecialRegisters
{
    public required SegmentState Cs { get; init; }
    public required SegmentState Ds { get; init; }
    public required SegmentState Es { get; init; }
    public required SegmentState Fs { get; init; }
    public required SegmentState Gs { get; init; }
    public required SegmentState Ss { get; init; }
    public required SegmentState Tr { get; init; }
    public required SegmentState Ldt { get; init; }
    public required TableRegister Gdt { get; init; }
    public required TableRegister Idt { get; init; }
    public ulong Cr0 { get; init; }
    public ulong Cr2 { get; init; }
    public ulong Cr3 { get; init; }
    public ulong Cr4 { get; init; }
    public ulong Cr8 { get; init; }
    public ulong Efer { get; init; }
    public ulong ApicBase { get; init; }
}

/// <summary>One model-specific register.</summary>
public readonly record struct MsrValue(uint Index, ulong Value);

/// <summary>Whether a vCPU runs, waits for SIPI, or is halted (KVM's mp_state numbers).</summary>
public enum VcpuActivity
{
    Running = 0,
    WaitForInit = 1,
    InitReceived = 2,
    Halted = 3,
    SipiReceived = 4,
}

/// <summary>Exceptions, interrupts and NMIs that are pending or blocked (KVM's vcpu_events).</summary>
public sealed record VcpuEvents
{
    /// <summary>Vector of an exception not yet delivered, or null.</summary>
    public byte? PendingException { get; init; }
    public uint? PendingExceptionErrorCode { get; init; }
    /// <summary>Vector of an external interrupt taken but not yet delivered, or null.</summary>
    public byte? PendingInterrupt { get; init; }
    public bool NmiPending { get; init; }
    public bool NmiMasked { get; init; }
    /// <summary>Interrupts are blocked for one instruction (after STI or MOV SS).</summary>
    public bool InterruptShadow { get; init; }
    /// <summary>The vector of a received SIPI (CS base &gt;&gt; 12).</summary>
    public byte SipiVector { get; init; }
}

/// <summary>The whole architectural state of one vCPU, the same shape under every hypervisor.</summary>
public sealed record VcpuState
{
    public required GeneralRegisters General { get; init; }
    public required SpecialRegisters Special { get; init; }

    /// <summary>
    /// XSAVE area in the standard (not compacted) format, at least 576 bytes: legacy FXSAVE image, header (SDM Vol. 1 §13.4).
    /// </summary>
    public required byte[] Xsave { get; init; }
    public ulong Xcr0 { get; init; } = 1;

    /// <summary>DR0 to DR3, DR6, DR7.</summary>
    public ulong[] Debug { get; init; } = [0, 0, 0, 0, 0xFFFF0FF0, 0x400];

    /// <summary>The 1 KiB register page of the local APIC, register n at 16·n (SDM Vol. 3 §11.4).</summary>
    public required byte[] Lapic { get; init; }
    public IReadOnlyList<MsrValue> Msrs { get; init; } = [];
    public VcpuEvents Events { get; init; } = new();
    public VcpuActivity Activity { get; init; }
}

/// <summary>A machine without its RAM and bus devices.</summary>
/// <param name="Hypervisor">Which hypervisor saved it; states are not exchanged between them.</param>
/// <param name="ClockNanoseconds">Machine time at the save.</param>
/// <param name="Chips">Interrupt controllers and interval timer by name (<c>ioapic</c>, <c>pic0</c>, <c>pic1</c>, <c>pit</c>, ...), each in
/// its hypervisor's own format.</param>
/// <param name="Vcpus">One per vCPU, by id.</param>
public sealed record MachineState(string Hypervisor, ulong ClockNanoseconds, IReadOnlyDictionary<string, byte[]> Chips,
    IReadOnlyList<VcpuState> Vcpus);
