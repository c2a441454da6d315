using System.Diagnostics;
using System.Net;
using PacketDotNet;
using Xunit;

namespace ActorVmm.Backends.Tests.UserNet;

/// <summary>
/// A small TCP of the guest's: in order, a fixed window, everything sent again after a silence. Packets can be lost in both directions, by
/// choice of the test.
/// </summary>
internal sealed class GuestTcp(GuestEnd end, ushort port, IPAddress remote, ushort remotePort)
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(90), Silence = TimeSpan.FromMilliseconds(60);
    private readonly List<byte> _received = [];
    private uint _first = 0xffff_f000; // wraps soon
    private uint _acknowledged;
    private uint _expected;
    private bool _established;
    private uint _peerWindow;
    private int _peerScale;

    /// <summary>Bytes that came, in order.</summary>
    public List<byte> Received => _received;

    /// <summary>The peer has closed its half.</summary>
    public bool Ended { get; private set; }

    /// <summary>The peer has reset the connection.</summary>
    public bool WasReset { get; private set; }

    /// <summary>The peer's window, in bytes.</summary>
    public uint PeerWindow => _peerWindow;

    public int? PeerMss { get; private set; }

    /// <summary>What the guest offers; not scaled.</summary>
    public ushort Window { get; set; } = ushort.MaxValue;

    /// <summary>Take no data, as if the application did not read.</summary>
    public bool Full { get; set; }

    /// <summary>Whether the n-th packet in a direction is lost.</summary>
    public Func<bool>? LoseSent { get; set; }

    public Func<bool>? LoseReceived { get; set; }

    /// <summary>Frames with more than one segment's worth of data.</summary>
    public int Uncut { get; private set; }

    public void Connect(bool scale = true, ushort mss = 1460)
    {
        _expected = 0;
        Until(() => _established || WasReset, () => SendSyn(scale, mss));
        if (_established) Put(TcpBits.Ack, _first + 1, []);
    }

    /// <summary>Answers a connection from the other side; true once it is there.</summary>
    public void Accept()
    {
        var syn = end.Await<TcpPacket>(tcp => tcp.Synchronize && !tcp.Acknowledgment && tcp.DestinationPort == port);
        Assert.Equal(remotePort, remotePort == 0 ? syn.SourcePort : remotePort);
        remotePort = syn.SourcePort;
        _expected = syn.SequenceNumber + 1;
        Put(TcpBits.Syn | TcpBits.Ack, _first, []);
        _acknowledged = _first + 1;
        _established = true;
    }

    /// <summary>Sends and waits until all of it is acknowledged.</summary>
    public void Send(ReadOnlySpan<byte> bytes, int segment = 1460)
    {
        var data = bytes.ToArray();
        var start = _acknowledged;
        Until(() => WasReset || _acknowledged - start >= data.Length, () =>
        {
            var window = Math.Max(_peerWindow, 1);
            for (var at = _acknowledged - start; at < data.Length && at - (_acknowledged - start) < window;)
            {
                var part = (int)Math.Min(Math.Min(segment, data.Length - at), window - (at - (_acknowledged - start)));
                Put(TcpBits.Ack, start + at, data.AsSpan((int)at, part));
                at += (uint)part;
            }
        });
    }

    /// <summary>Closes this half and waits for the acknowledgment.</summary>
    public void Close()
    {
        var fin = _acknowledged;
        Until(() => WasReset || _acknowledged == fin + 1, () => Put(TcpBits.Fin | TcpBits.Ack, fin, []));
    }

    public void Reset() => Put(TcpBits.Reset | TcpBits.Ack, _acknowledged, []);

    /// <summary>Takes packets until <paramref name="done"/>.</summary>
    public void Receive(Func<bool> done) => Until(done, static () => { });

    private void Until(Func<bool> done, Action again)
    {
        var clock = Stopwatch.StartNew();
        again();
        while (true)
        {
            var any = false;
            while (end.Take() is { } frame)
                if (frame.Extract<TcpPacket>() is { } tcp && tcp.DestinationPort == port && tcp.SourcePort == remotePort) any |= OnPacket(tcp);
            if (done()) return;
            if (clock.Elapsed > Patience)
                throw new TimeoutException($"expected {_expected}, acknowledged {_acknowledged}, {_received.Count} bytes; "
                    + string.Join(", ", end.Network.Counters.Where(static c => c.Value != 0)));
            if (any || !end.TryWaitForReady(Silence)) again();
        }
    }

    private bool OnPacket(TcpPacket tcp)
    {
        if (LoseReceived?.Invoke() == true) return false;
        if (tcp.Reset)
        {
            WasReset = true;
            return true;
        }
        if (!_established)
        {
            if (!tcp.Synchronize || !tcp.Acknowledgment || tcp.AcknowledgmentNumber != _first + 1) return false;
            _expected = tcp.SequenceNumber + 1;
            _acknowledged = _first + 1;
            _established = true;
            foreach (var option in tcp.OptionsCollection)
            {
                if (option is PacketDotNet.Tcp.WindowScaleFactorOption scale) _peerScale = scale.ScaleFactor;
                if (option is PacketDotNet.Tcp.MaximumSegmentSizeOption mss) PeerMss = mss.Value;
            }
            _peerWindow = tcp.WindowSize;
            return true;
        }
        if (tcp.Synchronize)
        {
            Put(TcpBits.Ack, _acknowledged, []);
            return false;
        }
        var progress = false;
        if ((int)(tcp.AcknowledgmentNumber - _acknowledged) > 0)
        {
            _acknowledged = tcp.AcknowledgmentNumber;
            progress = true;
        }
        _peerWindow = (uint)tcp.WindowSize << _peerScale;
        var data = tcp.PayloadData ?? [];
        if (data.Length > 1460) Uncut++;
        if (data.Length == 0 && !tcp.Finished)
        {
            if (tcp.SequenceNumber != _expected) Put(TcpBits.Ack, _acknowledged, []); // a probe
            return progress;
        }
        var old = (int)(_expected - tcp.SequenceNumber);
        if (old >= 0 && old <= data.Length && !Full)
        {
            _received.AddRange(data.AsSpan(old));
            _expected += (uint)(data.Length - old);
            if (tcp.Finished && !Ended)
            {
                Ended = true;
                _expected++;
            }
        }
        Put(TcpBits.Ack, _acknowledged, []);
        return progress;
    }

    private void SendSyn(bool scale, ushort mss)
    {
        // PacketDotNet cannot add options to a packet that has none: the header is written as it is.
        var tcp = new TcpPacket(new PacketDotNet.Utils.ByteArraySegment(
        [
            (byte)(port >> 8), (byte)port, (byte)(remotePort >> 8), (byte)remotePort, (byte)(_first >> 24), (byte)(_first >> 16),
            (byte)(_first >> 8), (byte)_first, 0, 0, 0, 0, 0x70, 2, (byte)(Window >> 8), (byte)Window, 0, 0, 0, 0,
            2, 4, (byte)(mss >> 8), (byte)mss, 1, (byte)(scale ? 3 : 1), (byte)(scale ? 3 : 1), (byte)(scale ? 0 : 1),
        ]));
        if (LoseSent?.Invoke() != true) end.SendIp(remote, tcp);
    }

    private void Put(TcpBits bits, uint sequence, ReadOnlySpan<byte> data)
    {
        if (LoseSent?.Invoke() == true) return;
        end.SendIp(remote, new TcpPacket(port, remotePort)
        {
            SequenceNumber = sequence, AcknowledgmentNumber = _expected, WindowSize = Full ? (ushort)0 : Window,
            Synchronize = (bits & TcpBits.Syn) != 0, Acknowledgment = (bits & TcpBits.Ack) != 0, Finished = (bits & TcpBits.Fin) != 0,
            Reset = (bits & TcpBits.Reset) != 0, PayloadData = data.ToArray(),
        });
    }

    [Flags]
    private enum TcpBits { Syn = 1, Ack = 2, Fin = 4, Reset = 8 }
}
