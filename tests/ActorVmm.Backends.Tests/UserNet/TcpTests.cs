using System.Net;
using System.Net.Sockets;
using ActorVmm.Backends.UserNet;
using ActorVmm.Devices.Virtio.Net;
using Xunit;

namespace ActorVmm.Backends.Tests.UserNet;

/// <summary>TCP through the user-mode network, against real sockets of the host.</summary>
public sealed class TcpTests : IDisposable
{
    private readonly TcpListener _server = new(IPAddress.Loopback, 0);

    public TcpTests() => _server.Start();

    public void Dispose() => _server.Dispose();

    private ushort Port => (ushort)((IPEndPoint)_server.LocalEndpoint).Port;

    [Fact]
    public void A_connection_carries_bytes_both_ways_and_both_halves_close_alone()
    {
        using var guest = new GuestEnd();
        var tcp = new GuestTcp(guest, 50000, GuestEnd.Gateway, Port);
        tcp.Connect();
        Assert.Equal(1460, tcp.PeerMss);
        using var peer = Accepted();
        tcp.Send("a question"u8);
        Assert.Equal("a question", Read(peer, 10));
        tcp.Close();
        Assert.Equal(0, peer.Receive(new byte[1]));
        peer.Send("an answer after the end"u8);
        peer.Shutdown(SocketShutdown.Send);
        tcp.Receive(() => tcp.Ended);
        Assert.Equal("an answer after the end"u8.ToArray(), tcp.Received);
        Assert.Equal(0, guest.Counter("tcp-open"));
        Assert.Equal(0, guest.Counter("tcp-reset"));
    }

    [Fact]
    public void The_hosts_half_may_close_first()
    {
        using var guest = new GuestEnd();
        var tcp = new GuestTcp(guest, 50001, GuestEnd.Gateway, Port);
        tcp.Connect();
        using var peer = Accepted();
        peer.Send("bye"u8);
        peer.Shutdown(SocketShutdown.Send);
        tcp.Receive(() => tcp.Ended);
        tcp.Send("still here"u8);
        Assert.Equal("still here", Read(peer, 10));
        tcp.Close();
        Assert.Equal(0, peer.Receive(new byte[1]));
        Assert.Equal(0, guest.Counter("tcp-open"));
    }

    [Theory]
    [InlineData(PacketOffloads.None, 0)]
    [InlineData(PacketOffloads.Checksum, 0)]
    [InlineData(PacketOffloads.Checksum | PacketOffloads.Tcp4, 1)]
    public void A_bulk_download_arrives_whole_with_every_offload(PacketOffloads offloads, int leastUncut)
    {
        using var guest = new GuestEnd();
        guest.Network.Configure(offloads, 1);
        var tcp = new GuestTcp(guest, 50002, GuestEnd.Gateway, Port);
        tcp.Connect();
        using var peer = Accepted();
        var data = Pattern(3_000_000);
        var sending = Task.Run(() =>
        {
            peer.Send(data);
            peer.Shutdown(SocketShutdown.Send);
        });
        tcp.Receive(() => tcp.Ended);
        Assert.True(sending.IsCompletedSuccessfully);
        Assert.Equal(data, tcp.Received);
        Assert.True(tcp.Uncut >= leastUncut && (leastUncut > 0 || tcp.Uncut == 0), $"{tcp.Uncut} uncut");
        Assert.Equal(0, guest.Counter("tcp-retransmitted"));
    }

