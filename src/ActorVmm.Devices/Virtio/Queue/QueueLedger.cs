using ActorVmm.Memory;

namespace ActorVmm.Devices.Virtio.Queue;

/// <summary>Where a queue lies in guest RAM, as its registers say.</summary>
/// <param name="Size">Entries; a power of two.</param>
/// <param name="Ready">QueueReady.</param>
/// <param name="Descriptors">Descriptor table, 16 bytes per entry.</param>
/// <param name="Available">Available ring (QueueDriver).</param>
/// <param name="Used">Used ring (QueueDevice).</param>
public readonly record struct QueueSetup(ushort Size, bool Ready, GuestAddress Descriptors, GuestAddress Available, GuestAddress Used);

/// <summary>
/// What is known of one queue's requests. It outlives the device, and every step of a request is one store here, so that whatever instance
/// comes next can go on from exactly there (after vhost-user's rules for requests in flight).
/// </summary>
/// <remarks>
/// Counts never wrap; the ring indices are their low 16 bits. An entry whose order is not below <see cref="Taken"/>, and an answer whose
/// number is not below <see cref="Answered"/>, do not count: the store of the count is what makes them so. Answers from
/// <see cref="Published"/> on are written to the used ring again by a fresh instance, which is harmless: they are the same elements in the
/// same places, and the places cannot have been used for anything else before these answers were seen.
/// </remarks>
public sealed class QueueLedger
{
    private readonly Entry[] _entries;
    private readonly Answer[] _answers;
    private readonly ushort[] _order;

    /// <param name="maxSize">The largest size that the driver may choose; a power of two up to 1024.</param>
    public QueueLedger(ushort maxSize)
    {
        if (maxSize is 0 or > VirtQueue.MaxSize || !ushort.IsPow2(maxSize))
            throw new ArgumentOutOfRangeException(nameof(maxSize), maxSize, $"a queue's size is a power of two up to {VirtQueue.MaxSize}");
        MaxSize = maxSize;
        _entries = new Entry[maxSize];
        _answers = new Answer[maxSize];
        _order = new ushort[maxSize];
        Setup = new QueueSetup { Size = maxSize };
    }

    /// <summary>QueueNumMax.</summary>
    public ushort MaxSize { get; }

    /// <summary>The queue's registers.</summary>
    public QueueSetup Setup { get; internal set; }

    /// <summary>Why the queue is dead.</summary>
    public QueueFault Fault { get; internal set; }

    /// <summary>Requests taken since the queue was made ready.</summary>
    public ulong Taken { get; internal set; }

    /// <summary>Requests whose answer is final.</summary>
    public ulong Answered { get; internal set; }

    /// <summary>Answers that the driver can see.</summary>
    public ulong Published { get; internal set; }

    /// <summary><see cref="Published"/> when an interrupt was last thought about.</summary>
    public ulong Signalled { get; internal set; }

    /// <summary>Requests begun and not answered.</summary>
    public int InFlight => (int)(Taken - Answered);

    /// <summary>True while a request is under way for the second time or more: one that a failed instance had begun.</summary>
    public bool IsRepeating
    {
        get
        {
            if (InFlight == 0) return false;
            foreach (ref readonly var entry in _entries.AsSpan())
                if (entry is { State: EntryState.Started, Attempts: > 1 }) return true;
            return false;
        }
    }

    /// <summary>NO_NOTIFY stands in the used ring.</summary>
    internal bool NotifySuppressed { get; set; }

    internal ref Entry At(ushort head) => ref _entries[head];

    internal Answer AnswerAt(ulong number) => _answers[number & (uint)(Setup.Size - 1)];

    /// <summary>Notes a request that does not count yet.</summary>
    internal void Mark(ushort head)
    {
        ref var entry = ref _entries[head];
        entry.Order = Taken;
        entry.Attempts = 1;
        entry.State = EntryState.Started;
        _order[Taken & (uint)(Setup.Size - 1)] = head;
    }

    /// <summary>The head that was taken as number <paramref name="number"/>, of the last <c>Size</c> ones.</summary>
    internal ushort HeadAt(ulong number) => _order[number & (uint)(Setup.Size - 1)];

    /// <summary>Notes an answer that does not count yet.</summary>
    internal void MarkAnswer(ushort head, uint written) => _answers[Answered & (uint)(Setup.Size - 1)] = new Answer(head, written);

    /// <summary>The marked answer counts; its head may come again. Two stores, and nothing between them that could fail.</summary>
    internal void CommitAnswer(ushort head)
    {
        _entries[head].State = EntryState.Free;
        Answered++;
    }

    /// <summary>
    /// Drops what does not count, and copies the heads of requests begun and not answered into <paramref name="into"/>, oldest first. Their
    /// number.
    /// </summary>
    internal int Recover(Span<ushort> into)
    {
        var count = 0;
        for (var head = 0; head < _entries.Length; head++)
        {
            ref var entry = ref _entries[head];
            if (entry.State == EntryState.Free) continue;
            if (entry.Order >= Taken) { entry.State = EntryState.Free; continue; }
            into[count++] = (ushort)head;
        }

        into[..count].Sort((left, right) => _entries[left].Order.CompareTo(_entries[right].Order));
        return count;
    }

