using System.Numerics;
using System.Runtime.InteropServices;
using ActorVmm.Devices.Virtio.Queue;

namespace ActorVmm.Devices.Virtio.Block;

/// <summary>
/// The block device (virtio 1.2 §5.2): takes requests, checks them, gives them to its disk with the guest's own memory, and answers as they
/// are done, in any order. Requests of the driver that make no sense are answered with an error and change nothing.
/// </summary>
public sealed class BlockDevice : IVirtioDevice, ITimedDevice
{
    /// <summary>Most bytes of one read or write; Linux asks for 1.25 MiB at the most. It bounds how long one request can take.</summary>
    public const ulong MaxRequestBytes = 256 << 20;

    /// <summary>Most sectors of one range to discard or to zero: where the host has to write zeroes itself, 16 MiB of them.</summary>
    public const uint MaxRangeSectors = 32768;

    /// <summary>Most ranges of one request.</summary>
    public const int MaxRanges = 16;

    /// <summary>Bytes of the answer to GET_ID (virtio 1.2 §5.2.6).</summary>
    public const int IdLength = 20;

    private const int PageSize = 4096;
    private const int StateBytes = 8 + (6 * 8);

    private readonly IDisk _disk;
    private readonly IClock _clock;
    private readonly BlockCounters _counters;
    private readonly RateLimiter _limiter;
    private readonly ushort[] _queueSizes;
    private readonly List<Slot> _slots = [];
    private readonly Stack<Slot> _free = new();
    private ulong _capacity;
    private BlockFeatures _features;
    private IVirtioPort? _port;
    private int _turn;
    private bool _waiting; // something is left in the queues, to be looked at when the deadline comes

    /// <param name="disk">Where the sectors are. It outlives this object.</param>
    /// <param name="settings">How the device looks.</param>
    /// <param name="clock">Machine time, for the rate limits.</param>
    /// <param name="counters">They outlive this object.</param>
    public BlockDevice(IDisk disk, BlockSettings settings, IClock clock, BlockCounters counters)
    {
        ArgumentNullException.ThrowIfNull(disk);
        ArgumentNullException.ThrowIfNull(settings);
        ArgumentNullException.ThrowIfNull(clock);
        (_disk, _clock, _counters) = (disk, clock, counters);
        _capacity = disk.Sectors;
        _limiter = new RateLimiter(settings.RateLimit, clock.Nanoseconds);
        _queueSizes = new ushort[settings.Queues];
        Array.Fill(_queueSizes, settings.QueueSize);
    }

    /// <inheritdoc/>
    public uint DeviceId => 2;

    /// <inheritdoc/>
    public ulong Features => (ulong)(BlockFeatures.SegMax | BlockFeatures.BlockSize | BlockFeatures.Topology
        | (_disk.ReadOnly ? BlockFeatures.ReadOnly : BlockFeatures.WriteZeroes)
        | (_disk is { ReadOnly: false, Discards: true } ? BlockFeatures.Discard : 0)
        | (_disk.Flushes ? BlockFeatures.Flush : 0)
        | (_queueSizes.Length > 1 ? BlockFeatures.MultiQueue : 0));

    /// <inheritdoc/>
    public IReadOnlyList<ushort> QueueSizes => _queueSizes;

    /// <inheritdoc/>
    public int StateSize => StateBytes;

    /// <inheritdoc/>
    /// <remarks>When requests that the rate limiter holds back may go on; or now, where a turn's share was used up.</remarks>
    public ulong? Deadline => _waiting ? _limiter.Deadline ?? 0 : null;

    /// <summary>The limits; may be changed at run time, on the device's thread.</summary>
    public RateLimiterSpec RateLimit
    {
        get => _limiter.Spec;
        set
        {
            _limiter.Change(value, _clock.Nanoseconds);
            _port?.StateChanged();
            ServeAll();
        }
    }

    /// <inheritdoc/>
    public void ReadConfig(int offset, Span<byte> into)
    {
        into.Clear();
        var config = Config();
        var bytes = MemoryMarshal.AsBytes(new ReadOnlySpan<BlockConfig>(in config));
        if (offset < 0 || offset >= bytes.Length) return;
        bytes = bytes[offset..];
        bytes[..Math.Min(bytes.Length, into.Length)].CopyTo(into);
    }

    /// <inheritdoc/>
    public void WriteConfig(int offset, ReadOnlySpan<byte> from) { /* all of it is read-only without CONFIG_WCE */ }

    /// <inheritdoc/>
    public void Activate(ulong features, IVirtioPort port)
    {
        // A failed instance may have left requests with the disk; they come out of the queues again.
        Forget();
        (_features, _port) = ((BlockFeatures)features, port);
        AnnounceCapacity();
    }

