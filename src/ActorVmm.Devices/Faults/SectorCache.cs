using ActorVmm.Devices.Virtio.Block;
using ActorVmm.Memory;

namespace ActorVmm.Devices.Faults;

/// <summary>What a disk with a volatile cache has been told and has not made durable: sectors by number.</summary>
internal sealed class SectorCache
{
    /// <summary>Most sectors of one write-back.</summary>
    private const int RunSectors = 128;

    private readonly SortedDictionary<ulong, byte[]> _sectors = [];

    public int Count => _sectors.Count;

    /// <summary>Takes the content of a write.</summary>
    public void Take(DiskRequest write)
    {
        var sector = write.Sector;
        var filled = 0;
        byte[]? current = null;
        foreach (var segment in write.Segments)
        {
            for (var bytes = segment.Bytes; bytes.Length > 0;)
            {
                // A fresh array each time: a write-back under way may still hold the old one.
                current ??= new byte[DiskRequest.SectorSize];
                var count = Math.Min(bytes.Length, DiskRequest.SectorSize - filled);
                bytes[..count].CopyTo(current.AsSpan(filled));
                bytes = bytes[count..];
                filled += count;
                if (filled < DiskRequest.SectorSize) continue;
                _sectors[sector++] = current;
                (current, filled) = (null, 0);
            }
        }
    }

    /// <summary>A range is written, discarded or zeroed beside the cache: what is in here of it is old.</summary>
    public void Forget(ulong sector, ulong count)
    {
        foreach (var old in _sectors.Keys.Where(key => key >= sector && key - sector < count).ToArray()) _sectors.Remove(old);
    }

    /// <summary>Puts what is in here over what a read has brought from the disk.</summary>
    public void Patch(DiskRequest read)
    {
        if (_sectors.Count == 0) return;
        ulong position = 0;
        foreach (var segment in read.Segments)
        {
            for (var bytes = segment.Bytes; bytes.Length > 0;)
            {
                var (sector, offset) = (read.Sector + (position / DiskRequest.SectorSize), (int)(position % DiskRequest.SectorSize));
                var count = Math.Min(bytes.Length, DiskRequest.SectorSize - offset);
                if (_sectors.TryGetValue(sector, out var cached)) cached.AsSpan(offset, count).CopyTo(bytes);
                bytes = bytes[count..];
                position += (ulong)count;
            }
        }
    }

    /// <summary>Everything in here as writes of neighbouring sectors, ascending.</summary>
    public List<WriteBack> Runs()
    {
        var runs = new List<WriteBack>();
        var run = new List<byte[]>();
        var first = 0UL;
        foreach (var (sector, bytes) in _sectors)
        {
            if (run.Count > 0 && (run.Count == RunSectors || sector != first + (ulong)run.Count))
            {
                runs.Add(new WriteBack(first, run));
                run = [];
            }

            if (run.Count == 0) first = sector;
            run.Add(bytes);
        }

        if (run.Count > 0) runs.Add(new WriteBack(first, run));
        return runs;
    }

    /// <summary>A write-back is durable: what has not been written again since then leaves.</summary>
    public void Written(WriteBack done)
    {
        for (var i = 0; i < done.Sectors.Count; i++)
        {
            var sector = done.First + (ulong)i;
            if (_sectors.TryGetValue(sector, out var now) && ReferenceEquals(now, done.Sectors[i])) _sectors.Remove(sector);
        }
    }

    /// <summary>One write of neighbouring sectors from the cache to the disk.</summary>
    internal sealed class WriteBack
    {
        private readonly HostScratch _scratch;

        public WriteBack(ulong first, IReadOnlyList<byte[]> sectors)
        {
            (First, Sectors) = (first, sectors);
            _scratch = new HostScratch(sectors.Count * DiskRequest.SectorSize);
            for (var i = 0; i < sectors.Count; i++) sectors[i].CopyTo(_scratch.Bytes[(i * DiskRequest.SectorSize)..]);
            Request = new DiskRequest(slot: -1);
            Request.Set(DiskOperation.Write, first);
            Request.Add(_scratch.Segment);
        }

        public ulong First { get; }
        public IReadOnlyList<byte[]> Sectors { get; }
        public DiskRequest Request { get; }
    }
}
