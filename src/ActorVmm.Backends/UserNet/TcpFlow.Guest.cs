using ActorVmm.Backends.UserNet.Wire;

namespace ActorVmm.Backends.UserNet;

/// <summary>What arrives from the guest: RFC 9293 §3.10.7, without urgent data, and in order only: what comes early is answered with a
/// duplicate acknowledgment, which makes the guest send it again.</summary>
internal sealed partial class TcpFlow
{
    /// <summary>Our window scale: 4 bits, so up to 1 MiB (RFC 7323 §2).</summary>
    private const sbyte OwnScale = 4;

    private const int MaxDuplicateAcks = 16;

    private uint _receiveNext;
    private uint _offered; // the right edge of the window that the guest knows
    private int _receiveScale; // 0 where the guest did not offer scaling
    private bool _guestEnded;
    private int _acksDue;
    private int _duplicates;
    private long _lastHeard;

    public void OnSegment(in Tcp tcp, ReadOnlySpan<byte> payload)
    {
        _lastHeard = _core.Now;
        if ((tcp.Flags & TcpFlags.Reset) != 0)
        {
            OnReset(tcp);
            return;
        }

        switch (_phase)
        {
            case Phase.Connecting: return; // a SYN again: the host has not answered yet
            case Phase.SynSent: OnAnswerToSyn(tcp); return;
            case Phase.SynReceived when (tcp.Flags & TcpFlags.Syn) != 0:
                _synDue = true;
                _table.List(this);
                return;
            default: break;
        }

        if ((tcp.Flags & TcpFlags.Syn) != 0 || (tcp.Flags & TcpFlags.Ack) == 0)
        {
            Acknowledge(); // RFC 5961 §4: a SYN inside a connection gets an acknowledgment and nothing else
            return;
        }
        if (!OnAcknowledgment(tcp, payload.Length)) return;
        OnPayload(tcp, payload);
        if (_phase == Phase.Dead) return;
        DrainToHost();
        if (_phase == Phase.Dead) return;
        PullFromHost();
        if (_phase == Phase.Dead) return;
        _table.ListIfDue(this);
        FinishIfDone();
    }

    private void TakeSyn(in Tcp syn)
    {
        _receiveNext = syn.Sequence + 1;
        _window = syn.Window; // a SYN's own window is not scaled
        if (syn.MaxSegment is > 0 and var most) _mss = Math.Clamp(most, (ushort)88, (ushort)_mss);
        else _mss = Math.Min(_mss, 536); // RFC 9293 §3.7.1
        if (syn.WindowScale >= 0)
        {
            _sendScale = syn.WindowScale;
            _receiveScale = OwnScale;
        }
        else
        {
            _sendScale = _receiveScale = 0;
        }
        _offered = _receiveNext + (uint)ReceiveWindow(syn: true);
    }

    private void OnReset(in Tcp tcp)
    {
        // RFC 5961 §3.2: only a reset that is inside the window counts; while a SYN is out, one that acknowledges it.
        var counts = _phase == Phase.SynSent
            ? (tcp.Flags & TcpFlags.Ack) != 0 && tcp.Acknowledgment == _iss + 1
            : tcp.Sequence - _receiveNext <= (uint)_toHost.Limit;
        if (counts) Abort(tellGuest: false);
    }

    private void OnAnswerToSyn(in Tcp tcp)
    {
        const TcpFlags Both = TcpFlags.Syn | TcpFlags.Ack;
        if ((tcp.Flags & Both) != Both || tcp.Acknowledgment != _iss + 1)
        {
            Abort(tellGuest: true);
            return;
        }
        TakeSyn(tcp);
        Open();
        Acknowledge();
        PullFromHost();
    }

    private void Open()
    {
        _phase = Phase.Open;
        _una = _iss + 1;
        if ((int)(_next - _una) < 0) _next = _una;
        if ((int)(_highest - _una) < 0) _highest = _una;
        _synDue = false;
        _deadline = 0;
        _retries = 0;
    }

    /// <summary>False where the segment is not to be looked at further.</summary>
    private bool OnAcknowledgment(in Tcp tcp, int payload)
    {
        if (_phase == Phase.SynReceived)
        {
            if (tcp.Acknowledgment != _iss + 1)
            {
                Abort(tellGuest: true);
                return false;
            }
            Open();
        }

        var news = tcp.Acknowledgment - _una;
        if (news > _highest - _una)
        {
            if ((int)news > 0) Acknowledge(); // of what was never sent; what is old is just ignored
            return (int)news <= 0;
        }
        var window = (uint)tcp.Window << _sendScale;
        if (news > 0) OnNews(news);
        else if (payload == 0 && _highest != _una && window == _window && (tcp.Flags & TcpFlags.Fin) == 0) OnDuplicate();
        if (_window == 0 && window > 0) _deadline = _highest == _una ? 0 : _deadline; // no more probing
        _window = window;
        return true;
    }

    private void OnNews(uint news)
    {
        var data = (int)Math.Min(news, (uint)_toGuest.Count);
        _toGuest.Consume(data);
        if (news > (uint)data) _finAcknowledged = true; // one more than there is data: the FIN
        _una += news;
        if ((int)(_next - _una) < 0) _next = _una;
        _duplicates = 0;
        _retries = 0;
        MeasureRoundTrip();
        GrowCongestionWindow(data);
        _deadline = _highest == _una ? 0 : _core.Now + _timeout;
    }

    private void OnPayload(in Tcp tcp, ReadOnlySpan<byte> payload)
    {
        var fin = (tcp.Flags & TcpFlags.Fin) != 0;
        if (payload.IsEmpty && !fin)
        {
            // An empty segment from before the window is a probe for life (RFC 9293 §3.8.4): it gets an answer.
            if ((int)(tcp.Sequence - _receiveNext) < 0) Acknowledge();
            return;
        }
        var ahead = (int)(tcp.Sequence - _receiveNext);
        if (ahead > 0)
        {
            // One duplicate for each early segment, so that the guest's fast retransmission counts three.
            _acksDue = Math.Min(_acksDue + 1, MaxDuplicateAcks);
            _table.List(this);
            return;
        }

        Acknowledge();
        if (-(long)ahead > payload.Length + (fin ? 0 : -1)) return; // all of it is old
        payload = payload[Math.Min(-ahead, payload.Length)..];
        if (_guestEnded) return; // nothing follows a FIN
        if (payload.Length > _toHost.Free)
        {
            payload = payload[.._toHost.Free];
            fin = false;
        }
        _receiveNext += (uint)payload.Length;
        if (payload.Length > 0) PushToHost(payload);
        if (_phase == Phase.Dead || !fin) return;
        _guestEnded = true;
        _receiveNext++;
    }

    private void Acknowledge()
    {
        _acksDue = Math.Max(_acksDue, 1);
        _table.List(this);
    }

    private int ReceiveWindow(bool syn)
    {
        var scale = syn ? 0 : _receiveScale; // a SYN's own window is not scaled
        return Math.Min(_toHost.Free >> scale, ushort.MaxValue) << scale;
    }

    /// <summary>Tells the guest of a window that has opened, once it is worth a packet (RFC 9293 §3.8.6.2.2).</summary>
    private void OfferWindow()
    {
        if (_phase != Phase.Open || _guestEnded) return;
        var known = (int)(_offered - _receiveNext);
        if (_toHost.Free - known >= Math.Min(_toHost.Limit / 2, 2 * _mss)) Acknowledge();
    }
}
