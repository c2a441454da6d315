using System.Buffers.Binary;
using System.IO.Compression;
using SharpCompress.Compressors.BZip2;
using SharpCompress.Compressors.LZMA;
using SharpCompress.Compressors.Xz;

namespace ActorVmm.Boot.Kernel;

/// <summary>How the kernel inside a bzImage is compressed (boot.rst, payload_offset).</summary>
public enum PayloadCompression { None, Gzip, Bzip2, Lzma, Xz, Lzo, Lz4, Zstd }

/// <summary>
/// Unpacks the compressed kernel of a bzImage. The last four bytes of the payload are its unpacked size: gzip's own trailer, and appended
/// by the kernel build for every other format. That word bounds the output: a stream that gives more or less is refused.
/// </summary>
public static class Payload
{
    /// <summary>Recognizes the format by its magic number; null where it is none of those that kernels use.</summary>
    public static PayloadCompression? Detect(ReadOnlySpan<byte> head) => head switch
    {
        [0x1F, 0x8B, ..] or [0x1F, 0x9E, ..] => PayloadCompression.Gzip,
        [0x42, 0x5A, 0x68, ..] => PayloadCompression.Bzip2,
        [0x5D, 0x00, 0x00, ..] => PayloadCompression.Lzma,
        [0xFD, 0x37, 0x7A, 0x58, 0x5A, 0x00, ..] => PayloadCompression.Xz,
        [0x89, 0x4C, 0x5A, ..] => PayloadCompression.Lzo,
        [0x02, 0x21, 0x4C, 0x18, ..] => PayloadCompression.Lz4,
        [0x28, 0xB5, 0x2F, 0xFD, ..] => PayloadCompression.Zstd,
        [0x7F, 0x45, 0x4C, 0x46, ..] => PayloadCompression.None,
        _ => null,
    };

    /// <summary>
    /// Why this payload is none that is unpacked here (there is none, or its format is not known), so that only the kernel's own
    /// decompressor serves; null where it is. Says nothing about damage.
    /// </summary>
    /// <exception cref="BootException">The payload does not lie inside the kernel.</exception>
    internal static BootException? WhyNot(ImageSource image, BzImage header)
    {
        if (header.Payload is not { } payload)
            return new BootException(image.Name, "payload_length", "0", "this bzImage has no payload to unpack");
        CheckPlace(image, header, payload);
        Span<byte> head = stackalloc byte[(int)Math.Min(payload.Length, 8)];
        image.Read(header.SetupSize + payload.Offset, head, "payload_offset");
        return WhyNot(image.Name, head);
    }

    private static BootException? WhyNot(string name, ReadOnlySpan<byte> head) => Detect(head) switch
    {
        null => BootException.Hex(name, "payload magic", head.Length < 4 ? 0 : BinaryPrimitives.ReadUInt32BigEndian(head),
            "not one of gzip, bzip2, lzma, xz, lz4, zstd; boot it by its own decompressor"),
        PayloadCompression.Lzo =>
            new BootException(name, "payload", "LZO", "this format is not unpacked here; boot it by its own decompressor"),
        _ => null,
    };

    private static void CheckPlace(ImageSource image, BzImage header, (uint Offset, uint Length) payload)
    {
        if (payload.Offset > header.KernelSize || payload.Length > header.KernelSize - payload.Offset)
            throw BootException.Hex(image.Name, "payload_offset", payload.Offset,
                $"0x{payload.Length:x} bytes from there leave the kernel of 0x{header.KernelSize:x} bytes");
    }

