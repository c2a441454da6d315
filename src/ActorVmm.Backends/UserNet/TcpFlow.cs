using System.Net;
using System.Net.Sockets;
using ActorVmm.Backends.UserNet.Wire;
using ActorVmm.Devices.Virtio.Net;

namespace ActorVmm.Backends.UserNet;

/// <summary>The two ends of a flow, as the guest sees them; addresses in host byte order.</summary>
internal readonly record struct FlowKey(uint Guest, ushort GuestPort, uint Remote, ushort RemotePort);

/// <summary>
/// One TCP connection, ended here on both sides: with the guest it speaks TCP segments (RFC 9293), with the world a host socket. This part is
/// the host's side. Everything runs under the network's lock; sockets never block, and their completions come back through it.
/// </summary>
internal sealed partial class TcpFlow
{
    private readonly UserNetCore _core;
    private readonly TcpTable _table;
    private readonly Socket _socket;
    private readonly SocketAsyncEventArgs _reading = new();
    private readonly SocketAsyncEventArgs _writing = new();
    private readonly ByteRing _toGuest;
    private readonly ByteRing _toHost;
    private Phase _phase;
    private bool _waitingForData, _hostEnded, _shutDown;

    private enum Phase : byte
    {
        /// <summary>The guest's SYN waits for the host's connect.</summary>
        Connecting,

        /// <summary>SYN-ACK is out or due.</summary>
        SynReceived,

        /// <summary>A forwarded connection: our SYN is out or due.</summary>
        SynSent,

        /// <summary>Data flows; either end may have closed its half.</summary>
        Open,

        /// <summary>Over. Completions that still arrive find nothing.</summary>
        Dead,
    }

    private TcpFlow(TcpTable table, UserNetCore core, FlowKey key, MacAddress mac, Socket socket)
    {
        (_table, _core, Key, Mac, _socket) = (table, core, key, mac, socket);
        _toGuest = new ByteRing(core.Budget);
        _toHost = new ByteRing(core.Budget);
        _mss = core.Settings.Mtu - Ipv4.MinLength - Tcp.MinLength;
        _iss = _una = _next = _highest = table.NewSequence();
        _lastHeard = core.Now;
        _writing.Completed += static (_, e) => ((TcpFlow)e.UserToken!).OnCompletion(e);
        _reading.Completed += static (_, e) => ((TcpFlow)e.UserToken!).OnCompletion(e);
        _reading.UserToken = _writing.UserToken = this;
    }

    public FlowKey Key { get; }
    public MacAddress Mac { get; }
    public bool IsDead => _phase == Phase.Dead;

    /// <summary>In the table's list of flows that have something for the guest.</summary>
    public bool IsListed { get; set; }

