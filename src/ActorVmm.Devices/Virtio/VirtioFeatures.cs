namespace ActorVmm.Devices.Virtio;

/// <summary>Feature bits that belong to the transport and its queues, not to a device type (virtio 1.2 §6).</summary>
public static class VirtioFeatures
{
    /// <summary>VIRTIO_F_INDIRECT_DESC: a descriptor may name a table of descriptors (§2.7.5.3).</summary>
    public const ulong IndirectDescriptors = 1UL << 28;

    /// <summary>VIRTIO_F_EVENT_IDX: both sides say at which index they want to be told (§2.7.7, §2.7.10).</summary>
    public const ulong EventIndex = 1UL << 29;

    /// <summary>VIRTIO_F_VERSION_1: not a legacy device; always offered, and required.</summary>
    public const ulong Version1 = 1UL << 32;

    /// <summary>
    /// VIRTIO_F_IN_ORDER: requests are answered in the order in which they were made available (§2.7.9). Offered where a device type names
    /// it among its own features; the queue then holds back what completes early.
    /// </summary>
    public const ulong InOrder = 1UL << 35;

    /// <summary>VIRTIO_F_RING_RESET: one queue can be reset and set up anew (§2.6.1).</summary>
    public const ulong RingReset = 1UL << 40;

    /// <summary>What the transport offers with every device type.</summary>
    public const ulong Transport = IndirectDescriptors | EventIndex | Version1 | RingReset;

    /// <summary>Bits that a device type may offer: its own (0 to 23, 50 to 127) and <see cref="InOrder"/>.</summary>
    public const ulong DeviceType = 0x00FF_FFFF | (0x3FFFUL << 50) | InOrder;
}
