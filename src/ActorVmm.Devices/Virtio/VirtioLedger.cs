using ActorVmm.Devices.Virtio.Queue;

namespace ActorVmm.Devices.Virtio;

/// <summary>
/// What outlives a virtio device: its queues' setup and requests, the state of its type, and what it owes the driver. Made once per slot of
/// the machine; each instance of the device is built upon it. Touched by the device's thread only.
/// </summary>
public sealed class VirtioLedger
{
    private readonly QueueLedger[] _queues;
    private byte[]? _deviceState;

    /// <param name="queueSizes">The largest size of each queue (<see cref="IVirtioDevice.QueueSizes"/>).</param>
    public VirtioLedger(IReadOnlyList<ushort> queueSizes)
    {
        ArgumentNullException.ThrowIfNull(queueSizes);
        _queues = [.. queueSizes.Select(static size => new QueueLedger(size))];
    }

    /// <summary>The queues, by index.</summary>
    public IReadOnlyList<QueueLedger> Queues => _queues;

    /// <summary>Looks on at each step of a request; null (the default) costs one compare per step. Set between messages.</summary>
    public ICrashHook? CrashHook { get; set; }

    /// <summary>True while a request is under way that a failed instance had begun.</summary>
    public bool IsRepeating
    {
        get
        {
            foreach (var queue in _queues)
                if (queue.IsRepeating) return true;
            return false;
        }
    }

    /// <summary>Bytes of the device type; null where it never had any.</summary>
    public ReadOnlySpan<byte> DeviceState => _deviceState;

    /// <summary>True where the device type has said something about its state.</summary>
    public bool HasDeviceState => _deviceState is not null;

    /// <summary>Changes of configuration space (virtio 1.2 §2.5.1).</summary>
    public uint ConfigGeneration { get; internal set; }

    /// <summary>Why the whole device asks to be reset; null where it does not.</summary>
    public string? NeedsReset { get; internal set; }

    /// <summary>
    /// Used-buffer interrupts decided so far. A checkpoint that has seen fewer belongs to an instance that failed before its interrupt
    /// left: the next one raises it.
    /// </summary>
    internal ulong UsedSignals { get; set; }

    /// <summary>Config interrupts decided so far; the same.</summary>
    internal ulong ConfigSignals { get; set; }

    /// <summary>The last <see cref="RequestId.Serial"/>; never set back, so that no request of the past is mistaken for a present
    /// one.</summary>
    internal ulong LastSerial { get; set; }

    internal void StoreDeviceState(IVirtioDevice device)
    {
        var size = device.StateSize;
        if (size == 0) return;
        // Filled aside and then copied: a device that fails while it writes leaves the old state whole.
        Span<byte> fresh = size <= 1024 ? stackalloc byte[size] : new byte[size];
        device.SaveState(fresh);
        if (_deviceState?.Length != size) _deviceState = new byte[size];
        fresh.CopyTo(_deviceState);
    }

    internal void SetDeviceState(byte[]? state) => _deviceState = state;

    /// <summary>Reset: no request, no setup, no state. Serial numbers and what was signalled go on.</summary>
    internal void Clear()
    {
        foreach (var queue in _queues) queue.Clear();
        _deviceState = null;
        NeedsReset = null;
    }
}
