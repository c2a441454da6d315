using ActorVmm.Devices;
using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Mmio;
using ActorVmm.Devices.Virtio.Queue;
using ActorVmm.Memory;
using ActorVmm.Testing.Devices;

namespace ActorVmm.Testing.Virtio;

/// <summary>
/// A virtio device with RAM and a driver, and the part of its actor that matters for failures: a checkpoint after each message that
/// succeeded, a fresh instance upon the old ledger after one that failed, and the failed access tried once more.
/// </summary>
/// <typeparam name="TDevice">The device type.</typeparam>
public sealed class VirtioRig<TDevice> : IBusDevice, IDisposable where TDevice : IVirtioDevice
{
    private readonly Func<TDevice> _make;
    private VirtioRegisters _checkpoint;

    /// <param name="make">Makes a fresh device type; called again at each restart.</param>
    /// <param name="memoryMib">Guest RAM.</param>
    public VirtioRig(Func<TDevice> make, int memoryMib = 16)
    {
        ArgumentNullException.ThrowIfNull(make);
        _make = make;
        Memory = GuestMemory.Create((ulong)memoryMib << 20);
        Device = make();
        Ledger = new VirtioLedger(Device.QueueSizes);
        Mmio = new VirtioMmio(Device, Ledger, Memory, Line);
        Driver = new VirtioDriver(this, Memory);
    }

    public GuestMemory Memory { get; }
    public RecordingLine Line { get; } = new();
    public VirtioLedger Ledger { get; }

    /// <summary>The instance that works now.</summary>
    public TDevice Device { get; private set; }

    /// <summary>The transport instance that works now.</summary>
    public VirtioMmio Mmio { get; private set; }

    public VirtioDriver Driver { get; }

    /// <summary>Fresh instances so far.</summary>
    public int Restarts { get; private set; }

    /// <summary>The last failure.</summary>
    public Exception? LastFailure { get; private set; }

    public ulong Read(ulong offset, int size)
    {
        ulong value = 0;
        return Handle(() => value = Mmio.Read(offset, size)) ? value : ulong.MaxValue;
    }

    public void Write(ulong offset, int size, ulong value) => Handle(() => Mmio.Write(offset, size, value));

    public void Reset() => Handle(() => Mmio.Reset());

    /// <summary>The backend rings.</summary>
    public void Backend() => Handle(() => Mmio.OnBackend(), again: false);

    /// <summary>A fresh instance takes over, as after a failure between two messages.</summary>
    public void Restart()
    {
        Restarts++;
        Device = _make();
        Mmio = new VirtioMmio(Device, Ledger, Memory, Line) { State = _checkpoint };
    }

    public void Dispose() => Memory.Dispose();

    private bool Handle(Action message, bool again = true)
    {
        for (var attempt = 0; ; attempt++)
        {
            try
            {
                message();
                _checkpoint = Mmio.State;
                return true;
            }
            catch (Exception cause) when (cause is not Xunit.Sdk.XunitException)
            {
                LastFailure = cause;
                Restart();
                if (attempt == 0 && again) continue;
                Resume();
                return false;
            }
        }
    }

    private void Resume()
    {
        try
        {
            Mmio.Resume();
            _checkpoint = Mmio.State;
        }
        catch (Exception cause)
        {
            LastFailure = cause;
            Restart();
        }
    }
}

/// <summary>Throws at one crash point, the n-th time that it is reached.</summary>
/// <param name="at">Where.</param>
/// <param name="after">How often it is passed before.</param>
/// <param name="times">How often it throws then.</param>
public sealed class CrashAt(CrashPoint at, int after = 0, int times = 1) : ICrashHook
{
    private int _seen;

    /// <summary>How often it threw.</summary>
    public int Crashes { get; private set; }

    public void Reached(CrashPoint point, int queue, ushort head)
    {
        if (point != at || _seen++ < after || Crashes >= times) return;
        Crashes++;
        throw new InvalidOperationException($"a crash at {point}, queue {queue}, head {head}");
    }
}
