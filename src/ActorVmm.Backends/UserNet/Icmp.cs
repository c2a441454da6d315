using System.Buffers.Binary;
using ActorVmm.Backends.UserNet.Wire;
using ActorVmm.Devices.Virtio.Net;

namespace ActorVmm.Backends.UserNet;

/// <summary>ICMP echo (RFC 792): type, code, checksum, identifier, sequence number, data.</summary>
internal static class Icmp
{
    public const int HeaderLength = 8;
    public const byte EchoReply = 0, EchoRequest = 8;

    /// <summary>Queues the reply to <paramref name="message"/>, a request or a reply, under the guest's identifier.</summary>
    public static void SendEchoReply(UserNetCore core, MacAddress to, uint source, uint destination, ushort id, ReadOnlySpan<byte> message)
    {
        if (message.Length < HeaderLength) return;
        var copy = System.Buffers.ArrayPool<byte>.Shared.Rent(message.Length);
        var reply = copy.AsSpan(0, message.Length);
        message.CopyTo(reply);
        reply[0] = EchoReply;
        reply[1] = 0;
        BinaryPrimitives.WriteUInt16BigEndian(reply[2..], 0);
        BinaryPrimitives.WriteUInt16BigEndian(reply[4..], id);
        BinaryPrimitives.WriteUInt16LittleEndian(reply[2..], InternetChecksum.Finish(InternetChecksum.Add(0, reply)));
        core.SendIp(to, Ipv4.Icmp, source, destination, reply);
        System.Buffers.ArrayPool<byte>.Shared.Return(copy);
    }
}
