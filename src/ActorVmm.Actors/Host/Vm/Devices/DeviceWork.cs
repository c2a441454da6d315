using ActorVmm.Devices.Virtio.Block;
using ActorVmm.Devices.Virtio.Net;
using ActorVmm.Devices.Virtio.Queue;

namespace ActorVmm.Actors.Host.Vm.Devices;

/// <summary>What a device has done for its guest since power-on; values of the moment.</summary>
/// <param name="Queues">Its virtqueues, by index; empty for a device without.</param>
/// <param name="Disk">Of a disk.</param>
/// <param name="Net">Of a network interface.</param>
public sealed record DeviceWork(IReadOnlyList<QueueReadings> Queues, DiskReadings? Disk = null, NetReadings? Net = null)
{
    /// <summary>Of a device that only has registers.</summary>
    public static DeviceWork None { get; } = new([]);

    internal static DeviceWork Of(IReadOnlyList<QueueLedger> queues, BlockCounters? disk = null, NetCounters? net = null)
    {
        var read = new QueueReadings[queues.Count];
        for (var i = 0; i < read.Length; i++)
            read[i] = new(i, queues[i].Counters.Requests, queues[i].Counters.BytesFromGuest, queues[i].Counters.BytesToGuest);
        return new DeviceWork(read, disk is null ? null : DiskReadings.Of(disk), net is null ? null : NetReadings.Of(net));
    }
}

/// <summary>What a virtqueue has done.</summary>
/// <param name="Queue">Its index.</param>
/// <param name="Requests">Requests answered.</param>
/// <param name="BytesFromGuest">Of readable buffers, headers included.</param>
/// <param name="BytesToGuest">Written to writable buffers, headers and status included.</param>
public sealed record QueueReadings(int Queue, long Requests, long BytesFromGuest, long BytesToGuest);

/// <summary>What a disk has done, as <see cref="BlockCounters"/> says.</summary>
public sealed record DiskReadings(long Reads, long ReadBytes, long Writes, long WrittenBytes, long Flushes, long Others, long Errors,
    long Malformed, long Throttled)
{
    internal static DiskReadings Of(BlockCounters counters) => new(counters.Reads, counters.ReadBytes, counters.Writes,
        counters.WrittenBytes, counters.Flushes, counters.Others, counters.Errors, counters.Malformed, counters.Throttled);
}

/// <summary>What a network interface has done: packets and their bytes.</summary>
/// <param name="Sent">From the guest.</param>
/// <param name="SentBytes">From the guest.</param>
/// <param name="Received">To the guest.</param>
/// <param name="ReceivedBytes">To the guest.</param>
/// <param name="SentDropped">From the guest, and not sent: malformed, spoofed, refused by the outside.</param>
/// <param name="ReceivedDropped">To the guest, and not delivered for want of room.</param>
public sealed record NetReadings(long Sent, long SentBytes, long Received, long ReceivedBytes, long SentDropped, long ReceivedDropped)
{
    internal static NetReadings Of(NetCounters counters) => new(counters[NetCounter.Sent], counters[NetCounter.SentBytes],
        counters[NetCounter.Received], counters[NetCounter.ReceivedBytes],
        counters[NetCounter.SentBadLength] + counters[NetCounter.SentBadHeader] + counters[NetCounter.SentSpoofed]
            + counters[NetCounter.SentRefused],
        counters[NetCounter.ReceivedNoRoom]);
}
