using System.Net;
using System.Net.Sockets;
using ActorVmm.Backends.UserNet.Wire;
using ActorVmm.Devices.Virtio.Net;

namespace ActorVmm.Backends.UserNet;

/// <summary>All TCP connections of a network, and the forwarded ports that make new ones.</summary>
internal sealed class TcpTable : IDisposable
{
    /// <summary>Packet header, Ethernet, IPv4, and TCP with the options of a SYN.</summary>
    public const int MaxHeader = PacketHeader.Length + Ethernet.HeaderLength + Ipv4.MinLength + Tcp.MinLength + Tcp.SynOptionsLength;

    /// <summary>Connections to forwarded ports that wait for the guest's Ethernet address.</summary>
    private const int MaxWaiting = 16;

    private readonly UserNetCore _core;
    private readonly Routes _routes;
    private readonly Dictionary<FlowKey, TcpFlow> _flows = [];
    private readonly Queue<TcpFlow> _listed = new();
    private readonly List<TcpFlow> _scratch = [];
    private readonly List<Listener> _listeners = [];
    private readonly List<(Socket Accepted, PortForward Forward, long Until)> _waiting = [];
    private uint _sequence;

    public TcpTable(UserNetCore core, Routes routes)
    {
        _core = core;
        _routes = routes;
        // Hosts outside never see these numbers; they only have to differ between connections that follow each other (RFC 9293 §3.4.1).
        _sequence = (uint)core.Time.GetTimestamp();
    }

    public int Count => _flows.Count;
    public bool HasOutput => _listed.Count > 0;

    /// <summary>Where a waiting receive looks for data: what it reads there is read again.</summary>
    public Memory<byte> PeekByte { get; } = GC.AllocateArray<byte>(1, pinned: true);

    /// <summary>Begins to accept; a test answers in the host's place.</summary>
    public Func<Socket, SocketAsyncEventArgs, bool> AcceptAsync { get; init; } = static (socket, accepting) => socket.AcceptAsync(accepting);

    public uint NewSequence() => _sequence += 64_021 + (uint)_core.Now;

    /// <summary>Listens for a forwarded port.</summary>
    /// <exception cref="SocketException">The host refuses it: in use, or reserved for root.</exception>
    public IPEndPoint Listen(PortForward forward)
    {
        var listener = new Listener(this, forward);
        _listeners.Add(listener);
        return listener.Start();
    }

    public void OnPacket(in Ipv4 ip, MacAddress mac, ReadOnlySpan<byte> segment)
    {
        if (!Tcp.TryRead(segment, out var tcp))
        {
            _core.Counters.Malformed++;
            return;
        }
        var key = new FlowKey(ip.Source, tcp.Source, ip.Destination, tcp.Destination);
        if (_flows.TryGetValue(key, out var flow))
        {
            flow.OnSegment(tcp, segment[tcp.HeaderLength..]);
            return;
        }
        if ((tcp.Flags & TcpFlags.Reset) != 0) return;
        if ((tcp.Flags & (TcpFlags.Syn | TcpFlags.Ack)) != TcpFlags.Syn)
        {
            // A segment of a connection that is not there (RFC 9293 §3.10.7.1).
            var length = (uint)(segment.Length - tcp.HeaderLength) + ((tcp.Flags & TcpFlags.Fin) != 0 ? 1u : 0);
            if ((tcp.Flags & TcpFlags.Ack) != 0) SendReset(key, mac, tcp.Acknowledgment, 0, TcpFlags.Reset);
            else SendReset(key, mac, 0, tcp.Sequence + length, TcpFlags.Reset | TcpFlags.Ack);
            return;
        }
        Connect(key, mac, tcp);
    }

