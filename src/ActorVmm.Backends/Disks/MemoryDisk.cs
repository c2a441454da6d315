using System.Diagnostics.CodeAnalysis;
using ActorVmm.Devices.Virtio.Block;
using ActorVmm.Memory;

namespace ActorVmm.Backends.Disks;

/// <summary>A disk in memory, done at once: for tests and benchmarks.</summary>
/// <param name="sectors">Size in 512-byte sectors.</param>
/// <param name="flushes">Offer flushes; they do nothing.</param>
/// <param name="readOnly">Refuse writes.</param>
/// <param name="id">What GET_ID answers.</param>
public sealed class MemoryDisk(int sectors, bool flushes = true, bool readOnly = false, string id = "memory") : IDisk
{
    private readonly byte[] _bytes = Zeroes(checked(sectors * DiskRequest.SectorSize));
    private ulong _sectors = (ulong)sectors;

    /// <summary>The content.</summary>
    public Span<byte> Bytes => _bytes;

    /// <summary>Flushes so far.</summary>
    public long FlushCount { get; private set; }

    /// <inheritdoc/>
    public ulong Sectors => Volatile.Read(ref _sectors);

    /// <inheritdoc/>
    public bool ReadOnly => readOnly;

    /// <inheritdoc/>
    public int BlockSize => DiskRequest.SectorSize;

    /// <inheritdoc/>
    public string Id => id;

    /// <inheritdoc/>
    public bool Flushes => flushes;

    /// <inheritdoc/>
    public bool Discards => !readOnly;

    /// <inheritdoc/>
    public Action? Wake { get; set; }

    /// <summary>Shows less of it, or all again.</summary>
    public void Resize(ulong to)
    {
        Volatile.Write(ref _sectors, Math.Min(to, (ulong)sectors));
        Wake?.Invoke();
    }

    /// <inheritdoc/>
    public bool Start(DiskRequest request)
    {
        ArgumentNullException.ThrowIfNull(request);
        request.Status = Perform(request);
        return true;
    }

    /// <inheritdoc/>
    public bool TryTakeCompleted([NotNullWhen(true)] out DiskRequest? request)
    {
        request = null;
        return false;
    }

    /// <inheritdoc/>
    public void Abandon() { }

    private static byte[] Zeroes(int count)
    {
        var bytes = GC.AllocateUninitializedArray<byte>(count, pinned: true);
        HugePages.Ask(bytes);
        Array.Clear(bytes);
        return bytes;
    }

    private DiskStatus Perform(DiskRequest request)
    {
        var at = request.Sector * DiskRequest.SectorSize;
        var count = request.Operation is DiskOperation.Read or DiskOperation.Write
            ? request.Bytes : request.Sectors * DiskRequest.SectorSize;
        if (at > (ulong)_bytes.Length || count > (ulong)_bytes.Length - at) return DiskStatus.IoError;
        switch (request.Operation)
        {
            case DiskOperation.Read:
                foreach (var segment in request.Segments)
                {
                    _bytes.AsSpan((int)at, segment.Length).CopyTo(segment.Bytes);
                    at += (ulong)segment.Length;
                }
                break;
            case DiskOperation.Write:
                foreach (var segment in request.Segments)
                {
                    segment.Bytes.CopyTo(_bytes.AsSpan((int)at));
                    at += (ulong)segment.Length;
                }
                break;
            case DiskOperation.Flush: FlushCount++; break;
            default: _bytes.AsSpan((int)at, (int)count).Clear(); break;
        }
        return DiskStatus.Ok;
    }
}
