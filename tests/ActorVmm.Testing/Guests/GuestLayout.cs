namespace ActorVmm.Testing.Guests;

/// <summary>Where a tiny guest keeps its things (guest physical = linear below 4 GiB), and the ports it talks to its test by.</summary>
public static class GuestLayout
{
    public const ulong MemorySize = 16 << 20;

    public const ulong Gdt = 0x1000;
    public const ulong Idt = 0x2000;
    public const ulong Tss = 0x3000;          // with its I/O bitmap to 0x506a
    public const ulong Pml4 = 0x9000;
    public const ulong IdentityTables = 0xA000; // one PDPT, four PDs
    public const ulong Code = 0x10000;
    public const ulong FaultStubs = 0x18000;
    public const ulong FaultHandler = 0x1A000;
    public const ulong Handlers = 0x1B000;    // what PlaceHandler hands out, 0x200 each
    public const ulong KernelStack = 0x40000; // tops: stacks grow down
    public const ulong TrapStack = 0x48000;   // RSP0
    public const ulong IstStack = 0x50000;    // IST1
    public const ulong UserStack = 0x58000;
    public const ulong ResumeRip = 0x60000;   // where the fault handler goes on, or 0
    public const ulong ResumeRsp = 0x60008;
    public const ulong Data = 0x61000;        // free for the test
    public const ulong PageTablePool = 0x100000;
    public const ulong Free = 0x200000;       // free for the test, to the end of RAM

    /// <summary>Not RAM, and mapped: every access here exits.</summary>
    public const ulong Mmio = 0x4000_0000;
    public const ulong LocalApic = 0xFEE0_0000;
    public const ulong IoApic = 0xFEC0_0000;

    /// <summary>Linear addresses from here are mapped by the test itself (its own PML4 entry).</summary>
    public const ulong MappedArea = 0x80_0000_0000;

    public const ushort KernelCode = 0x08, KernelData = 0x10, TaskState = 0x18, KernelCode32 = 0x28, UserCode32 = 0x30, UserData = 0x38,
        UserCode = 0x40,
        AbsentCode = 0x48, AbsentData = 0x50, KernelCode16 = 0x58, KernelData16 = 0x60, ReadOnlyData = 0x68, FirstFree = 0x70;

    public const ushort GdtLimit = 0xFF;

    /// <summary>OUT of 4 bytes: a value reported to the test.</summary>
    public const ushort ReportPort = 0xF4;

    /// <summary>OUT: the guest is done.</summary>
    public const ushort DonePort = 0xF5;

    /// <summary>OUT of 4 bytes: the low, then (next port) the high half of a reported value.</summary>
    public const ushort ReportLowPort = 0xF6, ReportHighPort = 0xF7;

    /// <summary>OUT of 4 bytes: one of the words that describe a fault.</summary>
    public const ushort FaultPort = 0xFA;

    /// <summary>OUT: a fault that nobody expected ends the run.</summary>
    public const ushort FaultEndPort = 0xFB;

    /// <summary>OUT of 1 byte: asks the test to do its action of that number now.</summary>
    public const ushort ActionPort = 0xFC;
}
