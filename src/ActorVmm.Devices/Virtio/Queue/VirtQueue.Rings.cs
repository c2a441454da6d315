using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using ActorVmm.Memory;

namespace ActorVmm.Devices.Virtio.Queue;

/// <summary>The queue's rings in guest RAM, which the driver may change at any moment: each value is read once.</summary>
public sealed partial class VirtQueue
{
    private const ushort DescriptorNext = 1;
    private const ushort DescriptorWrite = 2;
    private const ushort DescriptorIndirect = 4;
    private const ushort NoInterrupt = 1; // VIRTQ_AVAIL_F_NO_INTERRUPT
    private const ushort NoNotify = 1;    // VIRTQ_USED_F_NO_NOTIFY
    private const int DescriptorSize = 16;
    private const int RingHeader = 4;     // flags, idx
    private const int ElementSize = 8;

    private int AvailableBytes => RingHeader + 2 * _size + 2;
    private int UsedBytes => RingHeader + ElementSize * _size + 2;

    private QueueFault CheckRings()
    {
        var setup = _ledger.Setup;
        if (setup.Descriptors.Value % 16 != 0 || setup.Available.Value % 2 != 0 || setup.Used.Value % 4 != 0)
            return QueueFault.RingMisaligned;
        return _memory.Contains(setup.Descriptors, (ulong)(DescriptorSize * _size)) &&
            _memory.Contains(setup.Available, (ulong)AvailableBytes) && _memory.Contains(setup.Used, (ulong)UsedBytes)
            ? QueueFault.None
            : QueueFault.RingOutsideRam;
    }

    /// <summary>The ring seems empty: asks the driver to ring for the next request, and looks once more.</summary>
    private bool LookForMore(ushort taken)
    {
        if (!TryReadAvailableIndex(out var available)) return Break(QueueFault.RingLost);
        if (available == taken)
        {
            if (!AskForNotify(taken)) return Break(QueueFault.RingLost);
            // The driver writes its index, fences, and reads what was just written here; so one of the two sees the other.
            Interlocked.MemoryBarrier();
            if (!TryReadAvailableIndex(out available)) return Break(QueueFault.RingLost);
            if (available == taken) return false;
        }

        // Counted from what was published: a driver has at most as many requests out as the queue has entries.
        if ((ushort)(available - (ushort)_ledger.Published) > _size) return Break(QueueFault.AvailableIndexTooFar);
        // An index that went back shows requests as made available that were not, and lies before what was taken.
        if ((ushort)(available - taken) > _size) return Break(QueueFault.AvailableIndexTooFar);
        _availableSeen = available;
        return true;
    }

    private bool TryReadAvailableIndex(out ushort index)
    {
        if (!_memory.TrySlice(_ledger.Setup.Available, RingHeader, out var ring)) { index = 0; return false; }
        index = Volatile.Read(ref Word(ring[2..]));
        return true;
    }

    private bool TryReadAvailable(ushort number, out ushort head)
    {
        if (!_memory.TrySlice(_ledger.Setup.Available, AvailableBytes, out var ring)) { head = 0; return false; }
        head = MemoryMarshal.Read<ushort>(ring[(RingHeader + 2 * (number & (_size - 1)))..]);
        return true;
    }

    private bool TryReadInterruptWish(out ushort wish)
    {
        if (!_memory.TrySlice(_ledger.Setup.Available, AvailableBytes, out var ring)) { wish = 0; return false; }
        wish = Volatile.Read(ref Word(ring[(RingHeader + 2 * _size)..]));
        return true;
    }

    private bool AskForNotify(ushort taken)
    {
        if (!_eventIndex) return !_ledger.NotifySuppressed || SetNoNotify(false);
        return TryStoreUsed(RingHeader + ElementSize * _size, taken);
    }

    private bool SetNoNotify(bool suppressed)
    {
        if (!TryStoreUsed(offset: 0, suppressed ? NoNotify : (ushort)0)) return false;
        _ledger.NotifySuppressed = suppressed;
        return true;
    }

    private bool TryStoreUsed(int offset, ushort value)
    {
        if (!_memory.TrySliceForWrite(_ledger.Setup.Used, UsedBytes, out var ring)) return false;
        Volatile.Write(ref Word(ring[offset..]), value);
        _memory.Written(_ledger.Setup.Used + (ulong)offset, sizeof(ushort));
        return true;
    }

    private bool PublishAnswers()
    {
        var hook = _device.CrashHook;
        var setup = _ledger.Setup;
        if (!_memory.TrySliceForWrite(setup.Used, UsedBytes, out var ring)) return Break(QueueFault.RingLost);
        ushort head = 0;
        var elements = MemoryMarshal.Cast<byte, UsedElement>(ring.Slice(RingHeader, ElementSize * _size));
        for (var number = _ledger.Published; number < _ledger.Answered; number++)
        {
            var answer = _ledger.AnswerAt(number);
            head = answer.Head;
            elements[(int)(number & (uint)(_size - 1))] = new UsedElement(head, answer.Written);
        }

        hook?.Reached(CrashPoint.ElementsWritten, Index, head);
        Volatile.Write(ref Word(ring[2..]), (ushort)_ledger.Answered);
        _memory.Written(setup.Used, (ulong)(RingHeader + ElementSize * _size));
        hook?.Reached(CrashPoint.IndexPublished, Index, head);
        _ledger.Published = _ledger.Answered;
        hook?.Reached(CrashPoint.PublicationRecorded, Index, head);
        return true;
    }

