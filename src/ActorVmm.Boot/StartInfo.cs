using System.Buffers.Binary;

namespace ActorVmm.Boot;

/// <summary>
/// <c>struct hvm_start_info</c> version 1 with its module list and memory map (Xen, xen/include/public/arch-x86/hvm/start_info.h), in one
/// page: 56 bytes of header, one 32-byte module where there is an initrd, then 24 bytes for each range of RAM.
/// </summary>
public static class StartInfo
{
    /// <summary>"xEn3" with the 0x80 bit of the "E" set.</summary>
    public const uint Magic = 0x336E_C578;

    private const int HeaderSize = 56;
    private const int ModuleSize = 32;
    private const int RangeSize = 24;

    /// <summary>Builds the structure for the address it will have.</summary>
    /// <param name="at">Guest physical address of the result.</param>
    /// <param name="commandLine">Address of the NUL-terminated command line.</param>
    /// <param name="rsdp">Address of the RSDP.</param>
    /// <param name="map">Memory map; the type numbers are those of e820.</param>
    /// <param name="initrd">Where the initrd lies, if there is one.</param>
    public static byte[] Build(ulong at, ulong commandLine, ulong rsdp, E820Map map, (ulong Address, ulong Size)? initrd)
    {
        ArgumentNullException.ThrowIfNull(map);
        const int ModuleAt = HeaderSize;
        const int MapAt = HeaderSize + ModuleSize;
        var bytes = new byte[MapAt + RangeSize * map.Entries.Count];
        var header = bytes.AsSpan();
        BinaryPrimitives.WriteUInt32LittleEndian(header, Magic);
        BinaryPrimitives.WriteUInt32LittleEndian(header[4..], 1); // version
        if (initrd is { } module)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(header[12..], 1); // nr_modules
            BinaryPrimitives.WriteUInt64LittleEndian(header[16..], at + ModuleAt);
            BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(ModuleAt), module.Address);
            BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(ModuleAt + 8), module.Size);
        }
        BinaryPrimitives.WriteUInt64LittleEndian(header[24..], commandLine);
        BinaryPrimitives.WriteUInt64LittleEndian(header[32..], rsdp);
        BinaryPrimitives.WriteUInt64LittleEndian(header[40..], at + MapAt);
        BinaryPrimitives.WriteUInt32LittleEndian(header[48..], (uint)map.Entries.Count);
        for (var i = 0; i < map.Entries.Count; i++)
        {
            var range = bytes.AsSpan(MapAt + RangeSize * i, RangeSize);
            BinaryPrimitives.WriteUInt64LittleEndian(range, map.Entries[i].Start);
            BinaryPrimitives.WriteUInt64LittleEndian(range[8..], map.Entries[i].Size);
            BinaryPrimitives.WriteUInt32LittleEndian(range[16..], (uint)map.Entries[i].Type);
        }
        return bytes;
    }
}
