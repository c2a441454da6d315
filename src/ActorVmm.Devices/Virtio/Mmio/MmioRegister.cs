namespace ActorVmm.Devices.Virtio.Mmio;

/// <summary>Registers of virtio over MMIO, as offsets; all are 32 bits wide (virtio 1.2 §4.2.2, table 4.1).</summary>
public enum MmioRegister : ushort
{
    MagicValue = 0x000,
    Version = 0x004,
    DeviceId = 0x008,
    VendorId = 0x00C,
    DeviceFeatures = 0x010,
    DeviceFeaturesSel = 0x014,
    DriverFeatures = 0x020,
    DriverFeaturesSel = 0x024,
    QueueSel = 0x030,
    QueueNumMax = 0x034,
    QueueNum = 0x038,
    QueueReady = 0x044,
    QueueNotify = 0x050,
    InterruptStatus = 0x060,
    InterruptAck = 0x064,
    Status = 0x070,
    QueueDescLow = 0x080,
    QueueDescHigh = 0x084,
    QueueDriverLow = 0x090,
    QueueDriverHigh = 0x094,
    QueueDeviceLow = 0x0A0,
    QueueDeviceHigh = 0x0A4,
    ShmSel = 0x0AC,
    ShmLenLow = 0x0B0,
    ShmLenHigh = 0x0B4,
    ShmBaseLow = 0x0B8,
    ShmBaseHigh = 0x0BC,
    QueueReset = 0x0C0,
    ConfigGeneration = 0x0FC,

    /// <summary>Configuration space of the device type begins here; any width.</summary>
    Config = 0x100,
}

/// <summary>Device status (virtio 1.2 §2.1).</summary>
[Flags]
public enum DeviceStatus : byte
{
    None = 0,
    Acknowledge = 1,
    Driver = 2,
    DriverOk = 4,
    FeaturesOk = 8,

    /// <summary>Set by the device: it has met something from which only a reset helps.</summary>
    NeedsReset = 64,

    /// <summary>Set by the driver: it has given up on the device.</summary>
    Failed = 128,
}

/// <summary>Why the device interrupts (virtio 1.2 §4.2.2, InterruptStatus).</summary>
[Flags]
public enum InterruptCause : byte
{
    None = 0,
    UsedBuffer = 1,
    ConfigChange = 2,
}

/// <summary>The transport's registers beside those of its queues: what a checkpoint holds.</summary>
public record struct VirtioRegisters
{
    /// <summary>Without <see cref="DeviceStatus.NeedsReset"/>, which follows from the queues.</summary>
    public DeviceStatus Status;
    public InterruptCause Interrupt;
    public uint DeviceFeaturesSel;
    public uint DriverFeaturesSel;
    public uint QueueSel;

    /// <summary>Features 0 to 63 as the driver wrote them.</summary>
    public ulong DriverFeatures;

    /// <summary>Features 64 to 127; none exists, so anything but zero is refused.</summary>
    public ulong DriverFeaturesHigh;

    /// <summary>Interrupts of both causes that this checkpoint knows of (see <see cref="VirtioLedger"/>).</summary>
    public ulong UsedSignals;
    public ulong ConfigSignals;
}