    /// <summary>Unpacks the payload of <paramref name="header"/>.</summary>
    /// <param name="image">The bzImage file.</param>
    /// <param name="header">Its header.</param>
    /// <param name="limit">Most bytes that the result may have; what claims more is refused before anything is allocated.</param>
    /// <exception cref="BootException">No payload, an unknown format, damaged data, or a size that does not hold.</exception>
    public static byte[] Unpack(ImageSource image, BzImage header, ulong limit)
    {
        ArgumentNullException.ThrowIfNull(image);
        ArgumentNullException.ThrowIfNull(header);
        if (WhyNot(image, header) is { } reason) throw reason;
        var payload = header.Payload!.Value;
        CheckPlace(image, header, payload);
        if (payload.Length < 16)
            throw BootException.Hex(image.Name, "payload_length", payload.Length, "too short for any compressed kernel");
        if (payload.Length > (uint)Array.MaxLength)
            throw BootException.Hex(image.Name, "payload_length", payload.Length, "larger than 2 GiB");

        var packed = GC.AllocateUninitializedArray<byte>((int)payload.Length);
        image.Read(header.SetupSize + payload.Offset, packed, "payload_offset");
        return Unpack(image.Name, packed, limit);
    }

    /// <summary>Unpacks a payload with its trailing size word.</summary>
    /// <inheritdoc cref="Unpack(ImageSource, BzImage, ulong)"/>
    public static byte[] Unpack(string name, byte[] payload, ulong limit)
    {
        ArgumentNullException.ThrowIfNull(payload);
        if (WhyNot(name, payload) is { } reason) throw reason;
        var format = Detect(payload)!.Value;
        if (format is PayloadCompression.None) return payload;
        if (payload.Length < 16)
            throw BootException.Hex(name, "payload_length", (ulong)payload.Length, "too short for any compressed kernel");

        var size = BinaryPrimitives.ReadUInt32LittleEndian(payload.AsSpan(payload.Length - 4));
        if (size == 0 || size > limit || size > (uint)Array.MaxLength)
            throw BootException.Hex(name, "payload size", size,
                $"the unpacked kernel must have 1 to 0x{limit:x} bytes; give the VM more memory");
        var output = GC.AllocateUninitializedArray<byte>((int)size);
        int got;
        try
        {
            got = format is PayloadCompression.Lz4
                ? Lz4Legacy.Decode(payload.AsSpan(0, payload.Length - 4), output)
                : Drain(format, payload, output);
        }
        catch (Exception e)
        {
            // Decompressors answer damaged data with exceptions of every kind, from InvalidDataException to IndexOutOfRangeException, and a
            // dictionary size that lies with OutOfMemoryException.
            throw new BootException(name, "payload", $"{format}", $"damaged: {e.Message}", e);
        }
        if (got < 0) throw Bad($"{format}", $"damaged, or larger than the 0x{size:x} bytes it claims");
        return got == output.Length ? output : throw Bad($"{format}", $"it gives 0x{got:x} bytes and claims 0x{size:x}");

        BootException Bad(string value, string advice) => new(name, "payload", value, advice);
    }

    /// <summary>Fills <paramref name="output"/>; -1 where the stream goes on behind it.</summary>
    private static int Drain(PayloadCompression format, byte[] payload, byte[] output)
    {
        var length = format is PayloadCompression.Gzip ? payload.Length : payload.Length - 4; // gzip's size word is its own
        using var packed = new MemoryStream(payload, 0, length, writable: false);
        using var stream = Open(format, packed);
        var got = stream.ReadAtLeast(output, output.Length, throwOnEndOfStream: false);
        return got == output.Length && stream.Read(stackalloc byte[1]) > 0 ? -1 : got;
    }

    private static Stream Open(PayloadCompression format, MemoryStream packed)
    {
        switch (format)
        {
            case PayloadCompression.Gzip: return new GZipStream(packed, CompressionMode.Decompress);
            case PayloadCompression.Bzip2: return BZip2Stream.Create(packed, SharpCompress.Compressors.CompressionMode.Decompress, true);
            case PayloadCompression.Xz: return new XZStream(packed);
            case PayloadCompression.Zstd: return new ZstdSharp.DecompressionStream(packed);
            default:
                // .lzma alone: 5 bytes of properties, 8 of size (all ones: up to the end mark), then the raw stream.
                Span<byte> head = stackalloc byte[13];
                packed.ReadExactly(head);
                var size = BinaryPrimitives.ReadInt64LittleEndian(head[5..]);
                return LzmaStream.Create(head[..5].ToArray(), packed, packed.Length - packed.Position, Math.Max(size, -1));
        }
    }
}
