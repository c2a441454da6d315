using System.Net;
using System.Net.Sockets;
using ActorVmm.Backends.UserNet.Wire;
using ActorVmm.Devices.Virtio.Net;

namespace ActorVmm.Backends.UserNet;

/// <summary>
/// UDP conversations and pings: one connected host socket each, so that strangers cannot answer and the host's ICMP errors find their way.
/// When there are too many, the one that was silent for longest makes room.
/// </summary>
internal sealed class UdpTable : IDisposable
{
    private const long IdleLife = 60_000, DnsLife = 10_000;
    private const int BatchLimit = 64;

    private readonly UserNetCore _core;
    private readonly Routes _routes;
    private readonly Dictionary<(byte Protocol, FlowKey Key), Flow> _flows = [];
    private readonly List<Flow> _scratch = [];
    private readonly List<Inlet> _inlets = [];
    private readonly byte[] _datagram = new byte[65536];
    private readonly Memory<byte> _peekByte = GC.AllocateArray<byte>(1, pinned: true);

    public UdpTable(UserNetCore core, Routes routes) => (_core, _routes) = (core, routes);

    public int Count => _flows.Count;

    /// <summary>Opens a forwarded port.</summary>
    /// <exception cref="SocketException">The host refuses it.</exception>
    public IPEndPoint Listen(PortForward forward)
    {
        var inlet = new Inlet(this, forward);
        _inlets.Add(inlet);
        return inlet.Start();
    }

    public void OnDatagram(in Ipv4 ip, MacAddress mac, ushort source, ushort destination, ReadOnlySpan<byte> payload, ReadOnlySpan<byte> packet)
    {
        foreach (var inlet in _inlets)
            if (inlet.TryAnswer(ip, source, destination, payload)) return;
        if (ip.Destination == _core.Settings.Dns && destination == 53 && !_routes.HasNameServer)
        {
            RefuseQuery(ip, mac, source, payload);
            return;
        }
        if (_routes.Resolve(ip.Destination, destination) is not { } target)
        {
            _core.Counters.Prohibited++;
            if (ip.Destination >> 28 != 0xe && ip.Destination != uint.MaxValue) _core.SendUnreachable(mac, Unreachable.Prohibited, packet);
            return;
        }
        var flow = Find((Ipv4.Udp, new FlowKey(ip.Source, source, ip.Destination, destination)), mac, target);
        flow?.Send(payload);
    }

    /// <summary>An echo request to the outside.</summary>
    public void OnPing(in Ipv4 ip, MacAddress mac, ushort id, ReadOnlySpan<byte> message, ReadOnlySpan<byte> packet)
    {
        if (_routes.Resolve(ip.Destination, 1) is not { } target)
        {
            _core.Counters.Prohibited++;
            _core.SendUnreachable(mac, Unreachable.Prohibited, packet);
            return;
        }
        var flow = Find((Ipv4.Icmp, new FlowKey(ip.Source, id, ip.Destination, 0)), mac, new IPEndPoint(target.Address, 0));
        // Ping sockets are for the groups in net.ipv4.ping_group_range: elsewhere the guest hears that it is not allowed.
        if (flow is null) _core.SendUnreachable(mac, Unreachable.Prohibited, packet);
        else flow.Send(message);
    }

    public void Tick(long now)
    {
        foreach (var inlet in _inlets) inlet.Resume();
        if (_flows.Count == 0) return;
        _scratch.AddRange(_flows.Values);
        foreach (var flow in _scratch)
            if (now - flow.LastUsed > flow.Life) flow.Close();
        _scratch.Clear();
    }

    public void Dispose()
    {
        foreach (var inlet in _inlets) inlet.Dispose();
        foreach (var flow in _flows.Values.ToArray()) flow.Close();
    }

