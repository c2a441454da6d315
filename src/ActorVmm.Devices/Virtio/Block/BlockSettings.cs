namespace ActorVmm.Devices.Virtio.Block;

/// <summary>How a block device looks to the guest, beside its disk.</summary>
public sealed record BlockSettings
{
    /// <summary>Number of request queues.</summary>
    public int Queues { get; init; } = 1;

    /// <summary>Entries of each queue; a power of two from 4 to 1024.</summary>
    public ushort QueueSize { get; init; } = 256;

    /// <summary>Limits of all queues together.</summary>
    public RateLimiterSpec RateLimit { get; init; } = RateLimiterSpec.Off;
}
