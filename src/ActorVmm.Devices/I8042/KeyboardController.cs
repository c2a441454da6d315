using ActorVmm.Devices.Power;
using ActorVmm.Devices.Serial;

namespace ActorVmm.Devices.I8042;

/// <summary>
/// The keyboard controller (Intel 8042, IBM PS/2 Technical Reference) with a keyboard and no mouse. Every command is answered at once, so
/// that a guest's probe never runs into its timeouts. Its reset line ends the machine.
/// </summary>
/// <param name="irq">IRQ 1: the output buffer holds a byte.</param>
/// <param name="power">Where resets go.</param>
public sealed class KeyboardController(IInterruptLine irq, IPowerControl power) : IBusDevice, IDeviceState<KeyboardControllerState>
{
    /// <summary>Port of offset 0; port 0x61 in between belongs to the timer.</summary>
    public const ushort BasePort = 0x60;

    /// <summary>Offset of the data port and of the command and status port.</summary>
    public const ulong DataOffset = 0;

    /// <inheritdoc cref="DataOffset"/>
    public const ulong CommandOffset = 4;

    /// <summary>ISA interrupt.</summary>
    public const int Irq = 1;

    const byte Acknowledge = 0xFA;
    const byte Resend = 0xFE;
    const byte SelfTestPassed = 0x55;
    const byte KeyboardSelfTestPassed = 0xAA;

    KeyboardControllerState _s = KeyboardControllerState.PowerOn;

    /// <inheritdoc/>
    public KeyboardControllerState State
    {
        get => _s;
        set
        {
            _s = value;
            UpdateInterrupt();
        }
    }

    /// <inheritdoc/>
    public void Reset() => State = KeyboardControllerState.PowerOn;

    /// <summary>Reads the data or the status port, one byte whatever the size; other offsets read as zero.</summary>
    public ulong Read(ulong offset, int size) => offset switch
    {
        DataOffset    => TakeOutput(),
        CommandOffset => (byte)CurrentStatus,
        _             => 0,
    };

    /// <summary>Writes the data or the command port, one byte whatever the size; other offsets are ignored.</summary>
    public void Write(ulong offset, int size, ulong value)
    {
        switch (offset)
        {
            case DataOffset:
                _s.Status &= ~ControllerStatus.Command;
                WriteData((byte)value);
                break;
            case CommandOffset:
                _s.Status |= ControllerStatus.Command;
                _s.PendingCommand = 0;
                WriteCommand((byte)value);
                break;
            default: return;
        }

        FillOutput();
    }

    /// <summary>
    /// Presses and releases Ctrl, Alt and Delete, which Linux takes as a request for an orderly reboot. False where the keyboard is
    /// switched off or its buffer has no room.
    /// </summary>
    public bool PressCtrlAltDel()
    {
        var keys = (_s.Config & ControllerConfig.Translate) != 0
            ? (ReadOnlySpan<byte>)[0x1D, 0x38, 0xE0, 0x53, 0xE0, 0xD3, 0xB8, 0x9D]
            : [0x14, 0x11, 0xE0, 0x71, 0xE0, 0xF0, 0x71, 0xF0, 0x11, 0xF0, 0x14];
        if (!_s.Scanning || ByteFifo.Capacity - _s.KeyboardQueue.Count < keys.Length) return false;
        foreach (var key in keys) FromKeyboard(key);
        FillOutput();
        return true;
    }

    public override string ToString() =>
        $"config={_s.Config} status={CurrentStatus} output={_s.Output:x2} queued={_s.ControllerQueue.Count}+{_s.KeyboardQueue.Count} " +
        $"pending={_s.PendingCommand:x2}/{_s.KeyboardPending:x2} scanning={_s.Scanning}";

    ControllerStatus CurrentStatus =>
        _s.Status | ControllerStatus.Unlocked | ((_s.Config & ControllerConfig.SystemFlag) != 0 ? ControllerStatus.SystemFlag : 0);

    bool OutputFull => (_s.Status & ControllerStatus.OutputFull) != 0;

    void WriteCommand(byte command)
    {
        switch (command)
        {
            case 0x20: FromController((byte)_s.Config); break;
            case > 0x20 and < 0x40: FromController(0); break; // the controller's RAM beyond the configuration byte: not kept
            case >= 0x60 and < 0x80: _s.PendingCommand = command; break;
            case 0xA7: _s.Config |= ControllerConfig.MouseDisabled; break;
            case 0xA8: _s.Config &= ~ControllerConfig.MouseDisabled; break;
            case 0xA9: FromController(0x01); break; // mouse port test: clock line stuck low, so nothing is connected
            case 0xAA:
                _s.Config |= ControllerConfig.SystemFlag;
                FromController(SelfTestPassed);
                break;
            case 0xAB: FromController(0x00); break; // keyboard port test: no error
            case 0xAD: _s.Config |= ControllerConfig.KeyboardDisabled; break;
            case 0xAE: _s.Config &= ~ControllerConfig.KeyboardDisabled; break;
            case 0xC0: FromController(0x80); break; // input port: keyboard not inhibited
            case 0xD0: FromController((byte)(_s.OutputPort | 1 | (OutputFull ? 0x10 : 0))); break;
            case 0xD1 or 0xD2 or 0xD3 or 0xD4: _s.PendingCommand = command; break;
            case 0xDD: _s.OutputPort &= 0xFD; break; // A20 off
            case 0xDF: _s.OutputPort |= 0x02; break; // A20 on
            case 0xE0: FromController(0x00); break; // test inputs
            case >= 0xF0:
                // Pulses the output lines whose bits are 0; line 0 is the processor's reset.
                if ((command & 1) == 0) power.Request(PowerEvent.ResetI8042);
                break;
            default: break;
        }
    }

