using ActorVmm.Boot.Kernel;
using ActorVmm.Memory;

namespace ActorVmm.Boot;

/// <summary>A kernel image that was read and found sound, and what is to be done with it. Nothing is in guest RAM yet.</summary>
internal sealed class KernelLoad : IDisposable
{
    /// <summary>Last byte that an initrd may touch where no header says it (what every x86-64 kernel accepts).</summary>
    private const ulong DefaultInitrdMax = 0x7FFF_FFFF;

    private KernelLoad(KernelFormat format, ImageSource image) => (Format, Image) = (format, image);

    public KernelFormat Format { get; }

    /// <summary>Where the segments are read from; the unpacked ELF for a payload.</summary>
    public ImageSource Image { get; }
    public required IReadOnlyList<LoadSegment> Segments { get; init; }
    public required ulong Entry { get; init; }
    public required EntryProtocol Protocol { get; init; }

    /// <summary>The setup header, where the file is a bzImage.</summary>
    public BzImage? Header { get; init; }

    /// <summary>RAM that belongs to the kernel beyond its segments: where a bzImage unpacks itself.</summary>
    public (ulong Start, ulong End) Span { get; init; }
    public IReadOnlyList<string> Notes { get; init; } = [];
    public ulong InitrdMax => Header?.InitrdAddressMax ?? DefaultInitrdMax;

    /// <summary>Bytes of command line with the NUL.</summary>
    public int CommandLineCapacity => Header is { CommandLineMax: > 0 and < MemoryLayout.CommandLineSize } header
        ? (int)header.CommandLineMax + 1
        : MemoryLayout.CommandLineSize;

    /// <summary>Opens and reads the image.</summary>
    /// <param name="request">Path, format and lower bound of the entry.</param>
    /// <param name="ramEnd">End of the RAM that loads may use; bounds what is unpacked.</param>
    /// <exception cref="BootException">The image is not what was asked for, or lies.</exception>
    public static KernelLoad Open(BootRequest request, ulong ramEnd)
    {
        var image = ImageSource.Open(request.KernelPath, "kernel");
        try
        {
            return Read(image, request, ramEnd);
        }
        catch
        {
            image.Dispose();
            throw;
        }
    }

    public void Dispose() => Image.Dispose();

    private static KernelLoad Read(ImageSource image, BootRequest request, ulong ramEnd)
    {
        if (ElfImage.HasMagic(image))
            return request.Format switch
            {
                KernelFormat.Auto or KernelFormat.Elf64 => FromElf(KernelFormat.Elf64, image, request),
                KernelFormat.Pvh => FromElf(KernelFormat.Pvh, image, request),
                _ => throw new BootException(image.Name, "kernel format", "ELF",
                    $"{request.Format} needs a bzImage; use Auto, Elf64 or Pvh"),
            };

        var header = BzImage.Parse(image);
        switch (request.Format)
        {
            case KernelFormat.Elf64:
                throw new BootException(image.Name, "kernel format", "bzImage",
                    "Elf64 needs an ELF file; use Auto, Payload, Pvh or BzImage");
            case KernelFormat.BzImage:
                return FromBzImage(image, header, request, []);
            case KernelFormat.Payload or KernelFormat.Pvh:
                return FromPayload(request.Format, image, header, request, ramEnd);
            default:
                // Only what is not unpacked here at all is left to the guest: a payload that is damaged would fail there too, and late.
                return Payload.WhyNot(image, header) is { } reason
                    ? FromBzImage(image, header, request, [$"the guest unpacks its kernel itself, because {reason.Message}"])
                    : FromPayload(KernelFormat.Payload, image, header, request, ramEnd);
        }
    }

    private static KernelLoad FromPayload(KernelFormat format, ImageSource image, BzImage header, BootRequest request, ulong ramEnd)
    {
        var elf = Payload.Open(image, header, ramEnd);
        try
        {
            var load = FromElf(format, elf, request, header);
            image.Dispose();
            return load;
        }
        catch
        {
            elf.Dispose();
            throw;
        }
    }

