namespace ActorVmm.Devices.Virtio;

/// <summary>
/// What one type of virtio device adds to the transport (virtio 1.2 §5): features, configuration space, and what its queues mean. Pure, like
/// every device: it hears of doorbells and of its backend, works on its queues, and touches nothing else.
/// </summary>
public interface IVirtioDevice
{
    /// <summary>Virtio device ID (virtio 1.2 §5): 1 network, 2 block, 4 entropy.</summary>
    uint DeviceId { get; }

    /// <summary>Feature bits of the device type; the transport adds its own (24 to 41).</summary>
    ulong Features { get; }

    /// <summary>The largest size of each queue; the count is the number of queues.</summary>
    IReadOnlyList<ushort> QueueSizes { get; }

    /// <summary>Reads configuration space; bytes beyond its end are zero.</summary>
    void ReadConfig(int offset, Span<byte> into);

    /// <summary>Writes configuration space; what is read-only ignores it.</summary>
    void WriteConfig(int offset, ReadOnlySpan<byte> from);

    /// <summary>DRIVER_OK: queues are set up and <paramref name="features"/> is what was negotiated. Also called, with the same arguments, on a
    /// fresh instance that takes over from one that failed.</summary>
    void Activate(ulong features, IVirtioPort port);

    /// <summary>Status 0 or machine reset: back to power-on. What the backend still has in flight answers nobody.</summary>
    void Reset();

    /// <summary>The driver rang the doorbell of queue <paramref name="index"/>.</summary>
    void OnNotify(int index);

    /// <summary>The backend has something: completions, packets, a new size. Spurious calls are harmless.</summary>
    void OnBackend();
}