    private Flow? Find((byte Protocol, FlowKey Key) at, MacAddress mac, IPEndPoint target)
    {
        if (_flows.TryGetValue(at, out var known)) return known;
        if (_flows.Count >= _core.Settings.MaxUdpFlows)
        {
            _core.Counters.UdpEvicted++;
            _flows.Values.MinBy(flow => flow.LastUsed)!.Close();
        }
        try
        {
            var flow = new Flow(this, at.Protocol, at.Key, mac, target);
            _flows.Add(at, flow);
            _core.Counters.UdpOpened++;
            flow.Listen();
            return flow;
        }
        catch (SocketException)
        {
            _core.Counters.NotServed++;
            return null;
        }
    }

    private void RefuseQuery(in Ipv4 ip, MacAddress mac, ushort source, ReadOnlySpan<byte> query)
    {
        _core.Counters.DnsUnanswered++;
        if (query.Length is < 12 or > 512) return;
        Span<byte> answer = stackalloc byte[512];
        answer = answer[..query.Length];
        query.CopyTo(answer);
        answer[2] |= 0x80;                              // a response (RFC 1035 §4.1.1)
        answer[3] = (byte)((answer[3] & 0x70) | 0x82);  // recursion available; server failure
        _core.SendUdp(mac, ip.Destination, 53, ip.Source, source, answer);
    }

    /// <summary>One conversation.</summary>
    private sealed class Flow
    {
        private readonly UdpTable _table;
        private readonly byte _protocol;
        private readonly FlowKey _key;
        private readonly MacAddress _mac;
        private readonly Socket _socket;
        private readonly SocketAsyncEventArgs _reading = new();
        private bool _waiting, _closed;

        public Flow(UdpTable table, byte protocol, FlowKey key, MacAddress mac, IPEndPoint target)
        {
            (_table, _protocol, _key, _mac) = (table, protocol, key, mac);
            _socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, protocol == Ipv4.Udp ? ProtocolType.Udp : ProtocolType.Icmp)
            {
                Blocking = false,
            };
            try
            {
                _socket.Connect(target);
            }
            catch
            {
                _socket.Dispose();
                throw;
            }
            LastUsed = table._core.Now;
            _reading.SetBuffer(table._peekByte);
            _reading.SocketFlags = SocketFlags.Peek;
            _reading.Completed += (_, _) => OnReadable();
        }

        public long LastUsed { get; private set; }
        public long Life => _key.Remote == _table._core.Settings.Dns ? DnsLife : IdleLife;

        public void Send(ReadOnlySpan<byte> payload)
        {
            LastUsed = _table._core.Now;
            _socket.Send(payload, SocketFlags.None, out var error);
            if (error == SocketError.ConnectionRefused) Refused();
        }

        public void Listen()
        {
            while (!_closed)
            {
                _waiting = true;
                if (_socket.ReceiveAsync(_reading)) return;
                _waiting = false;
                Take();
            }
        }

        public void Close()
        {
            if (_closed) return;
            _closed = true;
            _table._flows.Remove((_protocol, _key));
            _socket.Dispose();
            if (!_waiting) _reading.Dispose();
        }

        private void OnReadable()
        {
            lock (_table._core.Gate)
            {
                _waiting = false;
                if (_closed)
                {
                    _reading.Dispose();
                    return;
                }
                Take();
                Listen();
            }
            _table._core.Ready();
        }

        private void Take()
        {
            if (_reading.SocketError == SocketError.ConnectionRefused) Refused(); // the wait has taken the error
            for (var i = 0; i < BatchLimit && !_closed; i++)
            {
                var count = _socket.Receive(_table._datagram, SocketFlags.None, out var error);
                if (error == SocketError.ConnectionRefused)
                {
                    Refused();
                    continue;
                }
                if (error != SocketError.Success) return;
                LastUsed = _table._core.Now;
                var bytes = _table._datagram.AsSpan(0, count);
                if (_protocol == Ipv4.Udp) _table._core.SendUdp(_mac, _key.Remote, _key.RemotePort, _key.Guest, _key.GuestPort, bytes);
                else Icmp.SendEchoReply(_table._core, _mac, _key.Remote, _key.Guest, _key.GuestPort, bytes);
            }
        }

