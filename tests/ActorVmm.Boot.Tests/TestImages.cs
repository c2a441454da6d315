using System.Buffers.Binary;
using System.Text;
using ActorVmm.Boot.Kernel;
using K4os.Compression.LZ4;

namespace ActorVmm.Boot.Tests;

/// <summary>One program header of a synthetic ELF with its bytes.</summary>
internal sealed record Segment(uint Type, ulong Address, byte[] Bytes, ulong? MemorySize = null, ulong Align = 0x1000);

/// <summary>Tiny kernel images, built here field by field, so that tests can spoil any of them.</summary>
internal static class TestImages
{
    public const uint PtLoad = 1;
    public const uint PtNote = 4;

    /// <summary>Bytes that no cleared memory looks like.</summary>
    public static byte[] Code(int length, byte seed = 1) => [.. Enumerable.Range(0, length).Select(i => (byte)(seed + i * 7 | 1))];

    public static byte[] Elf(ulong entry, params Segment[] segments)
    {
        var data = 64 + 56 * segments.Length;
        var file = new List<byte>(new byte[data]);
        var header = new byte[data];
        "\u007FELF"u8.CopyTo(header);
        (header[4], header[5], header[6]) = (2, 1, 1);
        BinaryPrimitives.WriteUInt16LittleEndian(header.AsSpan(16), 2);
        BinaryPrimitives.WriteUInt16LittleEndian(header.AsSpan(18), 62);
        BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(20), 1);
        BinaryPrimitives.WriteUInt64LittleEndian(header.AsSpan(24), entry);
        BinaryPrimitives.WriteUInt64LittleEndian(header.AsSpan(32), 64);
        BinaryPrimitives.WriteUInt16LittleEndian(header.AsSpan(52), 64);
        BinaryPrimitives.WriteUInt16LittleEndian(header.AsSpan(54), 56);
        BinaryPrimitives.WriteUInt16LittleEndian(header.AsSpan(56), (ushort)segments.Length);
        for (var i = 0; i < segments.Length; i++)
        {
            var ph = header.AsSpan(64 + 56 * i, 56);
            BinaryPrimitives.WriteUInt32LittleEndian(ph, segments[i].Type);
            BinaryPrimitives.WriteUInt64LittleEndian(ph[8..], (ulong)file.Count);
            BinaryPrimitives.WriteUInt64LittleEndian(ph[16..], 0xFFFF_FFFF_8000_0000 + segments[i].Address);
            BinaryPrimitives.WriteUInt64LittleEndian(ph[24..], segments[i].Address);
            BinaryPrimitives.WriteUInt64LittleEndian(ph[32..], (ulong)segments[i].Bytes.Length);
            BinaryPrimitives.WriteUInt64LittleEndian(ph[40..], segments[i].MemorySize ?? (ulong)segments[i].Bytes.Length);
            BinaryPrimitives.WriteUInt64LittleEndian(ph[48..], segments[i].Align);
            file.AddRange(segments[i].Bytes);
        }
        return [.. header, .. file.Skip(data)];
    }

    /// <summary>An ELF of one segment at <paramref name="address"/>, entered at its start.</summary>
    public static byte[] Elf(ulong address = 0x100_0000, int size = 0x300) => Elf(address, new Segment(PtLoad, address, Code(size)));

    /// <summary>An ELF note with the 32-bit entry, behind a foreign note.</summary>
    public static byte[] PvhNote(ulong entry, int size = 4, int align = 4)
    {
        var notes = new List<byte>();
        Note("GNU\0", 5, new byte[10]);
        var word = new byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(word, entry);
        Note("Xen\0", 18, [.. word, .. new byte[8]]);
        return [.. notes];

        void Note(string name, uint type, byte[] descriptor)
        {
            var used = type == 18 ? descriptor[..size] : descriptor;
            var head = new byte[12];
            BinaryPrimitives.WriteUInt32LittleEndian(head, (uint)name.Length);
            BinaryPrimitives.WriteUInt32LittleEndian(head.AsSpan(4), (uint)used.Length);
            BinaryPrimitives.WriteUInt32LittleEndian(head.AsSpan(8), type);
            notes.AddRange(head);
            notes.AddRange(Encoding.ASCII.GetBytes(name));
            while (notes.Count % align != 0) notes.Add(0);
            notes.AddRange(used);
            while (notes.Count % align != 0) notes.Add(0);
        }
    }

    public static byte[] PvhElf(uint entry = 0x100_0010, ulong at = 0x100_0000) => Elf(
        at, new Segment(PtLoad, at, Code(0x300)), new Segment(PtNote, 0, PvhNote(entry), Align: 4));

    /// <summary>
    /// A bzImage of protocol 2.15 with one setup sector more than the boot sector, a kernel of 0x400 bytes of code, and the payload behind
    /// it.
    /// </summary>
    public static byte[] BzImage(byte[]? payload = null, uint initSize = 0x10_0000, ulong preferred = 0x100_0000)
    {
        var kernel = new List<byte>(Code(0x400, 3));
        if (payload is not null) kernel.AddRange(payload);
        while (kernel.Count % 16 != 0) kernel.Add(0);

        var setup = new byte[0x400];
        setup[0x1F1] = 1;
        BinaryPrimitives.WriteUInt32LittleEndian(setup.AsSpan(0x1F4), (uint)(kernel.Count / 16));
        BinaryPrimitives.WriteUInt16LittleEndian(setup.AsSpan(0x1FA), 0xFFFF);
        BinaryPrimitives.WriteUInt16LittleEndian(setup.AsSpan(0x1FE), 0xAA55);
        (setup[0x200], setup[0x201]) = (0xEB, 0x6A);                                            // jmp: the header ends at 0x26c
        "HdrS"u8.CopyTo(setup.AsSpan(0x202));
        BinaryPrimitives.WriteUInt16LittleEndian(setup.AsSpan(0x206), 0x20F);
        setup[0x211] = 1;
        BinaryPrimitives.WriteUInt32LittleEndian(setup.AsSpan(0x214), 0x10_0000);
        BinaryPrimitives.WriteUInt32LittleEndian(setup.AsSpan(0x22C), 0x7FFF_FFFF);
        BinaryPrimitives.WriteUInt32LittleEndian(setup.AsSpan(0x230), 0x20_0000);
        setup[0x234] = 1;
        BinaryPrimitives.WriteUInt16LittleEndian(setup.AsSpan(0x236), 1);
        BinaryPrimitives.WriteUInt32LittleEndian(setup.AsSpan(0x238), 2047);
        BinaryPrimitives.WriteUInt32LittleEndian(setup.AsSpan(0x248), payload is null ? 0u : 0x400);
        BinaryPrimitives.WriteUInt32LittleEndian(setup.AsSpan(0x24C), (uint)(payload?.Length ?? 0));
        BinaryPrimitives.WriteUInt64LittleEndian(setup.AsSpan(0x258), preferred);
        BinaryPrimitives.WriteUInt32LittleEndian(setup.AsSpan(0x260), initSize);
        return [.. setup, .. kernel];
    }

    /// <summary>What the kernel build appends: the stream and its unpacked size.</summary>
    public static byte[] WithSize(byte[] stream, int size)
    {
        var word = new byte[4];
        BinaryPrimitives.WriteInt32LittleEndian(word, size);
        return [.. stream, .. word];
    }

    /// <summary>A legacy LZ4 frame in blocks of 8 MiB.</summary>
    public static byte[] Lz4Frame(byte[] content)
    {
        var frame = new List<byte> { 0x02, 0x21, 0x4C, 0x18 };
        foreach (var block in content.Chunk(8 << 20))
        {
            var packed = new byte[LZ4Codec.MaximumOutputSize(block.Length)];
            var size = LZ4Codec.Encode(block, packed);
            var word = new byte[4];
            BinaryPrimitives.WriteInt32LittleEndian(word, size);
            frame.AddRange(word);
            frame.AddRange(packed.AsSpan(0, size));
        }
        return [.. frame];
    }

    /// <summary>A bzImage with an LZ4-packed ELF inside.</summary>
    public static byte[] BzImageWithElf(byte[] elf) => BzImage(WithSize(Lz4Frame(elf), elf.Length));

    public static ImageSource Source(byte[] bytes) => ImageSource.FromBytes("image", bytes);
}
