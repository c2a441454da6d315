using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using ActorVmm.Backends.UserNet.Wire;
using ActorVmm.Devices.Virtio.Net;
using ActorVmm.Memory;

namespace ActorVmm.Backends.UserNet;

/// <summary>
/// A network that needs no privilege: the guest's connections end here and go on as sockets of this process. A gateway that answers ARP and
/// ping, a DHCP server, a DNS forwarder, TCP and UDP out, forwarded ports in; IPv4 only. Packets for the guest are made when it takes them,
/// so that little waits in between, and uncut where the driver can take them uncut.
/// </summary>
/// <remarks>One lock guards everything. It is held for no longer than a non-blocking system call takes.</remarks>
public sealed class UserNetwork : IPacketPort
{
    private static readonly TimeSpan TickLength = TimeSpan.FromMilliseconds(100);

    private readonly UserNetCore _core;
    private readonly TcpTable _tcp;
    private readonly UdpTable _udp;
    private readonly ITimer _timer;
    private readonly byte[] _packet = GC.AllocateUninitializedArray<byte>(PacketLimits.MaxPacket);
    private readonly byte[] _header = new byte[TcpTable.MaxHeader];
    private PacketOffloads _receive;
    private Action? _ready;
    private bool _ticking, _told, _disposed;

    /// <param name="settings">What it is to be like.</param>
    /// <param name="time">The host's clock.</param>
    /// <exception cref="SocketException">A forwarded port cannot be had; the message names it.</exception>
    public UserNetwork(UserNetSettings settings, TimeProvider? time = null)
    {
        ArgumentNullException.ThrowIfNull(settings);
        _core = new UserNetCore(settings, time ?? TimeProvider.System) { Ready = TellReady };
        var routes = new Routes(settings);
        _tcp = new TcpTable(_core, routes);
        _udp = new UdpTable(_core, routes);
        _timer = _core.Time.CreateTimer(static state => ((UserNetwork)state!).OnTick(), this, Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
        var ends = new List<IPEndPoint>();
        foreach (var forward in settings.Forwards)
        {
            try
            {
                ends.Add(forward.IsTcp ? _tcp.Listen(forward) : _udp.Listen(forward));
            }
            catch (SocketException refused)
            {
                Dispose();
                throw new UserNetworkException($"cannot forward {forward}: {refused.Message}", refused);
            }
        }
        ForwardEnds = ends;
        // Connections to forwarded ports may come before the guest says a word.
        if (ends.Count > 0) lock (_core.Gate) StartTicking();
    }

    /// <summary>Where the forwarded ports listen, in the order of the settings.</summary>
    public IReadOnlyList<IPEndPoint> ForwardEnds { get; }

    /// <inheritdoc/>
    public int MaxPairs => 1;

    /// <inheritdoc/>
    public PacketOffloads SendOffloads => PacketOffloads.Checksum | PacketOffloads.Tcp4;

    /// <inheritdoc/>
    public PacketOffloads ReceiveOffloads => PacketOffloads.Checksum | PacketOffloads.Tcp4;

    /// <inheritdoc/>
    public bool LinkUp => true;

    /// <inheritdoc/>
    public IEnumerable<KeyValuePair<string, long>> Counters
    {
        get
        {
            lock (_core.Gate)
            {
                return [.. _core.Counters.All(), new("tcp-open", _tcp.Count), new("udp-open", _udp.Count)];
            }
        }
    }

    /// <inheritdoc/>
    public void Configure(PacketOffloads receive, int pairs)
    {
        lock (_core.Gate)
        {
            _receive = receive & ReceiveOffloads;
            if ((_receive & PacketOffloads.Checksum) == 0) _receive = PacketOffloads.None;
            _told = false;
        }
    }

    /// <inheritdoc/>
    public void OnReady(Action ready) => Volatile.Write(ref _ready, ready);

    /// <inheritdoc/>
    public PacketSent Send(int pair, ReadOnlySpan<HostSegment> packet)
    {
        lock (_core.Gate)
        {
            if (_disposed) return PacketSent.Dropped;
            // A copy, because the guest may change the packet while it is looked at.
            var length = 0;
            foreach (var segment in packet)
            {
                if (segment.Length > _packet.Length - length)
                {
                    _core.Counters.TooLarge++;
                    return PacketSent.Dropped;
                }
                segment.Bytes.CopyTo(_packet.AsSpan(length));
                length += segment.Length;
            }
            _core.Counters.Sent++;
            _core.Counters.SentBytes += length;
            if (length < PacketLimits.MinPacket)
            {
                _core.Counters.Malformed++;
                return PacketSent.Dropped;
            }
            OnFrame(PacketHeader.Read(_packet), _packet.AsSpan(PacketHeader.Length, length - PacketHeader.Length));
            if (_tcp.Count + _udp.Count > 0) StartTicking();
            return PacketSent.Done;
        }
    }

    /// <inheritdoc/>
    public int Receive(int pair, ReadOnlySpan<HostSegment> into)
    {
        var room = 0;
        foreach (var segment in into) room += segment.Length;
        lock (_core.Gate)
        {
            while (!_disposed)
            {
                int length;
                if (_core.HasFrames)
                {
                    var frame = _core.TakeFrame();
                    if (frame.Length > room)
                    {
                        _core.Counters.TooLarge++;
                        continue;
                    }
                    length = frame.Length;
                    Scatter(frame, 0, into);
                }
                else
                {
                    var header = _tcp.Emit(_header, room, _receive, out var first, out var second);
                    if (header == 0) break;
                    length = header + first.Length + second.Length;
                    if (length > room)
                    {
                        _core.Counters.TooLarge++;
                        continue;
                    }
                    Scatter(_header.AsSpan(0, header), 0, into);
                    Scatter(first, header, into);
                    Scatter(second, header + first.Length, into);
                }
                _core.Counters.Received++;
                _core.Counters.ReceivedBytes += length;
                return length;
            }
            _told = false;
            return 0;
        }
    }

    /// <summary>Closes all sockets; peers see their connections reset.</summary>
    public void Dispose()
    {
        lock (_core.Gate)
        {
            if (_disposed) return;
            _disposed = true;
            _timer.Dispose();
            _tcp.Dispose();
            _udp.Dispose();
            _core.DropFrames();
        }
    }

    private static void Scatter(ReadOnlySpan<byte> bytes, int at, ReadOnlySpan<HostSegment> into)
    {
        foreach (var segment in into)
        {
            if (bytes.IsEmpty) return;
            if (at >= segment.Length)
            {
                at -= segment.Length;
                continue;
            }
            var part = Math.Min(bytes.Length, segment.Length - at);
            bytes[..part].CopyTo(segment.Bytes[at..]);
            bytes = bytes[part..];
            at = 0;
        }
    }

    private void TellReady()
    {
        Action? ready = null;
        lock (_core.Gate)
        {
            if (_disposed) return;
            if (_tcp.Count + _udp.Count > 0) StartTicking();
            if (!_told && (_core.HasFrames || _tcp.HasOutput))
            {
                _told = true;
                ready = Volatile.Read(ref _ready);
            }
        }
        ready?.Invoke();
    }

    private void StartTicking()
    {
        if (_ticking || _disposed) return;
        _ticking = true;
        _timer.Change(TickLength, TickLength);
    }

    private void OnTick()
    {
        lock (_core.Gate)
        {
            if (_disposed) return;
            var now = _core.Now;
            _tcp.Tick(now);
            _udp.Tick(now);
            if (_tcp.Count + _udp.Count == 0 && _core.Settings.Forwards.Count == 0)
            {
                _ticking = false;
                _timer.Change(Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
            }
        }
        TellReady();
    }

    private void OnFrame(PacketHeader header, ReadOnlySpan<byte> frame)
    {
        var mac = MacAddress.From(frame[6..]);
        var payload = frame[Ethernet.HeaderLength..];
        switch (Ethernet.Type(frame))
        {
            case Ethernet.Arp: OnArp(payload); break;
            case Ethernet.Ipv4: OnIp(header, mac, payload); break;
            default: _core.Counters.NotServed++; break; // IPv6 and others
        }
    }

    private void OnArp(ReadOnlySpan<byte> payload)
    {
        if (!Arp.TryRead(payload, out var arp))
        {
            _core.Counters.Malformed++;
            return;
        }
        _core.Learn(arp.SenderIp, arp.SenderMac);
        if (arp.Operation != Arp.Request || (arp.TargetIp != _core.Settings.Gateway && arp.TargetIp != _core.Settings.Dns)) return;
        if (_core.NewFrame(arp.SenderMac, Ethernet.Arp, Arp.Length) is { } frame)
            new Arp(Arp.Reply, UserNetSettings.GatewayMac, arp.TargetIp, arp.SenderMac, arp.SenderIp)
                .Write(frame.AsSpan(PacketHeader.Length + Ethernet.HeaderLength));
    }

    private void OnIp(PacketHeader header, MacAddress mac, ReadOnlySpan<byte> packet)
    {
        if (!Ipv4.TryRead(packet, out var ip))
        {
            _core.Counters.Malformed++;
            return;
        }
        packet = packet[..ip.TotalLength];
        var payload = packet[ip.HeaderLength..];
        if (ip.IsFragment)
        {
            _core.Counters.NotServed++; // pieces are not put together here
            return;
        }
        if (ip.Protocol == Ipv4.Udp && TryReadUdp(payload, out var source, out var destination, out var datagram) && destination == 67)
        {
            OnDhcp(datagram);
            return;
        }
        if (!_core.Settings.IsInside(ip.Source) || ip.Source == _core.Settings.Gateway || ip.Source == _core.Settings.Dns)
        {
            _core.Counters.Foreign++;
            return;
        }
        _core.Learn(ip.Source, mac);
        var trusted = (header.Flags & PacketFlags.NeedsChecksum) != 0; // partial: there is nothing to check yet
        if (!trusted && ip.Protocol is Ipv4.Tcp or Ipv4.Udp && !ChecksumHolds(ip, payload))
        {
            _core.Counters.BadChecksum++;
            return;
        }

        switch (ip.Protocol)
        {
            case Ipv4.Tcp: _tcp.OnPacket(ip, mac, payload); break;
            case Ipv4.Udp when TryReadUdp(payload, out source, out destination, out datagram):
                _udp.OnDatagram(ip, mac, source, destination, datagram, packet);
                break;
            case Ipv4.Icmp: OnIcmp(ip, mac, payload, packet); break;
            case Ipv4.Udp: _core.Counters.Malformed++; break;
            default: _core.Counters.NotServed++; break;
        }
    }

    private static bool TryReadUdp(ReadOnlySpan<byte> bytes, out ushort source, out ushort destination, out ReadOnlySpan<byte> payload)
    {
        source = destination = 0;
        payload = default;
        if (bytes.Length < Udp.HeaderLength) return false;
        var length = BinaryPrimitives.ReadUInt16BigEndian(bytes[4..]);
        if (length < Udp.HeaderLength || length > bytes.Length) return false;
        source = BinaryPrimitives.ReadUInt16BigEndian(bytes);
        destination = BinaryPrimitives.ReadUInt16BigEndian(bytes[2..]);
        payload = bytes[Udp.HeaderLength..length];
        return true;
    }

    private static bool ChecksumHolds(in Ipv4 ip, ReadOnlySpan<byte> payload)
    {
        if (ip.Protocol == Ipv4.Udp)
        {
            if (payload.Length < Udp.HeaderLength || payload[6..8].SequenceEqual<byte>([0, 0])) return true; // none was made
            payload = payload[..Math.Clamp(BinaryPrimitives.ReadUInt16BigEndian(payload[4..]), Udp.HeaderLength, payload.Length)];
        }
        var sum = InternetChecksum.Pseudo(ip.Source, ip.Destination, ip.Protocol, payload.Length);
        return InternetChecksum.Fold(InternetChecksum.Add(sum, payload)) == 0xffff;
    }

    private void OnIcmp(in Ipv4 ip, MacAddress mac, ReadOnlySpan<byte> message, ReadOnlySpan<byte> packet)
    {
        if (message.Length < Icmp.HeaderLength || InternetChecksum.Fold(InternetChecksum.Add(0, message)) != 0xffff)
        {
            _core.Counters.Malformed++;
            return;
        }
        if (message[0] != Icmp.EchoRequest)
        {
            _core.Counters.NotServed++;
            return;
        }
        _core.Counters.Pings++;
        var id = BinaryPrimitives.ReadUInt16BigEndian(message[4..]);
        if (ip.Destination == _core.Settings.Gateway || ip.Destination == _core.Settings.Dns)
            Icmp.SendEchoReply(_core, mac, ip.Destination, ip.Source, id, message);
        else
            _udp.OnPing(ip, mac, id, message, packet);
    }

    private void OnDhcp(ReadOnlySpan<byte> datagram)
    {
        if (!DhcpRequest.TryRead(datagram, out var request))
        {
            _core.Counters.Malformed++;
            return;
        }
        var settings = _core.Settings;
        var wanted = request.RequestedAddress != 0 ? request.RequestedAddress : request.ClientAddress;
        DhcpMessage answer;
        switch (request.Message)
        {
            case DhcpMessage.Discover: answer = DhcpMessage.Offer; break;
            case DhcpMessage.Request when request.Server != 0 && request.Server != settings.Gateway: return; // it chose somebody else
            case DhcpMessage.Request: answer = wanted == settings.Guest ? DhcpMessage.Ack : DhcpMessage.Nak; break;
            case DhcpMessage.Inform: answer = DhcpMessage.Ack; break;
            default: return;
        }
        Span<byte> reply = stackalloc byte[DhcpRequest.ReplyLength];
        var yours = answer == DhcpMessage.Nak || request.Message == DhcpMessage.Inform ? 0 : settings.Guest;
        request.WriteReply(reply, answer, yours, settings);
        _core.Counters.DhcpAnswered++;
        if (answer == DhcpMessage.Ack && yours != 0) _core.Learn(yours, request.Mac);
        // Broadcast where the client asks for it, has no address to be reached at, or is refused (RFC 2131 §4.1).
        var unicast = answer != DhcpMessage.Nak && (request.Flags & 0x8000) == 0;
        var address = answer == DhcpMessage.Nak || !unicast ? uint.MaxValue : request.ClientAddress != 0 ? request.ClientAddress : yours;
        _core.SendUdp(unicast ? request.Mac : MacAddress.Broadcast, settings.Gateway, 67, address, 68, reply);
    }
}

/// <summary>A user-mode network cannot be had as it was asked for; the message says why.</summary>
public sealed class UserNetworkException : Exception
{
    public UserNetworkException(string message) : base(message) { }
    public UserNetworkException(string message, Exception inner) : base(message, inner) { }
    public UserNetworkException() { }
}
