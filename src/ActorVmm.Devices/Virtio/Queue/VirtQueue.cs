using System.Diagnostics.CodeAnalysis;
using ActorVmm.Memory;

namespace ActorVmm.Devices.Virtio.Queue;

/// <summary>
/// A split virtqueue, the device's side (virtio 1.2 §2.7). The device type takes requests and completes them, in any order; the transport
/// publishes the answers once per message. All that must survive the device is in its <see cref="QueueLedger"/>.
/// <code>
/// descriptor table           available ring (driver writes)              used ring (device writes)
/// addr 8 len 4 flags 2 next 2   flags 2 idx 2 head 2 ... used_event 2      flags 2 idx 2 (head 4 length 4) ... avail_event 2
/// </code>
/// </summary>
/// <remarks>
/// One thread at a time. The driver runs on others: the available index is read with acquire, the used index written with release, and a
/// full fence stands between what each side writes and what it then reads of the other (used index, then used_event or flags; avail_event
/// or flags, then available index).
/// </remarks>
public sealed partial class VirtQueue
{
    /// <summary>The largest size; the specification allows 32768, Linux and others use up to 1024.</summary>
    public const int MaxSize = 1024;

    private readonly GuestMemory _memory;
    private readonly QueueLedger _ledger;
    private readonly VirtioLedger _device;
    private readonly Action<VirtQueue> _broken;
    private readonly DescriptorChain?[] _chains;
    private readonly ushort[] _again;
    private int _againCount;
    private bool _live;
    private bool _eventIndex;
    private bool _indirect;
    private bool _inOrder;
    private ushort _size;
    private ushort _availableSeen;

    internal VirtQueue(int index, GuestMemory memory, QueueLedger ledger, VirtioLedger device, Action<VirtQueue> broken)
    {
        Index = index;
        _memory = memory;
        _ledger = ledger;
        _device = device;
        _broken = broken;
        _chains = new DescriptorChain?[ledger.MaxSize];
        _again = new ushort[ledger.MaxSize];
    }

    /// <summary>The queue's number.</summary>
    public int Index { get; }

    /// <summary>Entries; what the driver chose.</summary>
    public int Size => _ledger.Setup.Size;

    /// <summary>True from DRIVER_OK (or a later QueueReady) to reset, unless the driver broke it.</summary>
    public bool IsLive => _live;

    /// <summary>Why the queue is dead; <see cref="QueueFault.None"/> where it is not.</summary>
    public QueueFault Fault => _ledger.Fault;

    /// <summary>Requests taken and not completed.</summary>
    public int InFlight => _ledger.InFlight;

    /// <summary>The indices and requests, for inspection.</summary>
    public QueueLedger Ledger => _ledger;

    /// <summary>
    /// Whether the driver is known to have dealt with all that was published, by the interrupt that it asks for next (EVENT_IDX): what it has
    /// not made available by then it will not, of its own accord.
    /// </summary>
    public bool IsDriverThrough => _live && _eventIndex && TryReadInterruptWish(out var wish) && wish == (ushort)_ledger.Published;

    /// <summary>
    /// The next request: one that a failed instance had begun, oldest first; else the next that the driver made available. False where
    /// there is none now; the driver then rings the doorbell for the next. A driver's mistake breaks the queue, and is false as well.
    /// </summary>
    public bool TryTake([NotNullWhen(true)] out DescriptorChain? chain)
    {
        chain = null;
        if (!_live) return false;
        if (_againCount > 0) return TryTakeAgain(out chain);

        var taken = (ushort)_ledger.Taken;
        if (taken == _availableSeen && !LookForMore(taken)) return false;
        if (!TryReadAvailable(taken, out var head)) return Break(QueueFault.RingLost);
        if (head >= _size) return Break(QueueFault.DescriptorOutOfRange);
        if (_ledger.At(head).State != QueueLedger.EntryState.Free) return Break(QueueFault.HeadInFlight);
        if (!TryWalk(head, out chain)) return false;

        var hook = _device.CrashHook;
        hook?.Reached(CrashPoint.ChainWalked, Index, head);
        _ledger.Mark(head);
        hook?.Reached(CrashPoint.RequestMarked, Index, head);
        _ledger.Taken++;
        hook?.Reached(CrashPoint.RequestTaken, Index, head);
        Hand(chain, head, attempts: 1);
        return true;
    }

