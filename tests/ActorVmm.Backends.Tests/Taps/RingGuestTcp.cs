using System.Buffers.Binary;
using System.Net;
using ActorVmm.Devices.Virtio.Net;
using Xunit;

namespace ActorVmm.Backends.Tests.Taps;

/// <summary>
/// One TCP connection of a guest's, over IPv4 or IPv6, on a wire that loses nothing: it leaves undone what the device takes, and finishes
/// what comes undone.
/// </summary>
internal sealed class RingGuestTcp
{
    private const int Ethernet = 14, TcpLength = 20;
    private const byte Fin = 1, Syn = 2, Push = 8, Ack = 16, Cwr = 128;

    private readonly RingGuestNic _nic;
    private readonly IPEndPoint _own, _peer;
    private readonly byte[] _hostMac;
    private readonly bool _v6;
    private readonly List<byte> _received = [];
    private uint _sent = 1000, _acknowledged = 1000, _expected, _window;
    private bool _open, _ended;

    public RingGuestTcp(RingGuestNic nic, byte[] hostMac, IPEndPoint own, IPEndPoint peer)
    {
        (_nic, _hostMac, _own, _peer) = (nic, hostMac, own, peer);
        _v6 = own.Address.AddressFamily == System.Net.Sockets.AddressFamily.InterNetworkV6;
        Put(Syn, []);
        _sent++;
        while (!_open) Take();
    }

    /// <summary>Bytes per segment on the wire.</summary>
    private int SegmentSize => _v6 ? 1440 : 1460;

    private int IpLength => _v6 ? 40 : 20;

    /// <summary>Sends all of it, uncut where that may be, and waits for the acknowledgments.</summary>
    public void Send(ReadOnlySpan<byte> bytes)
    {
        var uncut = _nic.Has(_v6 ? NetFeatures.HostTso6 : NetFeatures.HostTso4);
        var first = _sent;
        for (var at = 0; at < bytes.Length;)
        {
            var part = Math.Min(uncut ? 20_000 : SegmentSize, bytes.Length - at);
            while (_sent + part > _acknowledged + _window) Take(); // within the window nothing is lost, and nothing is ever sent again
            Put((byte)(Ack | Push | (at == 0 && uncut && _nic.Has(NetFeatures.HostEcn) ? Cwr : 0)), bytes.Slice(at, part));
            _sent += (uint)part;
            at += part;
        }
        while (_acknowledged - first < bytes.Length) Take();
    }

    /// <summary>Takes what the peer sends, to its end; then closes.</summary>
    public byte[] ReceiveToEnd()
    {
        while (!_ended) Take();
        Put(Fin | Ack, []);
        _sent++;
        while (_acknowledged != _sent) Take();
        return [.. _received];
    }

    /// <summary>A datagram to the same address: uncut where that may be, else cut into fragments here.</summary>
    public void SendDatagram(int port, ReadOnlySpan<byte> bytes)
    {
        Assert.False(_v6);
        var udp = new byte[8 + bytes.Length];
        BinaryPrimitives.WriteUInt16BigEndian(udp, (ushort)_own.Port);
        BinaryPrimitives.WriteUInt16BigEndian(udp.AsSpan(2), (ushort)port);
        BinaryPrimitives.WriteUInt16BigEndian(udp.AsSpan(4), (ushort)udp.Length);
        bytes.CopyTo(udp.AsSpan(8));
        const int Piece = 1480;
        if (_nic.Has(NetFeatures.HostUfo))
        {
            BinaryPrimitives.WriteUInt16BigEndian(udp.AsSpan(6), Fold(PseudoSum(17, udp.Length)));
            _nic.Send(new PacketHeader(PacketFlags.NeedsChecksum, GsoType.Udp, (ushort)(Ethernet + IpLength + 8), Piece,
                (ushort)(Ethernet + IpLength), 6), Frame(17, udp));
            return;
        }
        BinaryPrimitives.WriteUInt16BigEndian(udp.AsSpan(6), (ushort)~Fold(PseudoSum(17, udp.Length) + Sum(udp)));
        for (var at = 0; at < udp.Length; at += Piece)
        {
            var part = udp.AsSpan(at, Math.Min(Piece, udp.Length - at));
            _nic.Send(default, Frame(17, part, (ushort)((at / 8) | (at + Piece < udp.Length ? 0x2000 : 0))));
        }
    }

    private void Put(byte flags, ReadOnlySpan<byte> data)
    {
        var tcp = new byte[TcpLength + data.Length];
        BinaryPrimitives.WriteUInt16BigEndian(tcp, (ushort)_own.Port);
        BinaryPrimitives.WriteUInt16BigEndian(tcp.AsSpan(2), (ushort)_peer.Port);
        BinaryPrimitives.WriteUInt32BigEndian(tcp.AsSpan(4), _sent);
        BinaryPrimitives.WriteUInt32BigEndian(tcp.AsSpan(8), (flags & Ack) != 0 ? _expected : 0);
        (tcp[12], tcp[13]) = (TcpLength / 4 << 4, flags);
        BinaryPrimitives.WriteUInt16BigEndian(tcp.AsSpan(14), ushort.MaxValue);
        data.CopyTo(tcp.AsSpan(TcpLength));
        var header = default(PacketHeader);
        if (_nic.Has(NetFeatures.Checksum))
        {
            BinaryPrimitives.WriteUInt16BigEndian(tcp.AsSpan(16), Fold(PseudoSum(6, tcp.Length)));
            header = new PacketHeader(PacketFlags.NeedsChecksum, GsoType.None, 0, 0, (ushort)(Ethernet + IpLength), 16);
            if (data.Length > SegmentSize)
                header = header with
                {
                    GsoType = (_v6 ? GsoType.Tcp6 : GsoType.Tcp4) | ((flags & Cwr) != 0 ? GsoType.Ecn : 0),
                    GsoSize = (ushort)SegmentSize, HeaderLength = (ushort)(Ethernet + IpLength + TcpLength),
                };
        }
        else
        {
            BinaryPrimitives.WriteUInt16BigEndian(tcp.AsSpan(16), (ushort)~Fold(PseudoSum(6, tcp.Length) + Sum(tcp)));
        }
        _nic.Send(header, Frame(6, tcp));
    }

