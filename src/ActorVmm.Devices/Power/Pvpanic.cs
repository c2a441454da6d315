namespace ActorVmm.Devices.Power;

/// <summary>What a guest can report (QEMU's pvpanic specification).</summary>
[Flags]
public enum PvpanicEvents : byte
{
    None = 0,

    /// <summary>The kernel panicked and stays down.</summary>
    Panicked = 1 << 0,

    /// <summary>The kernel panicked and its crash kernel takes over.</summary>
    CrashLoaded = 1 << 1,
    All = Panicked | CrashLoaded,
}

/// <summary>The events reported since reset.</summary>
public readonly record struct PvpanicState(PvpanicEvents Reported);

/// <summary>
/// A one-byte register with which a guest reports its panic: reading says which events are understood, writing reports. The guest's
/// driver (ACPI <c>_HID "QEMU0001"</c>) maps one byte of memory and uses 8-bit accesses.
/// </summary>
/// <param name="power">Hears of panics.</param>
public sealed class Pvpanic(IPowerControl power) : IBusDevice, IDeviceState<PvpanicState>
{
    /// <summary>Bytes that the device occupies.</summary>
    public const int Length = 1;

    /// <inheritdoc/>
    public PvpanicState State { get; set; }

    /// <summary>Events reported since reset.</summary>
    public PvpanicEvents Reported => State.Reported;

    /// <inheritdoc/>
    public void Reset() => State = default;

    /// <inheritdoc/>
    public ulong Read(ulong offset, int size) => offset == 0 ? (ulong)PvpanicEvents.All : 0;

    /// <inheritdoc/>
    public void Write(ulong offset, int size, ulong value)
    {
        if (offset != 0) return;
        var events = (PvpanicEvents)value & PvpanicEvents.All;
        State = new PvpanicState(State.Reported | events);
        // A loaded crash kernel means that the guest goes on by itself: recorded, but not the end.
        if ((events & PvpanicEvents.Panicked) != 0) power.Request(PowerEvent.GuestPanic);
    }

    public override string ToString() => $"reported={State.Reported}";
}
