namespace ActorVmm.Devices.Power;

/// <summary>PM1 status bits (ACPI 6.5 §4.8.3.1.1); written ones clear.</summary>
[Flags]
public enum Pm1Status : ushort
{
    None = 0,
    Timer = 1 << 0,
    BusMaster = 1 << 4,
    Global = 1 << 5,
    PowerButton = 1 << 8,
    SleepButton = 1 << 9,
    Rtc = 1 << 10,
    Wake = 1 << 15,
}

/// <summary>PM1 enable bits (ACPI 6.5 §4.8.3.1.2): which status bits raise the SCI.</summary>
[Flags]
public enum Pm1Enable : ushort
{
    None = 0,
    Timer = 1 << 0,
    Global = 1 << 5,
    PowerButton = 1 << 8,
    SleepButton = 1 << 9,
    Rtc = 1 << 10,
    All = Timer | Global | PowerButton | SleepButton | Rtc,
}

/// <summary>The state of the ACPI fixed hardware.</summary>
/// <param name="Status">PM1 status.</param>
/// <param name="Enable">PM1 enable.</param>
/// <param name="Control">PM1 control as written, without SLP_EN and GBL_RLS.</param>
/// <param name="TimerHalf">How often the timer's top bit had toggled when last looked at.</param>
public readonly record struct AcpiPowerState(Pm1Status Status, Pm1Enable Enable, ushort Control, ulong TimerHalf);

/// <summary>
/// ACPI fixed hardware (ACPI 6.5 §4.8): PM1a event and control blocks and the power management timer, in one range of
/// <see cref="PowerPorts.AcpiLength"/> ports from <see cref="PowerPorts.Pm1aEvent"/>. ACPI mode is always on.
/// </summary>
/// <param name="sci">The system control interrupt, GSI <see cref="PowerPorts.SciGsi"/>: a level.</param>
/// <param name="power">Where S5 goes.</param>
/// <param name="clock">For the timer.</param>
public sealed class AcpiPower(IInterruptLine sci, IPowerControl power, IClock clock)
    : IBusDevice, IDeviceState<AcpiPowerState>, ITimedDevice
{
    /// <summary>Ticks of the power management timer per second (ACPI 6.5 §4.8.2.1).</summary>
    public const ulong TimerFrequencyHz = 3_579_545;

    const int TimerBits = 24;
    const ushort SciEnabled = 1 << 0;
    const ushort GlobalRelease = 1 << 2;
    const ushort SleepTypeMask = 7 << 10;
    const ushort SleepEnable = 1 << 13;

    Pm1Status _status;
    Pm1Enable _enable;
    ushort _control;
    ulong _timerHalf;

    /// <inheritdoc/>
    public AcpiPowerState State
    {
        get => new(_status, _enable, _control, _timerHalf);
        set
        {
            (_status, _enable, _control, _timerHalf) = (value.Status, value.Enable, value.Control, value.TimerHalf);
            UpdateInterrupt();
        }
    }

    /// <summary>When the timer's top bit toggles next, while the guest wants an interrupt for it.</summary>
    public ulong? Deadline => (_enable & Pm1Enable.Timer) == 0 || (_status & Pm1Status.Timer) != 0
        ? null
        : Chipset.TscScale.Nanoseconds((_timerHalf + 1) << (TimerBits - 1), 0, TimerFrequencyHz);

    /// <inheritdoc/>
    public void Reset() => State = new AcpiPowerState(Pm1Status.None, Pm1Enable.None, 0, Ticks(clock.Nanoseconds) >> (TimerBits - 1));

    /// <summary>Somebody presses the power button: the guest's ACPI driver hears of it if it listens.</summary>
    public void PressPowerButton()
    {
        _status |= Pm1Status.PowerButton;
        UpdateInterrupt();
    }

    /// <summary>Reads registers as a run of bytes; all bytes of one read of the timer belong together.</summary>
    public ulong Read(ulong offset, int size)
    {
        var now = clock.Nanoseconds;
        Advance(now);
        var timer = (uint)Ticks(now) & ((1u << TimerBits) - 1);
        ulong value = 0;
        for (var i = 0; i < size && i < 8; i++) value |= (ulong)ReadByte(unchecked(offset + (ulong)i), timer) << (8 * i);
        return value;
    }

    /// <summary>Writes registers as a run of bytes; the timer is read-only.</summary>
    public void Write(ulong offset, int size, ulong value)
    {
        Advance(clock.Nanoseconds);
        for (var i = 0; i < size && i < 8; i++) WriteByte(unchecked(offset + (ulong)i), (byte)(value >> (8 * i)));
        UpdateInterrupt();
    }

    /// <inheritdoc/>
    public void Advance(ulong nanoseconds)
    {
        var half = Ticks(nanoseconds) >> (TimerBits - 1);
        if (half <= _timerHalf) return;
        _timerHalf = half;
        _status |= Pm1Status.Timer;
        UpdateInterrupt();
    }

    public override string ToString() => $"status={_status} enable={_enable} control={_control:x4} sci={SciLevel}";

    bool SciLevel => ((ushort)_status & (ushort)_enable) != 0;

    static ulong Ticks(ulong nanoseconds) => Chipset.TscScale.Ticks(nanoseconds, TimerFrequencyHz);

    byte ReadByte(ulong offset, uint timer) => offset switch
    {
        0 => (byte)_status,
        1 => (byte)((ushort)_status >> 8),
        2 => (byte)_enable,
        3 => (byte)((ushort)_enable >> 8),
        4 => (byte)(_control | SciEnabled),
        5 => (byte)(_control >> 8),
        >= 8 and < 12 => (byte)(timer >> (int)(8 * (offset - 8))),
        _ => 0,
    };

    void WriteByte(ulong offset, byte value)
    {
        switch (offset)
        {
            case 0: _status &= (Pm1Status)(ushort)~value; break; // ones clear
            case 1: _status &= (Pm1Status)(ushort)~(value << 8); break;
            case 2: _enable = (Pm1Enable)(((ushort)_enable & 0xFF00) | value) & Pm1Enable.All; break;
            case 3: _enable = (Pm1Enable)(((ushort)_enable & 0x00FF) | (value << 8)) & Pm1Enable.All; break;
            case 4: _control = (ushort)((_control & 0xFF00) | (value & ~(SciEnabled | GlobalRelease))); break;
            case 5:
                var written = (ushort)(value << 8);
                _control = (ushort)((_control & 0x00FF) | (written & SleepTypeMask));
                if ((written & SleepEnable) != 0 && (written & SleepTypeMask) >> 10 == PowerPorts.SleepTypeS5)
                    power.Request(PowerEvent.Poweroff);
                break;
            default: break;
        }
    }

    void UpdateInterrupt() => sci.Drive(SciLevel);
}
