using ActorVmm.Memory;

namespace ActorVmm.Devices.Virtio.Block;

/// <summary>What a disk is asked to do.</summary>
public enum DiskOperation : byte
{
    /// <summary>Sectors into guest memory.</summary>
    Read,

    /// <summary>Guest memory into sectors.</summary>
    Write,

    /// <summary>Every completed write becomes durable.</summary>
    Flush,

    /// <summary>The range's content is not needed any more.</summary>
    Discard,

    /// <summary>The range reads as zeroes from now on.</summary>
    WriteZeroes,
}

/// <summary>How a request ended.</summary>
public enum DiskStatus : byte
{
    Ok,

    /// <summary>The host could not read or write.</summary>
    IoError,

    /// <summary>The host's file system is full.</summary>
    NoSpace,

    /// <summary>The disk cannot do that.</summary>
    Unsupported,
}

/// <summary>
/// One request to a disk: a range of sectors and, for reads and writes, the pieces of guest memory that it goes to or comes from. Made once
/// by the device and used again and again.
/// </summary>
/// <param name="slot">The device's own number of this object.</param>
public sealed class DiskRequest(int slot)
{
    /// <summary>Bytes of a sector, whatever the disk's block size is (virtio 1.2 §5.2.4).</summary>
    public const int SectorSize = 512;

    private HostSegment[] _segments = new HostSegment[8];
    private int _count;

    /// <summary>The device's own number of this object.</summary>
    public int Slot { get; } = slot;

    public DiskOperation Operation { get; private set; }

    /// <summary>First sector.</summary>
    public ulong Sector { get; private set; }

    /// <summary>Sectors of a discard or of zeroes; for reads and writes <see cref="Bytes"/> counts.</summary>
    public ulong Sectors { get; private set; }

    /// <summary>Bytes of all segments.</summary>
    public ulong Bytes { get; private set; }

    /// <summary>A write that is durable when it is done; zeroes that may give the range back to the host.</summary>
    public bool Flag { get; private set; }

    /// <summary>How it ended; set by whoever performed it, before it is given back.</summary>
    public DiskStatus Status { get; set; }

    /// <summary>A link for the queues of whoever has the request at the moment.</summary>
    public DiskRequest? Next { get; set; }

    /// <summary>Guest memory in the order of the sectors.</summary>
    public ReadOnlySpan<HostSegment> Segments => _segments.AsSpan(0, _count);

    /// <summary>Begins a request anew, without segments.</summary>
    /// <param name="operation">What to do.</param>
    /// <param name="sector">First sector.</param>
    /// <param name="sectors">Sectors of a discard or of zeroes.</param>
    /// <param name="flag">See <see cref="Flag"/>.</param>
    public void Set(DiskOperation operation, ulong sector, ulong sectors = 0, bool flag = false)
    {
        (Operation, Sector, Sectors, Flag) = (operation, sector, sectors, flag);
        (Bytes, Status, _count, Next) = (0, DiskStatus.Ok, 0, null);
    }

    /// <summary>Adds a piece of guest memory. Allocates only while the request has never had so many.</summary>
    public void Add(HostSegment segment)
    {
        if (segment.Length == 0) return;
        if (_count == _segments.Length) Array.Resize(ref _segments, 2 * _count);
        _segments[_count++] = segment;
        Bytes += (ulong)segment.Length;
    }
}
