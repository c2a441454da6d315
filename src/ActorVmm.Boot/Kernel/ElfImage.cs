using System.Buffers.Binary;

namespace ActorVmm.Boot.Kernel;

/// <summary>One PT_LOAD: what to copy where, and how much to clear behind it.</summary>
/// <param name="FileOffset">p_offset.</param>
/// <param name="FileSize">p_filesz, at most <paramref name="MemorySize"/>.</param>
/// <param name="Address">p_paddr.</param>
/// <param name="MemorySize">p_memsz; not 0.</param>
public readonly record struct LoadSegment(ulong FileOffset, ulong FileSize, ulong Address, ulong MemorySize)
{
    public ulong End => Address + MemorySize;
}

/// <summary>
/// The program headers of an x86-64 ELF kernel (System V ABI, "ELF-64 Object File Format"), checked against the file: offsets, sizes and
/// wraps. Where the segments may lie is the loader's business.
/// </summary>
public sealed class ElfImage
{
    private const int HeaderSize = 64;
    private const int ProgramHeaderSize = 56;
    private const int PtLoad = 1;
    private const int PtNote = 4;
    private const int MaxNotes = 1 << 20;
    private const uint XenNotePhys32Entry = 18; // XEN_ELFNOTE_PHYS32_ENTRY, xen/include/public/elfnote.h

    private ElfImage(ulong entry, IReadOnlyList<LoadSegment> segments, uint? pvhEntry) =>
        (Entry, Segments, PvhEntry) = (entry, segments, pvhEntry);

    /// <summary>e_entry, a physical address.</summary>
    public ulong Entry { get; }

    /// <summary>PT_LOADs with a size, in file order.</summary>
    public IReadOnlyList<LoadSegment> Segments { get; }

    /// <summary>Physical address of the 32-bit PVH entry; null without its note.</summary>
    public uint? PvhEntry { get; }

    /// <summary>Whether the file begins like an ELF.</summary>
    public static bool HasMagic(ImageSource image)
    {
        ArgumentNullException.ThrowIfNull(image);
        Span<byte> magic = stackalloc byte[4];
        if (image.Length < 4) return false;
        image.Read(0, magic, "e_ident");
        return magic.SequenceEqual("\u007FELF"u8);
    }

    /// <summary>Reads headers and notes.</summary>
    /// <exception cref="BootException">Not a 64-bit little-endian x86-64 ELF, or a header lies.</exception>
    public static ElfImage Parse(ImageSource image)
    {
        ArgumentNullException.ThrowIfNull(image);
        Span<byte> header = stackalloc byte[HeaderSize];
        image.Read(0, header, "ELF header");
        if (!header.StartsWith("\u007FELF"u8)) throw Bad("e_ident", BinaryPrimitives.ReadUInt32BigEndian(header), "no ELF magic");
        if (header[4] != 2) throw Bad("EI_CLASS", header[4], "a 64-bit ELF (2) is needed");
        if (header[5] != 1) throw Bad("EI_DATA", header[5], "a little-endian ELF (1) is needed");
        var type = BinaryPrimitives.ReadUInt16LittleEndian(header[16..]);
        if (type is not (2 or 3)) throw Bad("e_type", type, "an executable (2) or a shared object (3) is needed");
        var machine = BinaryPrimitives.ReadUInt16LittleEndian(header[18..]);
        if (machine != 62) throw Bad("e_machine", machine, "x86-64 (0x3e) is needed");
        var entry = BinaryPrimitives.ReadUInt64LittleEndian(header[24..]);
        var tableAt = BinaryPrimitives.ReadUInt64LittleEndian(header[32..]);
        var entrySize = BinaryPrimitives.ReadUInt16LittleEndian(header[54..]);
        var count = BinaryPrimitives.ReadUInt16LittleEndian(header[56..]);
        if (entrySize != ProgramHeaderSize) throw Bad("e_phentsize", entrySize, "ELF-64 program headers have 56 bytes");
        if (tableAt < HeaderSize) throw Bad("e_phoff", tableAt, "the program headers would lie in the ELF header");
        if (count is 0 or 0xFFFF) throw Bad("e_phnum", count, "1 to 65534 program headers are needed");

        var table = new byte[count * ProgramHeaderSize];
        image.Read(tableAt, table, "e_phoff");
        var segments = new List<LoadSegment>();
        uint? pvh = null;
        for (var i = 0; i < count; i++)
        {
            var ph = table.AsSpan(i * ProgramHeaderSize, ProgramHeaderSize);
            switch (BinaryPrimitives.ReadUInt32LittleEndian(ph))
            {
                case PtLoad when ParseLoad(image, ph) is { } segment: segments.Add(segment); break;
                case PtNote: pvh ??= FindPvhEntry(image, ph); break;
            }
        }
        if (segments.Count == 0) throw new BootException(image.Name, "PT_LOAD", "absent", "a kernel has something to load");
        return new ElfImage(entry, segments, pvh);

        BootException Bad(string field, ulong value, string advice) => BootException.Hex(image.Name, field, value, advice);
    }