    /// <inheritdoc/>
    public void Reset()
    {
        Forget();
        (_features, _port, _waiting) = (BlockFeatures.None, null, false);
        _limiter.Forget();
        _capacity = _disk.Sectors;
    }

    /// <inheritdoc/>
    public void OnQueueReset(int index)
    {
        _disk.Abandon();
        foreach (var slot in _slots)
            if (slot.Chain is { } chain && chain.Id.Queue == index) Release(slot);
        // The disk forgot those of the other queues too. Nothing is lost by doing them again: nobody knows of an answer yet.
        for (var i = 0; i < _slots.Count; i++)
            if (_slots[i].Chain is not null) Submit(_slots[i]);
    }

    /// <inheritdoc/>
    public void OnNotify(int index)
    {
        if (_port is not null && (!_waiting || _limiter.Deadline is null)) Serve(_port.Queue(index));
    }

    /// <inheritdoc/>
    public void OnBackend()
    {
        while (_disk.TryTakeCompleted(out var request))
        {
            var slot = _slots[request.Slot];
            if (slot.Chain is not null && ReferenceEquals(slot.Request, request)) Advance(slot);
        }
        AnnounceCapacity();
    }

    /// <inheritdoc/>
    public void Advance(ulong nanoseconds)
    {
        if (_waiting && nanoseconds >= (_limiter.Deadline ?? 0)) ServeAll();
    }

    /// <inheritdoc/>
    public void SaveState(Span<byte> into)
    {
        var words = MemoryMarshal.Cast<byte, ulong>(into);
        words[0] = _capacity;
        var (bandwidth, operations) = (_limiter.State.Bandwidth, _limiter.State.Operations);
        (words[1], words[2], words[3]) = (bandwidth.Budget, bandwidth.Burst, bandwidth.At);
        (words[4], words[5], words[6]) = (operations.Budget, operations.Burst, operations.At);
    }

    /// <inheritdoc/>
    public bool RestoreState(ReadOnlySpan<byte> from)
    {
        if (from.Length != StateBytes) return false;
        var words = MemoryMarshal.Cast<byte, ulong>(from);
        var state = new RateLimiterState(new(words[1], words[2], words[3]), new(words[4], words[5], words[6]));
        if (!Fits(state.Bandwidth, _limiter.Spec.Bandwidth) || !Fits(state.Operations, _limiter.Spec.Operations)) return false;
        _capacity = words[0];
        _limiter.State = state;
        return true;

        static bool Fits(TokenBucket bucket, TokenBucketSpec spec) => bucket.Budget <= spec.Size && bucket.Burst <= spec.OneTimeBurst;
    }

    public override string ToString() =>
        $"{_disk.Id}: {_capacity} sectors, {_slots.Count - _free.Count} in flight, {_counters}" +
        (_disk.LastError is { } error ? $", last error: {error}" : "");

    private BlockConfig Config()
    {
        var block = _disk.BlockSize;
        var physical = Math.Max(block, PageSize); // less than that, and the host reads before it writes
        var config = new BlockConfig
        {
            Capacity = _capacity,
            SegMax = (uint)Math.Min(_queueSizes[0] - 2, 1022),
            BlockSize = (uint)block,
            PhysicalBlockExponent = (byte)BitOperations.Log2((uint)(physical / block)),
            MinimumIo = (ushort)(physical / block),
            Queues = (ushort)_queueSizes.Length,
        };
        if (_disk.ReadOnly) return config;
        (config.MaxZeroSectors, config.MaxZeroRanges, config.ZeroesMayUnmap) = (MaxRangeSectors, MaxRanges, 1);
        if (_disk.Discards)
            (config.MaxDiscardSectors, config.MaxDiscardRanges, config.DiscardAlignment) = (MaxRangeSectors, MaxRanges, (uint)block / 512);
        return config;
    }

    private void AnnounceCapacity()
    {
        if (_capacity == _disk.Sectors) return;
        _capacity = _disk.Sectors;
        if (_port is null) return;
        _port.StateChanged();
        _port.ConfigChanged();
    }

    private void ServeAll()
    {
        _waiting = false;
        if (_port is null) return;
        // Each time another queue is the first, so that none starves where the limits let only a few requests pass.
        _turn = (_turn + 1) % _queueSizes.Length;
        for (var i = 0; i < _queueSizes.Length && (!_waiting || _limiter.Deadline is null); i++)
            Serve(_port.Queue((_turn + i) % _queueSizes.Length));
    }

