namespace ActorVmm.Devices.Virtio.Queue;

/// <summary>What a driver did to its queue that no device can work with. The queue is dead until it is reset.</summary>
public enum QueueFault : byte
{
    /// <summary>Nothing.</summary>
    None = 0,

    /// <summary>The descriptor table, available or used ring is not aligned to 16, 2 and 4 bytes (virtio 1.2 §2.7).</summary>
    RingMisaligned,

    /// <summary>One of them is not in RAM, or passes 2^64.</summary>
    RingOutsideRam,

    /// <summary>The available index is ahead by more than the queue's size (§2.7.13.3).</summary>
    AvailableIndexTooFar,

    /// <summary>A descriptor number is not below the size of its table.</summary>
    DescriptorOutOfRange,

    /// <summary>A chain was made available that is in flight already.</summary>
    HeadInFlight,

    /// <summary>A chain is longer than the queue, or a loop (§2.7.5.2).</summary>
    ChainTooLong,

    /// <summary>A device-readable buffer follows a device-writable one (§2.7.4.2).</summary>
    ReadableAfterWritable,

    /// <summary>A buffer is not wholly in RAM, or passes 2^64.</summary>
    BufferOutsideRam,

    /// <summary>An indirect descriptor without VIRTIO_F_INDIRECT_DESC (§2.7.5.3.1).</summary>
    IndirectNotNegotiated,

    /// <summary>An indirect descriptor in an indirect table (§2.7.5.3.1).</summary>
    IndirectNested,

    /// <summary>An indirect descriptor with a next one (§2.7.5.3.1).</summary>
    IndirectWithNext,

    /// <summary>An indirect table whose length is zero or no multiple of 16 (§2.7.5.3.1).</summary>
    IndirectLength,

    /// <summary>An indirect table outside RAM.</summary>
    IndirectOutsideRam,

    /// <summary>Guest RAM is gone, or no longer holds a ring that was there.</summary>
    RingLost,
}
