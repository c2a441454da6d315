namespace ActorVmm.Devices.Virtio;

/// <summary>
/// What one type of virtio device adds to the transport (virtio 1.2 §5): features, configuration space, and what its queues mean. Pure,
/// like every device: it hears of doorbells and of its backend, works on its queues, and touches nothing else.
/// </summary>
public interface IVirtioDevice
{
    /// <summary>Virtio device ID (virtio 1.2 §5): 1 network, 2 block, 4 entropy.</summary>
    uint DeviceId { get; }

    /// <summary>
    /// Feature bits of the device type, and <see cref="VirtioFeatures.InOrder"/> where it answers in order; the transport adds its own.
    /// </summary>
    ulong Features { get; }

    /// <summary>The largest size of each queue, a power of two up to 1024; the count is the number of queues.</summary>
    IReadOnlyList<ushort> QueueSizes { get; }

    /// <summary>Bytes of state that a restarted device must know beside its queues (a MAC address set by the driver, say); 0 for
    /// none.</summary>
    int StateSize => 0;

    /// <summary>True where the device type can work with this choice of the driver's; else FEATURES_OK is refused (virtio 1.2
    /// §2.2.2).</summary>
    bool AcceptsFeatures(ulong features) => true;

    /// <summary>Reads configuration space; bytes beyond its end are zero.</summary>
    void ReadConfig(int offset, Span<byte> into);

    /// <summary>Writes configuration space; what is read-only ignores it.</summary>
    void WriteConfig(int offset, ReadOnlySpan<byte> from);

    /// <summary>
    /// DRIVER_OK: queues are set up and <paramref name="features"/> is what was negotiated. Also called, with the same arguments, on a
    /// fresh instance that takes over from one that failed: <see cref="RestoreState"/> was called before where there is state, and the
    /// doorbells of all queues follow. Requests that the failed instance had begun then come out of <see cref="Queue.VirtQueue.TryTake"/>
    /// again, in their order and before new ones; what its backend still does for the old instance must not touch guest RAM any more.
    /// </summary>
    void Activate(ulong features, IVirtioPort port);

    /// <summary>Status 0 or machine reset: back to power-on. What the backend still has in flight answers nobody.</summary>
    void Reset();

    /// <summary>
    /// The driver has reset queue <paramref name="index"/> alone (VIRTIO_F_RING_RESET): its requests are forgotten, and what the backend
    /// still does for them must not touch guest RAM any more. The queue may become ready again later.
    /// </summary>
    void OnQueueReset(int index) { }

    /// <summary>
    /// The driver rang the doorbell of queue <paramref name="index"/>. Take until <see cref="Queue.VirtQueue.TryTake"/> is false: until
    /// then the driver need not ring again. Spurious calls are harmless.
    /// </summary>
    void OnNotify(int index);

    /// <summary>The backend has something: completions, packets, a new size. Spurious calls are harmless.</summary>
    void OnBackend();

    /// <summary>Writes the <see cref="StateSize"/> bytes that a restarted device resumes from.</summary>
    void SaveState(Span<byte> into) { }

    /// <summary>Takes over what <see cref="SaveState"/> gave; false where the bytes cannot be right (saved states are not
    /// trusted).</summary>
    bool RestoreState(ReadOnlySpan<byte> from) => true;
}