    [Fact]
    public void A_bulk_upload_arrives_whole_and_a_peer_that_does_not_read_closes_the_window()
    {
        _server.Server.ReceiveBufferSize = 64 << 10; // else the host takes megabytes without anybody reading
        using var guest = new GuestEnd();
        var tcp = new GuestTcp(guest, 50003, GuestEnd.Gateway, Port);
        tcp.Connect();
        using var peer = Accepted();
        // Nobody reads until the window has been seen closed: then all that the host and the ring take is full.
        var chunk = Pattern(1_000_000);
        var chunks = 0;
        var reading = Task.Run(() =>
        {
            SpinWait.SpinUntil(() => Volatile.Read(ref _closed), TimeSpan.FromSeconds(90));
            var got = new byte[chunk.Length];
            for (var n = 0; n < Volatile.Read(ref chunks); n++)
            {
                for (var at = 0; at < got.Length;) at += peer.Receive(got.AsSpan(at));
                Assert.Equal(chunk, got);
            }
        });
        tcp.LoseReceived = () =>
        {
            if (tcp.PeerWindow == 0) Volatile.Write(ref _closed, true);
            return false;
        };
        while (!_closed && chunks < 100)
        {
            chunks++;
            tcp.Send(chunk, segment: 16000);
        }
        Assert.True(_closed);
        Assert.True(reading.Wait(TimeSpan.FromSeconds(90)), "the host reads");
    }

    private bool _closed;

    [Fact]
    public void A_guest_that_does_not_read_is_probed_and_goes_on_where_it_stopped()
    {
        using var guest = new GuestEnd();
        var tcp = new GuestTcp(guest, 50004, GuestEnd.Gateway, Port) { Window = 4000 };
        tcp.Connect();
        using var peer = Accepted();
        tcp.Full = true;
        tcp.Send("full"u8); // carries the closed window
        peer.Send(Pattern(10_000));
        peer.Shutdown(SocketShutdown.Send);
        var probes = guest.Counter("packets-to-guest");
        tcp.Receive(() => guest.Counter("packets-to-guest") > probes);
        Assert.Empty(tcp.Received);
        tcp.Full = false;
        tcp.Receive(() => tcp.Ended);
        Assert.Equal(Pattern(10_000), tcp.Received);
    }

    [Theory]
    [InlineData(1, 0.02)]
    [InlineData(2, 0.1)]
    [InlineData(3, 0.3)]
    public void Bytes_arrive_whole_both_ways_however_many_packets_are_lost(int seed, double share)
    {
        using var guest = new GuestEnd();
        var random = new Random(seed);
        var tcp = new GuestTcp(guest, 50005, GuestEnd.Gateway, Port)
        {
            LoseSent = () => random.NextDouble() < share, LoseReceived = () => random.NextDouble() < share,
        };
        tcp.Connect();
        using var peer = Accepted();
        var up = Pattern(40_000);
        tcp.Send(up);
        Assert.Equal(up, ReadAll(peer, up.Length));
        var down = Pattern(share > 0.2 ? 20_000 : 300_000);
        peer.Send(down);
        peer.Shutdown(SocketShutdown.Send);
        tcp.Receive(() => tcp.Ended);
        Assert.Equal(down, tcp.Received);
        Assert.True(guest.Counter("tcp-retransmitted") > 0);
    }

    [Fact]
    public void A_refused_connection_is_reset()
    {
        using var guest = new GuestEnd();
        var port = Port;
        _server.Stop();
        var tcp = new GuestTcp(guest, 50006, GuestEnd.Gateway, port);
        tcp.Connect();
        Assert.True(tcp.WasReset);
        Assert.Equal(1, guest.Counter("tcp-refused"));
        Assert.Equal(0, guest.Counter("tcp-open"));
    }

    [Fact]
    public void A_reset_by_either_side_reaches_the_other()
    {
        using var guest = new GuestEnd();
        var first = new GuestTcp(guest, 50007, GuestEnd.Gateway, Port);
        first.Connect();
        using var peer = Accepted();
        first.Reset();
        Assert.Equal(SocketError.ConnectionReset, Assert.Throws<SocketException>(() => peer.Receive(new byte[1])).SocketErrorCode);

        var second = new GuestTcp(guest, 50008, GuestEnd.Gateway, Port);
        second.Connect();
        var other = Accepted();
        other.LingerState = new LingerOption(true, 0);
        other.Dispose();
        second.Receive(() => second.WasReset);
        Assert.Equal(0, guest.Counter("tcp-open"));
    }

