namespace ActorVmm.Devices.Serial;

/// <summary>
/// A complete 16550A UART (PC16550D datasheet). Output leaves at once, so the transmitter is always empty; input waits in a FIFO of 16 and
/// is taken only while there is room. The interrupt line is a function of the registers. Accesses allocate nothing.
/// </summary>
/// <param name="irq">The interrupt input (ISA IRQ 4 for COM1).</param>
/// <param name="output">Where transmitted bytes go.</param>
/// <param name="clock">For the character timeout.</param>
public sealed class SerialPort(IInterruptLine irq, IByteSink output, IClock clock) : IBusDevice, IDeviceState<SerialState>, ITimedDevice
{
    /// <summary>Ports in use from the base.</summary>
    public const int PortCount = 8;

    /// <summary>Base port and ISA interrupt of the first serial port of a PC.</summary>
    public const ushort Com1 = 0x3F8;

    /// <inheritdoc cref="Com1"/>
    public const int Com1Irq = 4;

    // The reference crystal over the fixed prescaler: one bit lasts divisor / 115200 s (PC16550D Table III, 1.8432 MHz).
    const ulong BaudBase = 115_200;

    const ModemStatus FarEnd = ModemStatus.Cts | ModemStatus.Dsr | ModemStatus.Dcd;

    SerialState _s = SerialState.PowerOn;

    /// <inheritdoc/>
    public SerialState State
    {
        get => _s;
        set
        {
            _s = value;
            UpdateInterrupt();
        }
    }

    /// <inheritdoc/>
    public void CopyState(ref SerialState into) => into = _s;

    /// <summary>
    /// How many bytes of input the guest can take now. 0 while no driver listens (neither the receive interrupt is on nor LSR is polled
    /// with the FIFO on), while it holds RTS low (hardware flow control), in loopback, and while the FIFO is full: a caller that offers no
    /// more than this loses nothing, however much is pasted.
    /// </summary>
    public int InputWanted =>
        Loopback || (_s.ModemControl & ModemControl.Rts) == 0 || !((_s.InterruptEnable & InterruptEnable.ReceivedData) != 0 || _s.Polled)
            ? 0
            : Capacity - _s.Received.Count;

    /// <inheritdoc/>
    public ulong? Deadline => _s.TimeoutAt == 0 ? null : _s.TimeoutAt;

    bool FifoEnabled => (_s.FifoControl & FifoControl.Enable) != 0;
    bool Loopback => (_s.ModemControl & ModemControl.Loop) != 0;
    bool DivisorLatch => (_s.LineControl & LineControl.DivisorLatchAccess) != 0;
    int Capacity => FifoEnabled ? ByteFifo.Capacity : 1;

    // PC16550D §8.5, FCR bits 7:6; without the FIFO every byte counts.
    int TriggerLevel => !FifoEnabled ? 1 : ((int)_s.FifoControl >> 6) switch { 0 => 1, 1 => 4, 2 => 8, _ => 14 };

    LineStatus CurrentLineStatus =>
        _s.LineErrors | LineStatus.HoldingEmpty | LineStatus.TransmitterEmpty | (_s.Received.Count > 0 ? LineStatus.DataReady : 0);

    // PC16550D Table IV. A timeout only speaks where the trigger level does not.
    InterruptCause Cause
    {
        get
        {
            var enabled = _s.InterruptEnable;
            if ((enabled & InterruptEnable.LineStatus) != 0 && (_s.LineErrors & LineStatus.Errors) != 0) return InterruptCause.LineStatus;
            if ((enabled & InterruptEnable.ReceivedData) != 0)
            {
                if (_s.Received.Count >= TriggerLevel) return InterruptCause.ReceivedData;
                if (_s.TimeoutPending) return InterruptCause.CharacterTimeout;
            }

            if ((enabled & InterruptEnable.HoldingEmpty) != 0 && _s.HoldingEmptyPending) return InterruptCause.HoldingEmpty;
            return (enabled & InterruptEnable.ModemStatus) != 0 && (_s.ModemStatus & ModemStatus.Deltas) != 0
                ? InterruptCause.ModemStatus
                : InterruptCause.None;
        }
    }

    /// <inheritdoc/>
    public void Reset() => State = SerialState.PowerOn;

    /// <summary>
    /// Reads registers; a wide access is a run of byte accesses, as on the ISA bus. Bytes past the last register read as ones.
    /// </summary>
    public ulong Read(ulong offset, int size)
    {
        ulong value = 0;
        for (var i = 0; i < size && i < 8; i++)
        {
            var at = unchecked(offset + (ulong)i);
            value |= (ulong)(at < PortCount ? Read((SerialRegister)at) : (byte)0xFF) << (8 * i);
        }

        return value;
    }

