namespace ActorVmm.Boot.Kernel;

/// <summary>A part of an image as a stream to read, for the decompressors.</summary>
/// <param name="image">It stays its owner's.</param>
/// <param name="start">First byte of the part.</param>
/// <param name="length">Bytes of it.</param>
internal sealed class ImageStream(ImageSource image, ulong start, long length) : Stream
{
    public override bool CanRead => true;
    public override bool CanSeek => true;
    public override bool CanWrite => false;
    public override long Length => length;
    public override long Position { get; set; }

    public override int Read(Span<byte> buffer)
    {
        var count = (int)Math.Min(buffer.Length, Math.Max(length - Position, 0));
        if (count == 0) return 0;
        image.Read(start + (ulong)Position, buffer[..count], "payload_offset");
        Position += count;
        return count;
    }

    public override int Read(byte[] buffer, int offset, int count) => Read(buffer.AsSpan(offset, count));

    public override long Seek(long offset, SeekOrigin origin)
    {
        var at = origin switch { SeekOrigin.Begin => 0, SeekOrigin.Current => Position, _ => length } + offset;
        return at >= 0 ? Position = at : throw new IOException("a stream does not begin before its first byte");
    }

    public override void Flush() { }
    public override void SetLength(long value) => throw new NotSupportedException();
    public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();
}