    /// <summary>The oldest flow that has something for the guest makes one packet; 0 where none has.</summary>
    public int Emit(Span<byte> header, int room, PacketOffloads offloads, out ReadOnlySpan<byte> first, out ReadOnlySpan<byte> second)
    {
        while (_listed.TryDequeue(out var flow))
        {
            flow.IsListed = false;
            var length = flow.Emit(header, room, offloads, out first, out second);
            if (flow.HasOutput) List(flow);
            if (length == 0) continue;
            flow.FinishIfDone(); // the last word may just have been said; its pieces are empty then
            return length;
        }
        first = second = default;
        return 0;
    }

    public void List(TcpFlow flow)
    {
        if (flow.IsListed) return;
        flow.IsListed = true;
        _listed.Enqueue(flow);
    }

    public void ListIfDue(TcpFlow flow)
    {
        if (flow.HasOutput) List(flow);
    }

    public void Remove(TcpFlow flow) => _flows.Remove(flow.Key);

    public void Tick(long now)
    {
        if (_flows.Count > 0)
        {
            _scratch.AddRange(_flows.Values);
            foreach (var flow in _scratch) flow.Tick(now);
            _scratch.Clear();
        }
        RetryWaiting(now);
        foreach (var listener in _listeners) listener.Resume();
    }

    public void SendReset(FlowKey key, MacAddress mac, uint sequence, uint acknowledgment, TcpFlags flags)
    {
        Span<byte> segment = stackalloc byte[Tcp.MinLength + Tcp.SynOptionsLength];
        var length = new Tcp(key.RemotePort, key.GuestPort, sequence, acknowledgment, flags, 0, 0, 0, -1).Write(segment);
        segment = segment[..length];
        var sum = InternetChecksum.Add(InternetChecksum.Pseudo(key.Remote, key.Guest, Ipv4.Tcp, length), segment);
        System.Buffers.Binary.BinaryPrimitives.WriteUInt16LittleEndian(segment[Tcp.ChecksumOffset..], InternetChecksum.Finish(sum));
        _core.SendIp(mac, Ipv4.Tcp, key.Remote, key.Guest, segment);
    }

    public void Dispose()
    {
        foreach (var listener in _listeners) listener.Dispose();
        foreach (var (accepted, _, _) in _waiting) accepted.Dispose();
        _waiting.Clear();
        foreach (var flow in _flows.Values.ToArray()) flow.Abort(tellGuest: false);
        _listed.Clear();
    }

    private void Connect(FlowKey key, MacAddress mac, in Tcp syn)
    {
        if (_routes.Resolve(key.Remote, key.RemotePort) is not { } target)
        {
            _core.Counters.Prohibited++;
            SendReset(key, mac, 0, syn.Sequence + 1, TcpFlags.Reset | TcpFlags.Ack);
            return;
        }
        if (_flows.Count >= _core.Settings.MaxTcpFlows)
        {
            _core.Counters.TcpOverLimit++;
            SendReset(key, mac, 0, syn.Sequence + 1, TcpFlags.Reset | TcpFlags.Ack);
            return;
        }
        TcpFlow flow;
        try
        {
            flow = TcpFlow.Connect(this, _core, key, mac, syn, target);
        }
        catch (SocketException) // out of descriptors
        {
            _core.Counters.TcpOverLimit++;
            SendReset(key, mac, 0, syn.Sequence + 1, TcpFlags.Reset | TcpFlags.Ack);
            return;
        }
        _flows.Add(key, flow);
        _core.Counters.TcpOpened++;
        flow.StartConnect();
    }

    private void OnAccepted(Socket accepted, PortForward forward)
    {
        if (!TryForward(accepted, forward))
        {
            // The guest has not shown its Ethernet address yet: ask for it, and try again for a while.
            if (_waiting.Count >= MaxWaiting)
            {
                accepted.Dispose();
                return;
            }
            _waiting.Add((accepted, forward, _core.Now + 30_000));
            AskForGuest(GuestOf(forward));
        }
    }

    private uint GuestOf(PortForward forward) => forward.GuestAddress == 0 ? _core.Settings.Guest : forward.GuestAddress;

