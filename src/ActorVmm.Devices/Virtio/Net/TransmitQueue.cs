using ActorVmm.Devices.Virtio.Queue;
using ActorVmm.Memory;

namespace ActorVmm.Devices.Virtio.Net;

/// <summary>One transmit queue (virtio 1.2 §5.1.6.2): takes packets, looks at their beginning, and gives them to the packet port.</summary>
internal sealed class TransmitQueue(NetDevice device, int pair)
{
    /// <summary>Packets and bytes per message: then answers become visible, and others have their turn.</summary>
    private const int BatchPackets = 128, BatchBytes = 1 << 20;

    private readonly HostSegment[] _pieces = new HostSegment[PacketLimits.MaxSegments];
    private readonly HostScratch _head = new(PacketLimits.MinPacket);

    /// <summary>It stopped with packets waiting.</summary>
    public bool Continues { get; set; }

    public void Serve()
    {
        Continues = false;
        var queue = device.Port.Queue(2 * pair + 1);
        var counters = device.Counters;
        var bytes = 0;
        for (var packets = 0; queue.TryTake(out var chain); packets++)
        {
            if (packets == BatchPackets || bytes >= BatchBytes)
            {
                queue.Untake(chain);
                Continues = true;
                device.Again();
                return;
            }
            var length = chain.ReadableLength;
            if (chain.IsSuspect)
            {
                counters.Add(NetCounter.Suspect);
            }
            else if (length is < PacketLimits.MinPacket or > PacketLimits.MaxPacket || !chain.TryRead(0, _head.Bytes))
            {
                counters.Add(NetCounter.SentBadLength);
            }
            else if (Refusal((int)length) is { } refusal)
            {
                counters.Add(refusal);
            }
            else if (!device.LinkUp)
            {
                counters.Add(NetCounter.LinkDown);
            }
            else if (!device.MaySend(length))
            {
                queue.Untake(chain); // until the limiter's deadline
                return;
            }
            else
            {
                bytes += (int)length;
                Send(chain, (int)length);
            }
            queue.Complete(chain, 0);
        }
    }

    private void Send(DescriptorChain chain, int length)
    {
        // The headers were copied before they were looked at: what is sent is what was checked.
        _pieces[0] = _head.Segment;
        var count = 1;
        var skip = PacketLimits.MinPacket;
        foreach (var segment in chain.Readable)
        {
            var here = (int)segment.Length;
            if (skip >= here)
            {
                skip -= here;
                continue;
            }
            if (count == _pieces.Length || !chain.Memory.TryLocate(segment.Address + (ulong)skip, here - skip, out _pieces[count]))
            {
                device.Counters.Add(NetCounter.SentBadLength);
                return;
            }
            count++;
            skip = 0;
        }
        if (device.Packets.Send(pair, _pieces.AsSpan(0, count)) == PacketSent.Done)
        {
            device.Counters.Add(NetCounter.Sent);
            device.Counters.Add(NetCounter.SentBytes, length - PacketHeader.Length);
        }
        else
        {
            device.Counters.Add(NetCounter.SentRefused);
        }
    }

    /// <summary>Why a packet with these headers is not sent; null where it is. The copy is cleared of what the device ignores.</summary>
    private NetCounter? Refusal(int length)
    {
        var header = PacketHeader.Read(_head.Bytes);
        var frame = length - PacketHeader.Length;
        var partial = (header.Flags & PacketFlags.NeedsChecksum) != 0;
        if (partial && (!device.Has(NetFeatures.Checksum) || header.ChecksumStart + header.ChecksumOffset + 2 > frame))
            return NetCounter.SentBadHeader;
        if (header.GsoType == GsoType.None)
        {
            if (length > device.LongestUncut) return NetCounter.SentBadLength;
        }
        else
        {
            var allowed = (header.GsoType & ~GsoType.Ecn) switch
            {
                GsoType.Tcp4 => NetFeatures.HostTso4,
                GsoType.Tcp6 => NetFeatures.HostTso6,
                GsoType.Udp => NetFeatures.HostUfo,
                _ => 0UL,
            };
            var marked = (header.GsoType & GsoType.Ecn) != 0;
            if (!device.Has(allowed) || (marked && !device.Has(NetFeatures.HostEcn)) || !partial || header.GsoSize == 0)
                return NetCounter.SentBadHeader;
        }
        if (device.SpoofCheck && MacAddress.From(_head.Bytes[(PacketHeader.Length + MacAddress.Length)..]) != device.Mac)
            return NetCounter.SentSpoofed;
        // DATA_VALID and bits of later specifications mean nothing here (§5.1.6.2.2), and the field of the buffer count is not the driver's.
        (header with { Flags = header.Flags & PacketFlags.NeedsChecksum }).Write(_head.Bytes);
        return null;
    }
}
