using ActorVmm.Devices.Virtio.Queue;
using ActorVmm.Memory;

namespace ActorVmm.Devices.Virtio.Net;

/// <summary>
/// One receive queue (virtio 1.2 §5.1.6.3 and .4). It holds the driver's buffers ready, lets the packet port write straight into them, and
/// completes as many as a packet took. Behind the buffers lies a scratch of the largest packet's size, so that a packet is never cut off: one
/// that reached into it is kept aside until there are buffers for it, or dropped where there never will be. One that the rate limit holds back
/// is kept in the same place, which outlives the device: a restart loses neither, nor one that lies in the driver's buffers.
/// </summary>
internal sealed class ReceiveQueue
{
    private const int BatchPackets = 64, BatchBytes = 512 << 10;

    /// <summary>
    /// A packet that waits for buffers to be added to those that are held is looked at this often, in nanoseconds of machine time, ...
    /// </summary>
    private const ulong LookEvery = 10_000_000;

    /// <summary>
    /// ... and given up after so many looks, or at the first at which the driver has dealt with all that it was given: it may add none before
    /// some of those that are held are completed (Linux fills a queue up when half of 64 are gone), and then none would ever come.
    /// </summary>
    private const int MaxLooks = 20;

    /// <summary>Pieces at most: one is for the scratch.</summary>
    private const int MaxPieces = PacketLimits.MaxSegments - 1;

    private readonly NetDevice _device;
    private readonly int _pair;
    private readonly Held[] _held;
    private readonly HostSegment[] _pieces = new HostSegment[MaxPieces + 1];
    private readonly HostScratch _scratch = new(PacketLimits.MaxPacket);
    private int _heldCount, _pieceCount;
    private long _capacity;
    private bool _resumed;
    private bool _continues; // of the packet in the buffers, the first ones are the driver's already
    private readonly KeptPacket _kept;

    /// <summary>A driver's buffer that is ready.</summary>
    private struct Held
    {
        public DescriptorChain Chain;
        public int Pieces;
        public int Length;
    }

    public ReceiveQueue(NetDevice device, int pair, ushort size)
    {
        (_device, _pair) = (device, pair);
        _kept = device.Kept(pair);
        _held = new Held[size];
    }

    private VirtQueue Queue => _device.Port.Queue(2 * _pair);

    private bool Merge => _device.Has(NetFeatures.MergeBuffers);

    /// <summary>The driver's buffers are gone.</summary>
    public void Clear()
    {
        _kept.Clear();
        _heldCount = _pieceCount = 0;
        _continues = false;
        _device.InBuffers(_pair) = default;
        _capacity = 0;
        Array.Clear(_held);
    }

    /// <summary>When to look at a packet that waits for more buffers, in machine time; null where none does.</summary>
    public ulong? Deadline => _kept.Look;

    /// <summary>It is that late.</summary>
    public void Advance(ulong nanoseconds)
    {
        if (!(_kept.Look <= nanoseconds)) return;
        // In this order: buffers that the driver added before it was through are seen.
        var through = Queue.IsDriverThrough;
        if (_resumed && Gather(_kept.Length) && _capacity >= _kept.Length) _kept.Look = null;
        else if (through || ++_kept.Looks >= MaxLooks) GiveUp();
        else _kept.Look = nanoseconds + LookEvery;
    }

    /// <summary>Passes on what waits outside, as far as there are buffers, and as much as one message should.</summary>
    public void Serve()
    {
        if (!_resumed) Resume();
        var bytes = 0;
        for (var packets = 0; ; packets++)
        {
            if (packets == BatchPackets || bytes >= BatchBytes)
            {
                _device.Again();
                return;
            }
            if (!Gather(_kept.Length > 0 ? _kept.Length : _device.ReceiveRoom)) return; // no buffers: it waits outside
            var length = _kept.Length;
            if (length > 0)
            {
                if (!HasRoomForKept() || !_device.MayReceive((ulong)length)) return;
                PutBack();
            }
            else
            {
                _pieces[_pieceCount] = _scratch.Segment;
                length = _device.Packets.Receive(_pair, _pieces.AsSpan(0, _pieceCount + 1));
                if (length == 0) return;
                if (length < PacketLimits.MinPacket) continue; // nothing that could be a packet
                if (!_device.WantsFrame(Destination()))
                {
                    _device.Counters.Add(NetCounter.Filtered);
                    continue;
                }
                if (length > _capacity && !Merge)
                {
                    _device.Counters.Add(NetCounter.ReceivedNoRoom); // one buffer is all that it may take
                    continue;
                }
                if (length > _capacity)
                {
                    Keep(length);
                    continue;
                }
                if (!_device.MayReceive((ulong)length))
                {
                    Keep(length); // until the limiter's deadline
                    return;
                }
            }
            bytes += length;
            Note(0, length, isFirst: true);
            _kept.Clear(); // it lies in the buffers, where a next instance finds it
            Finish(length);
        }
    }

