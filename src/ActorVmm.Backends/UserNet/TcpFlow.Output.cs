using System.Buffers.Binary;
using ActorVmm.Backends.UserNet.Wire;
using ActorVmm.Devices.Virtio.Net;

namespace ActorVmm.Backends.UserNet;

/// <summary>
/// What goes to the guest, made when the guest has room for it, so that nothing waits in between: acknowledgments of many segments fall together,
/// and data leaves in pieces as large as the guest takes. Lost packets (the link loses none by itself) are sent again after RFC 6298 and
/// RFC 6582.
/// </summary>
internal sealed partial class TcpFlow
{
    private const int FirstTimeout = 1000, LeastTimeout = 300, MostTimeout = 30_000, ConnectTimeout = 30_000;
    private const int MaxRetries = 9;
    private const uint NoLimit = 1 << 30;

    /// <summary>Half-closed or idle connections end after this long: 10 minutes and 2 hours.</summary>
    private const long HalfClosedLife = 600_000, IdleLife = 7_200_000;

    private readonly uint _iss;
    private uint _una, _next, _highest; // oldest unacknowledged; next to be sent; end of what was ever sent
    private uint _window;
    private int _sendScale;
    private int _mss;
    private bool _synDue, _resendOne, _probeDue, _finAcknowledged;
    private long _deadline; // 0: none
    private int _retries, _timeout = FirstTimeout;
    private uint _congestion = NoLimit, _threshold = NoLimit, _recover;
    private bool _recovering;
    private uint _timedUntil;
    private long _timedFrom = -1;
    private long _smoothed = -1, _variance;

    /// <summary>Sequence number of the FIN, once the host's peer has ended: just behind the data.</summary>
    private uint End => _una + (uint)_toGuest.Count;

    private bool FinDue => _hostEnded && !_finAcknowledged && _next == End;

    private int Unsent => _finAcknowledged || (int)(End - _next) <= 0 ? 0 : (int)(End - _next);

    /// <summary>Bytes that may be sent now.</summary>
    private int Sendable
    {
        get
        {
            var unsent = Unsent;
            if (unsent == 0) return 0;
            var flight = _next - _una;
            var allowed = Math.Min(_window, _congestion);
            if (allowed <= flight) return 0;
            var usable = (int)Math.Min(allowed - flight, (uint)unsent);
            // No silly small segments into a window that is nearly full; more room is coming.
            return usable >= Math.Min(_mss, unsent) || flight == 0 ? usable : 0;
        }
    }

    /// <summary>Whether there is something for the guest.</summary>
    public bool HasOutput => _phase switch
    {
        Phase.SynReceived or Phase.SynSent => _synDue,
        Phase.Open => _acksDue > 0 || _resendOne || _probeDue || FinDue || Sendable > 0,
        _ => false,
    };

    /// <summary>
    /// Makes one packet: <paramref name="header"/> gets everything up to the payload, which is in two pieces of the ring. 0 where there is
    /// nothing.
    /// </summary>
    /// <param name="header">At least <see cref="TcpTable.MaxHeader"/> bytes.</param>
    /// <param name="room">Bytes that the guest has for the whole packet.</param>
    /// <param name="offloads">What may be left undone.</param>
    public int Emit(Span<byte> header, int room, PacketOffloads offloads, out ReadOnlySpan<byte> first, out ReadOnlySpan<byte> second)
    {
        first = second = default;
        if (!HasOutput) return 0;
        if (_phase is Phase.SynSent or Phase.SynReceived) return EmitSyn(header, offloads);

        var most = Math.Max(0, room - TcpTable.MaxHeader);
        var segment = Math.Min(_mss, most);
        if (_probeDue) // one byte from before the window makes the guest say what its window is (RFC 9293 §3.8.6.1)
        {
            _probeDue = false;
            return Write(header, _una - 1, TcpFlags.Ack, 0, default, default, offloads);
        }
        if (_resendOne)
        {
            _resendOne = false;
            _core.Counters.TcpRetransmitted++;
            var again = Math.Min(_toGuest.Count, segment);
            _toGuest.Slices(0, again, out first, out second);
            var last = _hostEnded && again == _toGuest.Count;
            Arm();
            return Write(header, _una, last ? TcpFlags.Fin | TcpFlags.Ack : TcpFlags.Ack, again, first, second, offloads);
        }

        var count = Sendable;
        if (count > segment)
        {
            var uncut = (offloads & PacketOffloads.Tcp4) != 0;
            var limit = uncut ? Math.Min(most, 65535 - Ipv4.MinLength - Tcp.MinLength) : segment;
            if (count > limit) count = limit - limit % Math.Max(segment, 1);
        }
        var offset = (int)(_next - _una);
        _toGuest.Slices(offset, count, out first, out second);
        var sequence = _next;
        var flags = TcpFlags.Ack;
        _next += (uint)count;
        if (_next == End && count > 0) flags |= TcpFlags.Push;
        if (FinDue)
        {
            flags |= TcpFlags.Fin;
            _next++;
        }
        if (_next != sequence)
        {
            if ((int)(_highest - sequence) > 0) _core.Counters.TcpRetransmitted++;
            else if (_timedFrom < 0) (_timedFrom, _timedUntil) = (_core.Now, _next);
            if ((int)(_next - _highest) > 0) _highest = _next;
            Arm();
        }
        return Write(header, sequence, flags, count, first, second, offloads);
    }