    private bool TryForward(Socket accepted, PortForward forward)
    {
        if (!_core.TryStation(GuestOf(forward), out var mac)) return false;
        var peer = (IPEndPoint?)accepted.RemoteEndPoint;
        if (_flows.Count >= _core.Settings.MaxTcpFlows || peer is null)
        {
            _core.Counters.TcpOverLimit++;
            accepted.Dispose();
            return true;
        }
        // The guest sees the gateway as its peer; the peer's own port where it is free.
        var key = new FlowKey(GuestOf(forward), (ushort)forward.GuestPort, _core.Settings.Gateway, (ushort)peer.Port);
        while (_flows.ContainsKey(key)) key = key with { RemotePort = (ushort)(key.RemotePort == ushort.MaxValue ? 1024 : key.RemotePort + 1) };
        var flow = TcpFlow.Forward(this, _core, key, mac, accepted);
        _flows.Add(key, flow);
        _core.Counters.TcpOpened++;
        List(flow);
        return true;
    }

    private void RetryWaiting(long now)
    {
        for (var i = _waiting.Count - 1; i >= 0; i--)
        {
            var (accepted, forward, until) = _waiting[i];
            if (TryForward(accepted, forward))
            {
                _waiting.RemoveAt(i);
            }
            else if (now > until)
            {
                accepted.Dispose();
                _waiting.RemoveAt(i);
            }
            else if (now % 1000 < 100)
            {
                AskForGuest(GuestOf(forward));
            }
        }
    }

    private void AskForGuest(uint address)
    {
        if (_core.NewFrame(MacAddress.Broadcast, Ethernet.Arp, Arp.Length) is { } frame)
            new Arp(Arp.Request, UserNetSettings.GatewayMac, _core.Settings.Gateway, default, address)
                .Write(frame.AsSpan(PacketHeader.Length + Ethernet.HeaderLength));
    }

    /// <summary>One forwarded port.</summary>
    private sealed class Listener(TcpTable table, PortForward forward) : IDisposable
    {
        private readonly Socket _socket = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        private readonly SocketAsyncEventArgs _accepting = new();
        private bool _disposed, _paused;

        public IPEndPoint Start()
        {
            _socket.Bind(new IPEndPoint(forward.HostAddress, forward.HostPort));
            _socket.Listen(64);
            _accepting.Completed += (_, _) =>
            {
                lock (table._core.Gate)
                {
                    if (TakeAccepted()) Accept();
                }
                table._core.Ready();
            };
            lock (table._core.Gate) Accept();
            return (IPEndPoint)_socket.LocalEndPoint!;
        }

        /// <summary>Accepts again where the host could not.</summary>
        public void Resume()
        {
            if (!_paused) return;
            _paused = false;
            Accept();
        }

        public void Dispose()
        {
            if (_disposed) return;
            _disposed = true;
            _socket.Dispose();
        }

        private void Accept()
        {
            while (!_disposed)
            {
                _accepting.AcceptSocket = null;
                try
                {
                    if (table.AcceptAsync(_socket, _accepting)) return;
                }
                catch (SocketException)
                {
                    return; // the listener is broken for good; the guest's other traffic is not
                }
                if (!TakeAccepted()) return;
            }
        }

        /// <summary>False where the next attempt would fail as this one did.</summary>
        private bool TakeAccepted()
        {
            var accepted = _accepting.AcceptSocket;
            switch (_accepting.SocketError)
            {
                case SocketError.Success when _disposed:
                    accepted?.Dispose();
                    return false;
                case SocketError.Success:
                    if (accepted is not null) table.OnAccepted(accepted, forward);
                    return true;
                case SocketError.ConnectionAborted: // the peer has gone again; others may wait behind it
                    return true;
                default:
                    // Out of descriptors, mostly: the connection stays in the kernel's queue, and asking again at once would go round here
                    // with the lock held. The next tick asks.
                    if (!_disposed) table._core.Counters.TcpOverLimit++;
                    _paused = !_disposed;
                    return false;
            }
        }
    }
}
