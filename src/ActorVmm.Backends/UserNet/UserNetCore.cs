using System.Buffers.Binary;
using ActorVmm.Backends.UserNet.Wire;
using ActorVmm.Devices.Virtio.Net;

namespace ActorVmm.Backends.UserNet;

/// <summary>What the parts of a user-mode network share: its lock, its clock, its counters, and the frames on their way to the guest.</summary>
internal sealed class UserNetCore(UserNetSettings settings, TimeProvider time)
{
    /// <summary>Bytes of finished frames that wait for the guest; beyond that they are dropped, as a full router does.</summary>
    private const int MaxQueuedBytes = 512 << 10;

    private const int MaxStations = 16;

    private readonly Queue<byte[]> _frames = new();
    private readonly Dictionary<uint, MacAddress> _stations = [];
    private readonly long _start = time.GetTimestamp();
    private int _queuedBytes;
    private ushort _nextId;

    public UserNetSettings Settings { get; } = settings;
    public TimeProvider Time { get; } = time;

    /// <summary>Held by whoever touches any part. Never held while <see cref="Ready"/> is called.</summary>
    public Lock Gate { get; } = new();

    public UserNetCounters Counters { get; } = new();
    public BufferBudget Budget { get; } = new(settings.BufferBudget);

    /// <summary>Milliseconds since the network was made.</summary>
    public long Now => (long)Time.GetElapsedTime(_start).TotalMilliseconds;

    /// <summary>Called without the lock when output may have come up; set by the network.</summary>
    public Action Ready { get; set; } = static () => { };

    public bool HasFrames => _frames.Count > 0;

    /// <summary>The oldest finished frame, header first.</summary>
    public byte[] TakeFrame()
    {
        var frame = _frames.Dequeue();
        _queuedBytes -= frame.Length;
        return frame;
    }

    public void DropFrames()
    {
        _frames.Clear();
        _queuedBytes = 0;
    }

    /// <summary>Notes who uses an address, so that frames for it find their way.</summary>
    public void Learn(uint address, MacAddress mac)
    {
        if (mac.IsGroup || mac.Value == 0 || !Settings.IsInside(address) || address == Settings.Gateway || address == Settings.Dns) return;
        if (_stations.Count < MaxStations || _stations.ContainsKey(address)) _stations[address] = mac;
    }

    public bool TryStation(uint address, out MacAddress mac) => _stations.TryGetValue(address, out mac);

    /// <summary>Queues an Ethernet frame whose payload is written by the caller; null where the queue is full.</summary>
    public byte[]? NewFrame(MacAddress destination, ushort type, int payload)
    {
        var length = PacketHeader.Length + Ethernet.HeaderLength + payload;
        if (_queuedBytes + length > MaxQueuedBytes)
        {
            Counters.QueueFull++;
            return null;
        }
        var frame = new byte[length];
        default(PacketHeader).Write(frame);
        Ethernet.Write(frame.AsSpan(PacketHeader.Length), destination, UserNetSettings.GatewayMac, type);
        _frames.Enqueue(frame);
        _queuedBytes += length;
        return frame;
    }

    /// <summary>Queues one IPv4 packet, or as many fragments as it takes.</summary>
    public void SendIp(MacAddress to, byte protocol, uint source, uint destination, ReadOnlySpan<byte> payload)
    {
        var id = ++_nextId;
        var most = (Settings.Mtu - Ipv4.MinLength) & ~7;
        var fits = payload.Length <= Settings.Mtu - Ipv4.MinLength;
        for (var at = 0; ;)
        {
            var part = fits ? payload.Length : Math.Min(most, payload.Length - at);
            var last = at + part == payload.Length;
            if (NewFrame(to, Ethernet.Ipv4, Ipv4.MinLength + part) is not { } frame) return;
            var ip = frame.AsSpan(PacketHeader.Length + Ethernet.HeaderLength);
            Ipv4.Write(ip, part, protocol, source, destination, id, (ushort)(at / 8 | (last ? 0 : 0x2000)));
            payload.Slice(at, part).CopyTo(ip[Ipv4.MinLength..]);
            at += part;
            if (last) return;
        }
    }

