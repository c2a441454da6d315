using System.Buffers.Binary;
using K4os.Compression.LZ4;

namespace ActorVmm.Boot.Kernel;

/// <summary>
/// The LZ4 legacy frame (LZ4 frame format description, "Legacy frame"): magic, then blocks of {compressed size, bytes}. Every block but the
/// last unpacks to exactly 8 MiB; the frame has no end mark.
/// </summary>
internal static class Lz4Legacy
{
    public const uint Magic = 0x184C_2102;
    private const int BlockSize = 8 << 20;

    /// <summary>
    /// Unpacks <paramref name="frame"/> into <paramref name="output"/>; returns the bytes written, or -1 where the frame is damaged or
    /// larger.
    /// </summary>
    public static int Decode(ReadOnlySpan<byte> frame, Span<byte> output)
    {
        if (frame.Length < 4 || BinaryPrimitives.ReadUInt32LittleEndian(frame) != Magic) return -1;
        frame = frame[4..];
        var written = 0;
        while (frame.Length >= 4)
        {
            var size = BinaryPrimitives.ReadUInt32LittleEndian(frame);
            frame = frame[4..];
            if (size == Magic) continue; // frames may follow one another
            if (size == 0 || size > (uint)frame.Length) return -1;
            var room = Math.Min(BlockSize, output.Length - written);
            var got = LZ4Codec.Decode(frame[..(int)size], output.Slice(written, room));
            if (got < 0) return -1;
            written += got;
            frame = frame[(int)size..];
        }
        return frame.Length == 0 ? written : -1;
    }
}
