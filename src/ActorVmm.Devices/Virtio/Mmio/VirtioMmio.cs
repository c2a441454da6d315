using ActorVmm.Devices.Virtio.Queue;
using ActorVmm.Memory;

namespace ActorVmm.Devices.Virtio.Mmio;

/// <summary>
/// The virtio-mmio transport, version 2 (virtio 1.2 §4.2): registers, status machine, queues and interrupts for one device type. Whatever
/// a driver writes has an answer; what it breaks is its own queue.
/// </summary>
/// <remarks>
/// A fresh instance upon a ledger that is in use takes over where the last one failed: registers from the checkpoint, requests from the
/// ledger. The device type is activated at the first access that needs it, so that its failure is that of a message and not of a
/// constructor, and plain registers answer although the type fails again and again.
/// </remarks>
public sealed partial class VirtioMmio : IBusDevice, IDeviceState<VirtioRegisters>, ITimedDevice, IVirtioPort
{
    /// <summary>Bytes of the register window.</summary>
    public const ulong WindowSize = 0x1000;

    private const uint Magic = 0x7472_6976; // "virt"
    private const uint MmioVersion = 2;
    private const uint Vendor = 0x564D_5641; // "AVMV"

    private readonly IVirtioDevice _type;
    private readonly VirtioLedger _ledger;
    private readonly IInterruptLine _line;
    private readonly VirtQueue[] _queues;
    private VirtioRegisters _registers;
    private bool _active;
    private bool _resumeDue;

    /// <param name="type">A fresh instance of the device type.</param>
    /// <param name="ledger">Outlives this object; made for the same queue sizes.</param>
    /// <param name="memory">Guest RAM.</param>
    /// <param name="line">The device's level-triggered interrupt input.</param>
    public VirtioMmio(IVirtioDevice type, VirtioLedger ledger, GuestMemory memory, IInterruptLine line)
    {
        ArgumentNullException.ThrowIfNull(type);
        ArgumentNullException.ThrowIfNull(ledger);
        if (!type.QueueSizes.SequenceEqual(ledger.Queues.Select(static queue => queue.MaxSize)))
            throw new ArgumentException("the ledger was made for other queues", nameof(ledger));
        if ((type.Features & ~VirtioFeatures.DeviceType) != 0)
            throw new ArgumentException($"features 0x{type.Features:x} are not all of the device type's", nameof(type));
        _type = type;
        _ledger = ledger;
        Memory = memory;
        _line = line;
        _queues = [.. ledger.Queues.Select((queue, index) => new VirtQueue(index, memory, queue, ledger, OnBroken))];
    }

    /// <inheritdoc/>
    public GuestMemory Memory { get; }

    /// <inheritdoc/>
    public ulong Features => Has(DeviceStatus.FeaturesOk) ? _registers.DriverFeatures : 0;

    /// <summary>What the device offers.</summary>
    public ulong OfferedFeatures => _type.Features | VirtioFeatures.Transport;

    /// <summary>The status register.</summary>
    public DeviceStatus Status => _registers.Status | (NeedsResetNow ? DeviceStatus.NeedsReset : DeviceStatus.None);

    /// <summary>True from DRIVER_OK to reset: doorbells are answered.</summary>
    public bool IsActive => Has(DeviceStatus.DriverOk);

    /// <summary>Number of queues.</summary>
    public int QueueCount => _queues.Length;

    /// <summary>Accesses that mean nothing: wrong width, unaligned, reserved, out of order.</summary>
    public long IgnoredAccesses { get; private set; }

    /// <summary>Queues that this instance has seen broken by the driver.</summary>
    public long Faults { get; private set; }

    /// <summary>Doorbells answered.</summary>
    public long Notifications { get; private set; }

    /// <inheritdoc/>
    public VirtQueue Queue(int index) => _queues[index];

    /// <inheritdoc/>
    public VirtioRegisters State
    {
        get
        {
            var state = _registers;
            (state.UsedSignals, state.ConfigSignals) = (_ledger.UsedSignals, _ledger.ConfigSignals);
            return state;
        }
        set
        {
            _registers = value;
            // Decided by an instance that failed before its interrupt left. One too many does a driver no harm (virtio 1.2 §2.7.7.2).
            if (value.UsedSignals != _ledger.UsedSignals) _registers.Interrupt |= InterruptCause.UsedBuffer;
            if (value.ConfigSignals != _ledger.ConfigSignals) _registers.Interrupt |= InterruptCause.ConfigChange;
            _active = false;
            _resumeDue = Has(DeviceStatus.DriverOk);
            // Now and not only in Resume: the driver's next step may be a reset, over which some of it lasts (an entropy stream's position).
            if (_resumeDue && _ledger.HasDeviceState) _ = _type.RestoreState(_ledger.DeviceState);
            DriveLine();
        }
    }

    /// <inheritdoc/>
    public void CopyState(ref VirtioRegisters into)
    {
        into = _registers;
        into.UsedSignals = _ledger.UsedSignals;
        into.ConfigSignals = _ledger.ConfigSignals;
    }