    /// <summary>
    /// The instance before this one has failed, maybe with a packet in the driver's buffers: they come again, oldest first, and it still lies
    /// in them.
    /// </summary>
    private void Resume()
    {
        var need = _device.InBuffers(_pair).Left;
        if (need > 0 && !Gather(need)) return; // no buffer yet
        _resumed = true;
        FinishBefore();
        for (var i = 0; i < _heldCount; i++) Queue.Waits(_held[i].Chain);
    }

    private void FinishBefore()
    {
        var before = _device.InBuffers(_pair);
        _device.InBuffers(_pair) = default;
        // A buffer that comes for the first time has nothing in it: then all of the packet's had been completed.
        if (before.Left == 0 || _held[0].Chain.Attempts < 2) return;
        var isSame = _held[0].Chain.Head == before.Head; // else that one had been completed
        var left = isSame ? before.Left : before.Left - before.Part;
        if (left == 0 || left > _capacity) return; // a driver may have changed its buffers meanwhile
        _continues = !(isSame && before.IsFirst);
        Note(0, left, !_continues);
        Finish(left);
    }

    /// <summary>Remembers a packet in the buffers for the case that this instance fails.</summary>
    private void Note(int buffer, int left, bool isFirst)
    {
        ref var held = ref _held[buffer];
        _device.InBuffers(_pair) = new NetControl.Unfinished(held.Chain.Head, left, Math.Min(left, held.Length), isFirst);
    }

    /// <summary>The link is down: what waits outside is lost.</summary>
    public void Discard()
    {
        _device.InBuffers(_pair) = default;
        if (_kept.Length > 0)
        {
            _kept.Clear();
            _device.Counters.Add(NetCounter.LinkDown);
        }
        ReadOnlySpan<HostSegment> scratch = [_scratch.Segment];
        for (var packets = 0; packets < BatchPackets; packets++)
        {
            if (_device.Packets.Receive(_pair, scratch) == 0) return;
            _device.Counters.Add(NetCounter.LinkDown);
        }
        _device.Again();
    }

    /// <summary>Holds buffers for <paramref name="need"/> bytes, or as many as there are; without merging, one. False where there is none.</summary>
    private bool Gather(int need)
    {
        var merge = Merge;
        while ((merge ? _capacity < need : _heldCount == 0) && _heldCount < _held.Length && Queue.TryTake(out var chain))
        {
            if (!TryHold(chain))
            {
                if (chain.Writable.Length + _pieceCount > MaxPieces && _heldCount > 0)
                {
                    Queue.Untake(chain); // enough pieces for one call
                    break;
                }
                _device.Counters.Add(chain.IsSuspect ? NetCounter.Suspect : NetCounter.BadBuffers);
                _device.InBuffers(_pair) = default; // a packet that began in it is given up with it
                Queue.Complete(chain, 0);
            }
        }
        return _heldCount > 0;
    }