    /// <summary>Back to an empty queue that is not ready; its registers as well.</summary>
    internal void Clear()
    {
        Array.Clear(_entries);
        Setup = new QueueSetup { Size = MaxSize };
        Fault = QueueFault.None;
        Taken = Answered = Published = Signalled = 0;
        NotifySuppressed = false;
    }

    /// <summary>Everything, as a value.</summary>
    public QueueState Save()
    {
        Span<ushort> heads = stackalloc ushort[VirtQueue.MaxSize];
        var copy = new QueueLedger(MaxSize);
        Array.Copy(_entries, copy._entries, _entries.Length);
        copy.Setup = Setup;
        (copy.Taken, copy.Answered, copy.Published) = (Taken, Answered, Published);
        Array.Copy(_answers, copy._answers, _answers.Length);
        var count = copy.Recover(heads);
        var inFlight = new InFlightRequest[count];
        for (var i = 0; i < count; i++)
        {
            var entry = copy._entries[heads[i]];
            inFlight[i] = new InFlightRequest(heads[i], entry.Order, entry.State == EntryState.Done ? entry.Written : null);
        }

        var answers = new Answer[Answered - Published];
        for (var i = 0; i < answers.Length; i++) answers[i] = AnswerAt(Published + (ulong)i);
        return new QueueState(MaxSize, Setup, Fault, Taken, Answered, Published, NotifySuppressed, inFlight, answers);
    }

    /// <summary>Takes over what <see cref="Save"/> gave; a reason where it cannot be right (saved states are not trusted).</summary>
    public string? Restore(QueueState state)
    {
        ArgumentNullException.ThrowIfNull(state);
        if (state.Check(MaxSize) is { } refusal) return refusal;
        Clear();
        Setup = state.Setup;
        Fault = state.Fault;
        (Taken, Answered, Published) = (state.Taken, state.Answered, state.Published);
        Signalled = Published;
        NotifySuppressed = state.NotifySuppressed;
        for (var i = 0; i < state.Answers.Count; i++)
            _answers[(Published + (ulong)i) & (uint)(Setup.Size - 1)] = state.Answers[i];
        foreach (var request in state.InFlight)
        {
            ref var entry = ref _entries[request.Head];
            entry.Order = request.Order;
            entry.Attempts = 1;
            entry.State = request.Written is null ? EntryState.Started : EntryState.Done;
            entry.Written = request.Written ?? 0;
            _order[request.Order & (uint)(Setup.Size - 1)] = request.Head;
        }

        return null;
    }

    /// <summary>What became of a request.</summary>
    internal enum EntryState : byte
    {
        /// <summary>The driver's.</summary>
        Free,

        /// <summary>The device's.</summary>
        Started,

        /// <summary>Done before its turn (VIRTIO_F_IN_ORDER); answered when those before it are.</summary>
        Done,
    }

    internal struct Entry
    {
        public ulong Order;
        public ulong Serial;
        public uint Written;
        public EntryState State;
        public byte Attempts;
    }
}

/// <summary>One used element: the chain, and how many bytes of its writable buffers were written.</summary>
public readonly record struct Answer(ushort Head, uint Written);

/// <summary>A request begun and not answered.</summary>
/// <param name="Head">Its first descriptor.</param>
/// <param name="Order">Its number since the queue was made ready.</param>
/// <param name="Written">Bytes written, where it is done and only waits for its turn.</param>
public readonly record struct InFlightRequest(ushort Head, ulong Order, uint? Written);

/// <summary>A queue as a value: comparable piece by piece, savable.</summary>
public sealed record QueueState(ushort MaxSize, QueueSetup Setup, QueueFault Fault, ulong Taken, ulong Answered, ulong Published,
    bool NotifySuppressed, IReadOnlyList<InFlightRequest> InFlight, IReadOnlyList<Answer> Answers)
{
    /// <summary>What is wrong with it for a queue of <paramref name="maxSize"/>; null where nothing is.</summary>
    public string? Check(ushort maxSize)
    {
        if (MaxSize != maxSize) return $"a queue of up to {MaxSize} is not one of up to {maxSize}";
        if (Setup.Size == 0 || Setup.Size > maxSize || !ushort.IsPow2(Setup.Size)) return $"{Setup.Size} is no size of a queue";
        if (Answered > Taken || Published > Answered || Taken - Published > Setup.Size) return "the queue's counts contradict each other";
        if (Taken - Answered != (ulong)InFlight.Count || Answered - Published != (ulong)Answers.Count)
            return "the queue's counts contradict its requests";
        if (!Enum.IsDefined(Fault)) return $"{(int)Fault} is no fault of a queue";
        var heads = new HashSet<ushort>();
        var orders = new HashSet<ulong>();
        foreach (var request in InFlight)
        {
            if (request.Head >= Setup.Size || !heads.Add(request.Head)) return $"descriptor {request.Head} cannot be in flight";
            if (request.Order >= Taken || !orders.Add(request.Order)) return $"request {request.Order} cannot be in flight";
        }

        foreach (var answer in Answers)
            if (answer.Head >= Setup.Size) return $"descriptor {answer.Head} cannot have been answered";
        return null;
    }
}
