using ActorVmm.Devices.Virtio.Net;
using ActorVmm.Memory;

namespace ActorVmm.Devices.Faults;

/// <summary>
/// A network's outside to which a plan's faults happen, both ways: packets that a rule concerns are copied and go on later, twice, changed or
/// not at all. Without a rule for it each call is passed on as it is. Called on the device's thread, as every port.
/// </summary>
/// <param name="inner">The outside.</param>
/// <param name="site">Rules for this port.</param>
/// <param name="at">Calls an action at a machine time, on any thread.</param>
public sealed class FaultyPackets(IPacketPort inner, FaultSite site, Action<ulong, Action> at) : IPacketPort
{
    /// <summary>Bytes that wait in a slow line before it drops what comes (about 50 full packets).</summary>
    private const ulong LineBytes = 75_000;

    /// <summary>ns: a packet that waits for the next one goes on by itself after this time.</summary>
    private const ulong LongestPark = 10_000_000;

    private const string Transmit = "tx";
    private const string Receiving = "rx";

    private readonly Lane _out = new();
    private readonly Lane _in = new();
    private readonly HostScratch _scratch = new(PacketLimits.MaxPacket);
    private Action? _ready;
    private volatile bool _unplugged;
    private long _faulted;

    /// <inheritdoc/>
    public int MaxPairs => inner.MaxPairs;

    /// <inheritdoc/>
    public PacketOffloads SendOffloads => inner.SendOffloads;

    /// <inheritdoc/>
    public PacketOffloads ReceiveOffloads => inner.ReceiveOffloads;

    /// <inheritdoc/>
    public bool LinkUp => !_unplugged && inner.LinkUp;

    /// <inheritdoc/>
    public IEnumerable<KeyValuePair<string, long>> Counters => inner.Counters.Append(new("faulted", Volatile.Read(ref _faulted)));

    /// <inheritdoc/>
    public void Configure(PacketOffloads receive, int pairs) => inner.Configure(receive, pairs);

    /// <inheritdoc/>
    public void OnReady(Action ready)
    {
        _ready = ready;
        inner.OnReady(ready);
    }

    /// <summary>Pulls the cable, or puts it in again. Any thread.</summary>
    public void SetLink(bool up)
    {
        _unplugged = !up;
        _ready?.Invoke();
    }

    /// <inheritdoc/>
    public PacketSent Send(int pair, ReadOnlySpan<HostSegment> packet)
    {
        if (_unplugged) return PacketSent.Dropped;
        if (_out.IsEmpty && !site.IsArmed) return inner.Send(pair, packet);
        Flush(pair);
        var bytes = Gather(packet);
        var verdict = Decide(Transmit, pair, _out, bytes, _out.Take);
        var sent = verdict switch
        {
            Verdict.PassOn => SendNow(pair, bytes),
            Verdict.Lost   => PacketSent.Dropped,
            _              => PacketSent.Done,
        };
        Flush(pair);
        return sent;
    }

    /// <inheritdoc/>
    public void Release(int pair)
    {
        if (!_out.IsEmpty) Flush(pair);
    }