    /// <summary>Queues a UDP datagram.</summary>
    public void SendUdp(MacAddress to, uint source, ushort sourcePort, uint destination, ushort destinationPort, ReadOnlySpan<byte> payload)
    {
        var datagram = System.Buffers.ArrayPool<byte>.Shared.Rent(Udp.HeaderLength + payload.Length);
        var bytes = datagram.AsSpan(0, Udp.HeaderLength + payload.Length);
        BinaryPrimitives.WriteUInt16BigEndian(bytes, sourcePort);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[2..], destinationPort);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[4..], (ushort)bytes.Length);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes[Udp.ChecksumOffset..], 0);
        payload.CopyTo(bytes[Udp.HeaderLength..]);
        var sum = InternetChecksum.Finish(
            InternetChecksum.Add(InternetChecksum.Pseudo(source, destination, Ipv4.Udp, bytes.Length), bytes));
        BinaryPrimitives.WriteUInt16LittleEndian(bytes[Udp.ChecksumOffset..], sum == 0 ? (ushort)0xffff : sum); // 0 means "none"
        SendIp(to, Ipv4.Udp, source, destination, bytes);
        System.Buffers.ArrayPool<byte>.Shared.Return(datagram);
    }

    /// <summary>Queues an ICMP "destination unreachable" about <paramref name="packet"/>, an IPv4 packet of the guest's (RFC 792).</summary>
    public void SendUnreachable(MacAddress to, byte code, ReadOnlySpan<byte> packet)
    {
        if (!Ipv4.TryRead(packet, out var ip)) return;
        SendUnreachable(to, code, ip.Destination, ip.Source, packet[..Math.Min(packet.Length, ip.HeaderLength + 8)]);
    }

    /// <summary>The same, from the packet's beginning alone.</summary>
    public void SendUnreachable(MacAddress to, byte code, uint source, uint destination, ReadOnlySpan<byte> beginning)
    {
        Span<byte> message = stackalloc byte[8 + 68];
        message = message[..(8 + Math.Min(68, beginning.Length))];
        message.Clear();
        message[0] = 3;
        message[1] = code;
        beginning[..(message.Length - 8)].CopyTo(message[8..]);
        BinaryPrimitives.WriteUInt16LittleEndian(message[2..], InternetChecksum.Finish(InternetChecksum.Add(0, message)));
        SendIp(to, Ipv4.Icmp, source, destination, message);
    }
}

/// <summary>ICMP codes of "destination unreachable" (RFC 792, RFC 1812 §5.2.7.1).</summary>
internal static class Unreachable
{
    public const byte Network = 0, Host = 1, Port = 3, Prohibited = 13;
}

/// <summary>What a user-mode network counts.</summary>
internal sealed class UserNetCounters
{
    public long Sent, Received, SentBytes, ReceivedBytes;
    public long Malformed, BadChecksum, NotServed, Foreign, Prohibited, QueueFull, TooLarge;
    public long TcpOpened, TcpRefused, TcpReset, TcpRetransmitted, TcpOverLimit, UdpOpened, UdpEvicted, Pings, DhcpAnswered, DnsUnanswered;

    public IEnumerable<KeyValuePair<string, long>> All() =>
    [
        new("packets-from-guest", Sent), new("bytes-from-guest", SentBytes),
        new("packets-to-guest", Received), new("bytes-to-guest", ReceivedBytes),
        new("dropped-malformed", Malformed), new("dropped-bad-checksum", BadChecksum), new("dropped-not-served", NotServed),
        new("dropped-foreign-source", Foreign), new("dropped-prohibited", Prohibited), new("dropped-queue-full", QueueFull),
        new("dropped-too-large", TooLarge),
        new("tcp-opened", TcpOpened), new("tcp-refused", TcpRefused), new("tcp-reset", TcpReset), new("tcp-retransmitted", TcpRetransmitted),
        new("tcp-over-limit", TcpOverLimit), new("udp-opened", UdpOpened), new("udp-evicted", UdpEvicted), new("pings", Pings),
        new("dhcp-answered", DhcpAnswered), new("dns-unanswered", DnsUnanswered),
    ];
}
