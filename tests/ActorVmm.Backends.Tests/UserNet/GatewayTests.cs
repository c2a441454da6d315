using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using ActorVmm.Backends.UserNet;
using PacketDotNet;
using Xunit;

namespace ActorVmm.Backends.Tests.UserNet;

/// <summary>What the gateway answers by itself, and datagrams out and in.</summary>
public sealed class GatewayTests
{
    [Theory]
    [InlineData("10.0.2.2")]
    [InlineData("10.0.2.3")]
    public void Gateway_and_name_server_answer_arp(string address)
    {
        using var guest = new GuestEnd();
        guest.SendArp(IPAddress.Parse(address));
        var answer = guest.Await<ArpPacket>();
        Assert.Equal(ArpOperation.Response, answer.Operation);
        Assert.Equal(IPAddress.Parse(address), answer.SenderProtocolAddress);
        Assert.Equal(GuestEnd.Address, answer.TargetProtocolAddress);
        Assert.Equal(GuestEnd.Mac, answer.TargetHardwareAddress);
        Assert.Equal("52550A000202", answer.SenderHardwareAddress.ToString());
    }

    [Fact]
    public void Nobody_else_answers_arp()
    {
        using var guest = new GuestEnd();
        guest.SendArp(IPAddress.Parse("10.0.2.77"));
        guest.SendArp(GuestEnd.Gateway);
        Assert.Equal(GuestEnd.Gateway, guest.Await<ArpPacket>().SenderProtocolAddress);
        Assert.Null(guest.Take());
    }

    [Fact]
    public void The_gateway_answers_ping()
    {
        using var guest = new GuestEnd();
        byte[] echo = [8, 0, 0, 0, 0x12, 0x34, 0, 7, 1, 2, 3, 4, 5];
        BinaryPrimitives.WriteUInt16BigEndian(echo.AsSpan(2), Sum(echo));
        guest.SendIp(GuestEnd.Gateway, new RawIpPacket(echo));
        var reply = guest.Await<IcmpV4Packet>();
        Assert.Equal(IcmpV4TypeCode.EchoReply, reply.TypeCode);
        Assert.Equal((0x1234, 7), (reply.Id, reply.Sequence));
        Assert.Equal([1, 2, 3, 4, 5], reply.Bytes[8..]);
        Assert.Equal(0, Sum(reply.Bytes));
    }

    [Fact]
    public void Dhcp_hands_out_the_guests_address_with_router_name_server_and_mtu()
    {
        using var guest = new GuestEnd(new UserNetSettings { Mtu = 1400 });
        var offer = Dhcp(guest, Message(1));
        Assert.Equal((2, GuestEnd.Address), (offer.Type, offer.Yours));
        var ack = Dhcp(guest, Message(3, [50, 4, 10, 0, 2, 15, 54, 4, 10, 0, 2, 2]));
        Assert.Equal((5, GuestEnd.Address), (ack.Type, ack.Yours));
        Assert.Equal([255, 255, 255, 0], ack.Options[1]);
        Assert.Equal([10, 0, 2, 2], ack.Options[3]);
        Assert.Equal([10, 0, 2, 3], ack.Options[6]);
        Assert.Equal([1400 >> 8, 1400 & 255], ack.Options[26]);
        Assert.Equal(86400u, BinaryPrimitives.ReadUInt32BigEndian(ack.Options[51]));
    }

    [Fact]
    public void Dhcp_refuses_an_address_of_another_network()
    {
        using var guest = new GuestEnd();
        var nak = Dhcp(guest, Message(3, [50, 4, 192, 168, 1, 9]));
        Assert.Equal((6, IPAddress.Any), (nak.Type, nak.Yours));
        Assert.Equal(IPAddress.Broadcast, nak.To);
    }

    [Fact]
    public void Dhcp_is_silent_where_the_client_chose_another_server()
    {
        using var guest = new GuestEnd();
        guest.SendUdp(IPAddress.Broadcast, 68, 67, Message(3, [50, 4, 10, 0, 2, 15, 54, 4, 10, 0, 2, 9]), IPAddress.Any);
        Assert.Null(guest.Take());
    }

