namespace ActorVmm.Devices.Chipset;

/// <summary>Both controllers.</summary>
public readonly record struct DualPicState(Pic8259State Master, Pic8259State Slave);

/// <summary>
/// The PC's pair of 8259A interrupt controllers, the slave on the master's input 2, with the ELCR registers. Not thread-safe: the caller
/// holds the chip lock of <see cref="ApicBus"/> around every call.
/// </summary>
public sealed class DualPic : IDeviceState<DualPicState>
{
    /// <summary>Command and data ports of the master and the slave; edge/level control registers.</summary>
    public const ushort MasterCommand = 0x20;

    /// <inheritdoc cref="MasterCommand"/>
    public const ushort MasterData = 0x21;

    /// <inheritdoc cref="MasterCommand"/>
    public const ushort SlaveCommand = 0xA0;

    /// <inheritdoc cref="MasterCommand"/>
    public const ushort SlaveData = 0xA1;

    /// <inheritdoc cref="MasterCommand"/>
    public const ushort MasterElcr = 0x4D0;

    /// <inheritdoc cref="MasterCommand"/>
    public const ushort SlaveElcr = 0x4D1;

    const int CascadeInput = 2;
    const byte CascadeBit = 1 << CascadeInput;

    // IRQ 0, 1, 2, 8 and 13 are edge-triggered for ever (Intel PIIX4 datasheet §4.2.6).
    const byte MasterElcrWritable = 0xF8;
    const byte SlaveElcrWritable = 0xDE;

    readonly IInterruptLine? _intr;
    Pic8259State _master = Pic8259State.PowerOn;
    Pic8259State _slave = Pic8259State.PowerOn;

    /// <param name="intr">The master's INTR output; null where the owner asks <see cref="InterruptRequested"/> instead.</param>
    public DualPic(IInterruptLine? intr = null) => _intr = intr;

    /// <summary>INTR: an unmasked request waits for the processor.</summary>
    public bool InterruptRequested => _master.Requesting(CascadeBit) >= 0;

    /// <inheritdoc/>
    public DualPicState State
    {
        get => new(_master, _slave);
        set
        {
            (_master, _slave) = (value.Master, value.Slave);
            Update();
        }
    }

    /// <summary>Whether a port belongs to the pair.</summary>
    public static bool Claims(ushort port) => port is MasterCommand or MasterData or SlaveCommand or SlaveData or MasterElcr or SlaveElcr;

    /// <summary>Back to power-on, input levels included.</summary>
    public void Reset()
    {
        _master = Pic8259State.PowerOn;
        _slave = Pic8259State.PowerOn;
        Update();
    }

    /// <summary>Drives IRQ 0 to 15; 2 is the cascade and others are ignored.</summary>
    public void SetLine(int irq, bool level)
    {
        if (irq is < 0 or > 15 or CascadeInput) return;
        if (irq < 8) _master.SetLine(irq, level);
        else _slave.SetLine(irq - 8, level);
        Update();
    }

    /// <summary>
    /// The processor acknowledges (INTA): returns the vector and takes the request into service. Where the request has gone meanwhile, the
    /// vector of input 7 without an in-service bit: a spurious interrupt (8259A datasheet, "Interrupt sequence").
    /// </summary>
    public byte Acknowledge()
    {
        var vector = AcknowledgeMaster();
        Update();
        return vector;
    }

    /// <summary>Reads a port that <see cref="Claims"/> names; others read as ones.</summary>
    public byte ReadPort(ushort port) => port switch
    {
        MasterCommand => ReadCommand(master: true),
        SlaveCommand  => ReadCommand(master: false),
        MasterData    => _master.Poll ? ReadCommand(master: true) : _master.Imr,
        SlaveData     => _slave.Poll ? ReadCommand(master: false) : _slave.Imr,
        MasterElcr    => _master.Elcr,
        SlaveElcr     => _slave.Elcr,
        _             => 0xFF,
    };

    /// <summary>Writes a port that <see cref="Claims"/> names; others are ignored.</summary>
    public void WritePort(ushort port, byte value)
    {
        switch (port)
        {
            case MasterCommand: _master.WriteCommand(value); break;
            case SlaveCommand: _slave.WriteCommand(value); break;
            case MasterData: _master.WriteData(value); break;
            case SlaveData: _slave.WriteData(value); break;
            case MasterElcr: SetElcr(ref _master, (byte)(value & MasterElcrWritable)); break;
            case SlaveElcr: SetElcr(ref _slave, (byte)(value & SlaveElcrWritable)); break;
            default: return;
        }

        Update();
    }

    public override string ToString() => $"master [{_master}] slave [{_slave}] intr={InterruptRequested}";

    static void SetElcr(ref Pic8259State pic, byte value)
    {
        // An input that becomes level-triggered requests as long as its line is high.
        pic.Irr = (byte)((pic.Irr & ~(value | pic.Elcr)) | (pic.Lines & value));
        pic.Elcr = value;
    }

    byte AcknowledgeMaster()
    {
        var input = _master.Requesting(CascadeBit);
        if (input < 0) return (byte)(_master.VectorBase + 7);
        _master.TakeIntoService(input);
        if (input != CascadeInput) return (byte)(_master.VectorBase + input);

        var slaveInput = _slave.Requesting(cascade: 0);
        if (slaveInput < 0) return (byte)(_slave.VectorBase + 7);
        _slave.TakeIntoService(slaveInput);
        return (byte)(_slave.VectorBase + slaveInput);
    }

    byte ReadCommand(bool master)
    {
        ref var pic = ref master ? ref _master : ref _slave;
        if (!pic.Poll) return pic.ReadIsr ? pic.Isr : pic.Irr;

        // The poll command makes the next read an acknowledge: bit 7 says whether, bits 2:0 which (8259A datasheet, "Poll command").
        pic.Poll = false;
        var input = pic.Requesting(master ? CascadeBit : (byte)0);
        if (input >= 0) pic.TakeIntoService(input);
        Update();
        return (byte)(input >= 0 ? 0x80 | input : 0);
    }

    void Update()
    {
        // The slave's output is the master's input 2: an edge like any other; while the slave still has more, it falls and rises again.
        var slaveRequests = _slave.Requesting(cascade: 0) >= 0;
        if (slaveRequests && (_master.Irr & CascadeBit) == 0 && (_master.Isr & CascadeBit) == 0) _master.SetLine(CascadeInput, false);
        _master.SetLine(CascadeInput, slaveRequests);
        _intr?.Drive(InterruptRequested);
    }
}