    private void Serve(VirtQueue queue)
    {
        // A driver on another vCPU may fill the queue as fast as it is emptied; after this much the vCPU that rang gets its turn.
        for (var left = 4 * queue.Size; left > 0; left--)
        {
            if (!queue.TryTake(out var chain)) return;
            if (!Take(queue, chain)) return;
        }
        _waiting = true;
    }

    /// <summary>Begins one request; false where it, and with it its queue, has to wait.</summary>
    private bool Take(VirtQueue queue, DescriptorChain chain)
    {
        var slot = _free.Count > 0 ? _free.Pop() : NewSlot();
        (slot.Queue, slot.Chain) = (queue, chain);
        var fault = Parse(slot);
        if (fault is { } status)
        {
            if (status != BlockStatus.Ok) _counters.CountMalformed();
            Answer(slot, status, written: slot.Answered);
            return true;
        }
        if (_limiter.Spec.Enabled && !Admit(slot))
        {
            queue.Untake(chain);
            Release(slot);
            _waiting = true;
            return false;
        }
        Submit(slot);
        return true;
    }

    private bool Admit(Slot slot)
    {
        var throttled = _limiter.Deadline is null;
        // Firecracker's contract: each request is an operation, and only data counts as bytes.
        if (_limiter.TryTake(slot.Request.Bytes, _clock.Nanoseconds))
        {
            _port!.StateChanged();
            return true;
        }
        if (throttled) _counters.CountThrottled();
        return false;
    }

    private void Submit(Slot slot)
    {
        if (_disk.Start(slot.Request)) Advance(slot);
    }

    /// <summary>The disk is done with the slot's request: the next range of the same, or the answer.</summary>
    private void Advance(Slot slot)
    {
        while (true)
        {
            var request = slot.Request;
            if (request.Status != DiskStatus.Ok)
            {
                _counters.CountError();
                Answer(slot, request.Status == DiskStatus.Unsupported ? BlockStatus.Unsupported : BlockStatus.IoError, written: 0);
                return;
            }
            if (++slot.Range < slot.RangeCount)
            {
                slot.SetRange();
                if (_disk.Start(request)) continue;
                return;
            }
            _counters.Count(request);
            if (request.Operation == DiskOperation.Read) slot.Chain!.Written(0, request.Bytes);
            Answer(slot, BlockStatus.Ok, request.Operation == DiskOperation.Read ? (uint)request.Bytes : 0);
            return;
        }
    }

    /// <summary>Writes the status byte, where there is one, and gives the chain back.</summary>
    /// <param name="slot">It is free afterwards.</param>
    /// <param name="status">How it ended.</param>
    /// <param name="written">Bytes of data in front of the status that were written.</param>
    private void Answer(Slot slot, BlockStatus status, uint written)
    {
        var (queue, chain) = (slot.Queue!, slot.Chain!);
        Release(slot);
        var room = chain.WritableLength;
        // The used length counts from the first writable byte (§2.7.8.2): where data in front of the status is missing, it is 0.
        uint length = 0;
        if (room > 0 && chain.TryWrite(room - 1, [(byte)status]) && written == room - 1) length = written + 1;
        queue.Complete(chain, length);
    }

    /// <summary>Makes the slot's disk request from its chain; a status where there is nothing for the disk to do.</summary>
    private BlockStatus? Parse(Slot slot)
    {
        var chain = slot.Chain!;
        var request = slot.Request;
        (slot.Range, slot.RangeCount, slot.Answered) = (0, 0, 0);
        if (chain.IsSuspect || chain.WritableLength == 0 || !chain.TryRead(0, out BlockHeader header)) return BlockStatus.IoError;
        var (data, room) = (chain.ReadableLength - BlockHeader.Size, chain.WritableLength - 1);
        switch (header.Type)
        {
            case BlockRequestType.In:
                if (data != 0 || !IsOnDisk(header.Sector, room)) return BlockStatus.IoError;
                request.Set(DiskOperation.Read, header.Sector);
                return Locate(slot, chain.Writable, skip: 0, room) ? null : BlockStatus.IoError;
            case BlockRequestType.Out:
                if (room != 0 || _disk.ReadOnly || !IsOnDisk(header.Sector, data)) return BlockStatus.IoError;
                // Without FLUSH the driver cannot ask for it later: what is written is durable at once (§5.2.6.2), if flushes mean anything.
                request.Set(DiskOperation.Write, header.Sector, flag: _disk.Flushes && (_features & BlockFeatures.Flush) == 0);
                return Locate(slot, chain.Readable, BlockHeader.Size, data) ? null : BlockStatus.IoError;
            case BlockRequestType.Flush:
                if ((_features & BlockFeatures.Flush) == 0) return BlockStatus.Unsupported;
                request.Set(DiskOperation.Flush, 0);
                return data == 0 && room == 0 ? null : BlockStatus.IoError;
            case BlockRequestType.GetId: return AnswerId(slot, data, room);
            case BlockRequestType.Discard or BlockRequestType.WriteZeroes: return ParseRanges(slot, header.Type, data, room);
            default: return BlockStatus.Unsupported;
        }
    }

