using System.Buffers.Binary;

namespace ActorVmm.Backends.UserNet.Wire;

/// <summary>
/// The IPv4 header (RFC 791 §3.1); addresses in host byte order.
/// <code>
///   0 version, header words   2 total length   4 identification   6 flags, fragment offset
///   8 time to live   9 protocol   10 checksum   12 source   16 destination   20 options
/// </code>
/// </summary>
internal readonly record struct Ipv4(int HeaderLength, int TotalLength, ushort Fragment, byte Protocol, uint Source, uint Destination)
{
    public const int MinLength = 20;
    public const byte Icmp = 1, Tcp = 6, Udp = 17;
    private const ushort MoreFragments = 0x2000, OffsetMask = 0x1fff;

    /// <summary>A piece of a larger datagram.</summary>
    public bool IsFragment => (Fragment & (MoreFragments | OffsetMask)) != 0;

    /// <summary>Reads and checks a header; false where it is none, is cut off, or its checksum is wrong.</summary>
    public static bool TryRead(ReadOnlySpan<byte> from, out Ipv4 ip)
    {
        ip = default;
        if (from.Length < MinLength || from[0] >> 4 != 4) return false;
        var header = (from[0] & 0xf) * 4;
        var total = BinaryPrimitives.ReadUInt16BigEndian(from[2..]);
        if (header < MinLength || total < header || from.Length < total) return false;
        if (InternetChecksum.Fold(InternetChecksum.Add(0, from[..header])) != 0xffff) return false;
        ip = new Ipv4(header, total, BinaryPrimitives.ReadUInt16BigEndian(from[6..]), from[9],
            BinaryPrimitives.ReadUInt32BigEndian(from[12..]), BinaryPrimitives.ReadUInt32BigEndian(from[16..]));
        return true;
    }

    /// <summary>Writes a header without options.</summary>
    /// <param name="into">20 bytes.</param>
    /// <param name="payload">Bytes that follow.</param>
    /// <param name="id">Identification; matters for fragments only.</param>
    /// <param name="fragment">Flags and offset in 8-byte units, as on the wire.</param>
    public static void Write(Span<byte> into, int payload, byte protocol, uint source, uint destination, ushort id, ushort fragment)
    {
        into[0] = 0x45;
        into[1] = 0;
        BinaryPrimitives.WriteUInt16BigEndian(into[2..], (ushort)(MinLength + payload));
        BinaryPrimitives.WriteUInt16BigEndian(into[4..], id);
        BinaryPrimitives.WriteUInt16BigEndian(into[6..], fragment);
        into[8] = 64;
        into[9] = protocol;
        BinaryPrimitives.WriteUInt16LittleEndian(into[10..], 0);
        BinaryPrimitives.WriteUInt32BigEndian(into[12..], source);
        BinaryPrimitives.WriteUInt32BigEndian(into[16..], destination);
        BinaryPrimitives.WriteUInt16LittleEndian(into[10..], InternetChecksum.Finish(InternetChecksum.Add(0, into[..MinLength])));
    }

    /// <summary><c>10.0.2.15</c></summary>
    public static string Text(uint address) => $"{address >> 24}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}";
}

/// <summary>UDP (RFC 768): source port, destination port, length, checksum.</summary>
internal static class Udp
{
    public const int HeaderLength = 8;
    public const int ChecksumOffset = 6;

    /// <summary>The largest payload of one datagram over IPv4.</summary>
    public const int MaxPayload = 65535 - Ipv4.MinLength - HeaderLength;
}