    private byte[] Frame(byte protocol, ReadOnlySpan<byte> payload, ushort fragment = 0)
    {
        var frame = new byte[Ethernet + IpLength + payload.Length];
        _hostMac.CopyTo(frame, 0);
        RingGuestNic.Mac.CopyTo(frame.AsSpan(6));
        BinaryPrimitives.WriteUInt16BigEndian(frame.AsSpan(12), (ushort)(_v6 ? 0x86dd : 0x0800));
        var ip = frame.AsSpan(Ethernet, IpLength);
        if (_v6)
        {
            ip[0] = 0x60;
            BinaryPrimitives.WriteUInt16BigEndian(ip[4..], (ushort)payload.Length);
            (ip[6], ip[7]) = (protocol, 64);
            _own.Address.TryWriteBytes(ip[8..], out _);
            _peer.Address.TryWriteBytes(ip[24..], out _);
        }
        else
        {
            ip[0] = 0x45;
            BinaryPrimitives.WriteUInt16BigEndian(ip[2..], (ushort)(IpLength + payload.Length));
            ip[5] = 77;
            BinaryPrimitives.WriteUInt16BigEndian(ip[6..], fragment);
            (ip[8], ip[9]) = (64, protocol);
            _own.Address.TryWriteBytes(ip[12..], out _);
            _peer.Address.TryWriteBytes(ip[16..], out _);
            BinaryPrimitives.WriteUInt16BigEndian(ip[10..], (ushort)~Fold(Sum(ip)));
        }
        payload.CopyTo(frame.AsSpan(Ethernet + IpLength));
        return frame;
    }

    /// <summary>Takes one packet, whatever it is.</summary>
    private void Take()
    {
        var (header, frame) = _nic.Receive();
        if (frame.Length < Ethernet + IpLength + TcpLength || BinaryPrimitives.ReadUInt16BigEndian(frame.AsSpan(12)) != (_v6 ? 0x86dd : 0x0800)) return;
        var ip = frame.AsSpan(Ethernet);
        if (ip[_v6 ? 6 : 9] != 6) return;
        var length = BinaryPrimitives.ReadUInt16BigEndian(ip[(_v6 ? 4 : 2)..]) - (_v6 ? 0 : IpLength);
        var tcp = frame.AsSpan(Ethernet + IpLength, length);
        if (BinaryPrimitives.ReadUInt16BigEndian(tcp[2..]) != _own.Port || BinaryPrimitives.ReadUInt16BigEndian(tcp) != _peer.Port) return;
        var partial = (header.Flags & PacketFlags.NeedsChecksum) != 0;
        if (partial) Assert.Equal((Ethernet + IpLength, 16), (header.ChecksumStart, header.ChecksumOffset));
        // A partial checksum is the pseudo header's; a whole one makes the sum of everything all ones.
        if (partial) Assert.Equal(Fold(PseudoSum(6, length)), BinaryPrimitives.ReadUInt16BigEndian(tcp[16..]));
        else Assert.Equal(0xffff, Fold(PseudoSum(6, length) + Sum(tcp)));
        OnSegment(tcp);
    }

    private void OnSegment(ReadOnlySpan<byte> tcp)
    {
        var flags = tcp[13];
        Assert.True((flags & 4) == 0, "the host has reset the connection");
        var sequence = BinaryPrimitives.ReadUInt32BigEndian(tcp[4..]);
        _window = BinaryPrimitives.ReadUInt16BigEndian(tcp[14..]);
        if ((flags & Ack) != 0 && (int)(BinaryPrimitives.ReadUInt32BigEndian(tcp[8..]) - _acknowledged) > 0)
            _acknowledged = BinaryPrimitives.ReadUInt32BigEndian(tcp[8..]);
        if ((flags & Syn) != 0)
        {
            _expected = sequence + 1;
            _open = true;
            Put(Ack, []);
            return;
        }
        var data = tcp[(tcp[12] >> 4 << 2)..];
        if (data.Length == 0 && (flags & Fin) == 0) return;
        if (sequence == _expected)
        {
            _received.AddRange(data);
            _expected += (uint)data.Length;
            if ((flags & Fin) != 0)
            {
                _expected++;
                _ended = true;
            }
        }
        Put(Ack, []);
    }

    private uint PseudoSum(byte protocol, int length)
    {
        Span<byte> addresses = stackalloc byte[32];
        _own.Address.TryWriteBytes(addresses, out var one);
        _peer.Address.TryWriteBytes(addresses[one..], out var other);
        return Sum(addresses[..(one + other)]) + protocol + (uint)length;
    }

    private static uint Sum(ReadOnlySpan<byte> bytes)
    {
        uint sum = 0;
        for (var i = 0; i + 1 < bytes.Length; i += 2) sum += BinaryPrimitives.ReadUInt16BigEndian(bytes[i..]);
        return bytes.Length % 2 == 0 ? sum : sum + ((uint)bytes[^1] << 8);
    }

    private static ushort Fold(uint sum)
    {
        while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
        return (ushort)sum;
    }
}
