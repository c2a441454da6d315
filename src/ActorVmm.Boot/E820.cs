using ActorVmm.Memory;

namespace ActorVmm.Boot;

/// <summary>Kinds of memory in an e820 map (ACPI 6.5 §15, table 15.2).</summary>
public enum E820Type : uint { Ram = 1, Reserved = 2, AcpiReclaimable = 3, AcpiNvs = 4 }

/// <summary>One e820 range.</summary>
public readonly record struct E820Entry(ulong Start, ulong Size, E820Type Type)
{
    public override string ToString() => $"[0x{Start:x}, 0x{Start + Size:x}) {Type}";
}

/// <summary>The memory map that the guest believes; at most 128 entries, the capacity of <c>boot_params</c>.</summary>
public sealed class E820Map
{
    /// <summary>E820_MAX_ENTRIES_ZEROPAGE of the boot protocol.</summary>
    public const int Capacity = 128;

    private readonly List<E820Entry> _entries = [];

    public IReadOnlyList<E820Entry> Entries => _entries;

    /// <summary>Appends a range.</summary>
    /// <exception cref="BootException">The map is full, or the range is empty or passes 2^64.</exception>
    public void Add(ulong start, ulong size, E820Type type)
    {
        if (_entries.Count == Capacity)
            throw new BootException("e820", "e820_entries", $"{Capacity + 1}", $"boot_params holds {Capacity} ranges");
        if (size == 0 || start > ulong.MaxValue - size)
            throw BootException.Hex("e820", "size", size, $"the range at 0x{start:x} is empty or passes 2^64");
        _entries.Add(new E820Entry(start, size, type));
    }

    /// <summary>
    /// The map of a PC without PCI: low RAM up to the EBDA, the EBDA and the BIOS area reserved, RAM from <paramref name="himem"/> to the
    /// end or to the gap, and what is left above <paramref name="gapEnd"/>.
    /// </summary>
    /// <param name="ramEnd">First address after the last byte of RAM.</param>
    /// <param name="himem">Where high RAM begins, 1 MiB on a PC.</param>
    /// <param name="gapStart">First byte of the MMIO gap.</param>
    /// <param name="gapEnd">First byte after it.</param>
    /// <exception cref="BootException">The four addresses are not in order.</exception>
    public static E820Map Build(
        ulong ramEnd, ulong himem = MemoryLayout.HighMemory, ulong gapStart = GuestMemory.GapStart, ulong gapEnd = GuestMemory.HighStart)
    {
        if (gapStart >= gapEnd)
            throw BootException.Hex("e820", "gap start", gapStart, $"it must lie below the end of the gap, 0x{gapEnd:x}");
        if (himem >= ramEnd) throw BootException.Hex("e820", "himem start", himem, $"it must lie below the end of RAM, 0x{ramEnd:x}");
        if (himem >= gapStart) throw BootException.Hex("e820", "himem start", himem, $"it must lie below the MMIO gap, 0x{gapStart:x}");

        var map = new E820Map();
        map.Add(0, MemoryLayout.Ebda, E820Type.Ram);
        map.Add(MemoryLayout.Ebda, MemoryLayout.EbdaEnd - MemoryLayout.Ebda, E820Type.Reserved);
        map.Add(MemoryLayout.Acpi, MemoryLayout.HighMemory - MemoryLayout.Acpi, E820Type.Reserved);
        map.Add(himem, Math.Min(ramEnd, gapStart) - himem, E820Type.Ram);
        if (ramEnd > gapEnd) map.Add(gapEnd, ramEnd - gapEnd, E820Type.Ram);
        return map;
    }
}