    [Fact]
    public void Queries_go_to_the_name_server_and_its_answers_come_from_the_guests_one()
    {
        using var server = new UdpClient(new IPEndPoint(IPAddress.Loopback, 0));
        using var guest = new GuestEnd(new UserNetSettings { NameServer = (IPEndPoint)server.Client.LocalEndPoint! });
        guest.SendUdp(GuestEnd.Dns, 40000, 53, "a query"u8.ToArray());
        IPEndPoint? from = null;
        Assert.Equal("a query"u8.ToArray(), server.Receive(ref from));
        server.Send("an answer"u8, from!);
        var answer = guest.Await<UdpPacket>();
        Assert.Equal((53, 40000), (answer.SourcePort, answer.DestinationPort));
        Assert.Equal(GuestEnd.Dns, ((IPv4Packet)answer.ParentPacket).SourceAddress);
        Assert.Equal("an answer"u8.ToArray(), answer.PayloadData);
    }

    [Fact]
    public void Datagrams_reach_the_hosts_loopback_through_the_gateway_and_come_back_in_fragments_where_they_are_large()
    {
        using var server = new UdpClient(new IPEndPoint(IPAddress.Loopback, 0));
        using var guest = new GuestEnd();
        guest.SendUdp(GuestEnd.Gateway, 40001, (ushort)((IPEndPoint)server.Client.LocalEndPoint!).Port, [1, 2, 3]);
        IPEndPoint? from = null;
        Assert.Equal([1, 2, 3], server.Receive(ref from));
        var large = Enumerable.Range(0, 4000).Select(static i => (byte)i).ToArray();
        server.Send(large, from!);
        var whole = new byte[8 + large.Length];
        for (var got = 0; got < whole.Length;)
        {
            var ip = guest.Await<IPv4Packet>();
            Assert.True(ip.TotalLength <= 1500);
            var payload = ip.PayloadPacket?.Bytes ?? ip.PayloadData;
            payload.CopyTo(whole, 8 * (ip.FragmentOffset & 0x1fff));
            got += payload.Length;
        }
        Assert.Equal(large, whole[8..]);
    }

    [Fact]
    public void A_closed_port_of_the_host_is_an_icmp_message()
    {
        using var guest = new GuestEnd();
        guest.SendUdp(GuestEnd.Gateway, 40002, ClosedUdpPort(), [1]);
        var icmp = guest.Await<IcmpV4Packet>();
        Assert.Equal(IcmpV4TypeCode.UnreachablePort, icmp.TypeCode);
    }

    [Theory]
    [InlineData("127.0.0.1")]
    [InlineData("10.0.2.44")]
    [InlineData("0.1.2.3")]
    [InlineData("240.0.0.1")]
    public void What_the_guest_may_not_name_is_prohibited(string address)
    {
        using var guest = new GuestEnd();
        guest.SendUdp(IPAddress.Parse(address), 40003, 9, [1]);
        Assert.Equal(IcmpV4TypeCode.UnreachableCommunicationProhibited, guest.Await<IcmpV4Packet>().TypeCode);
        guest.SendIp(IPAddress.Parse(address), new TcpPacket(40003, 9) { Synchronize = true, SequenceNumber = 5 });
        var reset = guest.Await<TcpPacket>();
        Assert.True(reset.Reset);
        Assert.Equal(6u, reset.AcknowledgmentNumber);
        Assert.Equal(2, guest.Counter("dropped-prohibited"));
    }

    [Fact]
    public void A_restricted_guest_reaches_the_gateways_services_alone()
    {
        using var server = new UdpClient(new IPEndPoint(IPAddress.Loopback, 0));
        using var guest = new GuestEnd(new UserNetSettings { Restrict = true });
        guest.SendUdp(GuestEnd.Gateway, 40001, (ushort)((IPEndPoint)server.Client.LocalEndPoint!).Port, [1]);
        Assert.Equal(IcmpV4TypeCode.UnreachableCommunicationProhibited, guest.Await<IcmpV4Packet>().TypeCode);
        Assert.Equal(0, server.Available);
        Assert.Equal(2, Dhcp(guest, Message(1)).Type);
    }

