using System.Net;
using System.Net.Sockets;
using ActorVmm.Backends.Taps;
using ActorVmm.Devices.Virtio.Net;
using ActorVmm.Memory;
using ActorVmm.Testing.Native;
using PacketDotNet;
using Xunit;

namespace ActorVmm.Backends.Tests.Taps;

/// <summary>The port on real taps, in a network of its own.</summary>
public sealed class TapPortTests : IDisposable
{
    private static readonly System.Net.NetworkInformation.PhysicalAddress s_guest = new([2, 0, 0, 0, 0, 9]);
    private static readonly IPAddress s_guestAddress = IPAddress.Parse("10.9.0.2"), s_hostAddress = IPAddress.Parse("10.9.0.1");
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(90);

    private readonly HostScratch _room = new(PacketLimits.MaxPacket);
    private readonly SemaphoreSlim _ready = new(0);
    private readonly List<IDisposable> _owned = [];
    private PrivateNetwork? _made;

    private PrivateNetwork Network => _made ??= Create();

    public void Dispose()
    {
        foreach (var one in Enumerable.Reverse(_owned)) one.Dispose();
        _made?.Dispose();
        _ready.Dispose();
    }

    [SkippableFact]
    public void Packets_go_out_and_come_in_with_their_header_and_are_counted()
    {
        var port = Tap();
        using var socket = Socket();
        Assert.Equal(PacketSent.Done, Send(port, "from the guest"));
        Assert.Equal("from the guest", Received(socket));
        socket.SendTo("to the guest"u8, new IPEndPoint(s_guestAddress, 7));
        var (header, udp) = Await(port);
        Assert.Equal("to the guest"u8.ToArray(), udp.PayloadData);
        Assert.True(udp.ValidUdpChecksum); // nothing may be left undone yet
        Assert.Equal(PacketFlags.None, header.Flags & PacketFlags.NeedsChecksum);
        Assert.Equal((1L, 12 + 42 + 14L), (Counter(port, "packets-from-guest"), Counter(port, "bytes-from-guest")));
        Assert.True(Counter(port, "packets-to-guest") >= 1 && Counter(port, "bytes-to-guest") >= 54 + 12);
    }

    [SkippableFact]
    public void A_tap_that_is_down_costs_packets_and_is_seen_to_be_up_again()
    {
        var port = Tap();
        Network.Ip("link set t0 down");
        WaitUntil(() => !port.LinkUp);
        Assert.Equal(PacketSent.Dropped, Send(port, "lost"));
        Assert.Equal(PacketSent.Dropped, Send(port, "lost"));
        Assert.Equal(2, Counter(port, "dropped-link-down"));
        Assert.Equal(0, port.Receive(0, [_room.Segment]));
        Network.Ip("link set t0 up");
        WaitUntil(() => port.LinkUp);
        WaitForCarrier();
        using var socket = Socket();
        Assert.Equal(PacketSent.Done, Send(port, "back"));
        Assert.Equal("back", Received(socket));
        Assert.Equal(0, Counter(port, "tap-lost"));
    }

    [SkippableFact]
    public void A_tap_that_is_removed_is_looked_for_until_it_is_back_and_then_is_as_it_was()
    {
        var port = Tap();
        port.Configure(PacketOffloads.Checksum, 1);
        Network.Ip("link del t0");
        WaitUntil(() => !port.LinkUp);
        Assert.Equal(0, port.Receive(0, [_room.Segment]));
        Assert.Equal(1, Counter(port, "tap-lost"));
        Assert.Equal(1, Network.Time.Running);
        for (var i = 0; i < 3; i++)
        {
            Network.LookAgain(); // it is not there, and it is not made: it was not made here
            Assert.Equal(PacketSent.Dropped, Send(port, "lost"));
        }
        Assert.Equal((0L, 4L), (Counter(port, "tap-reopened"), Counter(port, "dropped-tap-gone")));
        Assert.DoesNotContain("t0", Network.Ip("link show"), StringComparison.Ordinal);

        AddTap();
        Network.LookAgain();
        WaitUntil(() => port.LinkUp);
        WaitForCarrier();
        Assert.Equal((1L, 0), (Counter(port, "tap-reopened"), Network.Time.Running));
        using var socket = Socket();
        Assert.Equal(PacketSent.Done, Send(port, "back"));
        Assert.Equal("back", Received(socket));
        socket.SendTo("unfinished"u8, new IPEndPoint(s_guestAddress, 7));
        Assert.Equal(PacketFlags.NeedsChecksum, Await(port).Header.Flags & PacketFlags.NeedsChecksum); // what the driver takes was set again
    }

