using System.Buffers.Binary;

namespace ActorVmm.Boot.Kernel;

/// <summary>
/// The setup header of a bzImage (Documentation/arch/x86/boot.rst, "Details of Header Fields"), checked against the file. Fields newer than
/// the image's protocol version read as absent.
/// </summary>
public sealed class BzImage
{
    /// <summary>Offset of the setup header in the file and in <c>boot_params</c>.</summary>
    public const int HeaderOffset = 0x1F1;

    /// <summary>First byte behind the room that <c>boot_params</c> has for the setup header.</summary>
    public const int HeaderLimit = 0x290;

    /// <summary><c>HdrS</c>.</summary>
    public const uint Magic = 0x5372_6448;

    private readonly byte[] _page;

    private BzImage(byte[] page, int headerEnd, ulong setupSize, ulong fileSize)
    {
        _page = page;
        HeaderEnd = headerEnd;
        SetupSize = setupSize;
        KernelSize = fileSize - setupSize;
    }

    /// <summary>Where the header ends: 0x202 + byte at 0x201 (boot.rst, 64-bit boot protocol), at most <see cref="HeaderLimit"/>.</summary>
    public int HeaderEnd { get; }

    /// <summary>Bytes [<see cref="HeaderOffset"/>, <see cref="HeaderEnd"/>) of the file, to be copied into <c>boot_params</c>.</summary>
    public ReadOnlySpan<byte> Header => _page.AsSpan(HeaderOffset, HeaderEnd - HeaderOffset);

    /// <summary>Bytes of real-mode code; the protected-mode kernel begins there in the file.</summary>
    public ulong SetupSize { get; }

    /// <summary>Bytes of the protected-mode kernel.</summary>
    public ulong KernelSize { get; }

    /// <summary>Protocol version, e.g. 0x20f.</summary>
    public ushort Version => U16(0x206);

    /// <summary>Default load address.</summary>
    public uint Code32Start => U32(0x214);

    /// <summary>Last byte that the initrd may touch (2.03; before it 0x37ffffff).</summary>
    public uint InitrdAddressMax => Version >= 0x203 ? U32(0x22C) : 0x37FF_FFFF;

    /// <summary>XLF_KERNEL_64: there is a 64-bit entry at load address + 0x200 (2.12).</summary>
    public bool Has64BitEntry => Version >= 0x20C && (U16(0x236) & 1) != 0;

    /// <summary>Longest command line without its NUL (2.06; before it 255).</summary>
    public uint CommandLineMax => Version >= 0x206 ? U32(0x238) : 255;

    /// <summary>
    /// Offset and length of the compressed kernel, from the start of the protected-mode kernel (2.08); null where there is none.
    /// </summary>
    public (uint Offset, uint Length)? Payload => Version >= 0x208 && U32(0x24C) > 0 ? (U32(0x248), U32(0x24C)) : null;

    /// <summary>Where the kernel likes to run (2.10).</summary>
    public ulong? PreferredAddress => Version >= 0x20A ? BinaryPrimitives.ReadUInt64LittleEndian(_page.AsSpan(0x258)) : null;

    /// <summary>Linear memory the kernel needs from its runtime address before it looks at the memory map (2.10).</summary>
    public uint InitSize => Version >= 0x20A ? U32(0x260) : 0;

    /// <summary>Reads the header.</summary>
    /// <exception cref="BootException">Not a bzImage that loads high, or a field lies about the file.</exception>
    public static BzImage Parse(ImageSource image)
    {
        ArgumentNullException.ThrowIfNull(image);
        if (image.Length < 0x268)
            throw BootException.Hex(image.Name, "size", image.Length, "neither an ELF nor a bzImage: too short for a setup header");
        var page = new byte[HeaderLimit];
        image.Read(0, page.AsSpan(0, (int)Math.Min(image.Length, HeaderLimit)), "setup header");

        var bootFlag = BinaryPrimitives.ReadUInt16LittleEndian(page.AsSpan(0x1FE));
        var magic = BinaryPrimitives.ReadUInt32LittleEndian(page.AsSpan(0x202));
        if (magic != Magic) throw Bad("header", magic, "neither an ELF nor a bzImage: \"HdrS\" is missing at 0x202");
        if (bootFlag != 0xAA55) throw Bad("boot_flag", bootFlag, "a bzImage has 0xaa55 at 0x1fe");
        var version = BinaryPrimitives.ReadUInt16LittleEndian(page.AsSpan(0x206));
        if (version < 0x200) throw Bad("version", version, "boot protocol 2.00 or newer is needed");
        if ((page[0x211] & 1) == 0) throw Bad("loadflags", page[0x211], "LOADED_HIGH is needed: a bzImage, not a zImage");

        var sectors = page[HeaderOffset] == 0 ? 4u : page[HeaderOffset];
        var setupSize = (sectors + 1) * 512UL;
        if (setupSize >= image.Length)
            throw Bad("setup_sects", page[HeaderOffset], $"nothing follows the setup code in 0x{image.Length:x} bytes");
        var headerEnd = 0x202 + page[0x201];
        if (headerEnd is < 0x218 or > HeaderLimit) throw Bad("jump", page[0x201], "the header it spans has no legal size");

        // syssize counts 16-byte paragraphs; the last one may be cut short in the file.
        ulong kernelSize = image.Length - setupSize, declared = BinaryPrimitives.ReadUInt32LittleEndian(page.AsSpan(0x1F4)) * 16UL;
        if (version >= 0x204 && declared > kernelSize + 15)
            throw Bad("syssize", declared / 16, $"the kernel would have 0x{declared:x} bytes, the file holds 0x{kernelSize:x}");
        return new BzImage(page, headerEnd, setupSize, image.Length);

        BootException Bad(string field, ulong value, string advice) => BootException.Hex(image.Name, field, value, advice);
    }

    private ushort U16(int at) => BinaryPrimitives.ReadUInt16LittleEndian(_page.AsSpan(at));
    private uint U32(int at) => BinaryPrimitives.ReadUInt32LittleEndian(_page.AsSpan(at));
}