    /// <summary>The guest wants a connection: the host is asked first, and the answer is what the host says.</summary>
    public static TcpFlow Connect(TcpTable table, UserNetCore core, FlowKey key, MacAddress mac, in Tcp syn, IPEndPoint target)
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { Blocking = false, NoDelay = true };
        var flow = new TcpFlow(table, core, key, mac, socket) { _phase = Phase.Connecting, _deadline = core.Now + ConnectTimeout };
        flow.TakeSyn(syn);
        flow._writing.RemoteEndPoint = target;
        return flow;
    }

    /// <summary>Somebody connected to a forwarded port: the guest is asked.</summary>
    public static TcpFlow Forward(TcpTable table, UserNetCore core, FlowKey key, MacAddress mac, Socket accepted)
    {
        accepted.Blocking = false;
        accepted.NoDelay = true;
        return new TcpFlow(table, core, key, mac, accepted)
        {
            _phase = Phase.SynSent, _synDue = true, _receiveScale = OwnScale, _deadline = core.Now + FirstTimeout,
        };
    }

    /// <summary>Starts the host's connect; the flow is in its table by now.</summary>
    public void StartConnect()
    {
        try
        {
            if (!_socket.ConnectAsync(_writing)) OnConnected();
        }
        catch (SocketException refused)
        {
            OnConnectFailed(refused.SocketErrorCode);
        }
    }

    /// <summary>Ends it: the guest hears a reset where it still listens, the host's peer as well.</summary>
    public void Abort(bool tellGuest)
    {
        if (_phase == Phase.Dead) return;
        if (tellGuest) SendReset();
        _core.Counters.TcpReset++;
        try { _socket.LingerState = new LingerOption(true, 0); }
        catch (SocketException) { /* already gone */ }
        Finish();
    }

    private void Finish()
    {
        if (_phase == Phase.Dead) return;
        _phase = Phase.Dead;
        _table.Remove(this);
        _socket.Dispose();
        // The arguments of an operation in flight may not be disposed before it ends; the socket's end ends it.
        if (!_waitingForData) _reading.Dispose();
        if (!_toHost.Held) _writing.Dispose();
        _toGuest.Dispose();
        _toHost.Dispose();
    }

    private void OnCompletion(SocketAsyncEventArgs e)
    {
        lock (_core.Gate)
        {
            if (_phase == Phase.Dead)
            {
                e.Dispose();
                return;
            }

            if (e.LastOperation == SocketAsyncOperation.Connect)
            {
                OnConnected();
            }
            else if (ReferenceEquals(e, _reading))
            {
                _waitingForData = false;
                if (e.SocketError == SocketError.Success) PullFromHost();
                else Abort(tellGuest: true); // the wait has taken the error: the socket itself only knows an end now
            }
            else
            {
                OnWritten(e);
            }
        }

        _core.Ready();
    }

    private void OnConnected()
    {
        if (_writing.SocketError != SocketError.Success)
        {
            OnConnectFailed(_writing.SocketError);
            return;
        }
        _phase = Phase.SynReceived;
        _synDue = true;
        _retries = 0;
        _deadline = 0;
        _table.List(this);
    }

    private void OnConnectFailed(SocketError error)
    {
        _core.Counters.TcpRefused++;
        // A refusal is a reset, as it would be without us; what cannot be reached is an ICMP message.
        switch (error)
        {
            case SocketError.NetworkUnreachable or SocketError.NetworkDown: SendUnreachable(Unreachable.Network); break;
            case SocketError.HostUnreachable or SocketError.HostDown or SocketError.TimedOut: SendUnreachable(Unreachable.Host); break;
            case SocketError.AccessDenied: SendUnreachable(Unreachable.Prohibited); break;
            default: SendReset(); break;
        }
        Finish();
    }

    /// <summary>Takes what the host's peer sent, as far as there is room.</summary>
    private void PullFromHost()
    {
        if (_phase != Phase.Open || _hostEnded || _waitingForData) return;
        var any = false;
        while (true)
        {
            var room = _toGuest.Room();
            if (room.IsEmpty) break; // the guest's next acknowledgment makes room and comes back here
            var count = _socket.Receive(room, SocketFlags.None, out var error);
            if (error == SocketError.Success && count > 0)
            {
                _toGuest.Commit(count);
                any = true;
                continue;
            }
            if (error is SocketError.WouldBlock or SocketError.IOPending)
            {
                WaitForData();
                if (_waitingForData) break;
                if (_reading.SocketError == SocketError.Success) continue; // there is some already
                Abort(tellGuest: true);
                return;
            }
            if (error == SocketError.Success)
            {
                _hostEnded = any = true;
                break;
            }
            Abort(tellGuest: true);
            return;
        }
        if (any && _phase != Phase.Dead) _table.ListIfDue(this);
    }

    private void WaitForData()
    {
        _reading.SetBuffer(_table.PeekByte);
        _reading.SocketFlags = SocketFlags.Peek;
        _waitingForData = _socket.ReceiveAsync(_reading);
    }

    /// <summary>The guest's bytes, which fit into the window: at once where the socket takes them, else through the ring.</summary>
    private void PushToHost(ReadOnlySpan<byte> bytes)
    {
        if (_toHost.Count == 0 && !_toHost.Held)
        {
            var sent = _socket.Send(bytes, SocketFlags.None, out var error);
            if (error is not (SocketError.Success or SocketError.WouldBlock or SocketError.IOPending))
            {
                Abort(tellGuest: true);
                return;
            }
            if (sent > 0) bytes = bytes[sent..];
        }
        if (bytes.IsEmpty) return;
        _toHost.Write(bytes);
        DrainToHost();
    }

    private void DrainToHost()
    {
        while (_toHost.Count > 0 && !_toHost.Held)
        {
            _writing.SetBuffer(_toHost.First);
            _toHost.Held = true;
            if (_socket.SendAsync(_writing)) return;
            if (!TakeWritten(_writing)) return;
        }
        if (_toHost.Count == 0 && _guestEnded && !_shutDown)
        {
            _shutDown = true;
            try { _socket.Shutdown(SocketShutdown.Send); }
            catch (SocketException) { /* the peer is gone; reading will say so */ }
            FinishIfDone();
        }
    }

    private void OnWritten(SocketAsyncEventArgs e)
    {
        if (TakeWritten(e)) DrainToHost();
    }

    private bool TakeWritten(SocketAsyncEventArgs e)
    {
        _toHost.Held = false;
        if (e.SocketError != SocketError.Success)
        {
            Abort(tellGuest: true);
            return false;
        }
        _toHost.Consume(e.BytesTransferred);
        OfferWindow();
        return true;
    }

    /// <summary>Both halves are closed and each end knows: the socket may go.</summary>
    public void FinishIfDone()
    {
        if (_hostEnded && _finAcknowledged && _guestEnded && _shutDown && _acksDue == 0) Finish();
    }
}