    private bool TryHold(DescriptorChain chain)
    {
        // A buffer must hold a packet's header (§5.1.6.3.1), and its driver must want it written.
        if (chain.IsSuspect || chain.WritableLength < PacketHeader.Length || chain.ReadableLength > 0
            || chain.Writable.Length + _pieceCount > MaxPieces)
            return false;
        var count = _pieceCount;
        long length = 0;
        foreach (var segment in chain.Writable)
        {
            // More than the largest packet is never filled.
            var part = (int)Math.Min(segment.Length, PacketLimits.MaxPacket);
            if (!chain.Memory.TryLocate(segment.Address, part, out _pieces[count])) return false;
            length += part;
            count++;
            if (part < segment.Length) break; // what follows would not be contiguous in the buffer's own terms
        }
        _held[_heldCount++] = new Held { Chain = chain, Pieces = count - _pieceCount, Length = (int)length };
        _pieceCount = count;
        _capacity += length;
        if (_resumed) Queue.Waits(chain); // before that, what a failed instance has received may lie in it
        return true;
    }

    /// <summary>A packet lies in the buffers: they are completed.</summary>
    private void Finish(int length)
    {
        var left = length;
        var used = 0;
        while (left > 0) left -= _held[used++].Length;
        if (!_continues) _held[0].Chain.TryWrite(PacketHeader.BufferCountOffset, (ushort)used); // 1 without merging, as it must be (§5.1.6.4.1)
        left = length;
        var pieces = 0;
        for (var i = 0; i < used; i++)
        {
            ref var held = ref _held[i];
            var part = Math.Min(left, held.Length);
            held.Chain.Written(0, (ulong)part);
            Note(i, left, isFirst: i == 0 && !_continues);
            Queue.Complete(held.Chain, (uint)part);
            left -= part;
            pieces += held.Pieces;
            _capacity -= held.Length;
        }
        _device.InBuffers(_pair) = default;
        _continues = false;
        _heldCount -= used;
        _pieceCount -= pieces;
        Array.Copy(_held, used, _held, 0, _heldCount);
        Array.Clear(_held, _heldCount, used);
        Array.Copy(_pieces, pieces, _pieces, 0, _pieceCount);
        _device.Counters.Add(NetCounter.Received);
        _device.Counters.Add(NetCounter.ReceivedBytes, length - PacketHeader.Length);
    }

    /// <summary>The packet in the pieces cannot be passed on now: it is kept, whole.</summary>
    private void Keep(int length)
    {
        var bytes = _kept.Bytes ??= new byte[PacketLimits.MaxPacket];
        var at = 0;
        foreach (var piece in _pieces.AsSpan(0, _pieceCount + 1))
        {
            var part = Math.Min(piece.Length, length - at);
            piece.Bytes[..part].CopyTo(bytes.AsSpan(at));
            at += part;
        }
        _kept.Length = length;
    }

    /// <summary>Whether the buffers at hand take the packet that was kept; dropped where the driver's never will.</summary>
    private bool HasRoomForKept()
    {
        if (_capacity >= _kept.Length)
        {
            _kept.Look = null; // it may wait for the rate limit now, as long as that takes
            return true;
        }
        if (Merge && _heldCount < Queue.Size && _pieceCount < MaxPieces / 2) _kept.Look ??= _device.Now + LookEvery;
        else GiveUp();
        return false;
    }

    private void GiveUp()
    {
        _kept.Clear();
        _device.Counters.Add(NetCounter.ReceivedNoRoom);
        _device.Again();
    }

    /// <summary>Copies the packet that was kept into the buffers.</summary>
    private void PutBack()
    {
        var at = 0;
        foreach (var piece in _pieces.AsSpan(0, _pieceCount))
        {
            var part = Math.Min(piece.Length, _kept.Length - at);
            _kept.Bytes.AsSpan(at, part).CopyTo(piece.Bytes);
            at += part;
        }
    }

    /// <summary>Where the packet that was just received goes: six bytes behind its header, which may lie in two pieces.</summary>
    private ReadOnlySpan<byte> Destination()
    {
        var first = _pieces[0];
        const int End = PacketHeader.Length + MacAddress.Length;
        if (first.Length >= End) return first.Bytes[PacketHeader.Length..End];
        var at = 0;
        foreach (var piece in _pieces.AsSpan(0, _pieceCount + 1))
        {
            for (var i = 0; i < piece.Length && at < End; i++, at++)
                if (at >= PacketHeader.Length) _destination[at - PacketHeader.Length] = piece.Bytes[i];
            if (at == End) break;
        }
        return _destination;
    }

    private readonly byte[] _destination = new byte[MacAddress.Length];
}
