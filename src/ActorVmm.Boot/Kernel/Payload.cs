using System.Buffers.Binary;
using System.IO.Compression;
using ActorVmm.Memory;
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
        using var unpacked = Open(image, header, limit);
        return Bytes(unpacked);
    }

    /// <summary>Unpacks a payload with its trailing size word.</summary>
    /// <inheritdoc cref="Unpack(ImageSource, BzImage, ulong)"/>
    public static byte[] Unpack(string name, byte[] payload, ulong limit)
    {
        ArgumentNullException.ThrowIfNull(payload);
        using var packed = ImageSource.FromBytes(name, payload);
        using var unpacked = Open(packed, 0, (ulong)payload.Length, limit);
        return Bytes(unpacked);
    }

    /// <summary>
    /// As <see cref="Unpack(ImageSource, BzImage, ulong)"/>, into memory that the collector knows nothing of: tens of MiB for a moment, per
    /// VM, would stay in its heap long after.
    /// </summary>
    internal static ImageSource Open(ImageSource image, BzImage header, ulong limit)
    {
        ArgumentNullException.ThrowIfNull(image);
        ArgumentNullException.ThrowIfNull(header);
        if (WhyNot(image, header) is { } reason) throw reason;
        var payload = header.Payload!.Value;
        return Open(image, header.SetupSize + payload.Offset, payload.Length, limit);
    }

    private static ImageSource Open(ImageSource image, ulong at, ulong length, ulong limit)
    {
        Span<byte> head = stackalloc byte[(int)Math.Min(length, 8)];
        image.Read(at, head, "payload_offset");
        if (WhyNot(image.Name, head) is { } reason) throw reason;
        if (length < 16) throw BootException.Hex(image.Name, "payload_length", length, "too short for any compressed kernel");
        if (length > (ulong)Array.MaxLength) throw BootException.Hex(image.Name, "payload_length", length, "larger than 2 GiB");
        var format = Detect(head)!.Value;
        var size = length;
        if (format is not PayloadCompression.None)
        {
            Span<byte> word = stackalloc byte[4];
            image.Read(at + length - 4, word, "payload_length");
            size = BinaryPrimitives.ReadUInt32LittleEndian(word);
            if (size == 0 || size > limit || size > (ulong)Array.MaxLength)
                throw BootException.Hex(image.Name, "payload size", size,
                    $"the unpacked kernel must have 1 to 0x{limit:x} bytes; give the VM more memory");
        }

        var unpacked = Scratch(size, out var output);
        try
        {
            if (format is PayloadCompression.None) image.Read(at, output, "payload_offset");
            else Decode(image, at, length, format, output);
            return ImageSource.FromMemory($"{image.Name} (payload)", unpacked, size);
        }
        catch
        {
            unpacked.Dispose();
            throw;
        }
    }

    private static void Decode(ImageSource image, ulong at, ulong length, PayloadCompression format, Span<byte> output)
    {
        var stream = format is PayloadCompression.Gzip ? length : length - 4; // gzip's size word is its own
        int got;
        try
        {
            if (format is PayloadCompression.Lz4)
            {
                using var whole = Scratch(stream, out var packed);
                image.Read(at, packed, "payload_offset");
                got = Lz4Legacy.Decode(packed, output);
            }
            else
            {
                using var packed = new BufferedStream(new ImageStream(image, at, (long)stream), 1 << 16);
                got = Drain(format, packed, output);
            }
        }
        catch (Exception e) when (e is not BootException)
        {
            // Decompressors answer damaged data with exceptions of every kind, from InvalidDataException to IndexOutOfRangeException, and a
            // dictionary size that lies with OutOfMemoryException.
            throw new BootException(image.Name, "payload", $"{format}", $"damaged: {e.Message}", e);
        }
        if (got < 0) throw Bad($"{format}", $"damaged, or larger than the 0x{output.Length:x} bytes it claims");
        if (got != output.Length) throw Bad($"{format}", $"it gives 0x{got:x} bytes and claims 0x{output.Length:x}");

        BootException Bad(string value, string advice) => new(image.Name, "payload", value, advice);
    }

    /// <summary>Memory of a mapping of its own: given back when it is disposed, and untouched pages cost nothing.</summary>
    private static GuestMemory Scratch(ulong bytes, out Span<byte> all)
    {
        var memory = GuestMemory.Create((bytes + 4095) & ~4095UL);
        return memory.TrySliceForWrite(new GuestAddress(0), (int)bytes, out all)
            ? memory
            : throw new InvalidOperationException("a mapping is smaller than it was asked to be");
    }

    private static byte[] Bytes(ImageSource image)
    {
        var bytes = new byte[image.Length];
        image.Read(0, bytes, "payload");
        return bytes;
    }

    /// <summary>Fills <paramref name="output"/>; -1 where the stream goes on behind it.</summary>
    private static int Drain(PayloadCompression format, Stream packed, Span<byte> output)
    {
        using var stream = Open(format, packed);
        var got = stream.ReadAtLeast(output, output.Length, throwOnEndOfStream: false);
        return got == output.Length && stream.Read(stackalloc byte[1]) > 0 ? -1 : got;
    }

    private static Stream Open(PayloadCompression format, Stream packed)
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
