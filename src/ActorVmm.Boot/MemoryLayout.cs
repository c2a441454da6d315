namespace ActorVmm.Boot;

/// <summary>
/// Where the loader puts its own structures, in guest physical bytes. Everything below 1 MiB; the kernel and the initrd go above.
/// <code>
/// 0x0040E BDA: EBDA segment      0x00500 GDT, 0x530 IDT     0x06000 hvm_start_info     0x07000 zero page
/// 0x08000 stack, top 0x8ff0      0x09000 PML4, PDPT, 4 PDs  0x20000 command line       0x9fc00 MP table
/// 0xE0000 ACPI tables, RSDP first                           0xF0000 MP table where 0x9fc00 is too small
/// </code>
/// </summary>
public static class MemoryLayout
{
    /// <summary>BIOS data area word: real-mode segment of the EBDA, where Linux looks for the MP floating pointer and the RSDP.</summary>
    public const ulong BdaEbdaSegment = 0x40E;

    /// <summary>BIOS data area word: KiB of base memory below the EBDA.</summary>
    public const ulong BdaBaseMemory = 0x413;
    public const ulong Gdt = 0x500;
    public const ulong Idt = 0x530;
    public const ulong StartInfo = 0x6000;
    public const ulong ZeroPage = 0x7000;
    public const ulong Stack = 0x8000;
    public const ulong StackTop = 0x8FF0;

    /// <summary>PML4; the PDPT and four page directories follow, one page each.</summary>
    public const ulong PageTables = 0x9000;

    /// <summary>Six pages: PML4, PDPT and the directories of 4 GiB.</summary>
    public const ulong PageTablesSize = 6 * 4096;
    public const ulong CommandLine = 0x20000;

    /// <summary>Bytes that Linux x86 keeps of its command line, with the NUL (COMMAND_LINE_SIZE).</summary>
    public const int CommandLineSize = 2048;

    /// <summary>End of low RAM; the extended BIOS data area begins here.</summary>
    public const ulong Ebda = 0x9FC00;
    public const ulong EbdaEnd = 0xA0000;

    /// <summary>RSDP and all ACPI tables; within the area that Linux scans for <c>"RSD PTR "</c>.</summary>
    public const ulong Acpi = 0xE0000;
    public const ulong AcpiEnd = 0xF0000;

    /// <summary>Room for an MP configuration table that the EBDA cannot hold.</summary>
    public const ulong BigMpTable = 0xF0000;
    public const ulong HighMemory = 0x100000;

    /// <summary>I/O APIC registers.</summary>
    public const ulong IoApic = 0xFEC0_0000;

    /// <summary>Local APIC registers.</summary>
    public const ulong LocalApic = 0xFEE0_0000;

    /// <summary>Default place of the pvpanic register, one 4 KiB page, between I/O APIC and local APIC.</summary>
    public const ulong Pvpanic = 0xFED4_0000;
}