    /// <summary>
    /// Writes registers; a wide access is a run of byte accesses, as on the ISA bus. Bytes past the last register go nowhere.
    /// </summary>
    public void Write(ulong offset, int size, ulong value)
    {
        for (var i = 0; i < size && i < 8; i++)
        {
            var at = unchecked(offset + (ulong)i);
            if (at < PortCount) Write((SerialRegister)at, (byte)(value >> (8 * i)));
        }
    }

    /// <summary>Reads one register, with its side effects.</summary>
    public byte Read(SerialRegister register) => register switch
    {
        SerialRegister.Data when DivisorLatch            => (byte)_s.Divisor,
        SerialRegister.Data                              => TakeReceived(),
        SerialRegister.InterruptEnable when DivisorLatch => (byte)(_s.Divisor >> 8),
        SerialRegister.InterruptEnable                   => (byte)_s.InterruptEnable,
        SerialRegister.InterruptId                       => IdentifyInterrupt(),
        SerialRegister.LineControl                       => (byte)_s.LineControl,
        SerialRegister.ModemControl                      => (byte)_s.ModemControl,
        SerialRegister.LineStatus                        => TakeLineStatus(),
        SerialRegister.ModemStatus                       => TakeModemStatus(),
        SerialRegister.Scratch                           => _s.Scratch,
        _                                                => 0xFF,
    };

    /// <summary>Writes one register, with its side effects.</summary>
    public void Write(SerialRegister register, byte value)
    {
        switch (register)
        {
            case SerialRegister.Data when DivisorLatch: _s.Divisor = (ushort)((_s.Divisor & 0xFF00) | value); break;
            case SerialRegister.Data: Transmit(value); break;
            case SerialRegister.InterruptEnable when DivisorLatch: _s.Divisor = (ushort)((_s.Divisor & 0x00FF) | (value << 8)); break;
            case SerialRegister.InterruptEnable: EnableInterrupts((InterruptEnable)value & InterruptEnable.All); break;
            case SerialRegister.InterruptId: ControlFifo((FifoControl)value); break;
            case SerialRegister.LineControl: _s.LineControl = (LineControl)value; break;
            case SerialRegister.ModemControl: ControlModem((ModemControl)value & ModemControl.All); break;
            case SerialRegister.Scratch: _s.Scratch = value; break;
            default: break; // LSR and MSR are read-only to software (PC16550D §8.4: writing is for factory tests)
        }
    }

    /// <summary>
    /// Offers input; takes what fits (nothing in loopback, where the input pin is disconnected) and returns how many bytes it took.
    /// </summary>
    public int Receive(ReadOnlySpan<byte> bytes)
    {
        if (Loopback) return 0;
        var count = Math.Min(bytes.Length, Capacity - _s.Received.Count);
        if (count <= 0) return 0;
        foreach (var value in bytes[..count]) _s.Received = _s.Received.Push(value);
        RestartTimeout();
        UpdateInterrupt();
        return count;
    }

    /// <inheritdoc/>
    public void Advance(ulong nanoseconds)
    {
        if (_s.TimeoutAt == 0 || nanoseconds < _s.TimeoutAt) return;
        _s.TimeoutAt = 0;
        _s.TimeoutPending = _s.Received.Count > 0;
        UpdateInterrupt();
    }

    public override string ToString() =>
        $"IER={_s.InterruptEnable} IIR={Cause} FCR={_s.FifoControl} LCR={(byte)_s.LineControl:x2} MCR={_s.ModemControl} " +
        $"LSR={CurrentLineStatus} MSR={_s.ModemStatus} divisor={_s.Divisor} received={_s.Received.Count}/{Capacity} wanted={InputWanted}";

    void Transmit(byte value)
    {
        // The holding register fills (the line falls) and empties again (it rises), so that an edge-triggered input sees a new edge.
        _s.HoldingEmptyPending = false;
        if ((_s.InterruptEnable & InterruptEnable.HoldingEmpty) != 0) UpdateInterrupt();
        _s.HoldingEmptyPending = true;

        if (Loopback)
        {
            LoopBack(value);
            UpdateInterrupt();
            return;
        }

        if ((_s.InterruptEnable & InterruptEnable.HoldingEmpty) != 0) UpdateInterrupt();
        output.Write(new ReadOnlySpan<byte>(in value)); // last, so that a sink that fails leaves the registers consistent
    }

    void LoopBack(byte value)
    {
        if (_s.Received.Count >= Capacity)
        {
            // With the FIFO the new byte is lost, without it the old one (PC16550D §8.4, bit 1).
            _s.LineErrors |= LineStatus.Overrun;
            if (!FifoEnabled) _s.Received = default(ByteFifo).Push(value);
            return;
        }

        _s.Received = _s.Received.Push(value);
        RestartTimeout();
    }

