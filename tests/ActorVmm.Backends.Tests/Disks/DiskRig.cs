using ActorVmm.Backends.Disks;
using ActorVmm.Devices.Virtio.Block;
using ActorVmm.Memory;

namespace ActorVmm.Backends.Tests.Disks;

/// <summary>A disk, memory for its requests, and a caller that waits for the end of each.</summary>
internal sealed class DiskRig : IDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(90);

    private readonly GuestMemory _memory = GuestMemory.Create(16 << 20);
    private readonly SemaphoreSlim _woken = new(0);
    private readonly string? _file;

    public DiskRig(DiskOptions options, long bytes, string? path = null)
    {
        Path = path ?? (_file = NewFile(bytes));
        Disk = FileDisk.Open(Path, options);
        Disk.Wake = () => _woken.Release();
    }

    public string Path { get; }
    public FileDisk Disk { get; }
    public DiskRequest Request { get; } = new(0);

    /// <summary>A sparse file; not in /tmp, which may be without direct I/O or holes.</summary>
    public static string NewFile(long bytes)
    {
        var path = System.IO.Path.Combine(AppContext.BaseDirectory, $"disk-{Guid.NewGuid():N}.img");
        using var file = File.Create(path);
        file.SetLength(bytes);
        return path;
    }

    public HostSegment At(ulong address, int count) =>
        _memory.TryLocate(new GuestAddress(address), count, out var slice) ? slice : throw new ArgumentOutOfRangeException(nameof(address));

    public DiskStatus Read(ulong sector, Span<byte> into, params ReadOnlySpan<int> cuts) => Transfer(DiskOperation.Read, sector, into, cuts);

    public DiskStatus Write(ulong sector, Span<byte> from, params ReadOnlySpan<int> cuts) =>
        Transfer(DiskOperation.Write, sector, from, cuts);

    public DiskStatus Range(DiskOperation operation, ulong sector, ulong sectors, bool flag = false)
    {
        Request.Set(operation, sector, sectors, flag);
        return Perform();
    }

    /// <summary>Guest memory in pieces that end at <paramref name="cuts"/>, each at an address of its own.</summary>
    private DiskStatus Transfer(DiskOperation operation, ulong sector, Span<byte> bytes, ReadOnlySpan<int> cuts)
    {
        Request.Set(operation, sector);
        var (start, address) = (0, 0UL);
        foreach (var cut in (ReadOnlySpan<int>)[.. cuts, bytes.Length])
        {
            var slice = At(address, cut - start);
            if (operation == DiskOperation.Write) bytes[start..cut].CopyTo(slice.Bytes);
            else slice.Bytes.Fill(0xEE);
            Request.Add(slice);
            address += (ulong)(cut - start) + 7; // never aligned after the first
            start = cut;
        }
        var status = Perform();
        var at = 0;
        if (operation == DiskOperation.Read)
            foreach (var segment in Request.Segments)
            {
                segment.Bytes.CopyTo(bytes[at..]);
                at += segment.Length;
            }
        return status;
    }

    /// <summary>Bytes that the host has given to a file.</summary>
    public static long AllocatedBytes(string path) =>
        Mono.Unix.Native.Syscall.stat(path, out var status) == 0 ? status.st_blocks * 512 : throw new FileNotFoundException(path);

    private DiskStatus Perform() => Disk.Start(Request) ? Request.Status : Finish();

    /// <summary>Waits for the end of the request under way.</summary>
    public DiskStatus Finish()
    {
        DiskRequest? done;
        while (!Disk.TryTakeCompleted(out done))
            if (!_woken.Wait(Patience)) throw new TimeoutException("the disk does not answer");
        return ReferenceEquals(done, Request) ? done.Status : throw new InvalidOperationException("another request came back");
    }

    public void Dispose()
    {
        Disk.Dispose();
        _memory.Dispose();
        _woken.Dispose();
        if (_file is not null) File.Delete(_file);
    }
}