        private void Refused()
        {
            Span<byte> beginning = stackalloc byte[Ipv4.MinLength + 8];
            Ipv4.Write(beginning, 8, _protocol, _key.Guest, _key.Remote, 0, 0);
            System.Buffers.Binary.BinaryPrimitives.WriteUInt16BigEndian(beginning[20..], _key.GuestPort);
            System.Buffers.Binary.BinaryPrimitives.WriteUInt16BigEndian(beginning[22..], _key.RemotePort);
            System.Buffers.Binary.BinaryPrimitives.WriteUInt32BigEndian(beginning[24..], 8 << 16);
            _table._core.SendUnreachable(_mac, Unreachable.Port, _key.Remote, _key.Guest, beginning);
        }
    }

    /// <summary>
    /// A forwarded port. The guest sees the gateway as the peer, on a port that stands for the real one; its answers go back through the same
    /// socket.
    /// </summary>
    private sealed class Inlet(UdpTable table, PortForward forward) : IDisposable
    {
        private const int MaxPeers = 64;

        private readonly Socket _socket = new(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        private readonly SocketAsyncEventArgs _receiving = new();
        private readonly Dictionary<ushort, IPEndPoint> _peers = [];
        private readonly Queue<ushort> _ports = new();
        private readonly byte[] _datagram = new byte[65536];
        private bool _disposed, _paused;

        public IPEndPoint Start()
        {
            _socket.Bind(new IPEndPoint(forward.HostAddress, forward.HostPort));
            _receiving.SetBuffer(_datagram);
            _receiving.Completed += (_, _) =>
            {
                lock (table._core.Gate)
                {
                    if (Take()) Listen();
                }
                table._core.Ready();
            };
            lock (table._core.Gate) Listen();
            return (IPEndPoint)_socket.LocalEndPoint!;
        }

        /// <summary>Receives again where the host could not.</summary>
        public void Resume()
        {
            if (!_paused) return;
            _paused = false;
            Listen();
        }

        /// <summary>True where the datagram is an answer to one of this port's peers.</summary>
        public bool TryAnswer(in Ipv4 ip, ushort source, ushort destination, ReadOnlySpan<byte> payload)
        {
            if (ip.Destination != table._core.Settings.Gateway || ip.Source != Guest || source != forward.GuestPort
                || !_peers.TryGetValue(destination, out var peer))
                return false;
            try { _socket.SendTo(payload, peer); }
            catch (SocketException) { /* as lost as on any network */ }
            return true;
        }

        public void Dispose()
        {
            _disposed = true;
            _socket.Dispose();
        }

        private uint Guest => forward.GuestAddress == 0 ? table._core.Settings.Guest : forward.GuestAddress;

        private void Listen()
        {
            while (!_disposed)
            {
                _receiving.RemoteEndPoint = new IPEndPoint(IPAddress.Any, 0);
                if (_socket.ReceiveFromAsync(_receiving)) return;
                if (!Take()) return;
            }
        }

        /// <summary>False where the next attempt might fail as this one did: the next tick makes it, so that no error goes round here.</summary>
        private bool Take()
        {
            if (_disposed) return false;
            if (_receiving.SocketError != SocketError.Success)
            {
                table._core.Counters.NotServed++;
                _paused = true;
                return false;
            }
            // Nobody there yet: lost.
            if (_receiving.RemoteEndPoint is not IPEndPoint peer || !table._core.TryStation(Guest, out var mac)) return true;
            var port = PortOf(peer);
            table._core.SendUdp(mac, table._core.Settings.Gateway, port, Guest, (ushort)forward.GuestPort,
                _datagram.AsSpan(0, _receiving.BytesTransferred));
            return true;
        }

        private ushort PortOf(IPEndPoint peer)
        {
            var port = (ushort)peer.Port;
            while (_peers.TryGetValue(port, out var known))
            {
                if (known.Equals(peer)) return port;
                port = (ushort)(port == ushort.MaxValue ? 1024 : port + 1);
            }
            if (_peers.Count >= MaxPeers) _peers.Remove(_ports.Dequeue());
            _peers.Add(port, peer);
            _ports.Enqueue(port);
            return port;
        }
    }
}
