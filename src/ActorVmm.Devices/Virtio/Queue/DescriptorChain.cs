using System.Runtime.InteropServices;
using ActorVmm.Memory;

namespace ActorVmm.Devices.Virtio.Queue;

/// <summary>
/// One request as the driver made it available: device-readable buffers first, then device-writable ones. Belongs to its queue, which uses
/// it again once the request is completed, and to the device's thread: a backend on another thread gets the <see cref="Id"/> and copies of
/// the segments. Offsets count bytes from the first buffer of the direction. Nothing here throws for what a guest does.
/// </summary>
public sealed class DescriptorChain
{
    /// <summary>Segments whose room a chain keeps between requests; longer ones are given back to the heap.</summary>
    private const int KeptSegments = 256;

    private readonly GuestMemory _memory;
    private GuestSegment[] _segments = new GuestSegment[4];
    private int _count;
    private int _readable;

    internal DescriptorChain(GuestMemory memory) => _memory = memory;

    /// <summary>What a backend gives back.</summary>
    public RequestId Id { get; internal set; }

    /// <summary>The chain's first descriptor.</summary>
    public ushort Head => Id.Head;

    /// <summary>
    /// How often it was handed out: 1, and one more for each restart of the device. A device that fails on the same request again and again
    /// answers it with an error instead (<see cref="IsSuspect"/>).
    /// </summary>
    public int Attempts { get; internal set; }

    /// <summary>True where the device failed twice with this request in flight: it is to be answered with an error, and not
    /// tried.</summary>
    public bool IsSuspect => Attempts > 2;

    /// <summary>Device-readable buffers.</summary>
    public ReadOnlySpan<GuestSegment> Readable => _segments.AsSpan(0, _readable);

    /// <summary>Device-writable buffers.</summary>
    public ReadOnlySpan<GuestSegment> Writable => _segments.AsSpan(_readable, _count - _readable);

    /// <summary>Bytes in all readable buffers; a hostile driver may make it exceed RAM by naming the same buffer often.</summary>
    public ulong ReadableLength { get; private set; }

    /// <summary>Bytes in all writable buffers.</summary>
    public ulong WritableLength { get; private set; }

    /// <summary>Guest RAM, for devices that work on single segments.</summary>
    public GuestMemory Memory => _memory;

    /// <summary>Copies readable bytes; false and an undefined <paramref name="into"/> where there are fewer.</summary>
    public bool TryRead(ulong offset, Span<byte> into)
    {
        if (!InRange(offset, (ulong)into.Length, ReadableLength)) return false;
        foreach (var segment in Readable)
        {
            if (into.IsEmpty) return true;
            if (offset >= segment.Length) { offset -= segment.Length; continue; }
            var part = (int)Math.Min((ulong)into.Length, segment.Length - offset);
            if (!_memory.TryRead(segment.Address + offset, into[..part])) return false;
            into = into[part..];
            offset = 0;
        }

        return into.IsEmpty;
    }

    /// <summary>Reads a little-endian value.</summary>
    public bool TryRead<T>(ulong offset, out T value) where T : unmanaged
    {
        value = default;
        return TryRead(offset, MemoryMarshal.AsBytes(new Span<T>(ref value)));
    }

    /// <summary>Copies into writable bytes; false where there is less room (nothing is written then).</summary>
    public bool TryWrite(ulong offset, ReadOnlySpan<byte> from)
    {
        if (!InRange(offset, (ulong)from.Length, WritableLength)) return false;
        foreach (var segment in Writable)
        {
            if (from.IsEmpty) return true;
            if (offset >= segment.Length) { offset -= segment.Length; continue; }
            var part = (int)Math.Min((ulong)from.Length, segment.Length - offset);
            if (!_memory.TryWrite(segment.Address + offset, from[..part])) return false;
            from = from[part..];
            offset = 0;
        }

        return from.IsEmpty;
    }

