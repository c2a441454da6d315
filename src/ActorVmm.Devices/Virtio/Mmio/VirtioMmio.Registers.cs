using System.Buffers.Binary;
using ActorVmm.Devices.Virtio.Queue;
using ActorVmm.Memory;

namespace ActorVmm.Devices.Virtio.Mmio;

/// <summary>One line per register.</summary>
public sealed partial class VirtioMmio
{
    private uint ReadRegister(MmioRegister register) => register switch
    {
        MmioRegister.MagicValue       => Magic,
        MmioRegister.Version          => MmioVersion,
        MmioRegister.DeviceId         => _type.DeviceId,
        MmioRegister.VendorId         => Vendor,
        MmioRegister.DeviceFeatures   => FeaturePage(),
        MmioRegister.QueueNumMax      => SelectedQueue?.MaxSize ?? 0u,
        MmioRegister.QueueReady       => SelectedQueue is { Setup.Ready: true } ? 1u : 0,
        MmioRegister.InterruptStatus  => (uint)_registers.Interrupt,
        MmioRegister.Status           => (uint)Status,
        MmioRegister.ShmLenLow or MmioRegister.ShmLenHigh or MmioRegister.ShmBaseLow or MmioRegister.ShmBaseHigh
                                      => uint.MaxValue, // no shared memory region exists (§4.2.2)
        MmioRegister.QueueReset       => 0,             // a reset of a queue is over when the write returns
        MmioRegister.ConfigGeneration => _ledger.ConfigGeneration,
        _                             => Meaningless(),
    };

    /// <summary>False where the write means nothing now.</summary>
    private bool WriteRegister(MmioRegister register, uint value) => register switch
    {
        MmioRegister.DeviceFeaturesSel => Set(ref _registers.DeviceFeaturesSel, value),
        MmioRegister.DriverFeatures    => WriteDriverFeatures(value),
        MmioRegister.DriverFeaturesSel => Set(ref _registers.DriverFeaturesSel, value),
        MmioRegister.QueueSel          => Set(ref _registers.QueueSel, value),
        MmioRegister.QueueNum          => WriteQueueSize(value),
        MmioRegister.QueueReady        => WriteQueueReady(value),
        MmioRegister.QueueNotify       => WriteNotify(value),
        MmioRegister.InterruptAck      => Acknowledge(value),
        MmioRegister.Status            => WriteStatus(value),
        MmioRegister.QueueDescLow      => SetUp(register, value),
        MmioRegister.QueueDescHigh     => SetUp(register, value),
        MmioRegister.QueueDriverLow    => SetUp(register, value),
        MmioRegister.QueueDriverHigh   => SetUp(register, value),
        MmioRegister.QueueDeviceLow    => SetUp(register, value),
        MmioRegister.QueueDeviceHigh   => SetUp(register, value),
        MmioRegister.ShmSel            => true, // whatever is selected, it does not exist
        MmioRegister.QueueReset        => WriteQueueReset(value),
        _                              => false,
    };

    private QueueLedger? SelectedQueue =>
        _registers.QueueSel < (uint)_queues.Length ? _ledger.Queues[(int)_registers.QueueSel] : null;

    private uint Meaningless()
    {
        IgnoredAccesses++;
        return 0;
    }

    private uint FeaturePage() => _registers.DeviceFeaturesSel switch
    {
        0 => (uint)OfferedFeatures,
        1 => (uint)(OfferedFeatures >> 32),
        _ => 0,
    };

    private static bool Set(ref uint register, uint value)
    {
        register = value;
        return true;
    }

    /// <summary>Only between DRIVER and FEATURES_OK (virtio 1.2 §3.1.1, steps 4 and 5).</summary>
    private bool WriteDriverFeatures(uint value)
    {
        if (!Has(DeviceStatus.Driver) || Has(DeviceStatus.FeaturesOk | DeviceStatus.Failed)) return false;
        switch (_registers.DriverFeaturesSel)
        {
            case 0: Low(ref _registers.DriverFeatures, value); return true;
            case 1: High(ref _registers.DriverFeatures, value); return true;
            case 2: Low(ref _registers.DriverFeaturesHigh, value); return true;
            case 3: High(ref _registers.DriverFeaturesHigh, value); return true;
            default: return value == 0;
        }
    }

    /// <summary>
    /// A queue may be set up between FEATURES_OK and DRIVER_OK, and after that where it can be reset alone; never while it is ready.
    /// </summary>
    private bool MayBeSetUp => Has(DeviceStatus.FeaturesOk) && !Has(DeviceStatus.Failed) &&
        (!Has(DeviceStatus.DriverOk) || (Features & VirtioFeatures.RingReset) != 0) && SelectedQueue is { Setup.Ready: false };

    private bool SetUp(MmioRegister register, uint value)
    {
        if (!MayBeSetUp) return false;
        var setup = SelectedQueue!.Setup;
        SelectedQueue.Setup = register switch
        {
            MmioRegister.QueueDescLow    => setup with { Descriptors = Low(setup.Descriptors, value) },
            MmioRegister.QueueDescHigh   => setup with { Descriptors = High(setup.Descriptors, value) },
            MmioRegister.QueueDriverLow  => setup with { Available = Low(setup.Available, value) },
            MmioRegister.QueueDriverHigh => setup with { Available = High(setup.Available, value) },
            MmioRegister.QueueDeviceLow  => setup with { Used = Low(setup.Used, value) },
            _                            => setup with { Used = High(setup.Used, value) },
        };
        return true;
    }