    [SkippableFact]
    public void A_tap_that_is_replaced_before_anybody_looks_is_found()
    {
        var port = Tap();
        Network.Ip("link del t0");
        AddTap();
        Assert.Equal(PacketSent.Dropped, Send(port, "into the old one"));
        Network.LookAgain();
        WaitUntil(() => port.LinkUp);
        WaitForCarrier();
        using var socket = Socket();
        Assert.Equal(PacketSent.Done, Send(port, "into the new one"));
        Assert.Equal("into the new one", Received(socket));
    }

    [SkippableFact]
    public void A_tap_that_was_made_here_is_made_again_and_goes_with_the_port()
    {
        var port = Owned(Network.Open("made0"));
        Assert.True(port.LinkUp); // it was put up as well
        Network.Ip("link del made0");
        WaitUntil(() => !port.LinkUp);
        Assert.Equal(0, port.Receive(0, [_room.Segment]));
        Network.LookAgain();
        WaitUntil(() => port.LinkUp);
        Assert.Contains("made0", Network.Ip("link show"), StringComparison.Ordinal);
        port.Dispose();
        Assert.DoesNotContain("made0", Network.Ip("link show"), StringComparison.Ordinal);
    }

    [SkippableFact]
    public void A_tap_that_was_there_before_stays()
    {
        Tap().Dispose();
        Assert.Contains("t0", Network.Ip("link show"), StringComparison.Ordinal);
    }

    [SkippableFact]
    public void A_packet_that_the_tap_refuses_is_counted_and_the_next_one_goes()
    {
        var port = Tap();
        var nonsense = new PacketHeader(PacketFlags.NeedsChecksum, GsoType.Tcp4, 54, 0, ushort.MaxValue, 2);
        Assert.Equal(PacketSent.Dropped, Send(port, "refused", nonsense));
        Assert.Equal(1, Counter(port, "refused-by-tap"));
        using var socket = Socket();
        Assert.Equal(PacketSent.Done, Send(port, "the next one"));
        Assert.Equal("the next one", Received(socket));
        Assert.Equal(0, Counter(port, "tap-lost"));
    }

    [SkippableFact]
    public void Several_queues_are_used_as_many_as_the_driver_says()
    {
        AddTap(" multi_queue");
        var port = Owned(Network.Open("t0", pairs: 3));
        port.OnReady(() => _ready.Release());
        port.Configure(PacketOffloads.None, 3);
        WaitForCarrier();
        using var socket = Socket();
        for (var pair = 0; pair < 3; pair++)
        {
            Assert.Equal(PacketSent.Done, Send(port, $"by {pair}", pair: pair));
            Assert.Equal($"by {pair}", Received(socket));
        }
        Assert.Equal(PacketSent.Dropped, Send(port, "by nobody", pair: 3));
        port.Configure(PacketOffloads.None, 1); // from now on all comes through the first
        for (var i = 0; i < 20; i++)
        {
            using var other = Socket();
            other.SendTo("to the first"u8, new IPEndPoint(s_guestAddress, 7));
            Assert.Equal("to the first"u8.ToArray(), Await(port).Datagram.PayloadData);
        }
        Assert.Equal(0, port.Receive(1, [_room.Segment]));
        Assert.Equal(0, port.Receive(2, [_room.Segment]));
    }