    byte TakeReceived()
    {
        _s.Received = _s.Received.Pop(out var value);
        _s.TimeoutPending = false;
        RestartTimeout();
        UpdateInterrupt();
        return value;
    }

    byte IdentifyInterrupt()
    {
        var cause = Cause;
        if (cause == InterruptCause.HoldingEmpty)
        {
            _s.HoldingEmptyPending = false;
            UpdateInterrupt();
        }

        return (byte)((byte)cause | (FifoEnabled ? 0xC0 : 0));
    }

    byte TakeLineStatus()
    {
        var status = CurrentLineStatus;
        if (FifoEnabled) _s.Polled = true;
        if (_s.LineErrors != 0)
        {
            _s.LineErrors = LineStatus.None;
            UpdateInterrupt();
        }

        return (byte)status;
    }

    byte TakeModemStatus()
    {
        var status = _s.ModemStatus;
        if ((status & ModemStatus.Deltas) != 0)
        {
            _s.ModemStatus = status & ModemStatus.Lines;
            UpdateInterrupt();
        }

        return (byte)status;
    }

    void EnableInterrupts(InterruptEnable value)
    {
        // Enabling the interrupt while the holding register is empty raises it at once (PC16550D §8.6); drivers test for that.
        var raised = value & ~_s.InterruptEnable;
        if ((raised & InterruptEnable.HoldingEmpty) != 0) _s.HoldingEmptyPending = true;
        _s.InterruptEnable = value;
        UpdateInterrupt();
    }

    void ControlFifo(FifoControl value)
    {
        var toggled = ((value ^ _s.FifoControl) & FifoControl.Enable) != 0;
        var enable = (value & FifoControl.Enable) != 0;
        if (toggled || (enable && (value & FifoControl.ResetReceive) != 0))
        {
            _s.Received = default;
            _s.TimeoutPending = false;
            _s.TimeoutAt = 0;
            _s.Polled = false;
        }

        // A transmit reset finds the transmitter empty already. Without bit 0 the other bits are not programmed (PC16550D §8.5).
        _s.FifoControl = enable ? value & (FifoControl.Enable | FifoControl.DmaMode | FifoControl.TriggerMask) : FifoControl.None;
        UpdateInterrupt();
    }

    void ControlModem(ModemControl value)
    {
        _s.ModemControl = value;
        // In loopback the four outputs feed the four inputs and the pins are disconnected (PC16550D §8.8, bit 4).
        SetModemLines(!Loopback
            ? FarEnd
            : ((value & ModemControl.Rts) != 0 ? ModemStatus.Cts : 0)
              | ((value & ModemControl.Dtr) != 0 ? ModemStatus.Dsr : 0)
              | ((value & ModemControl.Out1) != 0 ? ModemStatus.Ri : 0)
              | ((value & ModemControl.Out2) != 0 ? ModemStatus.Dcd : 0));
        UpdateInterrupt();
    }

    void SetModemLines(ModemStatus lines)
    {
        var before = _s.ModemStatus;
        var changed = (before ^ lines) & ModemStatus.Lines;
        var deltas = ModemStatus.None;
        if ((changed & ModemStatus.Cts) != 0) deltas |= ModemStatus.DeltaCts;
        if ((changed & ModemStatus.Dsr) != 0) deltas |= ModemStatus.DeltaDsr;
        if ((changed & ModemStatus.Dcd) != 0) deltas |= ModemStatus.DeltaDcd;
        if ((changed & before & ModemStatus.Ri) != 0) deltas |= ModemStatus.TrailingEdgeRi; // the end of a ring only
        _s.ModemStatus = lines | (before & ModemStatus.Deltas) | deltas;
    }

    // Four character times without a byte arriving or being read (PC16550D §4.1.3); below the trigger level nothing else would speak.
    void RestartTimeout() =>
        _s.TimeoutAt = FifoEnabled && _s.Received.Count > 0 && !_s.TimeoutPending ? clock.Nanoseconds + CharacterNanoseconds * 4 : 0;

    ulong CharacterNanoseconds
    {
        get
        {
            var bits = 1UL + 5 + (ulong)(_s.LineControl & LineControl.WordLengthMask) + 1;
            if ((_s.LineControl & LineControl.TwoStopBits) != 0) bits++;
            if ((_s.LineControl & LineControl.Parity) != 0) bits++;
            return bits * Math.Max(_s.Divisor, (ushort)1) * 1_000_000_000 / BaudBase;
        }
    }

    // The line is a function of the registers: nothing to remember to raise or to clear.
    void UpdateInterrupt() => irq.Drive(Cause != InterruptCause.None && (_s.ModemControl & ModemControl.Out2) != 0);
}
