using System.Diagnostics;
using System.Net;
using System.Net.NetworkInformation;
using ActorVmm.Backends.UserNet;
using ActorVmm.Devices.Virtio.Net;
using ActorVmm.Memory;
using PacketDotNet;
using Xunit;

namespace ActorVmm.Backends.Tests.UserNet;

/// <summary>
/// The guest's end of a user-mode network, one packet at a time. Packets are built and read by PacketDotNet, which shares no code with what
/// is tested: what it cannot parse, or whose checksum it does not agree with, fails the test.
/// </summary>
internal sealed class GuestEnd : IDisposable
{
    public static readonly PhysicalAddress Mac = PhysicalAddress.Parse("02-00-00-00-00-15");
    public static readonly IPAddress Address = IPAddress.Parse("10.0.2.15");
    public static readonly IPAddress Gateway = IPAddress.Parse("10.0.2.2");
    public static readonly IPAddress Dns = IPAddress.Parse("10.0.2.3");
    private static readonly PhysicalAddress Everybody = PhysicalAddress.Parse("FF-FF-FF-FF-FF-FF");
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(90);

    private readonly SemaphoreSlim _ready = new(0);
    private readonly HostScratch _out = new(PacketLimits.MaxPacket);
    private readonly HostScratch _in = new(PacketLimits.MaxPacket);

    public GuestEnd(UserNetSettings? settings = null, TimeProvider? time = null)
    {
        Network = new UserNetwork(settings ?? new UserNetSettings(), time);
        Network.OnReady(() => _ready.Release());
    }

    public UserNetwork Network { get; }

    /// <summary>What precedes the frame that <see cref="Take"/> gave last.</summary>
    public PacketHeader LastHeader { get; private set; }

    /// <summary>Bytes of guest buffers that a packet may take.</summary>
    public int Room { get; set; } = PacketLimits.MaxPacket;

    public long Counter(string name) => Network.Counters.Single(counter => counter.Key == name).Value;

    public void Send(EthernetPacket frame, PacketHeader header = default) => Send(frame.Bytes, header);

    public void Send(ReadOnlySpan<byte> frame, PacketHeader header = default)
    {
        header.Write(_out.Bytes);
        frame.CopyTo(_out.Bytes[PacketHeader.Length..]);
        Network.Send(0, [_out.Segment.Slice(0, 7), _out.Segment.Slice(7, PacketHeader.Length + frame.Length - 7)]);
    }

    public void SendIp(IPAddress to, Packet payload, IPAddress? from = null)
    {
        var ip = new IPv4Packet(from ?? Address, to) { PayloadPacket = payload };
        var frame = new EthernetPacket(Mac, PhysicalAddress.Parse("52-55-0A-00-02-02"), EthernetType.IPv4) { PayloadPacket = ip };
        ip.UpdateCalculatedValues();
        if (payload is not (TcpPacket or UdpPacket)) ip.Protocol = ProtocolType.Icmp;
        if (payload is TcpPacket tcp) tcp.UpdateTcpChecksum();
        if (payload is UdpPacket udp) { udp.UpdateCalculatedValues(); udp.UpdateUdpChecksum(); }
        ip.UpdateIPChecksum();
        Send(frame);
    }

    public void SendUdp(IPAddress to, ushort source, ushort destination, byte[] payload, IPAddress? from = null) =>
        SendIp(to, new UdpPacket(source, destination) { PayloadData = payload }, from);

    public void SendArp(IPAddress target)
    {
        var arp = new ArpPacket(ArpOperation.Request, PhysicalAddress.Parse("00-00-00-00-00-00"), target, Mac, Address);
        Send(new EthernetPacket(Mac, Everybody, EthernetType.Arp) { PayloadPacket = arp });
    }

    /// <summary>The next packet, or null where none waits now.</summary>
    public EthernetPacket? Take()
    {
        var length = Network.Receive(0, [_in.Segment.Slice(0, 31), _in.Segment.Slice(31, Room - 31)]);
        if (length == 0) return null;
        LastHeader = PacketHeader.Read(_in.Bytes);
        var frame = (EthernetPacket)Packet.ParsePacket(LinkLayers.Ethernet, _in.Bytes[PacketHeader.Length..length].ToArray());
        if (frame.PayloadPacket is IPv4Packet ip)
        {
            Assert.True(ip.ValidIPChecksum, "IP checksum");
            var partial = (LastHeader.Flags & PacketFlags.NeedsChecksum) != 0;
            if (ip.PayloadPacket is TcpPacket tcp && !partial) Assert.True(tcp.ValidTcpChecksum, "TCP checksum");
            if (ip.PayloadPacket is UdpPacket udp && ip.FragmentFlags == 0) Assert.True(udp.ValidUdpChecksum, "UDP checksum");
        }
        return frame;
    }

    /// <summary>The next packet of type <typeparamref name="T"/> that <paramref name="wanted"/> likes; others are let go.</summary>
    public T Await<T>(Func<T, bool>? wanted = null) where T : Packet
    {
        var clock = Stopwatch.StartNew();
        while (true)
        {
            while (Take() is { } frame)
                if (frame.Extract<T>() is { } packet && (wanted is null || wanted(packet))) return packet;
            if (!_ready.Wait(Patience - clock.Elapsed is var left && left > TimeSpan.Zero ? left : TimeSpan.Zero) && clock.Elapsed > Patience)
                throw new TimeoutException($"no {typeof(T).Name} came; counters: {string.Join(", ", Network.Counters.Where(c => c.Value != 0))}");
        }
    }

    /// <summary>Waits until the network says that something is there.</summary>
    public void WaitForReady()
    {
        if (!_ready.Wait(Patience)) throw new TimeoutException("the network stays silent");
    }

    public bool TryWaitForReady(TimeSpan patience) => _ready.Wait(patience);

    public void Dispose() => Network.Dispose();
}