    [Fact]
    public void Foreign_sources_bad_checksums_and_malformed_packets_are_dropped_and_counted()
    {
        using var guest = new GuestEnd();
        guest.SendUdp(GuestEnd.Gateway, 1, 9, [1], from: IPAddress.Parse("192.168.7.7"));
        guest.SendUdp(GuestEnd.Gateway, 1, 9, [1], from: GuestEnd.Gateway);
        Assert.Equal(2, guest.Counter("dropped-foreign-source"));

        var udp = new UdpPacket(1, 9) { PayloadData = [1, 2] };
        var ip = new IPv4Packet(GuestEnd.Address, GuestEnd.Gateway) { PayloadPacket = udp };
        var frame = new EthernetPacket(GuestEnd.Mac, GuestEnd.Mac, EthernetType.IPv4) { PayloadPacket = ip };
        ip.UpdateCalculatedValues();
        udp.UpdateCalculatedValues();
        udp.UpdateUdpChecksum();
        ip.UpdateIPChecksum();
        var bytes = frame.Bytes;
        bytes[^1] ^= 0x40;
        guest.Send(bytes);
        Assert.Equal(1, guest.Counter("dropped-bad-checksum"));
        bytes[14 + 10] ^= 1;
        guest.Send(bytes);
        guest.Send(bytes.AsSpan(0, 30));
        Assert.Equal(2, guest.Counter("dropped-malformed"));
        guest.Send(new EthernetPacket(GuestEnd.Mac, GuestEnd.Mac, EthernetType.IPv6) { PayloadData = new byte[60] });
        Assert.Equal(1, guest.Counter("dropped-not-served"));
        Assert.Null(guest.Take());
    }

    [Theory]
    [InlineData(0x2000)] // the first of several
    [InlineData(0x2005)] // one in between
    [InlineData(0x0005)] // the last
    public void Fragments_are_refused_and_counted_and_what_follows_them_is_served(int flagsAndOffset)
    {
        using var server = new UdpClient(new IPEndPoint(IPAddress.Loopback, 0));
        using var guest = new GuestEnd();
        var port = (ushort)((IPEndPoint)server.Client.LocalEndPoint!).Port;
        var udp = new UdpPacket(40000, port) { PayloadData = new byte[64] };
        var ip = new IPv4Packet(GuestEnd.Address, GuestEnd.Gateway) { PayloadPacket = udp };
        var frame = new EthernetPacket(GuestEnd.Mac, GuestEnd.Mac, EthernetType.IPv4) { PayloadPacket = ip };
        ip.UpdateCalculatedValues();
        udp.UpdateCalculatedValues();
        udp.UpdateUdpChecksum();
        ip.UpdateIPChecksum();
        var bytes = frame.Bytes;
        BinaryPrimitives.WriteUInt16BigEndian(bytes.AsSpan(14 + 6), (ushort)flagsAndOffset);
        bytes.AsSpan(14 + 10, 2).Clear();
        BinaryPrimitives.WriteUInt16BigEndian(bytes.AsSpan(14 + 10), Sum(bytes.AsSpan(14, 20)));
        guest.Send(bytes);
        Assert.Equal(1, guest.Counter("dropped-not-served"));
        guest.SendUdp(GuestEnd.Gateway, 40000, port, [7]);
        IPEndPoint? from = null;
        server.Client.ReceiveTimeout = 20_000;
        Assert.Equal([7], server.Receive(ref from)); // and nothing of the fragment came before it
    }

    [Fact]
    public void Conversations_are_bounded_and_the_silent_one_makes_room()
    {
        using var server = new UdpClient(new IPEndPoint(IPAddress.Loopback, 0));
        using var guest = new GuestEnd(new UserNetSettings { MaxUdpFlows = 8 });
        var port = (ushort)((IPEndPoint)server.Client.LocalEndPoint!).Port;
        for (var i = 0; i < 50; i++) guest.SendUdp(GuestEnd.Gateway, (ushort)(2000 + i), port, [1]);
        Assert.Equal(8, guest.Counter("udp-open"));
        Assert.Equal(42, guest.Counter("udp-evicted"));
    }