    /// <summary>Completes a request: <paramref name="written"/> bytes of its writable buffers were written (from the first on).</summary>
    /// <returns>False where it is no longer in flight (reset in between); nothing happens then.</returns>
    public bool Complete(DescriptorChain chain, uint written)
    {
        ArgumentNullException.ThrowIfNull(chain);
        return Complete(chain.Id, written);
    }

    /// <summary>Completes the request that a backend gives back.</summary>
    /// <returns>False where the request is not in flight: the device was reset or restarted since, and the answer is nobody's.</returns>
    public bool Complete(RequestId id, uint written)
    {
        if (!IsInFlight(id)) return false;
        var head = id.Head;
        var hook = _device.CrashHook;
        hook?.Reached(CrashPoint.RequestDone, Index, head);
        if (_inOrder) return CompleteInOrder(head, written, hook);
        Answer(head, written, hook);
        return true;
    }

    /// <summary>The chain of a request in flight, for a backend's result: the status byte, say.</summary>
    public bool TryFind(RequestId id, [NotNullWhen(true)] out DescriptorChain? chain)
    {
        chain = IsInFlight(id) ? _chains[id.Head] : null;
        return chain is not null;
    }

    /// <summary>
    /// Gives back a request that was taken and not begun (no packet fits into it): it stays in flight, and the next
    /// <see cref="TryTake"/> hands it out again. Several are given back in the reverse of the order in which they were taken.
    /// </summary>
    public bool Untake(DescriptorChain chain)
    {
        ArgumentNullException.ThrowIfNull(chain);
        if (!IsInFlight(chain.Id)) return false;
        ref var entry = ref _ledger.At(chain.Head);
        entry.Serial = 0; // its id is nobody's until it is taken again
        entry.Attempts--;
        _again[_againCount++] = chain.Head;
        return true;
    }

    /// <summary>
    /// A request that was taken now waits for something from outside (a buffer for its packet): an instance that fails meanwhile has not
    /// failed on it, however often that happens.
    /// </summary>
    public void Waits(DescriptorChain chain)
    {
        ArgumentNullException.ThrowIfNull(chain);
        if (IsInFlight(chain.Id)) _ledger.At(chain.Head).Attempts = 1;
    }

    public override string ToString() => Fault == QueueFault.None
        ? $"queue {Index}: size {Size}, ready {_ledger.Setup.Ready}, taken {_ledger.Taken}, answered {_ledger.Answered}, " +
          $"published {_ledger.Published}, in flight {InFlight}"
        : $"queue {Index}: broken, {Fault}";

    // ---- The transport's side.

    /// <summary>
    /// The queue may be used: its rings are checked, and what the ledger holds is taken up. False where it is broken (reported through the
    /// callback).
    /// </summary>
    internal bool Start(ulong features)
    {
        Stop();
        if (!_ledger.Setup.Ready || Fault != QueueFault.None) return false;
        _eventIndex = (features & VirtioFeatures.EventIndex) != 0;
        _indirect = (features & VirtioFeatures.IndirectDescriptors) != 0;
        _inOrder = (features & VirtioFeatures.InOrder) != 0;
        _size = _ledger.Setup.Size;
        if (CheckRings() is var fault and not QueueFault.None) return Break(fault);

        _live = true;
        _availableSeen = (ushort)_ledger.Taken;
        // Popped from the end: the oldest comes first.
        _againCount = _ledger.Recover(_again);
        _again.AsSpan(0, _againCount).Reverse();
        for (var i = 0; i < _againCount; i++) _ledger.At(_again[i]).Serial = 0;
        var waiting = 0;
        for (var i = 0; i < _againCount; i++)
            if (_ledger.At(_again[i]).State == QueueLedger.EntryState.Started) _again[waiting++] = _again[i];
        _againCount = waiting;
        if (_inOrder) AnswerDone(hook: null);
        // A failed instance may have shown answers that the ledger does not know to be seen, and the driver has gone on from there: what it
        // makes available can only be judged when both agree again.
        return _ledger.Published == _ledger.Answered || PublishAnswers();
    }

