using ActorVmm.Devices;
using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Mmio;
using ActorVmm.Memory;

namespace ActorVmm.Testing.Virtio;

/// <summary>
/// A guest's driver of one virtio-mmio device, in the steps and the order of Linux's: finds the device, negotiates, sets up its queues, and
/// says DRIVER_OK. Its rings and buffers lie in guest RAM from <paramref name="room"/> on.
/// </summary>
/// <param name="device">The registers.</param>
/// <param name="memory">Guest RAM.</param>
/// <param name="room">First byte of RAM that the driver may use.</param>
public sealed class VirtioDriver(IBusDevice device, GuestMemory memory, ulong room = 0x10_0000)
{
    private readonly List<GuestRing> _rings = [];
    private ulong _room = room;

    public GuestMemory Memory { get; } = memory;

    /// <summary>What was negotiated.</summary>
    public ulong Features { get; private set; }

    /// <summary>The queues, by index.</summary>
    public IReadOnlyList<GuestRing> Rings => _rings;

    public uint Read(MmioRegister register) => (uint)device.Read((ulong)register, 4);

    public void Write(MmioRegister register, uint value) => device.Write((ulong)register, 4, value);

    public DeviceStatus Status => (DeviceStatus)Read(MmioRegister.Status);

    /// <summary>Bytes of RAM that nobody else uses.</summary>
    public GuestAddress Allocate(ulong bytes, ulong alignment = 16)
    {
        var at = (_room + alignment - 1) & ~(alignment - 1);
        _room = at + bytes;
        if (!Memory.Contains(new GuestAddress(at), bytes)) throw new InvalidOperationException("the driver's room is used up");
        return new GuestAddress(at);
    }

    /// <summary>Everything from reset to DRIVER_OK.</summary>
    /// <param name="wanted">Features that the driver knows, beside VERSION_1.</param>
    /// <param name="size">Entries per queue; 0 for as many as the device has.</param>
    public void Start(ulong wanted = VirtioFeatures.EventIndex | VirtioFeatures.IndirectDescriptors, ushort size = 0)
    {
        Negotiate(wanted);
        SetUpQueues(size);
        AddStatus(DeviceStatus.DriverOk);
    }

    /// <summary>Reset, ACKNOWLEDGE, DRIVER, features, FEATURES_OK.</summary>
    public void Negotiate(ulong wanted)
    {
        if (Read(MmioRegister.MagicValue) != 0x74726976 || Read(MmioRegister.Version) != 2)
            throw new InvalidOperationException("there is no virtio device of version 2");
        Write(MmioRegister.Status, 0);
        AddStatus(DeviceStatus.Acknowledge);
        AddStatus(DeviceStatus.Driver);
        Features = Offered & (wanted | VirtioFeatures.Version1);
        Choose(Features);
        AddStatus(DeviceStatus.FeaturesOk);
        if ((Status & DeviceStatus.FeaturesOk) == 0) throw new InvalidOperationException($"features 0x{Features:x} are refused");
    }

    /// <summary>What the device offers.</summary>
    public ulong Offered
    {
        get
        {
            Write(MmioRegister.DeviceFeaturesSel, 0);
            ulong low = Read(MmioRegister.DeviceFeatures);
            Write(MmioRegister.DeviceFeaturesSel, 1);
            return low | ((ulong)Read(MmioRegister.DeviceFeatures) << 32);
        }
    }

    /// <summary>Writes the driver's features.</summary>
    public void Choose(ulong features)
    {
        Write(MmioRegister.DriverFeaturesSel, 0);
        Write(MmioRegister.DriverFeatures, (uint)features);
        Write(MmioRegister.DriverFeaturesSel, 1);
        Write(MmioRegister.DriverFeatures, (uint)(features >> 32));
    }

    /// <summary>Sets up every queue that the device has.</summary>
    public void SetUpQueues(ushort size = 0)
    {
        _rings.Clear();
        for (var index = 0; ; index++)
        {
            Write(MmioRegister.QueueSel, (uint)index);
            var max = (ushort)Read(MmioRegister.QueueNumMax);
            if (max == 0) return;
            var entries = size == 0 ? max : size;
            var ring = new GuestRing(Memory, Allocate(GuestRing.BytesFor(entries), 4096), entries,
                (Features & VirtioFeatures.EventIndex) != 0, (Features & VirtioFeatures.IndirectDescriptors) != 0);
            _rings.Add(ring);
            SetUpQueue(index, ring);
        }
    }

    /// <summary>Tells the device where a queue is, and makes it ready.</summary>
    public void SetUpQueue(int index, GuestRing ring)
    {
        Write(MmioRegister.QueueSel, (uint)index);
        Write(MmioRegister.QueueNum, ring.Size);
        Write64(MmioRegister.QueueDescLow, ring.Descriptors.Value);
        Write64(MmioRegister.QueueDriverLow, ring.Available.Value);
        Write64(MmioRegister.QueueDeviceLow, ring.Used.Value);
        Write(MmioRegister.QueueReady, 1);
    }

    /// <summary>Sets one more bit of the status.</summary>
    public void AddStatus(DeviceStatus bit) => Write(MmioRegister.Status, Read(MmioRegister.Status) | (uint)bit);

    /// <summary>Publishes what was added to a queue, and rings where the device wants it. True where it rang.</summary>
    public bool Kick(int queue)
    {
        var rings = _rings[queue].Publish();
        if (rings) Ring(queue);
        return rings;
    }

    /// <summary>Rings the doorbell whatever the device wants.</summary>
    public void Ring(int queue) => Write(MmioRegister.QueueNotify, (uint)queue);

    /// <summary>The interrupt handler: what the device says, acknowledged.</summary>
    public InterruptCause HandleInterrupt()
    {
        var cause = (InterruptCause)Read(MmioRegister.InterruptStatus);
        if (cause != InterruptCause.None) Write(MmioRegister.InterruptAck, (uint)cause);
        return cause;
    }

    /// <summary>Configuration space, read as Linux reads a structure: until the generation stands still.</summary>
    public byte[] ReadConfig(int offset, int count)
    {
        var bytes = new byte[count];
        uint before;
        do
        {
            before = Read(MmioRegister.ConfigGeneration);
            for (var i = 0; i < count; i++) bytes[i] = (byte)device.Read((ulong)MmioRegister.Config + (ulong)(offset + i), 1);
        }
        while (Read(MmioRegister.ConfigGeneration) != before);
        return bytes;
    }

    /// <summary>Puts bytes into RAM at a fresh place.</summary>
    public GuestBuffer Readable(ReadOnlySpan<byte> bytes)
    {
        var at = Allocate((ulong)Math.Max(1, bytes.Length));
        Memory.TryWrite(at, bytes);
        return new GuestBuffer(at, (uint)bytes.Length, Writable: false);
    }

    /// <summary>Room for the device's answer.</summary>
    public GuestBuffer Writable(uint length) => new(Allocate(Math.Max(1, length)), length, Writable: true);

    /// <summary>What lies in a buffer now.</summary>
    public byte[] Bytes(GuestBuffer buffer)
    {
        var bytes = new byte[buffer.Length];
        return Memory.TryRead(buffer.Address, bytes) ? bytes : throw new InvalidOperationException("the buffer is not in RAM");
    }

    private void Write64(MmioRegister low, ulong value)
    {
        Write(low, (uint)value);
        Write(low + 4, (uint)(value >> 32));
    }
}