    /// <inheritdoc/>
    public ulong Read(ulong offset, int size)
    {
        if (offset >= (ulong)MmioRegister.Config) return ReadConfig(offset - (ulong)MmioRegister.Config, size);
        if (size == 4 && offset % 4 == 0) return ReadRegister((MmioRegister)offset);
        IgnoredAccesses++;
        return 0;
    }

    /// <inheritdoc/>
    public void Write(ulong offset, int size, ulong value)
    {
        if (offset >= (ulong)MmioRegister.Config) WriteConfig(offset - (ulong)MmioRegister.Config, size, value);
        else if (size == 4 && offset % 4 == 0 && WriteRegister((MmioRegister)offset, (uint)value)) return;
        else IgnoredAccesses++;
    }

    /// <summary>Machine reset; what a status of 0 does.</summary>
    public void Reset()
    {
        _resumeDue = false;
        _active = false;
        _ledger.Clear();
        foreach (var queue in _queues) queue.Stop();
        _registers = default;
        DriveLine();
        _type.Reset();
    }

    /// <summary>A doorbell that did not come as a register write (ioeventfd). Spurious ones are harmless.</summary>
    public void OnDoorbell(int queue)
    {
        if (_resumeDue) Resume();
        if ((uint)queue < (uint)_queues.Length) Notify(queue);
    }

    /// <summary>The backend has something for the device type. Spurious calls are harmless.</summary>
    public void OnBackend()
    {
        if (_resumeDue) Resume();
        _type.OnBackend();
        Settle();
    }

    /// <summary>When the device type wants to look at the time; it does so only while it is active.</summary>
    public ulong? Deadline => _active && _type is ITimedDevice timed ? timed.Deadline : null;

    /// <inheritdoc/>
    public void Advance(ulong nanoseconds)
    {
        if (_resumeDue) Resume();
        if (!_active || _type is not ITimedDevice timed) return;
        timed.Advance(nanoseconds);
        Settle();
    }

    /// <summary>Takes up the work of an instance that failed; nothing where there is none. Else the first access does it.</summary>
    public void Resume()
    {
        if (!_resumeDue) return;
        if (_ledger.HasDeviceState && !_type.RestoreState(_ledger.DeviceState))
            throw new InvalidOperationException("the device does not accept the state that it gave");
        Activate();
        for (var index = 0; index < _queues.Length; index++)
            if (_queues[index].IsLive) _type.OnNotify(index);
        _resumeDue = false;
        Settle();
    }

    /// <inheritdoc/>
    public void ConfigChanged()
    {
        unchecked { _ledger.ConfigGeneration++; }
        SignalConfig();
        DriveLine();
    }

    /// <inheritdoc/>
    public void StateChanged() => _ledger.StoreDeviceState(_type);

    /// <inheritdoc/>
    public void NeedsReset(string why)
    {
        if (_ledger.NeedsReset is not null) return;
        _ledger.NeedsReset = why;
        foreach (var queue in _queues) queue.Stop();
        SignalConfig();
        DriveLine();
    }

    public override string ToString() =>
        $"type {_type.DeviceId}, status {Status}, features 0x{Features:x}, interrupt {_registers.Interrupt}" +
        (_ledger.NeedsReset is { } why ? $", needs reset: {why}" : "");

    private bool NeedsResetNow => _ledger.NeedsReset is not null || Array.Exists(_queues, static queue => queue.Fault != QueueFault.None);

    private bool Has(DeviceStatus bit) => (_registers.Status & bit) != 0;

    private void Activate()
    {
        foreach (var queue in _queues) queue.Start(Features);
        if (_ledger.NeedsReset is not null)
            foreach (var queue in _queues) queue.Stop();
        _active = true;
        _type.Activate(Features, this);
    }

    private void Notify(int index)
    {
        if (!_queues[index].IsLive) { IgnoredAccesses++; return; }
        Notifications++;
        _queues[index].SuppressNotify();
        _type.OnNotify(index);
        Settle();
    }

    /// <summary>Once per message: answers become visible, and the driver is told if it wants to be.</summary>
    private void Settle()
    {
        var used = false;
        foreach (var queue in _queues) used |= queue.Publish();
        if (used)
        {
            _registers.Interrupt |= InterruptCause.UsedBuffer;
            _ledger.CrashHook?.Reached(CrashPoint.InterruptDecided, 0, 0);
        }

        DriveLine();
    }

    /// <summary>A driver broke a queue: the others go on (virtio 1.2 §2.1.2).</summary>
    private void OnBroken(VirtQueue queue)
    {
        Faults++;
        SignalConfig();
    }

    private void SignalConfig()
    {
        if (!Has(DeviceStatus.DriverOk)) return; // before that, the driver reads status and configuration itself
        _registers.Interrupt |= InterruptCause.ConfigChange;
        _ledger.ConfigSignals++;
    }

    private void DriveLine() => _line.Drive(_registers.Interrupt != InterruptCause.None);
}
