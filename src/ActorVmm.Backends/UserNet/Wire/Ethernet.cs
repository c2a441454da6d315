using System.Buffers.Binary;
using ActorVmm.Devices.Virtio.Net;

namespace ActorVmm.Backends.UserNet.Wire;

/// <summary>
/// Ethernet II: destination, source, type.
/// <code> 0 destination   6 source   12 type   14 payload </code>
/// </summary>
internal static class Ethernet
{
    public const int HeaderLength = 14;
    public const ushort Ipv4 = 0x0800, Arp = 0x0806;

    public static ushort Type(ReadOnlySpan<byte> frame) => BinaryPrimitives.ReadUInt16BigEndian(frame[12..]);

    public static void Write(Span<byte> frame, MacAddress destination, MacAddress source, ushort type)
    {
        destination.CopyTo(frame);
        source.CopyTo(frame[6..]);
        BinaryPrimitives.WriteUInt16BigEndian(frame[12..], type);
    }
}

/// <summary>
/// ARP for IPv4 over Ethernet (RFC 826).
/// <code> 0 htype 1   2 ptype 0x800   4 hlen 6   5 plen 4   6 operation   8 sender MAC   14 sender IP   18 target MAC   24 target IP </code>
/// </summary>
internal readonly record struct Arp(ushort Operation, MacAddress SenderMac, uint SenderIp, MacAddress TargetMac, uint TargetIp)
{
    public const int Length = 28;
    public const ushort Request = 1, Reply = 2;

    public static bool TryRead(ReadOnlySpan<byte> from, out Arp arp)
    {
        arp = default;
        if (from.Length < Length || !from[..6].SequenceEqual<byte>([0, 1, 8, 0, 6, 4])) return false;
        arp = new Arp(BinaryPrimitives.ReadUInt16BigEndian(from[6..]), MacAddress.From(from[8..]),
            BinaryPrimitives.ReadUInt32BigEndian(from[14..]), MacAddress.From(from[18..]), BinaryPrimitives.ReadUInt32BigEndian(from[24..]));
        return true;
    }

    public void Write(Span<byte> into)
    {
        ReadOnlySpan<byte> fixedPart = [0, 1, 8, 0, 6, 4];
        fixedPart.CopyTo(into);
        BinaryPrimitives.WriteUInt16BigEndian(into[6..], Operation);
        SenderMac.CopyTo(into[8..]);
        BinaryPrimitives.WriteUInt32BigEndian(into[14..], SenderIp);
        TargetMac.CopyTo(into[18..]);
        BinaryPrimitives.WriteUInt32BigEndian(into[24..], TargetIp);
    }
}