    private bool WriteQueueSize(uint value)
    {
        if (!MayBeSetUp || value == 0 || value > SelectedQueue!.MaxSize || !uint.IsPow2(value)) return false;
        SelectedQueue.Setup = SelectedQueue.Setup with { Size = (ushort)value };
        return true;
    }

    private bool WriteQueueReady(uint value)
    {
        if (_resumeDue) Resume();
        if (value == 0 && SelectedQueue is { Setup.Ready: true }) return ResetQueue(); // §4.2.2.2: the driver stops using the queue
        // A device that cannot go on uses no queue until it is reset as a whole (virtio 1.2 §2.1.2), whatever is reset alone.
        if (value != 1 || !MayBeSetUp || _ledger.NeedsReset is not null) return false;
        var queue = SelectedQueue!;
        queue.Setup = queue.Setup with { Ready = true };
        if (!_active) return true;
        _queues[(int)_registers.QueueSel].Start(Features);
        Notify((int)_registers.QueueSel); // the driver may have filled it before
        Settle();
        return true;
    }

    private bool WriteQueueReset(uint value)
    {
        if (value != 1 || !Has(DeviceStatus.DriverOk) || (Features & VirtioFeatures.RingReset) == 0) return false;
        if (_resumeDue) Resume();
        return SelectedQueue is not null && ResetQueue();
    }

    private bool ResetQueue()
    {
        var index = (int)_registers.QueueSel;
        _queues[index].Stop();
        _ledger.Queues[index].Clear();
        if (_active) _type.OnQueueReset(index);
        return true;
    }

    private bool WriteNotify(uint value)
    {
        if (!Has(DeviceStatus.DriverOk) || value >= (uint)_queues.Length) return false;
        if (_resumeDue) Resume();
        Notify((int)value);
        return true;
    }

    private bool Acknowledge(uint value)
    {
        _registers.Interrupt &= ~(InterruptCause)(byte)value;
        DriveLine();
        return true;
    }

    /// <summary>
    /// The status machine (virtio 1.2 §3.1.1): one bit at a time, in order, never back; 0 resets everything. FAILED may come at any time.
    /// </summary>
    private bool WriteStatus(uint value)
    {
        if (value == 0)
        {
            Reset();
            return true;
        }

        var wanted = (DeviceStatus)(byte)value & ~DeviceStatus.NeedsReset;
        if ((wanted & DeviceStatus.Failed) != 0)
        {
            _registers.Status |= DeviceStatus.Failed;
            return true;
        }

        if (value > byte.MaxValue || Has(DeviceStatus.Failed) || (_registers.Status & ~wanted) != 0) return false;
        var added = wanted & ~_registers.Status;
        switch (added)
        {
            case DeviceStatus.None:
                return true;
            case DeviceStatus.Acknowledge:
            case DeviceStatus.Driver when Has(DeviceStatus.Acknowledge):
                break;
            case DeviceStatus.FeaturesOk when Has(DeviceStatus.Driver):
                if (!FeaturesAreFine) return false; // the driver reads the bit back as 0 (§2.2.2)
                break;
            case DeviceStatus.DriverOk when Has(DeviceStatus.FeaturesOk):
                _registers.Status |= DeviceStatus.DriverOk;
                Activate();
                Settle();
                return true;
            default:
                return false;
        }

        _registers.Status |= added;
        return true;
    }

    private bool FeaturesAreFine =>
        (_registers.DriverFeatures & ~OfferedFeatures) == 0 && _registers.DriverFeaturesHigh == 0 &&
        (_registers.DriverFeatures & VirtioFeatures.Version1) != 0 && _type.AcceptsFeatures(_registers.DriverFeatures);

    private ulong ReadConfig(ulong offset, int size)
    {
        if (size is not (1 or 2 or 4 or 8) || offset > WindowSize) { IgnoredAccesses++; return 0; }
        if (_resumeDue) Resume();
        Span<byte> bytes = stackalloc byte[sizeof(ulong)];
        bytes.Clear();
        _type.ReadConfig((int)offset, bytes[..size]);
        return BinaryPrimitives.ReadUInt64LittleEndian(bytes);
    }

    /// <summary>Only with DRIVER set (virtio 1.2 §2.5.2 leaves the rest to the device type).</summary>
    private void WriteConfig(ulong offset, int size, ulong value)
    {
        if (size is not (1 or 2 or 4 or 8) || offset > WindowSize || !Has(DeviceStatus.Driver) || Has(DeviceStatus.Failed))
        {
            IgnoredAccesses++;
            return;
        }

        if (_resumeDue) Resume();
        Span<byte> bytes = stackalloc byte[sizeof(ulong)];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, value);
        _type.WriteConfig((int)offset, bytes[..size]);
        Settle();
    }

    private static void Low(ref ulong register, uint value) => register = (register & 0xFFFF_FFFF_0000_0000) | value;

    private static void High(ref ulong register, uint value) => register = (uint)register | ((ulong)value << 32);

    private static GuestAddress Low(GuestAddress address, uint value) => new((address.Value & 0xFFFF_FFFF_0000_0000) | value);

    private static GuestAddress High(GuestAddress address, uint value) => new((uint)address.Value | ((ulong)value << 32));
}
