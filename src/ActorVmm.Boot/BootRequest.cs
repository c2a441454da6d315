using ActorVmm.Memory;

namespace ActorVmm.Boot;

/// <summary>How the kernel file is read and entered.</summary>
public enum KernelFormat
{
    /// <summary>ELF: 64-bit entry. bzImage: its payload unpacked here where that works, else its own decompressor.</summary>
    Auto,

    /// <summary>ELF, entered at <c>e_entry</c> by the 64-bit boot protocol.</summary>
    Elf64,

    /// <summary>ELF, or the ELF inside a bzImage, entered in 32-bit protected mode at the address of its PVH note.</summary>
    Pvh,

    /// <summary>bzImage, entered at load address + 0x200; the guest decompresses itself.</summary>
    BzImage,

    /// <summary>bzImage whose compressed ELF is unpacked here and entered at its <c>e_entry</c>.</summary>
    Payload,
}

/// <summary>One virtio-mmio register window that the guest is told about.</summary>
/// <param name="Address">First byte, below 4 GiB, 4-byte aligned.</param>
/// <param name="Size">Bytes; 4096 by custom.</param>
/// <param name="Gsi">Global system interrupt, 0 to 23; level triggered, active high.</param>
public readonly record struct VirtioMmioSlot(GuestAddress Address, uint Size, int Gsi);

/// <summary>What is to be booted.</summary>
public sealed record BootRequest
{
    public required string KernelPath { get; init; }
    public string? InitrdPath { get; init; }

    /// <summary>The user's part; see <see cref="CommandLine.ForGuest"/> for what is added.</summary>
    public string CommandLine { get; init; } = "panic=1 pci=off";

    /// <summary>Lower bound of the ELF entry, or of <c>code32_start</c>. It does not relocate the kernel.</summary>
    public GuestAddress LoadAddress { get; init; } = new(MemoryLayout.HighMemory);
    public KernelFormat Format { get; init; } = KernelFormat.Auto;

    /// <summary>1 to 254.</summary>
    public int CpuCount { get; init; } = 1;

    /// <summary>Announced in the DSDT and on the command line, in this order.</summary>
    public IReadOnlyList<VirtioMmioSlot> VirtioMmio { get; init; } = [];

    /// <summary>
    /// Also as <c>virtio_mmio.device=</c>, for kernels that find devices there. A kernel that reads both reports the second finding as busy
    /// and goes on.
    /// </summary>
    public bool AnnounceOnCommandLine { get; init; } = true;
}
