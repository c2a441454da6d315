using ActorVmm.Memory;

namespace ActorVmm.Boot;

/// <summary>The state the kernel expects at its first instruction.</summary>
public enum EntryProtocol
{
    /// <summary>64-bit boot protocol (Documentation/arch/x86/boot.rst): long mode, RSI = boot_params, identity map, IF = 0.</summary>
    Linux64,

    /// <summary>PVH (Xen docs/misc/pvh.pandoc): flat 32-bit protected mode without paging, EBX = hvm_start_info.</summary>
    Pvh32,
}

/// <summary>A named piece of guest RAM.</summary>
public sealed record Placement(string Name, GuestAddress Start, ulong Size)
{
    public override string ToString() => $"{Name} [{Start}, 0x{Start.Value + Size:x})";
}

/// <summary>Everything is in guest RAM; this is where vCPU 0 starts.</summary>
public sealed record BootPlan
{
    public required EntryProtocol Protocol { get; init; }

    /// <summary>How the image was read, never <see cref="KernelFormat.Auto"/>.</summary>
    public required KernelFormat Format { get; init; }

    /// <summary>First instruction, physical = virtual.</summary>
    public required GuestAddress Entry { get; init; }

    /// <summary><c>boot_params</c> (Linux64, for RSI) or <c>hvm_start_info</c> (Pvh32, for EBX).</summary>
    public required GuestAddress Parameters { get; init; }

    /// <summary>PML4 for CR3; used by Linux64 only.</summary>
    public required GuestAddress PageTableRoot { get; init; }
    public required GuestAddress GdtBase { get; init; }

    /// <summary>Limit of the GDT: its size in bytes less one.</summary>
    public required ushort GdtLimit { get; init; }

    /// <summary>Initial RSP and RBP (Linux64); 4 KiB below it are free.</summary>
    public GuestAddress StackTop { get; init; } = new(MemoryLayout.StackTop);

    /// <summary>The command line as the guest sees it.</summary>
    public required string CommandLine { get; init; }

    /// <summary>What lies where, ascending.</summary>
    public required IReadOnlyList<Placement> Placements { get; init; }

    /// <summary>The memory map given to the guest.</summary>
    public required IReadOnlyList<E820Entry> MemoryMap { get; init; }

    /// <summary>Choices made on the way, for the log (e.g. why a payload was not unpacked).</summary>
    public IReadOnlyList<string> Notes { get; init; } = [];
}