    /// <inheritdoc/>
    public int Receive(int pair, ReadOnlySpan<HostSegment> into)
    {
        Release(pair);
        if (_unplugged)
        {
            while (inner.Receive(pair, into) > 0) { /* nothing comes through a cable that is out */ }
            return 0;
        }

        if (_in.IsEmpty && !site.IsArmed) return inner.Receive(pair, into);
        while (true)
        {
            if (_in.TryDue(site.Engine.Now, site.Engine.IsHealed, out var due)) return Scatter(due, into);
            var count = inner.Receive(pair, into);
            if (count == 0) return 0;
            var bytes = Gather(into, count);
            var verdict = Decide(Receiving, pair, _in, bytes, _in.Take);
            if (verdict != Verdict.PassOn) continue;
            return Scatter(bytes, into);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => inner.Dispose();

    private enum Verdict { PassOn, Kept, Lost }

    private Verdict Decide(string direction, int pair, Lane lane, byte[] bytes, Action<ulong, byte[]> keep)
    {
        var frame = (ulong)(bytes.Length - PacketHeader.Length);
        var happening = new FaultEvent(direction, First: frame, Queue: (2 * pair) + (direction is Transmit ? 1 : 0));
        var (now, verdict) = (site.Engine.Now, Verdict.PassOn);
        foreach (var hit in site.Fire(happening))
        {
            Volatile.Write(ref _faulted, _faulted + 1);
            switch (hit.Rule.Kind)
            {
                case FaultKind.NetLoss:
                    site.Report(hit, happening, "lost");
                    return Verdict.Lost;
                case FaultKind.NetDuplicate:
                    site.Report(hit, happening, "twice");
                    KeepUntil(now, (byte[])bytes.Clone(), keep);
                    break;
                case FaultKind.NetReorder:
                    site.Report(hit, happening, "after the next one");
                    lane.Park(now + LongestPark, bytes);
                    WakeAt(now + LongestPark);
                    return Verdict.Kept;
                case FaultKind.NetDelay:
                    site.Report(hit, happening, $"{hit.Rule.Delay} ns late");
                    KeepUntil(now + hit.Rule.Delay!.Value, bytes, keep);
                    verdict = Verdict.Kept;
                    break;
                case FaultKind.NetCorruption: Corrupt(hit, happening, bytes); break;
                case FaultKind.NetBandwidth:
                    if (lane.OnLine(now, frame, hit.Rule.Amount!.Value, LineBytes) is not { } done)
                    {
                        site.Report(hit, happening, "lost: the line is full");
                        return Verdict.Lost;
                    }

                    if (hit.First) site.Report(hit, happening, $"{hit.Rule.Amount} bytes per second");
                    KeepUntil(done, bytes, keep);
                    verdict = Verdict.Kept;
                    break;
                default: break;
            }

            if (verdict == Verdict.Kept) return verdict;
        }

        lane.Overtaken();
        return verdict;
    }

    private void Corrupt(in FaultHit hit, in FaultEvent happening, byte[] bytes)
    {
        var bits = (ulong)(bytes.Length - PacketHeader.Length) * 8;
        if (bits == 0) return;
        var bit = (ulong)(((UInt128)hit.Draw * bits) >> 64);
        bytes[PacketHeader.Length + (int)(bit >> 3)] ^= (byte)(1 << (int)(bit & 7));
        site.Report(hit, happening, $"bit {bit & 7} of byte {bit >> 3} flipped");
    }

    private void KeepUntil(ulong due, byte[] bytes, Action<ulong, byte[]> keep)
    {
        keep(due, bytes);
        WakeAt(due);
    }

    // The device then looks for packets on its own thread, and what is due goes out with that.
    private void WakeAt(ulong time) => at(time, () => _ready?.Invoke());

    private void Flush(int pair)
    {
        while (_out.TryDue(site.Engine.Now, site.Engine.IsHealed, out var due)) SendNow(pair, due);
    }

    private PacketSent SendNow(int pair, byte[] bytes)
    {
        bytes.CopyTo(_scratch.Bytes);
        return inner.Send(pair, [_scratch.Segment.Slice(0, bytes.Length)]);
    }

    private static byte[] Gather(ReadOnlySpan<HostSegment> packet, int count = int.MaxValue)
    {
        var length = 0;
        foreach (var segment in packet) length += segment.Length;
        var bytes = new byte[Math.Min(length, count)];
        var rest = bytes.AsSpan();
        foreach (var segment in packet)
        {
            var part = Math.Min(segment.Length, rest.Length);
            segment.Bytes[..part].CopyTo(rest);
            rest = rest[part..];
        }

        return bytes;
    }

    private static int Scatter(byte[] bytes, ReadOnlySpan<HostSegment> into)
    {
        var rest = bytes.AsSpan();
        foreach (var segment in into)
        {
            var part = Math.Min(segment.Length, rest.Length);
            rest[..part].CopyTo(segment.Bytes);
            rest = rest[part..];
        }

        return rest.IsEmpty ? bytes.Length : 0; // one that does not fit is lost
    }

    /// <summary>Packets of one direction that wait.</summary>
    private sealed class Lane
    {
        /// <summary>Most packets that wait; a guest cannot make the host keep more.</summary>
        private const int MaxWaiting = 4096;

        private readonly PriorityQueue<byte[], (ulong Due, ulong Order)> _waiting = new();
        private readonly Queue<(ulong Due, byte[] Packet)> _parked = new();
        private readonly Queue<byte[]> _passed = new();
        private ulong _order;
        private ulong _lineFree;

        public bool IsEmpty => _waiting.Count == 0 && _parked.Count == 0 && _passed.Count == 0;

        public void Take(ulong due, byte[] packet)
        {
            if (_waiting.Count < MaxWaiting) _waiting.Enqueue(packet, (due, _order++));
        }

        /// <summary>Waits for the next packet to pass.</summary>
        public void Park(ulong due, byte[] packet)
        {
            if (_parked.Count < MaxWaiting) _parked.Enqueue((due, packet));
        }

        /// <summary>A packet passes: those that waited for it follow.</summary>
        public void Overtaken()
        {
            while (_parked.TryDequeue(out var parked)) _passed.Enqueue(parked.Packet);
        }

        /// <summary>A packet on a slow line: when it is through; null where the line is full.</summary>
        public ulong? OnLine(ulong now, ulong bytes, ulong perSecond, ulong capacity)
        {
            var free = Math.Max(_lineFree, now);
            var waiting = (ulong)((UInt128)(free - now) * perSecond / 1_000_000_000);
            if (waiting + bytes > capacity && waiting > 0) return null;
            return _lineFree = free + (ulong)((UInt128)bytes * 1_000_000_000 / perSecond);
        }

        public bool TryDue(ulong now, bool all, out byte[] packet)
        {
            if (_passed.TryDequeue(out packet!)) return true;
            if (_waiting.TryPeek(out packet!, out var first) && (all || first.Due <= now))
            {
                _waiting.Dequeue();
                return true;
            }

            if (!_parked.TryPeek(out var parked) || !(all || parked.Due <= now)) return false;
            packet = _parked.Dequeue().Packet;
            return true;
        }
    }
}