    /// <summary>What time has brought about. Called every tenth of a second.</summary>
    public void Tick(long now)
    {
        var silent = now - _lastHeard;
        if (_phase == Phase.Open && (silent > IdleLife || ((_guestEnded || _hostEnded) && silent > HalfClosedLife)))
        {
            Abort(tellGuest: true);
            return;
        }
        if (_phase == Phase.Open && _deadline == 0 && _highest == _una && _window == 0 && Unsent > 0) _deadline = now + _timeout;
        if (_deadline == 0 || now < _deadline) return;
        if (_phase == Phase.Connecting)
        {
            OnConnectFailed(System.Net.Sockets.SocketError.TimedOut);
            return;
        }
        if (++_retries > MaxRetries)
        {
            Abort(tellGuest: true);
            return;
        }

        _deadline = now + Math.Min((long)_timeout << _retries, MostTimeout);
        _timedFrom = -1; // Karn: what is sent twice measures nothing
        if (_phase is Phase.SynReceived or Phase.SynSent)
        {
            _synDue = true;
        }
        else if (_highest == _una)
        {
            _probeDue = _window == 0 && Unsent > 0;
            if (!_probeDue) _deadline = 0;
        }
        else
        {
            // All that is out counts as lost (RFC 6298 §5.4), and the flow starts slowly again.
            _threshold = Math.Max((_highest - _una) / 2, 2 * (uint)_mss);
            _congestion = 2 * (uint)_mss;
            _recovering = false;
            _next = _una;
        }
        _table.ListIfDue(this);
    }

    /// <summary>Ends a connection that is not wanted, from the segment that asked for it.</summary>
    private void SendReset() => _table.SendReset(Key, Mac,
        _phase == Phase.Connecting ? 0 : _next, _receiveNext, TcpFlags.Reset | TcpFlags.Ack);

    private void SendUnreachable(byte code)
    {
        Span<byte> beginning = stackalloc byte[Ipv4.MinLength + 8];
        Ipv4.Write(beginning, Tcp.MinLength, Ipv4.Tcp, Key.Guest, Key.Remote, 0, 0);
        BinaryPrimitives.WriteUInt16BigEndian(beginning[20..], Key.GuestPort);
        BinaryPrimitives.WriteUInt16BigEndian(beginning[22..], Key.RemotePort);
        BinaryPrimitives.WriteUInt32BigEndian(beginning[24..], _receiveNext - 1);
        _core.SendUnreachable(Mac, code, _core.Settings.Gateway, Key.Guest, beginning);
    }

    private int EmitSyn(Span<byte> header, PacketOffloads offloads)
    {
        _synDue = false;
        _next = _highest = _iss + 1;
        if (_deadline == 0) _deadline = _core.Now + FirstTimeout;
        return Write(header, _iss, _phase == Phase.SynSent ? TcpFlags.Syn : TcpFlags.Syn | TcpFlags.Ack, 0, default, default, offloads);
    }

