namespace ActorVmm.Boot.Acpi;

/// <summary>
/// What the ACPI tables say about the machine. The constants are the register places that chipset devices must answer at.
/// </summary>
public sealed record AcpiMachine
{
    /// <summary>PM1a event block: status word, enable word.</summary>
    public const ushort Pm1aEvent = 0x600;

    /// <summary>PM1a control word: bit 0 SCI_EN (reads 1), bits 12:10 SLP_TYP, bit 13 SLP_EN.</summary>
    public const ushort Pm1aControl = 0x604;

    /// <summary>24-bit timer at 3.579545 MHz, read as a doubleword.</summary>
    public const ushort PmTimer = 0x608;

    /// <summary>SLP_TYP that means soft off; with SLP_EN the guest writes <c>0x3400</c>.</summary>
    public const int SleepTypeS5 = 5;

    /// <summary>Writing <see cref="ResetValue"/> to this port resets the machine: the i8042's pulse of the CPU reset line.</summary>
    public const ushort ResetPort = 0x64;

    /// <inheritdoc cref="ResetPort"/>
    public const byte ResetValue = 0xFE;

    /// <summary>1 to <see cref="AcpiTables.MaxCpus"/>; APIC ids and processor UIDs are 0 to count - 1.</summary>
    public required int CpuCount { get; init; }

    /// <summary>There is an i8042 with a keyboard port at 0x60 and 0x64, IRQ 1.</summary>
    public bool Keyboard { get; init; } = true;

    /// <summary>There is a CMOS clock at 0x70, IRQ 8.</summary>
    public bool Rtc { get; init; } = true;

    /// <summary>First byte of the pvpanic page; null where there is none.</summary>
    public ulong? Pvpanic { get; init; } = MemoryLayout.Pvpanic;

    /// <summary>virtio-mmio windows.</summary>
    public IReadOnlyList<VirtioMmioSlot> VirtioMmio { get; init; } = [];
}