    private bool IsOnDisk(ulong sector, ulong bytes)
    {
        var sectors = _disk.Sectors;
        return bytes is > 0 and <= MaxRequestBytes && bytes % DiskRequest.SectorSize == 0
            && sector <= sectors && bytes / DiskRequest.SectorSize <= sectors - sector;
    }

    /// <summary>Adds the guest memory of <paramref name="count"/> bytes after <paramref name="skip"/>.</summary>
    private static bool Locate(Slot slot, ReadOnlySpan<GuestSegment> segments, ulong skip, ulong count)
    {
        var memory = slot.Chain!.Memory;
        foreach (var segment in segments)
        {
            if (skip >= segment.Length)
            {
                skip -= segment.Length;
                continue;
            }
            var part = Math.Min(segment.Length - skip, count); // at most MaxRequestBytes
            if (part == 0) break;
            if (!memory.TryLocate(segment.Address + skip, (int)part, out var slice)) return false;
            slot.Request.Add(slice);
            (skip, count) = (0, count - part);
        }
        return count == 0;
    }

    private BlockStatus AnswerId(Slot slot, ulong data, ulong room)
    {
        if (data != 0 || room < IdLength) return BlockStatus.IoError;
        Span<byte> id = stackalloc byte[IdLength];
        id.Clear(); // padded with zeroes, and without one where all 20 are used
        for (var i = 0; i < Math.Min(_disk.Id.Length, IdLength); i++) id[i] = char.IsAscii(_disk.Id[i]) ? (byte)_disk.Id[i] : (byte)'?';
        if (!slot.Chain!.TryWrite(0, id)) return BlockStatus.IoError;
        _counters.CountOther();
        slot.Answered = room == IdLength ? (uint)IdLength : 0;
        return BlockStatus.Ok;
    }

    private BlockStatus? ParseRanges(Slot slot, BlockRequestType type, ulong data, ulong room)
    {
        var zeroes = type == BlockRequestType.WriteZeroes;
        if (_disk.ReadOnly) return BlockStatus.IoError;
        if ((_features & (zeroes ? BlockFeatures.WriteZeroes : BlockFeatures.Discard)) == 0) return BlockStatus.Unsupported;
        if (room != 0 || data is 0 or > MaxRanges * BlockRange.Size || data % BlockRange.Size != 0) return BlockStatus.IoError;
        var count = (int)(data / BlockRange.Size);
        for (var i = 0; i < count; i++)
        {
            if (!slot.Chain!.TryRead(BlockHeader.Size + ((ulong)i * BlockRange.Size), out slot.Ranges[i])) return BlockStatus.IoError;
            var range = slot.Ranges[i];
            if ((range.Flags & ~(zeroes ? BlockRange.Unmap : 0)) != 0) return BlockStatus.Unsupported; // §5.2.6.2
            if (range.Sectors is 0 or > MaxRangeSectors || range.Sector > _disk.Sectors || range.Sectors > _disk.Sectors - range.Sector)
                return BlockStatus.IoError;
        }
        (slot.RangeCount, slot.RangeOperation) = (count, zeroes ? DiskOperation.WriteZeroes : DiskOperation.Discard);
        slot.SetRange();
        return null;
    }

    /// <summary>Nothing is under way any more.</summary>
    private void Forget()
    {
        _disk.Abandon();
        foreach (var slot in _slots)
            if (slot.Chain is not null) Release(slot);
    }

    private Slot NewSlot()
    {
        // As many as requests were ever in flight at once, which the queues bound.
        var slot = new Slot(_slots.Count);
        _slots.Add(slot);
        return slot;
    }

    private void Release(Slot slot)
    {
        (slot.Queue, slot.Chain) = (null, null);
        _free.Push(slot);
    }

    /// <summary>One request in flight.</summary>
    private sealed class Slot(int index)
    {
        public DiskRequest Request { get; } = new(index);
        public VirtQueue? Queue;
        public DescriptorChain? Chain; // null: the slot is free
        public readonly BlockRange[] Ranges = new BlockRange[MaxRanges];
        public int Range;
        public int RangeCount;
        public DiskOperation RangeOperation;
        public uint Answered;

        public void SetRange() => Request.Set(RangeOperation, Ranges[Range].Sector, Ranges[Range].Sectors,
            flag: RangeOperation == DiskOperation.WriteZeroes && (Ranges[Range].Flags & BlockRange.Unmap) != 0);
    }
}