    [SkippableTheory]
    [InlineData("tuntap add dev t0 mode tap", "t0", 2, "must be made with 'multi_queue'")]
    [InlineData("tuntap add dev t0 mode tun", "t0", 1, "is a tun, not a tap")]
    [InlineData("link set lo up", "lo", 1, "is an interface, but no tap")]
    public void What_is_no_tap_for_us_is_refused_by_name(string make, string name, int pairs, string why)
    {
        var network = Network;
        network.Ip(make);
        var refusal = Assert.Throws<TapException>(() => network.Open(name, pairs));
        Assert.Contains($"'{name}'", refusal.Message, StringComparison.Ordinal);
        Assert.Contains(why, refusal.Message, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void A_tap_that_another_uses_is_refused_by_name()
    {
        Tap();
        Assert.Contains("another process uses it", Assert.Throws<TapException>(() => Network.Open("t0")).Message, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void A_port_that_is_closed_while_its_tap_is_away_stays_closed()
    {
        var port = Tap();
        Network.Ip("link del t0");
        Assert.Equal(0, port.Receive(0, [_room.Segment]));
        port.Dispose();
        AddTap();
        Network.LookAgain();
        Assert.Equal(0, Counter(port, "tap-reopened"));
        Assert.Equal(PacketSent.Dropped, Send(port, "nowhere"));
        using var again = Network.Open("t0"); // nobody holds it
    }

    private static PrivateNetwork Create()
    {
        var network = PrivateNetwork.Create();
        // Without IPv6 the kernel sends nothing of its own.
        network.Exec("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6 || true");
        return network;
    }

    private TapPort Tap()
    {
        AddTap();
        var port = Owned(Network.Open("t0"));
        port.OnReady(() => _ready.Release());
        WaitForCarrier();
        return port;
    }

    /// <summary>The kernel sends through an interface only some time after somebody has opened it (linkwatch).</summary>
    private void WaitForCarrier() =>
        WaitUntil(() => Network.Run(static () => File.ReadAllText("/sys/class/net/t0/operstate")).Trim() is "up" or "unknown");

    private void AddTap(string more = "")
    {
        Network.AddTap("t0", more);
        Network.Ip("addr add 10.9.0.1/24 dev t0");
        Network.Ip("neigh replace 10.9.0.2 lladdr 02:00:00:00:00:09 dev t0 nud permanent");
    }

    private T Owned<T>(T one) where T : IDisposable
    {
        _owned.Add(one);
        return one;
    }

    private Socket Socket() => Network.Run(static () =>
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, System.Net.Sockets.ProtocolType.Udp) { ReceiveTimeout = 20_000 };
        socket.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.ReuseAddress, true);
        socket.Bind(new IPEndPoint(s_hostAddress, 7));
        return socket;
    });

    private static string Received(Socket socket)
    {
        var bytes = new byte[2000];
        return System.Text.Encoding.ASCII.GetString(bytes, 0, socket.Receive(bytes));
    }

    private PacketSent Send(TapPort port, string text, PacketHeader header = default, int pair = 0)
    {
        var udp = new UdpPacket(7, 7) { PayloadData = System.Text.Encoding.ASCII.GetBytes(text) };
        var ip = new IPv4Packet(s_guestAddress, s_hostAddress) { PayloadPacket = udp };
        // To everybody on this wire: the tap's own address is the kernel's choice.
        var frame = new EthernetPacket(s_guest, System.Net.NetworkInformation.PhysicalAddress.Parse("FF-FF-FF-FF-FF-FF"), EthernetType.IPv4)
        {
            PayloadPacket = ip,
        };
        ip.UpdateCalculatedValues();
        udp.UpdateCalculatedValues();
        udp.UpdateUdpChecksum();
        ip.UpdateIPChecksum();
        header.Write(_room.Bytes);
        frame.Bytes.CopyTo(_room.Bytes[PacketHeader.Length..]);
        return port.Send(pair, [_room.Segment.Slice(0, 20), _room.Segment.Slice(20, PacketHeader.Length + frame.Bytes.Length - 20)]);
    }

    /// <summary>The next datagram to the guest; the kernel's own chatter is let go.</summary>
    private (PacketHeader Header, UdpPacket Datagram) Await(TapPort port)
    {
        while (true)
        {
            while (port.Receive(0, [_room.Segment]) is var length and > 0)
            {
                var frame = Packet.ParsePacket(LinkLayers.Ethernet, _room.Bytes[PacketHeader.Length..length].ToArray());
                if (frame.Extract<IPv4Packet>() is { } ip && ip.DestinationAddress.Equals(s_guestAddress) && frame.Extract<UdpPacket>() is { } udp)
                    return (PacketHeader.Read(_room.Bytes), udp);
            }
            Assert.True(_ready.Wait(s_patience), "no packet comes");
        }
    }

    private static void WaitUntil(Func<bool> condition) =>
        Assert.True(SpinWait.SpinUntil(condition, s_patience), "the port does not see it");

    private static long Counter(TapPort port, string name) => port.Counters.Single(counter => counter.Key == name).Value;
}
