using ActorVmm.Backends.Disks;
using ActorVmm.Devices.Virtio;

namespace ActorVmm.Actors;

/// <summary>A disk (virtio-blk): a raw image file or a block device of the host.</summary>
public sealed record DiskSpec
{
    /// <summary>The user's name for it; the guest reads its first 20 characters as the disk's serial number.</summary>
    public required string Id { get; init; }

    /// <summary>Image file or block device; opened and locked when the VM is built.</summary>
    public required string Path { get; init; }

    /// <summary>The guest cannot write; other VMs may read it at the same time.</summary>
    public bool ReadOnly { get; init; }

    /// <summary>The kernel's command line gets <c>root=</c> with this disk, and <c>ro</c> or <c>rw</c>, where it names no root.</summary>
    public bool IsRoot { get; init; }

    /// <summary>The partition that is the root, instead of the whole disk.</summary>
    public string? PartUuid { get; init; }

    /// <summary>Flushes are offered and make completed writes durable (cache_type Writeback); else nothing is promised (Unsafe).</summary>
    public bool Writeback { get; init; }

    /// <summary>Who performs requests. Under virtual time it is always <see cref="IoEngine.Sync"/>, so that runs repeat.</summary>
    public IoEngine Engine { get; init; } = IoEngine.Sync;

    /// <summary>Around the host's page cache.</summary>
    public bool Direct { get; init; }

    /// <summary>Request queues, 1 to 16.</summary>
    public int Queues { get; init; } = 1;

    /// <summary>Entries of each queue, a power of two from 4 to 1024.</summary>
    public int QueueSize { get; init; } = 256;

    /// <summary>Bytes and requests per time; off for no limit.</summary>
    public RateLimiterSpec Limits { get; init; }
}
