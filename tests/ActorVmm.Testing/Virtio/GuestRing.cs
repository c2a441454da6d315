using ActorVmm.Memory;

namespace ActorVmm.Testing.Virtio;

/// <summary>One buffer of a request.</summary>
public readonly record struct GuestBuffer(GuestAddress Address, uint Length, bool Writable);

/// <summary>One used element as the driver sees it.</summary>
public readonly record struct UsedBuffer(uint Head, uint Written);

/// <summary>
/// The driver's side of a split virtqueue in guest RAM, as Linux's virtio_ring keeps it: a free list of descriptors, chains or indirect
/// tables, and notification wishes both ways. The raw setters are for drivers that break the rules.
/// </summary>
public sealed class GuestRing
{
    public const ushort Next = 1;
    public const ushort Write = 2;
    public const ushort Indirect = 4;

    private readonly GuestMemory _memory;
    private readonly bool _eventIndex;
    private readonly bool _indirect;
    private readonly ushort[] _chainLength;
    private readonly ushort[] _next;
    private ushort _free;
    private ushort _lastUsed;
    private ushort _published;

    /// <param name="memory">Guest RAM.</param>
    /// <param name="at">A page of it; the ring takes <see cref="BytesFor"/> bytes from there.</param>
    /// <param name="size">Entries, a power of two.</param>
    /// <param name="eventIndex">VIRTIO_F_EVENT_IDX was negotiated.</param>
    /// <param name="indirect">Chains of two and more go through indirect tables.</param>
    public GuestRing(GuestMemory memory, GuestAddress at, ushort size, bool eventIndex, bool indirect = false)
    {
        _memory = memory;
        Size = size;
        _eventIndex = eventIndex;
        _indirect = indirect;
        Descriptors = at;
        Available = at + (ulong)(16 * size);
        Used = new GuestAddress((Available.Value + (ulong)(6 + 2 * size) + 3) & ~3UL);
        Tables = new GuestAddress((Used.Value + (ulong)(6 + 8 * size) + 15) & ~15UL);
        _chainLength = new ushort[size];
        _next = new ushort[size];
        Clear();
    }

    public ushort Size { get; }
    public GuestAddress Descriptors { get; }
    public GuestAddress Available { get; }
    public GuestAddress Used { get; }

    /// <summary>Indirect tables, one of <see cref="Size"/> descriptors per head.</summary>
    public GuestAddress Tables { get; }

    /// <summary>Descriptors that are free.</summary>
    public int FreeCount { get; private set; }

    /// <summary>The available index that was last written.</summary>
    public ushort AvailableIndex { get; private set; }

    /// <summary>The used index that the driver has come to.</summary>
    public ushort LastUsed => _lastUsed;

    /// <summary>Bytes that a ring of this size takes, indirect tables included.</summary>
    public static ulong BytesFor(ushort size) => (ulong)(16 * size + 6 + 2 * size + 4 + 6 + 8 * size + 16) + 16UL * size * size;

    /// <summary>An empty ring, in RAM too.</summary>
    public void Clear()
    {
        for (ushort i = 0; i < Size; i++) _next[i] = (ushort)(i + 1);
        _free = 0;
        FreeCount = Size;
        AvailableIndex = _lastUsed = _published = 0;
        foreach (var (start, end) in ((GuestAddress, GuestAddress)[])[(Descriptors, Available), (Available, Used), (Used, Tables)])
        {
            if (!_memory.TrySliceForWrite(start, (int)(end.Value - start.Value), out var bytes))
                throw new InvalidOperationException("no RAM");
            bytes.Clear();
        }
    }

    /// <summary>Makes a request available (readable buffers first); the device sees it with <see cref="Publish"/>.</summary>
    /// <returns>Its head, or -1 where no descriptors are free.</returns>
    public int Add(params ReadOnlySpan<GuestBuffer> buffers)
    {
        var head = _free;
        if (_indirect && buffers.Length > 1)
        {
            if (FreeCount < 1) return -1;
            var table = Tables + 16UL * Size * head;
            for (var i = 0; i < buffers.Length; i++)
            {
                var last = i == buffers.Length - 1;
                SetDescriptor(table + (ulong)(16 * i), buffers[i].Address, buffers[i].Length,
                    (ushort)((buffers[i].Writable ? Write : 0) | (last ? 0 : Next)), (ushort)(last ? 0 : i + 1));
            }

            SetDescriptor(head, table, (uint)(16 * buffers.Length), Indirect, 0);
            Take(head, 1);
        }
        else
        {
            if (FreeCount < buffers.Length) return -1;
            var at = head;
            for (var i = 0; i < buffers.Length; i++)
            {
                var last = i == buffers.Length - 1;
                SetDescriptor(at, buffers[i].Address, buffers[i].Length,
                    (ushort)((buffers[i].Writable ? Write : 0) | (last ? 0 : Next)), last ? (ushort)0 : _next[at]);
                at = _next[at];
            }

            Take(head, (ushort)buffers.Length);
        }

        SetAvailable(_published, head);
        _published++;
        return head;
    }