    /// <summary>No device works on it any more. The ledger keeps what it has.</summary>
    internal void Stop()
    {
        _live = false;
        _againCount = 0;
    }

    /// <summary>
    /// Publishes the answers since the last call. True where the driver wants an interrupt for them (or for earlier ones, which a failed
    /// instance published and had no time to think about).
    /// </summary>
    internal bool Publish()
    {
        if (!_live) return false;
        if (_ledger.Published != _ledger.Answered && !PublishAnswers()) return false;
        return _ledger.Signalled != _ledger.Published && DecideInterrupt();
    }

    /// <summary>The device is about to look: the driver need not ring until it has seen the queue empty.</summary>
    internal void SuppressNotify()
    {
        // With EVENT_IDX the old avail_event does it: the driver rings when it passes that index, and not again.
        if (_live && !_eventIndex && !_ledger.NotifySuppressed) SetNoNotify(true);
    }

    private bool IsInFlight(RequestId id) =>
        _live && id.Queue == Index && id.Head < _size && id.Serial != 0 && _ledger.At(id.Head).Serial == id.Serial &&
        _ledger.At(id.Head).State == QueueLedger.EntryState.Started;

    private void Hand(DescriptorChain chain, ushort head, int attempts)
    {
        ref var entry = ref _ledger.At(head);
        entry.Serial = ++_device.LastSerial;
        chain.Id = new RequestId((ushort)Index, head, entry.Serial);
        chain.Attempts = attempts;
        _device.Watch?.Taken(chain.Id, attempts);
    }

    private bool TryTakeAgain([NotNullWhen(true)] out DescriptorChain? chain)
    {
        var head = _again[_againCount - 1];
        if (!TryWalk(head, out chain)) return false;
        ref var entry = ref _ledger.At(head);
        if (entry.Attempts < byte.MaxValue) entry.Attempts++;
        _device.CrashHook?.Reached(CrashPoint.Resubmitting, Index, head);
        _againCount--;
        Hand(chain, head, entry.Attempts);
        return true;
    }

    private void Answer(ushort head, uint written, ICrashHook? hook)
    {
        _ledger.MarkAnswer(head, written);
        hook?.Reached(CrashPoint.AnswerMarked, Index, head);
        _ledger.CommitAnswer(head);
        _ledger.Counters.Count(_chains[head]?.ReadableLength ?? 0, written);
        _device.Watch?.Answered(new RequestId((ushort)Index, head, _ledger.At(head).Serial));
        hook?.Reached(CrashPoint.AnswerRecorded, Index, head);
    }

    private bool CompleteInOrder(ushort head, uint written, ICrashHook? hook)
    {
        ref var entry = ref _ledger.At(head);
        entry.Written = written;
        entry.State = QueueLedger.EntryState.Done;
        AnswerDone(hook);
        return true;
    }

    private void AnswerDone(ICrashHook? hook)
    {
        while (_ledger.Answered < _ledger.Taken)
        {
            var head = _ledger.HeadAt(_ledger.Answered);
            ref var entry = ref _ledger.At(head);
            if (entry.State != QueueLedger.EntryState.Done) return;
            Answer(head, entry.Written, hook);
        }
    }

    /// <summary>The driver's mistake: the queue is dead until it is reset, the rest of the device lives on.</summary>
    private bool Break(QueueFault fault)
    {
        _ledger.Fault = fault;
        Stop();
        _broken(this);
        return false;
    }

    private DescriptorChain ChainOf(ushort head) => _chains[head] ??= new DescriptorChain(_memory);
}
