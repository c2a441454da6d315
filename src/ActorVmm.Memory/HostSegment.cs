using System.Runtime.InteropServices;

namespace ActorVmm.Memory;

/// <summary>
/// A run of guest RAM at its host address, laid out like <c>struct iovec</c>: a list of these goes to <c>readv</c> and <c>writev</c> as it
/// is. Made by <see cref="GuestMemory.TryLocate"/>, so it lies in RAM and is good for as long as the VM lives, or by
/// <see cref="HostScratch"/> for bytes beside the guest's.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
public readonly unsafe struct HostSegment
{
    private readonly byte* _start;
    private readonly nuint _length;

    internal HostSegment(byte* start, int length)
    {
        _start = start;
        _length = (nuint)length;
    }

    /// <summary>Host address of the first byte, for the native edge.</summary>
    public nint Address => (nint)_start;

    /// <summary>Bytes.</summary>
    public int Length => (int)_length;

    /// <summary>
    /// The bytes themselves. The guest may change them at any moment: what is checked must be copied first. Who writes them tells
    /// <see cref="GuestMemory.Written"/>.
    /// </summary>
    // SAFETY: the constructor's caller proved that [start, start + length) lies in one mapping, which lives as long as the VM.
    public Span<byte> Bytes => new(_start, (int)_length);

    /// <summary>The part from <paramref name="offset"/> on, <paramref name="count"/> bytes long.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The part is not inside.</exception>
    public HostSegment Slice(int offset, int count)
    {
        if ((uint)offset > (uint)Length || (uint)count > (uint)(Length - offset))
            throw new ArgumentOutOfRangeException(nameof(offset), offset, "not inside the segment");
        // SAFETY: just checked to be inside.
        return new HostSegment(_start + offset, count);
    }
}

/// <summary>Bytes of the host's own that stand in a list of segments beside the guest's. They live as long as this object is held.</summary>
public sealed unsafe class HostScratch
{
    private readonly byte[] _bytes;

    /// <param name="length">Bytes.</param>
    public HostScratch(int length)
    {
        _bytes = GC.AllocateUninitializedArray<byte>(length, pinned: true);
        // SAFETY: the array is pinned for its whole life, and whoever holds this object holds it.
        Segment = new HostSegment((byte*)Marshal.UnsafeAddrOfPinnedArrayElement(_bytes, 0), length);
    }

    /// <summary>All of it.</summary>
    public HostSegment Segment { get; }

    /// <summary>All of it.</summary>
    public Span<byte> Bytes => _bytes;
}
