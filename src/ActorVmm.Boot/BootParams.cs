using System.Buffers.Binary;
using ActorVmm.Boot.Kernel;

namespace ActorVmm.Boot;

/// <summary>
/// The zero page, <c>struct boot_params</c> (Documentation/arch/x86/zero-page.rst): 4096 bytes, zero but for what is set here. In
/// particular
/// <c>sentinel</c> (0x1EF) stays 0, else the kernel scrubs the page.
/// </summary>
public sealed class BootParams
{
    /// <summary>Bytes of the page.</summary>
    public const int Size = 4096;

    /// <summary>The loader has no assigned number (boot.rst, type_of_loader).</summary>
    public const byte UndefinedLoader = 0xFF;

    private readonly byte[] _page = new byte[Size];

    private BootParams() { }

    /// <summary>The page as it goes to RAM.</summary>
    public ReadOnlySpan<byte> Bytes => _page;

    /// <summary>For an ELF entered directly: a header of our own, so that the kernel trusts the fields.</summary>
    public static BootParams ForElf()
    {
        var page = new BootParams();
        page.U16(0x1FE, 0xAA55);
        page.U32(0x202, BzImage.Magic);
        page.U16(0x206, 0x20F);
        page._page[0x211] = 1;          // LOADED_HIGH
        page.U32(0x230, 0x0100_0000);   // kernel_alignment
        page._page[0x210] = UndefinedLoader;
        page.U32(0x238, MemoryLayout.CommandLineSize - 1);
        return page;
    }

    /// <summary>For a bzImage or its payload: a copy of the image's setup header, up to where the header says it ends.</summary>
    /// <param name="header">The image's header.</param>
    /// <param name="loadAddress">Where the protected-mode kernel was put (<c>code32_start</c>).</param>
    public static BootParams ForBzImage(BzImage header, uint loadAddress)
    {
        ArgumentNullException.ThrowIfNull(header);
        var page = new BootParams();
        header.Header.CopyTo(page._page.AsSpan(BzImage.HeaderOffset));
        if (page._page[0x210] == 0) page._page[0x210] = UndefinedLoader;
        page.U32(0x214, loadAddress);
        return page;
    }

    /// <summary>Sets <c>cmd_line_ptr</c> and its high half.</summary>
    public BootParams WithCommandLine(ulong address)
    {
        Split(0x228, 0xC8, address);
        return this;
    }

    /// <summary>Sets <c>ramdisk_image</c> and <c>ramdisk_size</c> and their high halves.</summary>
    public BootParams WithInitrd(ulong address, ulong size)
    {
        Split(0x218, 0xC0, address);
        Split(0x21C, 0xC4, size);
        return this;
    }

    /// <summary>Sets <c>acpi_rsdp_addr</c> (2.14).</summary>
    public BootParams WithRsdp(ulong address)
    {
        BinaryPrimitives.WriteUInt64LittleEndian(_page.AsSpan(0x70), address);
        return this;
    }

    /// <summary>Sets the memory map; <see cref="E820Map"/> keeps it within the page.</summary>
    public BootParams WithMemoryMap(E820Map map)
    {
        ArgumentNullException.ThrowIfNull(map);
        _page[0x1E8] = (byte)map.Entries.Count;
        for (var i = 0; i < map.Entries.Count; i++)
        {
            var entry = _page.AsSpan(0x2D0 + 20 * i, 20);
            BinaryPrimitives.WriteUInt64LittleEndian(entry, map.Entries[i].Start);
            BinaryPrimitives.WriteUInt64LittleEndian(entry[8..], map.Entries[i].Size);
            BinaryPrimitives.WriteUInt32LittleEndian(entry[16..], (uint)map.Entries[i].Type);
        }
        return this;
    }

    private void Split(int low, int high, ulong value)
    {
        U32(low, (uint)value);
        U32(high, (uint)(value >> 32));
    }

    private void U16(int at, ushort value) => BinaryPrimitives.WriteUInt16LittleEndian(_page.AsSpan(at), value);
    private void U32(int at, uint value) => BinaryPrimitives.WriteUInt32LittleEndian(_page.AsSpan(at), value);
}