    /// <summary>Writes a little-endian value.</summary>
    public bool TryWrite<T>(ulong offset, T value) where T : unmanaged =>
        TryWrite(offset, MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)));

    /// <summary>A view of readable bytes; false where they are not all in one buffer.</summary>
    public bool TrySlice(ulong offset, int count, out ReadOnlySpan<byte> bytes)
    {
        bytes = default;
        return Locate(Readable, offset, count, out var at) && _memory.TrySlice(at, count, out bytes);
    }

    /// <summary>A view of writable bytes; false where they are not all in one buffer. Call <see cref="Written"/> when they are
    /// there.</summary>
    public bool TrySliceForWrite(ulong offset, int count, out Span<byte> bytes)
    {
        bytes = default;
        return Locate(Writable, offset, count, out var at) && _memory.TrySliceForWrite(at, count, out bytes);
    }

    /// <summary>
    /// Says that <paramref name="count"/> writable bytes from <paramref name="offset"/> were written past this class (by a slice, or by
    /// the host's kernel): translated guest code in them is dropped. Before the request is completed.
    /// </summary>
    public void Written(ulong offset, ulong count)
    {
        if (_memory.WriteObserver is null) return; // nobody listens (KVM)
        foreach (var segment in Writable)
        {
            if (count == 0) return;
            if (offset >= segment.Length) { offset -= segment.Length; continue; }
            var part = Math.Min(count, segment.Length - offset);
            _memory.Written(segment.Address + offset, part);
            count -= part;
            offset = 0;
        }
    }

    /// <summary>
    /// Copies the segments that make up readable bytes [<paramref name="offset"/>, +<paramref name="count"/>), cut to that range, for a
    /// backend's vector of buffers. The number of segments, or -1 where there are fewer bytes or <paramref name="into"/> is too short
    /// (the number of <see cref="Readable"/> segments is always enough).
    /// </summary>
    public int CopyReadable(ulong offset, ulong count, Span<GuestSegment> into) => Copy(Readable, ReadableLength, offset, count, into);

    /// <summary>The same for writable bytes.</summary>
    public int CopyWritable(ulong offset, ulong count, Span<GuestSegment> into) => Copy(Writable, WritableLength, offset, count, into);

    public override string ToString() => $"{Id}: {ReadableLength} bytes to read, {WritableLength} to write, {_count} segments";

    internal void Clear()
    {
        if (_segments.Length > KeptSegments) _segments = new GuestSegment[4];
        _count = 0;
        _readable = 0;
        ReadableLength = 0;
        WritableLength = 0;
    }

    /// <summary>Adds a buffer; a readable one only before the first writable one.</summary>
    internal void Add(GuestAddress address, uint length, bool writable)
    {
        if (_count == _segments.Length) Array.Resize(ref _segments, 2 * _count);
        _segments[_count++] = new GuestSegment(address, length);
        if (writable)
        {
            WritableLength += length;
        }
        else
        {
            _readable = _count;
            ReadableLength += length;
        }
    }

    private static bool InRange(ulong offset, ulong count, ulong length) => count <= length && offset <= length - count;

    private static bool Locate(ReadOnlySpan<GuestSegment> segments, ulong offset, int count, out GuestAddress at)
    {
        at = default;
        if (count < 0) return false;
        foreach (var segment in segments)
        {
            if (offset >= segment.Length) { offset -= segment.Length; continue; }
            at = segment.Address + offset;
            return (ulong)count <= segment.Length - offset;
        }

        return false;
    }

    private static int Copy(ReadOnlySpan<GuestSegment> from, ulong length, ulong offset, ulong count, Span<GuestSegment> into)
    {
        if (!InRange(offset, count, length)) return -1;
        var used = 0;
        foreach (var segment in from)
        {
            if (count == 0) break;
            if (offset >= segment.Length) { offset -= segment.Length; continue; }
            if (used == into.Length) return -1;
            var part = (uint)Math.Min(count, segment.Length - offset);
            into[used++] = new GuestSegment(segment.Address + offset, part);
            count -= part;
            offset = 0;
        }

        return used;
    }
}
