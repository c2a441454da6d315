using System.Buffers.Binary;
using ActorVmm.Devices.Virtio.Net;

namespace ActorVmm.Backends.UserNet.Wire;

/// <summary>DHCP message types (RFC 2132 §9.6).</summary>
internal enum DhcpMessage : byte { None, Discover, Offer, Request, Decline, Ack, Nak, Release, Inform }

/// <summary>
/// What the server needs of a DHCP message (RFC 2131 §2).
/// <code>
///   0 op   1 htype   2 hlen   4 xid   10 flags   12 ciaddr   16 yiaddr   20 siaddr   28 chaddr   236 magic cookie   240 options
/// </code>
/// </summary>
internal readonly record struct DhcpRequest(
    DhcpMessage Message, uint TransactionId, ushort Flags, uint ClientAddress, MacAddress Mac, uint RequestedAddress, uint Server)
{
    private const int OptionsOffset = 240;

    /// <summary>The shortest message that old clients accept (RFC 1542 §2.1).</summary>
    public const int ReplyLength = 300;

    private static ReadOnlySpan<byte> Cookie => [99, 130, 83, 99];

    /// <summary>Reads a client's message; false where it is not one.</summary>
    public static bool TryRead(ReadOnlySpan<byte> from, out DhcpRequest request)
    {
        request = default;
        if (from.Length < OptionsOffset || from[0] != 1 || from[1] != 1 || from[2] != 6) return false;
        if (!from[236..240].SequenceEqual(Cookie)) return false;
        var message = DhcpMessage.None;
        uint requested = 0, server = 0;
        var options = from[OptionsOffset..];
        while (options.Length > 0 && options[0] != 255)
        {
            if (options[0] == 0)
            {
                options = options[1..];
                continue;
            }
            if (options.Length < 2 || options.Length < 2 + options[1]) return false;
            var value = options.Slice(2, options[1]);
            switch (options[0])
            {
                case 53 when value.Length == 1: message = (DhcpMessage)value[0]; break;
                case 50 when value.Length == 4: requested = BinaryPrimitives.ReadUInt32BigEndian(value); break;
                case 54 when value.Length == 4: server = BinaryPrimitives.ReadUInt32BigEndian(value); break;
                default: break;
            }
            options = options[(2 + value.Length)..];
        }

        request = new DhcpRequest(message, BinaryPrimitives.ReadUInt32BigEndian(from[4..]), BinaryPrimitives.ReadUInt16BigEndian(from[10..]),
            BinaryPrimitives.ReadUInt32BigEndian(from[12..]), MacAddress.From(from[28..]), requested, server);
        return true;
    }

    /// <summary>Writes the server's answer, <see cref="ReplyLength"/> bytes.</summary>
    public void WriteReply(Span<byte> into, DhcpMessage answer, uint yours, UserNetSettings settings)
    {
        into[..ReplyLength].Clear();
        into[0] = 2;
        into[1] = 1;
        into[2] = 6;
        BinaryPrimitives.WriteUInt32BigEndian(into[4..], TransactionId);
        BinaryPrimitives.WriteUInt16BigEndian(into[10..], Flags);
        BinaryPrimitives.WriteUInt32BigEndian(into[12..], answer == DhcpMessage.Nak ? 0 : ClientAddress);
        BinaryPrimitives.WriteUInt32BigEndian(into[16..], yours);
        Mac.CopyTo(into[28..]);
        Cookie.CopyTo(into[236..]);
        var at = OptionsOffset;
        Put(into, ref at, 53, [(byte)answer]);
        Put(into, ref at, 54, settings.Gateway);
        if (answer != DhcpMessage.Nak)
        {
            if (answer == DhcpMessage.Offer || yours != 0) Put(into, ref at, 51, UserNetSettings.LeaseSeconds);
            Put(into, ref at, 1, settings.Mask);
            Put(into, ref at, 3, settings.Gateway);
            Put(into, ref at, 6, settings.Dns);
            Put(into, ref at, 26, [(byte)(settings.Mtu >> 8), (byte)settings.Mtu]);
        }
        into[at] = 255;
    }

    private static void Put(Span<byte> into, ref int at, byte option, uint value) =>
        Put(into, ref at, option, [(byte)(value >> 24), (byte)(value >> 16), (byte)(value >> 8), (byte)value]);

    private static void Put(Span<byte> into, ref int at, byte option, ReadOnlySpan<byte> value)
    {
        into[at] = option;
        into[at + 1] = (byte)value.Length;
        value.CopyTo(into[(at + 2)..]);
        at += 2 + value.Length;
    }
}
