namespace ActorVmm.Devices.Chipset;

/// <summary>The timer and port 0x61.</summary>
/// <param name="Channel0">The system timer (IRQ 0).</param>
/// <param name="Channel1">DRAM refresh in the first PCs; nothing now.</param>
/// <param name="Channel2">Speaker; its gate and output are in port 0x61.</param>
/// <param name="Port61">Bits 3:0 as written.</param>
/// <param name="NextRise">Tick of channel 0's next rising edge; MaxValue for none.</param>
/// <param name="Irq">Level of IRQ 0.</param>
public readonly record struct PitState(
    PitChannel Channel0, PitChannel Channel1, PitChannel Channel2, byte Port61, ulong NextRise, bool Irq);

/// <summary>
/// The 8254 programmable interval timer of a PC with the system control port 0x61. Not thread-safe: the caller holds the chip lock of
/// <see cref="ApicBus"/> around every call.
/// <para>
/// IRQ 0 shows the rising edges of channel 0; the low phase before each (one tick in mode 2, half a period in mode 3) is as short as the
/// pulse, so that an edge-triggered input never loses its request. Edges that nobody could see in time are one.
/// </para>
/// </summary>
public sealed class Pit8254 : IDeviceState<PitState>, ITimedDevice
{
    /// <summary>Ticks per second.</summary>
    public const ulong FrequencyHz = 1_193_182;

    /// <summary>Ports of the three counters, the control word, and system control port B.</summary>
    public const ushort Counter0 = 0x40;

    /// <inheritdoc cref="Counter0"/>
    public const ushort ControlWord = 0x43;

    /// <inheritdoc cref="Counter0"/>
    public const ushort SystemControl = 0x61;

    // One refresh request each 15.085 µs toggles bit 4; old delay loops count it.
    const ulong RefreshNanoseconds = 15_085;

    readonly IInterruptLine _irq0;
    readonly IClock _clock;
    PitChannel _channel0;
    PitChannel _channel1;
    PitChannel _channel2;
    byte _port61;
    ulong _nextRise = ulong.MaxValue;
    bool _irq;

    /// <summary>A timer at power-on: nothing programmed, IRQ 0 low.</summary>
    public Pit8254(IInterruptLine irq0, IClock clock)
    {
        _irq0 = irq0;
        _clock = clock;
        Reset();
    }

    /// <inheritdoc/>
    public PitState State
    {
        get => new(_channel0, _channel1, _channel2, _port61, _nextRise, _irq);
        set
        {
            (_channel0, _channel1, _channel2) = (value.Channel0, value.Channel1, value.Channel2);
            (_port61, _nextRise) = (value.Port61, value.NextRise);
            Drive(value.Irq);
        }
    }

    /// <inheritdoc/>
    public ulong? Deadline => _nextRise == ulong.MaxValue ? null : TscScale.Nanoseconds(_nextRise, 0, FrequencyHz);

    /// <summary>Whether a port belongs to the timer.</summary>
    public static bool Claims(ushort port) => port is >= Counter0 and <= ControlWord or SystemControl;

    /// <summary>Back to power-on.</summary>
    public void Reset()
    {
        // Gates 0 and 1 are tied high on a PC. A count of 65536 keeps every division defined before the guest programs one.
        _channel0 = new PitChannel { Gate = true, Count = 65536 };
        _channel1 = new PitChannel { Gate = true, Count = 65536 };
        _channel2 = new PitChannel { Count = 65536 };
        _port61 = 0;
        _nextRise = ulong.MaxValue;
        Drive(false);
    }

    /// <summary>Reads a port that <see cref="Claims"/> names; others, and the control word, read as ones.</summary>
    public byte ReadPort(ushort port)
    {
        var tick = Settle();
        switch (port)
        {
            case Counter0: return _channel0.Read(tick);
            case Counter0 + 1: return _channel1.Read(tick);
            case Counter0 + 2: return _channel2.Read(tick);
            case SystemControl:
                var refresh = _clock.Nanoseconds / RefreshNanoseconds & 1;
                return (byte)(_port61 | (refresh != 0 ? 0x10 : 0) | (_channel2.Output(tick) ? 0x20 : 0));
            default: return 0xFF;
        }
    }

    /// <summary>Writes a port that <see cref="Claims"/> names; others are ignored.</summary>
    public void WritePort(ushort port, byte value)
    {
        var tick = Settle();
        switch (port)
        {
            case Counter0:
                _channel0.Write(value, tick);
                FollowChannel0(tick);
                break;
            case Counter0 + 1: _channel1.Write(value, tick); break;
            case Counter0 + 2: _channel2.Write(value, tick); break;
            case ControlWord: Control(value, tick); break;
            case SystemControl:
                _port61 = (byte)(value & 0x0F);
                _channel2.SetGate((value & 1) != 0, tick);
                break;
            default: break;
        }
    }

    /// <inheritdoc/>
    public void Advance(ulong nanoseconds)
    {
        var tick = TscScale.Ticks(nanoseconds, FrequencyHz);
        if (tick < _nextRise) return;
        _channel0.Settle(tick);
        Drive(false);
        Drive(true);
        _nextRise = _channel0.NextRise(tick);
    }

    public override string ToString() => $"ch0 [{_channel0}] ch1 [{_channel1}] ch2 [{_channel2}] port61={_port61:x} irq0={_irq}";

    // Edges that are due come before the access, so that the guest sees a consistent timer however late the machine advances it.
    ulong Settle()
    {
        var now = _clock.Nanoseconds;
        Advance(now);
        var tick = TscScale.Ticks(now, FrequencyHz);
        _channel0.Settle(tick);
        _channel1.Settle(tick);
        _channel2.Settle(tick);
        return tick;
    }

    void Control(byte value, ulong tick)
    {
        var select = value >> 6;
        if (select == 3)
        {
            ReadBack(value, tick);
            return;
        }

        ref var channel = ref Channel(select);
        if ((value & 0x30) == 0)
        {
            channel.LatchCount(tick);
            return;
        }

        channel.Control(value);
        if (select == 0) FollowChannel0(tick);
    }

    // 8254 datasheet, "Read-back command": bits 5 and 4 low ask for count and status of the channels in bits 3:1.
    void ReadBack(byte value, ulong tick)
    {
        for (var i = 0; i < 3; i++)
        {
            if ((value & (2 << i)) == 0) continue;
            ref var channel = ref Channel(i);
            if ((value & 0x20) == 0) channel.LatchCount(tick);
            if ((value & 0x10) == 0) channel.LatchStatus(tick);
        }
    }

    ref PitChannel Channel(int index)
    {
        if (index == 0) return ref _channel0;
        if (index == 1) return ref _channel1;
        return ref _channel2;
    }

    void FollowChannel0(ulong tick)
    {
        _nextRise = _channel0.NextRise(tick);
        Drive(_channel0.RestLevel(tick));
    }

    void Drive(bool level)
    {
        _irq = level;
        _irq0.Drive(level);
    }
}
