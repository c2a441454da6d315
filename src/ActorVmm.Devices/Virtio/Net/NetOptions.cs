namespace ActorVmm.Devices.Virtio.Net;

/// <summary>A network device as it is asked for.</summary>
public sealed record NetOptions
{
    /// <summary>Pairs of queues at most; more than a virtio-mmio machine has vCPUs for serve nobody.</summary>
    public const int MaxPairs = 16;

    /// <summary>Limits of the largest IP packet, in bytes (Firecracker's).</summary>
    public const int MinMtu = 68, MaxMtu = 65535;

    /// <summary>Its address.</summary>
    public required MacAddress Mac { get; init; }

    /// <summary>The largest IP packet, in bytes; null: the driver's choice.</summary>
    public int? Mtu { get; init; }

    /// <summary>Pairs of queues, 1 to <see cref="MaxPairs"/>; the packet port may have fewer.</summary>
    public int Pairs { get; init; } = 1;

    /// <summary>Entries of each queue, a power of two up to 1024.</summary>
    public ushort QueueSize { get; init; } = 256;

    /// <summary>Limits of what the guest receives.</summary>
    public RateLimiterSpec ReceiveLimits { get; init; }

    /// <summary>Limits of what the guest sends.</summary>
    public RateLimiterSpec TransmitLimits { get; init; }

    /// <summary>Drops what the guest sends from an address that is not the device's.</summary>
    public bool SpoofCheck { get; init; }

    /// <summary>Features that are offered at most; what they need beside them is left out with them.</summary>
    public ulong Features { get; init; } = ulong.MaxValue;

    /// <summary>The queues of a device: receive and transmit for each pair, then control.</summary>
    public IReadOnlyList<ushort> Queues => [.. Enumerable.Repeat(QueueSize, 2 * Pairs), ControlQueueSize];

    private const ushort ControlQueueSize = 64;
}