    [Fact]
    public void Segments_of_no_connection_are_reset_and_resets_are_not_answered()
    {
        using var guest = new GuestEnd();
        guest.SendIp(GuestEnd.Gateway, new PacketDotNet.TcpPacket(1, 2) { Acknowledgment = true, AcknowledgmentNumber = 77, SequenceNumber = 5 });
        var reset = guest.Await<PacketDotNet.TcpPacket>();
        Assert.True(reset is { Reset: true, SequenceNumber: 77 });
        guest.SendIp(GuestEnd.Gateway, new PacketDotNet.TcpPacket(1, 2) { Reset = true });
        Assert.Null(guest.Take());
    }

    [Fact]
    public void A_query_over_tcp_goes_to_the_name_server_and_its_answer_comes_back()
    {
        using var guest = new GuestEnd(new UserNetSettings { NameServer = (IPEndPoint)_server.LocalEndpoint, Restrict = true });
        var tcp = new GuestTcp(guest, 50020, GuestEnd.Dns, 53);
        tcp.Connect();
        using var peer = Accepted();
        tcp.Send([0, 3, 1, 2, 3]);
        Assert.Equal([0, 3, 1, 2, 3], ReadAll(peer, 5));
        var answer = Pattern(20_000); // more than a datagram would carry
        peer.Send(answer);
        peer.Shutdown(SocketShutdown.Send);
        tcp.Receive(() => tcp.Ended);
        Assert.Equal(answer, tcp.Received);
    }

    [Fact]
    public void Hundreds_of_connections_come_and_go_and_leave_no_descriptor_behind()
    {
        const int Limit = 64;
        using var guest = new GuestEnd(new UserNetSettings { MaxTcpFlows = Limit });
        var before = Descriptors();
        for (var round = 0; round < 4; round++)
        {
            var open = new List<(GuestTcp Tcp, Socket Peer)>();
            for (var i = 0; i < Limit; i++)
            {
                var tcp = new GuestTcp(guest, (ushort)(52000 + (round * Limit) + i), GuestEnd.Gateway, Port);
                tcp.Connect();
                Assert.False(tcp.WasReset);
                open.Add((tcp, Accepted()));
            }
            var refused = new GuestTcp(guest, 60000, GuestEnd.Gateway, Port);
            refused.Connect();
            Assert.True(refused.WasReset); // one more than may be
            Assert.InRange(Descriptors() - before, 1, (2 * Limit) + 32); // both ends are in this process
            foreach (var (tcp, peer) in open)
            {
                tcp.Send("all of them are alive"u8);
                Assert.Equal("all of them are alive", Read(peer, 21));
                if (round % 2 == 0) tcp.Reset();
                else tcp.Close();
                peer.Dispose();
                if (round % 2 != 0) tcp.Receive(() => tcp.Ended);
            }
            Assert.Equal(0, guest.Counter("tcp-open"));
        }
        Assert.True(SpinWait.SpinUntil(() => Descriptors() - before < 32, TimeSpan.FromSeconds(90)), $"{Descriptors() - before} are left");
    }

    private static int Descriptors() => Directory.EnumerateFileSystemEntries("/proc/self/fd").Count();

    [Fact]
    public void Connections_are_bounded_and_their_buffers_too()
    {
        using var guest = new GuestEnd(new UserNetSettings { MaxTcpFlows = 4, BufferBudget = 300 << 10 });
        for (var i = 0; i < 4; i++)
        {
            var tcp = new GuestTcp(guest, (ushort)(51000 + i), GuestEnd.Gateway, Port);
            tcp.Connect();
            Assert.False(tcp.WasReset);
            using var peer = Accepted();
            // Also the ones with the smallest buffers work.
            peer.Send(Pattern(30_000));
            tcp.Receive(() => tcp.Received.Count == 30_000);
            Assert.Equal(Pattern(30_000), tcp.Received);
            tcp.Send("kept open"u8);
        }
        var fifth = new GuestTcp(guest, 51004, GuestEnd.Gateway, Port);
        fifth.Connect();
        Assert.Equal(guest.Counter("tcp-over-limit") > 0, fifth.WasReset);
    }

