using ActorVmm.Devices.Chipset;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// What a CPU core asks of its local APIC (SDM Vol. 3 ch. 11). All members are called on the vCPU's thread, with machine time exact to the
/// instruction, and allocate nothing.
/// </summary>
internal interface ILocalApicPort
{
    /// <summary>IA32_APIC_BASE: bit 8 BSP, bit 10 x2APIC, bit 11 enabled, page address above.</summary>
    ulong ApicBase { get; }

    /// <summary>Writes IA32_APIC_BASE; false (nothing changed) for a reserved bit or a forbidden mode change: #GP.</summary>
    bool TryWriteApicBase(ulong value);

    /// <summary>Reads an x2APIC register (0x800 to 0x8FF); false where it is not readable or x2APIC mode is off: #GP.</summary>
    bool TryReadMsr(uint index, out ulong value);

    /// <summary>Writes an x2APIC register (0x800 to 0x8FF); false where the write is not allowed: #GP.</summary>
    bool TryWriteMsr(uint index, ulong value);

    /// <summary>IA32_TSC_DEADLINE, in TSC ticks as the guest sees them; 0 disarms.</summary>
    ulong TscDeadline { get; set; }

    /// <summary>The guest's TSC was moved to machine time's plus <paramref name="offset"/>; an armed deadline follows it.</summary>
    void OnTscOffset(ulong offset);

    /// <summary>CR8, that is bits 7:4 of the task priority register: 0 to 15.</summary>
    byte TaskPriority { get; set; }

    /// <summary>Fills the 1 KiB register page, register n at 16·n.</summary>
    void SavePage(Span<byte> page);

    /// <summary>Takes over a register page of <see cref="SavePage"/> together with the base register and the deadline.</summary>
    void LoadPage(ReadOnlySpan<byte> page, ulong apicBase, ulong tscDeadline);
}

/// <summary>A core without a local APIC: its registers do not exist.</summary>
internal sealed class AbsentLocalApic : ILocalApicPort
{
    public static readonly AbsentLocalApic Instance = new();

    public ulong ApicBase => 0;
    public ulong TscDeadline { get => 0; set { } }
    public byte TaskPriority { get => 0; set { } }
    public void OnTscOffset(ulong offset) { }
    public bool TryWriteApicBase(ulong value) => false;

    public bool TryReadMsr(uint index, out ulong value)
    {
        value = 0;
        return false;
    }

    public bool TryWriteMsr(uint index, ulong value) => false;
    public void SavePage(Span<byte> page) => page.Clear();
    public void LoadPage(ReadOnlySpan<byte> page, ulong apicBase, ulong tscDeadline) { }
}

/// <summary>The port over the modelled local APIC.</summary>
internal sealed class LocalApicPort(LocalApic apic) : ILocalApicPort
{
    public ulong ApicBase => apic.ApicBase;
    public ulong TscDeadline { get => apic.TscDeadline; set => apic.TscDeadline = value; }
    public byte TaskPriority { get => apic.Cr8; set => apic.Cr8 = value; }
    public void OnTscOffset(ulong offset) => apic.TscOffset = offset;
    public bool TryWriteApicBase(ulong value) => apic.TrySetApicBase(value);
    public bool TryReadMsr(uint index, out ulong value) => apic.TryReadMsr(index, out value);
    public bool TryWriteMsr(uint index, ulong value) => apic.TryWriteMsr(index, value);
    public void SavePage(Span<byte> page) => apic.ExportRegisters(page);

    public void LoadPage(ReadOnlySpan<byte> page, ulong apicBase, ulong tscDeadline)
    {
        apic.RestoreApicBase(apicBase);
        apic.ImportRegisters(page);
        apic.TscDeadline = tscDeadline;
    }
}