    private static KernelLoad FromElf(KernelFormat format, ImageSource image, BootRequest request, BzImage? header = null)
    {
        var elf = ElfImage.Parse(image);
        var pvh = format is KernelFormat.Pvh;
        if (pvh && elf.PvhEntry is null)
            throw new BootException(image.Name, "XEN_ELFNOTE_PHYS32_ENTRY", "absent", "the kernel was built without CONFIG_PVH; use Auto");
        var (field, entry) = pvh ? ("PVH entry", elf.PvhEntry!.Value) : ("e_entry", elf.Entry);
        if (entry < request.LoadAddress.Value)
            throw BootException.Hex(image.Name, field, entry, $"below kernel_load_addr {request.LoadAddress}");
        if (!elf.Segments.Any(s => entry >= s.Address && entry < s.End))
            throw BootException.Hex(image.Name, field, entry, "not inside any PT_LOAD: the first instruction would not be the kernel's");
        return new KernelLoad(format, image)
        {
            Segments = elf.Segments,
            Entry = entry,
            Protocol = pvh ? EntryProtocol.Pvh32 : EntryProtocol.Linux64,
            Header = header,
            Span = (elf.Segments.Min(s => s.Address), elf.Segments.Max(s => s.End)),
        };
    }

    private static KernelLoad FromBzImage(ImageSource image, BzImage header, BootRequest request, IReadOnlyList<string> notes)
    {
        ulong at = header.Code32Start;
        if (at < request.LoadAddress.Value)
            throw BootException.Hex(image.Name, "code32_start", at, $"below kernel_load_addr {request.LoadAddress}");
        if (!header.Has64BitEntry)
            throw BootException.Hex(image.Name, "version", header.Version,
                "no 64-bit entry (xloadflags bit 0, protocol 2.12): a 64-bit kernel is needed");
        if (header.KernelSize <= 0x200)
            throw BootException.Hex(image.Name, "size", header.KernelSize, "the 64-bit entry at 0x200 lies behind the end of the kernel");

        // The decompressor moves itself and the kernel to the preferred address (or stays, if loaded higher) and uses init_size bytes from
        // there.
        ulong runsAt = Math.Max(at, header.PreferredAddress ?? at), end = at + header.KernelSize;
        if (runsAt > ulong.MaxValue - header.InitSize)
            throw BootException.Hex(image.Name, "pref_address", runsAt, $"init_size 0x{header.InitSize:x} from there passes 2^64");
        return new KernelLoad(KernelFormat.BzImage, image)
        {
            Segments = [new LoadSegment(header.SetupSize, header.KernelSize, at, header.KernelSize)],
            Entry = at + 0x200,
            Protocol = EntryProtocol.Linux64,
            Header = header,
            Span = (at, Math.Max(end, runsAt + header.InitSize)),
            Notes = notes,
        };
    }

    /// <summary>Claims the segments, and checks that the kernel's own working space is RAM.</summary>
    public void Claim(PlacementMap map)
    {
        for (var i = 0; i < Segments.Count; i++)
        {
            var name = Segments.Count == 1 ? "kernel" : $"kernel segment {i}";
            map.Claim(Image.Name, "p_paddr", name, Segments[i].Address, Segments[i].MemorySize);
        }
        if (Span.End > map.RamEnd)
            throw BootException.Hex(Image.Name, "init_size", Span.End - Span.Start,
                $"the kernel at 0x{Span.Start:x} needs RAM up to 0x{Span.End:x}, it ends at 0x{map.RamEnd:x}; give the VM more memory");
    }

    /// <summary>Copies the segments and clears what follows them.</summary>
    public void Write(GuestMemory memory)
    {
        foreach (var segment in Segments)
        {
            Image.CopyTo(memory, segment.FileOffset, segment.FileSize, new GuestAddress(segment.Address), "p_offset");
            Clear(memory, segment.Address + segment.FileSize, segment.MemorySize - segment.FileSize);
        }
    }

    private static void Clear(GuestMemory memory, ulong at, ulong count)
    {
        const int Chunk = 1 << 30;
        while (count > 0 && memory.TrySliceForWrite(new GuestAddress(at), (int)Math.Min(Chunk, count), out var bytes))
        {
            bytes.Clear();
            memory.Written(new GuestAddress(at), (ulong)bytes.Length);
            at += (ulong)bytes.Length;
            count -= (ulong)bytes.Length;
        }
    }
}