    [Fact]
    public async Task A_forwarded_port_leads_to_the_guest()
    {
        using var guest = new GuestEnd(new UserNetSettings { Forwards = [PortForward.Parse("tcp:0-80", out _)!] });
        guest.SendArp(GuestEnd.Gateway);
        guest.Await<PacketDotNet.ArpPacket>();
        using var client = new TcpClient();
        await client.ConnectAsync(guest.Network.ForwardEnds[0]);
        var tcp = new GuestTcp(guest, 80, GuestEnd.Gateway, (ushort)((IPEndPoint)client.Client.LocalEndPoint!).Port);
        tcp.Accept();
        client.Client.Send("GET /"u8);
        tcp.Receive(() => tcp.Received.Count == 5);
        tcp.Send("200"u8);
        tcp.Close();
        Assert.Equal("200", Read(client.Client, 3));
        Assert.Equal(0, client.Client.Receive(new byte[1]));
    }

    [Fact]
    public async Task A_forwarded_connection_asks_for_a_guest_that_has_not_spoken_yet()
    {
        using var guest = new GuestEnd(new UserNetSettings { Forwards = [PortForward.Parse("tcp:0-80", out _)!] });
        using var client = new TcpClient();
        await client.ConnectAsync(guest.Network.ForwardEnds[0]);
        var question = guest.Await<PacketDotNet.ArpPacket>();
        Assert.Equal(GuestEnd.Address, question.TargetProtocolAddress);
        guest.SendArp(GuestEnd.Gateway); // says who has it, as well
        new GuestTcp(guest, 80, GuestEnd.Gateway, (ushort)((IPEndPoint)client.Client.LocalEndPoint!).Port).Accept();
    }

    [Fact]
    public void A_host_out_of_descriptors_is_asked_again_at_the_next_tick_and_not_before()
    {
        var asked = 0;
        var settings = new UserNetSettings();
        var core = new UserNetCore(settings, TimeProvider.System);
        using var table = new TcpTable(core, new Routes(settings))
        {
            AcceptAsync = (_, accepting) =>
            {
                Assert.InRange(++asked, 1, 3);
                accepting.SocketError = SocketError.TooManyOpenSockets;
                return asked == 3; // the third attempt waits, as on a host that has recovered
            },
        };
        table.Listen(PortForward.Parse("tcp:0-80", out _)!);
        Assert.Equal((1, 1), (asked, core.Counters.TcpOverLimit));
        table.Tick(100);
        Assert.Equal((2, 2), (asked, core.Counters.TcpOverLimit));
        table.Tick(200);
        table.Tick(300);
        Assert.Equal((3, 2), (asked, core.Counters.TcpOverLimit));
    }

    [Fact]
    public void The_end_of_the_network_resets_what_is_open()
    {
        var guest = new GuestEnd();
        var tcp = new GuestTcp(guest, 50010, GuestEnd.Gateway, Port);
        tcp.Connect();
        using var peer = Accepted();
        guest.Dispose();
        Assert.Throws<SocketException>(() => peer.Receive(new byte[1]));
    }

    private Socket Accepted()
    {
        var socket = _server.AcceptSocket();
        socket.ReceiveTimeout = socket.SendTimeout = 20_000;
        return socket;
    }

    private static byte[] Pattern(int length)
    {
        var bytes = new byte[length];
        new Random(length).NextBytes(bytes);
        return bytes;
    }

    private static string Read(Socket socket, int count) => System.Text.Encoding.ASCII.GetString(ReadAll(socket, count));

    private static byte[] ReadAll(Socket socket, int count)
    {
        var bytes = new byte[count];
        for (var at = 0; at < count;)
        {
            var got = socket.Receive(bytes.AsSpan(at));
            if (got == 0) throw new EndOfStreamException($"{at} of {count} bytes");
            at += got;
        }
        return bytes;
    }
}