    /// <summary>The device sees what was added. True where it wants its doorbell rung.</summary>
    public bool Publish()
    {
        var before = AvailableIndex;
        SetAvailableIndex(_published);
        if (before == _published) return false;
        Interlocked.MemoryBarrier();
        if (!_eventIndex) return (Read(Used) & 1) == 0;
        var wish = Read(Used + (ulong)(4 + 8 * Size));
        return (ushort)(_published - wish - 1) < (ushort)(_published - before);
    }

    /// <summary>The next used element; its descriptors are free again.</summary>
    public bool TryCollect(out UsedBuffer used)
    {
        used = default;
        if (UsedIndex == _lastUsed) return false;
        if (!_memory.TryRead(Used + (ulong)(4 + 8 * (_lastUsed % Size)), out ulong element)) return false;
        used = new UsedBuffer((uint)element, (uint)(element >> 32));
        _lastUsed++;
        Release((ushort)used.Head);
        if (_eventIndex) SetUsedEvent(_lastUsed);
        return true;
    }

    /// <summary>Everything that is used.</summary>
    public List<UsedBuffer> Collect()
    {
        var all = new List<UsedBuffer>();
        while (TryCollect(out var used)) all.Add(used);
        return all;
    }

    /// <summary>The used index as the device wrote it.</summary>
    public ushort UsedIndex
    {
        get
        {
            var index = Read(Used + 2);
            Interlocked.MemoryBarrier();
            return index;
        }
    }

    /// <summary>The device's flags (NO_NOTIFY).</summary>
    public ushort UsedFlags => Read(Used);

    /// <summary>The device's avail_event.</summary>
    public ushort AvailableEvent => Read(Used + (ulong)(4 + 8 * Size));

    // ---- Raw.

    public void SetDescriptor(int index, GuestAddress address, uint length, ushort flags, ushort next) =>
        SetDescriptor(Descriptors + (ulong)(16 * index), address, length, flags, next);

    public void SetDescriptor(GuestAddress at, GuestAddress address, uint length, ushort flags, ushort next)
    {
        _memory.TryWrite(at, address.Value);
        _memory.TryWrite(at + 8, length | ((ulong)flags << 32) | ((ulong)next << 48));
    }

    /// <summary>Puts a head into the available ring.</summary>
    public void SetAvailable(int slot, ushort head) => _memory.TryWrite(Available + (ulong)(4 + 2 * (slot % Size)), head);

    public void SetAvailableIndex(ushort index)
    {
        Interlocked.MemoryBarrier();
        AvailableIndex = index;
        _memory.TryWrite(Available + 2, index);
    }

    /// <summary>NO_INTERRUPT.</summary>
    public void SetAvailableFlags(ushort flags)
    {
        _memory.TryWrite(Available, flags);
        Interlocked.MemoryBarrier();
    }

    /// <summary>The used index after which the driver wants its interrupt.</summary>
    public void SetUsedEvent(ushort index)
    {
        _memory.TryWrite(Available + (ulong)(4 + 2 * Size), index);
        Interlocked.MemoryBarrier();
    }

    private void Take(ushort head, ushort count)
    {
        _chainLength[head] = count;
        for (var i = 0; i < count; i++) _free = _next[_free];
        FreeCount -= count;
    }

    private void Release(ushort head)
    {
        if (head >= Size || _chainLength[head] == 0) throw new InvalidOperationException($"the device used {head}, which is not in flight");
        var last = head;
        for (var i = 1; i < _chainLength[head]; i++) last = _next[last];
        _next[last] = _free;
        _free = head;
        FreeCount += _chainLength[head];
        _chainLength[head] = 0;
    }

    private ushort Read(GuestAddress at) => _memory.TryRead(at, out ushort value) ? value : throw new InvalidOperationException("no RAM");
}