    private int Write(Span<byte> header, uint sequence, TcpFlags flags, int payload, ReadOnlySpan<byte> first, ReadOnlySpan<byte> second,
        PacketOffloads offloads)
    {
        var syn = (flags & TcpFlags.Syn) != 0;
        var window = ReceiveWindow(syn);
        if ((flags & TcpFlags.Ack) != 0)
        {
            _offered = _receiveNext + (uint)window;
            // A duplicate acknowledgment is one packet each; anything else that goes out tells as much as one.
            _acksDue = payload == 0 && _acksDue > 1 ? _acksDue - 1 : 0;
        }
        var tcp = new Tcp(Key.RemotePort, Key.GuestPort, sequence, (flags & TcpFlags.Ack) != 0 ? _receiveNext : 0, flags,
            (ushort)(syn ? window : window >> _receiveScale), 0,
            (ushort)(_core.Settings.Mtu - Ipv4.MinLength - Tcp.MinLength), (sbyte)(_receiveScale == 0 ? -1 : _receiveScale));
        const int IpAt = PacketHeader.Length + Ethernet.HeaderLength, TcpAt = IpAt + Ipv4.MinLength;
        Ethernet.Write(header[PacketHeader.Length..], Mac, UserNetSettings.GatewayMac, Ethernet.Ipv4);
        var length = tcp.Write(header[TcpAt..]);
        Ipv4.Write(header[IpAt..], length + payload, Ipv4.Tcp, Key.Remote, Key.Guest, 0, 0x4000);

        var sum = InternetChecksum.Pseudo(Key.Remote, Key.Guest, Ipv4.Tcp, length + payload);
        var field = header[(TcpAt + Tcp.ChecksumOffset)..];
        var outer = default(PacketHeader);
        if ((offloads & PacketOffloads.Checksum) != 0)
        {
            // The guest takes it on trust; the field holds the pseudo header's sum, as for a packet that is to be sent on.
            BinaryPrimitives.WriteUInt16LittleEndian(field, InternetChecksum.Fold(sum));
            var uncut = payload > _mss;
            outer = new PacketHeader(PacketFlags.NeedsChecksum, uncut ? GsoType.Tcp4 : GsoType.None,
                (ushort)(uncut ? Ethernet.HeaderLength + Ipv4.MinLength + length : 0), (ushort)(uncut ? _mss : 0),
                Ethernet.HeaderLength + Ipv4.MinLength, Tcp.ChecksumOffset);
        }
        else
        {
            sum = InternetChecksum.Add(sum, header.Slice(TcpAt, length));
            sum = InternetChecksum.Add(sum, first);
            // Bytes of the second piece are the other halves of their words where the first one is odd.
            BinaryPrimitives.WriteUInt16LittleEndian(field, InternetChecksum.Finish(sum + Second(first.Length, second)));
        }
        outer.Write(header);
        return TcpAt + length;
    }

    private static ulong Second(int before, ReadOnlySpan<byte> bytes)
    {
        var sum = InternetChecksum.Add(0, bytes);
        return (before & 1) == 0 ? sum : BinaryPrimitives.ReverseEndianness(InternetChecksum.Fold(sum));
    }

    private void Arm()
    {
        if (_deadline == 0) _deadline = _core.Now + _timeout;
    }

    private void OnDuplicate()
    {
        if (++_duplicates != 3 || _recovering) return;
        _recovering = true;
        _recover = _highest;
        _threshold = Math.Max((_highest - _una) / 2, 2 * (uint)_mss);
        _congestion = _threshold;
        _resendOne = true;
    }

    private void GrowCongestionWindow(int acknowledged)
    {
        if (_recovering)
        {
            if ((int)(_una - _recover) >= 0) _recovering = false;
            else _resendOne = true; // the next hole (RFC 6582 §3.2)
        }
        else if (_congestion < NoLimit)
        {
            _congestion += _congestion < _threshold
                ? (uint)acknowledged
                : Math.Max(1, (uint)((long)_mss * acknowledged / _congestion));
        }
    }

    private void MeasureRoundTrip()
    {
        if (_timedFrom < 0 || (int)(_una - _timedUntil) < 0) return;
        var sample = _core.Now - _timedFrom;
        _timedFrom = -1;
        if (_smoothed < 0)
        {
            (_smoothed, _variance) = (sample, sample / 2);
        }
        else
        {
            _variance += (Math.Abs(_smoothed - sample) - _variance) / 4;
            _smoothed += (sample - _smoothed) / 8;
        }
        _timeout = (int)Math.Clamp(_smoothed + 4 * _variance, LeastTimeout, MostTimeout);
    }
}