    [Fact]
    public void A_forwarded_datagram_comes_from_the_gateway_and_the_answer_goes_back()
    {
        using var guest = new GuestEnd(new UserNetSettings { Forwards = [PortForward.Parse("udp:0-53", out _)!] });
        guest.SendArp(GuestEnd.Gateway); // shows where the guest is
        guest.Await<ArpPacket>();
        using var client = new UdpClient(new IPEndPoint(IPAddress.Loopback, 0));
        client.Send("hello"u8, guest.Network.ForwardEnds[0]);
        var datagram = guest.Await<UdpPacket>();
        Assert.Equal("hello"u8.ToArray(), datagram.PayloadData);
        Assert.Equal(53, datagram.DestinationPort);
        Assert.Equal(GuestEnd.Gateway, ((IPv4Packet)datagram.ParentPacket).SourceAddress);
        guest.SendUdp(GuestEnd.Gateway, 53, datagram.SourcePort, "back"u8.ToArray());
        IPEndPoint? from = null;
        client.Client.ReceiveTimeout = 20_000;
        Assert.Equal("back"u8.ToArray(), client.Receive(ref from));
        Assert.Equal(guest.Network.ForwardEnds[0], from);
    }

    [Theory]
    [InlineData("tcp:8080-80", "tcp:127.0.0.1:8080-80")]
    [InlineData("udp:0.0.0.0:53-10.0.2.20:53", "udp:0.0.0.0:53-10.0.2.20:53")]
    public void Forwards_are_read(string text, string canonical) => Assert.Equal(canonical, PortForward.Parse(text, out _)?.ToString());

    [Theory]
    [InlineData("tcp:8080")]
    [InlineData("sctp:1-2")]
    [InlineData("tcp:1-0")]
    [InlineData("tcp:65536-1")]
    [InlineData("tcp:127.1:80-80")]
    [InlineData("tcp:::80-80")]
    [InlineData("tcp:-1-80")]
    public void Malformed_forwards_are_refused(string text)
    {
        Assert.Null(PortForward.Parse(text, out var fault));
        Assert.Contains("allowed is", fault, StringComparison.Ordinal);
    }

    [Fact]
    public void A_port_in_use_is_refused_by_name()
    {
        using var taken = new TcpListener(IPAddress.Loopback, 0);
        taken.Start();
        var port = ((IPEndPoint)taken.LocalEndpoint).Port;
        var refusal = Assert.Throws<UserNetworkException>(() =>
            new UserNetwork(new UserNetSettings { Forwards = [PortForward.Parse($"tcp:{port}-80", out _)!] }));
        Assert.Contains($"tcp:127.0.0.1:{port}-80", refusal.Message, StringComparison.Ordinal);
    }

    private static ushort ClosedUdpPort()
    {
        using var socket = new UdpClient(new IPEndPoint(IPAddress.Loopback, 0));
        return (ushort)((IPEndPoint)socket.Client.LocalEndPoint!).Port;
    }

    private static ushort Sum(ReadOnlySpan<byte> bytes)
    {
        uint sum = 0;
        for (var i = 0; i < bytes.Length; i++) sum += (uint)bytes[i] << (i % 2 == 0 ? 8 : 0);
        while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
        return (ushort)~sum;
    }

    private static byte[] Message(byte type, byte[]? options = null)
    {
        var message = new byte[300];
        (message[0], message[1], message[2], message[4]) = (1, 1, 6, 0x77);
        GuestEnd.Mac.GetAddressBytes().CopyTo(message, 28);
        ((byte[])[99, 130, 83, 99, 53, 1, type, .. options ?? [], 255]).CopyTo(message, 236);
        return message;
    }

    private static (int Type, IPAddress Yours, IPAddress To, Dictionary<byte, byte[]> Options) Dhcp(GuestEnd guest, byte[] message)
    {
        guest.SendUdp(IPAddress.Broadcast, 68, 67, message, IPAddress.Any);
        var udp = guest.Await<UdpPacket>();
        Assert.Equal((67, 68), (udp.SourcePort, udp.DestinationPort));
        // PacketDotNet reads DHCP itself: the bytes of the packet are what was on the wire.
        var reply = udp.Bytes[8..];
        Assert.Equal((2, 0x77), (reply[0], reply[4]));
        var options = new Dictionary<byte, byte[]>();
        for (var at = 240; reply[at] != 255; at += 2 + reply[at + 1]) options[reply[at]] = reply[(at + 2)..(at + 2 + reply[at + 1])];
        return (options[53][0], new IPAddress(reply.AsSpan(16, 4)), ((IPv4Packet)udp.ParentPacket).DestinationAddress, options);
    }

    /// <summary>Bytes of ICMP, as they are.</summary>
    private sealed class RawIpPacket : Packet
    {
        public RawIpPacket(byte[] bytes) => Header = new PacketDotNet.Utils.ByteArraySegment(bytes);
    }
}