    private static LoadSegment? ParseLoad(ImageSource image, ReadOnlySpan<byte> ph)
    {
        var segment = new LoadSegment(
            FileOffset: BinaryPrimitives.ReadUInt64LittleEndian(ph[8..]),
            FileSize: BinaryPrimitives.ReadUInt64LittleEndian(ph[32..]),
            Address: BinaryPrimitives.ReadUInt64LittleEndian(ph[24..]),
            MemorySize: BinaryPrimitives.ReadUInt64LittleEndian(ph[40..]));
        if (segment.FileSize > segment.MemorySize)
            throw BootException.Hex(image.Name, "p_filesz", segment.FileSize, $"larger than p_memsz, 0x{segment.MemorySize:x}");
        if (segment.MemorySize == 0) return null;
        if (segment.Address > ulong.MaxValue - segment.MemorySize)
            throw BootException.Hex(image.Name, "p_paddr", segment.Address, $"0x{segment.MemorySize:x} bytes from there pass 2^64");
        image.Require(segment.FileOffset, segment.FileSize, "p_offset");
        return segment;
    }

    /// <summary>Walks one PT_NOTE: {namesz, descsz, type}, name, descriptor, the last two padded to the segment's alignment.</summary>
    private static uint? FindPvhEntry(ImageSource image, ReadOnlySpan<byte> ph)
    {
        var offset = BinaryPrimitives.ReadUInt64LittleEndian(ph[8..]);
        var size = BinaryPrimitives.ReadUInt64LittleEndian(ph[32..]);
        var align = BinaryPrimitives.ReadUInt64LittleEndian(ph[48..]);
        if (align > 8 || (align & (align - 1)) != 0 && align != 0)
            throw BootException.Hex(image.Name, "p_align", align, "notes are aligned to 4 or 8 bytes");
        if (size > MaxNotes) throw BootException.Hex(image.Name, "p_filesz", size, $"a note segment has at most 0x{MaxNotes:x} bytes");
        var notes = new byte[size];
        image.Read(offset, notes, "p_offset");

        var pad = align == 8 ? 8u : 4u;
        for (ulong at = 0; at + 12 <= size;)
        {
            var head = notes.AsSpan((int)at);
            ulong nameSize = BinaryPrimitives.ReadUInt32LittleEndian(head);
            ulong descriptorSize = BinaryPrimitives.ReadUInt32LittleEndian(head[4..]);
            var type = BinaryPrimitives.ReadUInt32LittleEndian(head[8..]);
            var nameAt = at + 12;
            var descriptorAt = AlignUp(nameAt + nameSize, pad); // no wrap: sums of three 32-bit numbers
            if (descriptorAt > size || descriptorSize > size - descriptorAt)
                throw BootException.Hex(image.Name, "n_descsz", descriptorSize,
                    $"the note at 0x{at:x} leaves its segment of 0x{size:x} bytes");
            if (type == XenNotePhys32Entry && notes.AsSpan((int)nameAt, (int)nameSize).SequenceEqual("Xen\0"u8))
                return ReadEntry(image, notes.AsSpan((int)descriptorAt, (int)descriptorSize));
            at = AlignUp(descriptorAt + descriptorSize, pad);
        }
        return null;
    }

    private static uint ReadEntry(ImageSource image, ReadOnlySpan<byte> descriptor)
    {
        var entry = descriptor.Length switch
        {
            4 => BinaryPrimitives.ReadUInt32LittleEndian(descriptor),
            8 => BinaryPrimitives.ReadUInt64LittleEndian(descriptor),
            _ => throw BootException.Hex(image.Name, "n_descsz", (ulong)descriptor.Length, "the PVH entry is a word of 4 or 8 bytes"),
        };
        return entry <= uint.MaxValue
            ? (uint)entry
            : throw BootException.Hex(image.Name, "XEN_ELFNOTE_PHYS32_ENTRY", entry, "a 32-bit entry lies below 4 GiB");
    }

    private static ulong AlignUp(ulong value, uint to) => (value + to - 1) & ~((ulong)to - 1);
}
