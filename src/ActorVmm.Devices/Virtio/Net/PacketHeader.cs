using System.Buffers.Binary;

namespace ActorVmm.Devices.Virtio.Net;

/// <summary>Bits of <see cref="PacketHeader.Flags"/> (virtio 1.2 §5.1.6).</summary>
[Flags]
public enum PacketFlags : byte
{
    None = 0,

    /// <summary>The checksum field holds the pseudo header's sum only; whoever sends the packet on the wire completes it.</summary>
    NeedsChecksum = 1,

    /// <summary>Somebody has checked the checksum.</summary>
    DataValid = 2,
}

/// <summary>How a packet is to be cut into segments (virtio 1.2 §5.1.6); values of <see cref="PacketHeader.GsoType"/>.</summary>
public enum GsoType : byte
{
    None = 0,
    Tcp4 = 1,
    Udp = 3,
    Tcp6 = 4,

    /// <summary>May be set beside the others: the packet carries congestion marks.</summary>
    Ecn = 0x80,
}

/// <summary>
/// <c>struct virtio_net_hdr_v1</c>, which stands before each frame (virtio 1.2 §5.1.6); the tap has the same:
/// <code>
///   0 flags   1 gso_type   2 hdr_len   4 gso_size   6 csum_start   8 csum_offset   10 num_buffers      (little-endian)
/// </code>
/// </summary>
public readonly record struct PacketHeader(
    PacketFlags Flags, GsoType GsoType, ushort HeaderLength, ushort GsoSize, ushort ChecksumStart, ushort ChecksumOffset)
{
    /// <summary>Bytes; always with <c>num_buffers</c>, since only VERSION_1 is offered.</summary>
    public const int Length = 12;

    /// <summary>Offset of <c>num_buffers</c>.</summary>
    public const int BufferCountOffset = 10;

    /// <summary>Reads the first twelve bytes.</summary>
    public static PacketHeader Read(ReadOnlySpan<byte> from) => new((PacketFlags)from[0], (GsoType)from[1],
        BinaryPrimitives.ReadUInt16LittleEndian(from[2..]), BinaryPrimitives.ReadUInt16LittleEndian(from[4..]),
        BinaryPrimitives.ReadUInt16LittleEndian(from[6..]), BinaryPrimitives.ReadUInt16LittleEndian(from[8..]));

    /// <summary>Writes twelve bytes, with one buffer as <c>num_buffers</c>.</summary>
    public void Write(Span<byte> into)
    {
        into[0] = (byte)Flags;
        into[1] = (byte)GsoType;
        BinaryPrimitives.WriteUInt16LittleEndian(into[2..], HeaderLength);
        BinaryPrimitives.WriteUInt16LittleEndian(into[4..], GsoSize);
        BinaryPrimitives.WriteUInt16LittleEndian(into[6..], ChecksumStart);
        BinaryPrimitives.WriteUInt16LittleEndian(into[8..], ChecksumOffset);
        BinaryPrimitives.WriteUInt16LittleEndian(into[BufferCountOffset..], 1);
    }
}