    void WriteData(byte value)
    {
        var command = _s.PendingCommand;
        _s.PendingCommand = 0;
        switch (command)
        {
            case 0x60: _s.Config = (ControllerConfig)value & ~(ControllerConfig)0x88; break;
            case > 0x60 and < 0x80: break;
            case 0xD1:
                _s.OutputPort = (byte)(value & 0x03);
                if ((value & 1) == 0) power.Request(PowerEvent.ResetI8042);
                break;
            case 0xD2: FromController(value); break; // as if the keyboard had sent it
            case 0xD3: FromController(value); break; // without a mouse port it does not come back as mouse data: a probe sees that at once
            case 0xD4: FromController(Resend); break; // nobody is there
            default:
                _s.Config &= ~ControllerConfig.KeyboardDisabled; // talking to the keyboard switches its clock on
                WriteKeyboard(value);
                break;
        }
    }

    void WriteKeyboard(byte value)
    {
        var command = _s.KeyboardPending;
        _s.KeyboardPending = 0;
        switch (command, value)
        {
            case (0xED or 0xF3 or 0xFB or 0xFC or 0xFD, < 0xED): // LEDs, repeat rate, one key's type: taken and without effect
                FromKeyboard(Acknowledge);
                break;
            case (0xF0, 0):
                FromKeyboard(Acknowledge);
                FromKeyboard(_s.ScanCodeSet);
                break;
            case (0xF0, <= 3):
                _s.ScanCodeSet = value;
                FromKeyboard(Acknowledge);
                break;
            case (0xF0, < 0xED): FromKeyboard(Resend); break;
            default: PerformKeyboardCommand(value); break; // a command byte replaces an unfinished one
        }
    }

    void PerformKeyboardCommand(byte value)
    {
        switch (value)
        {
            case 0xED or 0xF0 or 0xF3 or 0xFB or 0xFC or 0xFD:
                _s.KeyboardPending = value;
                FromKeyboard(Acknowledge);
                break;
            case 0xEE: FromKeyboard(0xEE); break; // echo
            case 0xF2:
                FromKeyboard(Acknowledge);
                FromKeyboard(0xAB);
                FromKeyboard((byte)((_s.Config & ControllerConfig.Translate) != 0 ? 0x41 : 0x83)); // 0x83 as translation shows it
                break;
            case 0xF4:
                _s.Scanning = true;
                FromKeyboard(Acknowledge);
                break;
            case 0xF5:
                SetDefaults(scanning: false);
                FromKeyboard(Acknowledge);
                break;
            case 0xF6:
                SetDefaults(scanning: true);
                FromKeyboard(Acknowledge);
                break;
            case 0xF7 or 0xF8 or 0xF9 or 0xFA: FromKeyboard(Acknowledge); break; // key types of set 3: no effect
            case 0xFE: FromKeyboard(_s.LastKeyboardByte); break;
            case 0xFF:
                _s.KeyboardQueue = default;
                SetDefaults(scanning: true);
                FromKeyboard(Acknowledge);
                FromKeyboard(KeyboardSelfTestPassed);
                break;
            default: FromKeyboard(Resend); break;
        }
    }

    void SetDefaults(bool scanning)
    {
        _s.ScanCodeSet = 2;
        _s.Scanning = scanning;
    }

    void FromController(byte value)
    {
        if (_s.ControllerQueue.Count < ByteFifo.Capacity) _s.ControllerQueue = _s.ControllerQueue.Push(value);
    }

    void FromKeyboard(byte value)
    {
        if (_s.KeyboardQueue.Count < ByteFifo.Capacity) _s.KeyboardQueue = _s.KeyboardQueue.Push(value);
    }

    byte TakeOutput()
    {
        var value = _s.Output;
        if (!OutputFull) return value; // the buffer keeps its last byte
        _s.Status &= ~ControllerStatus.OutputFull;
        UpdateInterrupt(); // falls between two bytes, so that each is an edge
        FillOutput();
        return value;
    }

    void FillOutput()
    {
        if (!OutputFull)
        {
            if (_s.ControllerQueue.Count > 0)
            {
                _s.ControllerQueue = _s.ControllerQueue.Pop(out _s.Output);
                _s.Status |= ControllerStatus.OutputFull;
            }
            else if (_s.KeyboardQueue.Count > 0 && (_s.Config & ControllerConfig.KeyboardDisabled) == 0)
            {
                _s.KeyboardQueue = _s.KeyboardQueue.Pop(out _s.Output);
                _s.LastKeyboardByte = _s.Output;
                _s.Status |= ControllerStatus.OutputFull;
            }
        }

        UpdateInterrupt();
    }

    void UpdateInterrupt() => irq.Drive(OutputFull && (_s.Config & ControllerConfig.KeyboardInterrupt) != 0);
}