    private bool DecideInterrupt()
    {
        var (before, now) = ((ushort)_ledger.Signalled, (ushort)_ledger.Published);
        // Between the used index and what the driver says about interrupts: it writes its wish, fences, and reads the index.
        Interlocked.MemoryBarrier();
        bool wanted;
        if (_eventIndex)
        {
            if (!TryReadInterruptWish(out var wish)) return Break(QueueFault.RingLost);
            // The driver's wish was passed in this step (vring_need_event, virtio 1.2 §2.7.10.1).
            wanted = (ushort)(now - wish - 1) < (ushort)(now - before);
        }
        else
        {
            if (!_memory.TrySlice(_ledger.Setup.Available, AvailableBytes, out var ring)) return Break(QueueFault.RingLost);
            wanted = (Volatile.Read(ref Word(ring)) & NoInterrupt) == 0;
        }

        _ledger.Signalled = _ledger.Published;
        if (wanted) _device.UsedSignals++;
        return wanted;
    }

    /// <summary>Reads the chain that begins at <paramref name="head"/>. False where the driver broke the queue with it.</summary>
    private bool TryWalk(ushort head, [NotNullWhen(true)] out DescriptorChain? chain)
    {
        chain = null;
        if (!_memory.TrySlice(_ledger.Setup.Descriptors, DescriptorSize * _size, out var bytes)) return Break(QueueFault.RingLost);
        var table = MemoryMarshal.Cast<byte, Descriptor>(bytes);
        var walked = ChainOf(head);
        walked.Clear();
        int next = head;
        var indirect = false;
        // The walk ends after as many descriptors as the queue has entries, which also ends every loop.
        for (var budget = (int)_size; ; budget--)
        {
            if (budget == 0) return Break(QueueFault.ChainTooLong);
            if (next >= table.Length) return Break(QueueFault.DescriptorOutOfRange);
            var descriptor = table[next];
            if ((descriptor.Flags & DescriptorIndirect) != 0)
            {
                if (EnterIndirect(descriptor, indirect, out table) is var refusal and not QueueFault.None) return Break(refusal);
                (indirect, next) = (true, 0);
                budget++; // the descriptor that names the table is not part of the request
                continue;
            }

            if (Add(walked, descriptor) is var fault and not QueueFault.None) return Break(fault);
            if ((descriptor.Flags & DescriptorNext) == 0) break;
            next = descriptor.Next;
        }

        chain = walked;
        return true;
    }

    private QueueFault EnterIndirect(Descriptor descriptor, bool nested, out ReadOnlySpan<Descriptor> table)
    {
        table = default;
        if (!_indirect) return QueueFault.IndirectNotNegotiated;
        if (nested) return QueueFault.IndirectNested;
        if ((descriptor.Flags & DescriptorNext) != 0) return QueueFault.IndirectWithNext;
        if (descriptor.Length == 0 || descriptor.Length % DescriptorSize != 0) return QueueFault.IndirectLength;
        // A table may be longer than what a chain may use of it.
        var length = (int)Math.Min(descriptor.Length, (uint)(DescriptorSize * _size));
        if (!_memory.Contains(new GuestAddress(descriptor.Address), descriptor.Length) ||
            !_memory.TrySlice(new GuestAddress(descriptor.Address), length, out var bytes)) return QueueFault.IndirectOutsideRam;
        table = MemoryMarshal.Cast<byte, Descriptor>(bytes);
        return QueueFault.None;
    }

    private QueueFault Add(DescriptorChain chain, Descriptor descriptor)
    {
        var writable = (descriptor.Flags & DescriptorWrite) != 0;
        if (!writable && chain.WritableLength > 0) return QueueFault.ReadableAfterWritable;
        if (descriptor.Length == 0) return QueueFault.None; // nothing to read or write: no buffer
        var address = new GuestAddress(descriptor.Address);
        if (!_memory.Contains(address, descriptor.Length)) return QueueFault.BufferOutsideRam;
        chain.Add(address, descriptor.Length, writable);
        return QueueFault.None;
    }

    /// <summary>The 16-bit word at the start; ring addresses were checked to be even.</summary>
    private static ref ushort Word(ReadOnlySpan<byte> at) => ref Unsafe.As<byte, ushort>(ref MemoryMarshal.GetReference(at));

    [StructLayout(LayoutKind.Sequential, Pack = 1)]
    private readonly record struct Descriptor(ulong Address, uint Length, ushort Flags, ushort Next);

    [StructLayout(LayoutKind.Sequential, Pack = 1)]
    private readonly record struct UsedElement(uint Head, uint Length);
}
