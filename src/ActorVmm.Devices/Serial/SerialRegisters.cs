namespace ActorVmm.Devices.Serial;

/// <summary>16550A registers, as offsets from the base port (PC16550D datasheet, Table II).</summary>
public enum SerialRegister : byte
{
    /// <summary>RBR (read), THR (write); DLL while DLAB is set.</summary>
    Data = 0,

    /// <summary>IER; DLM while DLAB is set.</summary>
    InterruptEnable = 1,

    /// <summary>IIR (read), FCR (write).</summary>
    InterruptId = 2,
    LineControl = 3,
    ModemControl = 4,
    LineStatus = 5,
    ModemStatus = 6,
    Scratch = 7,
}

/// <summary>IER (PC16550D §8.7).</summary>
[Flags]
public enum InterruptEnable : byte
{
    None = 0,
    ReceivedData = 1 << 0,
    HoldingEmpty = 1 << 1,
    LineStatus = 1 << 2,
    ModemStatus = 1 << 3,
    All = ReceivedData | HoldingEmpty | LineStatus | ModemStatus,
}

/// <summary>IIR bits 3:0, highest priority first (PC16550D Table IV).</summary>
public enum InterruptCause : byte
{
    LineStatus = 0b0110,
    ReceivedData = 0b0100,
    CharacterTimeout = 0b1100,
    HoldingEmpty = 0b0010,
    ModemStatus = 0b0000,
    None = 0b0001,
}

/// <summary>FCR (PC16550D §8.5). The two reset bits clear themselves; bits 7:6 select the receive trigger level.</summary>
[Flags]
public enum FifoControl : byte
{
    None = 0,
    Enable = 1 << 0,
    ResetReceive = 1 << 1,
    ResetTransmit = 1 << 2,
    DmaMode = 1 << 3,
    TriggerLow = 1 << 6,
    TriggerHigh = 1 << 7,
    TriggerMask = TriggerLow | TriggerHigh,
}

/// <summary>LCR (PC16550D §8.1).</summary>
[Flags]
public enum LineControl : byte
{
    None = 0,
    WordLengthLow = 1 << 0,
    WordLengthHigh = 1 << 1,
    WordLengthMask = WordLengthLow | WordLengthHigh,
    TwoStopBits = 1 << 2,
    Parity = 1 << 3,
    Break = 1 << 6,
    DivisorLatchAccess = 1 << 7,
}

/// <summary>MCR (PC16550D §8.8).</summary>
[Flags]
public enum ModemControl : byte
{
    None = 0,
    Dtr = 1 << 0,
    Rts = 1 << 1,
    Out1 = 1 << 2,

    /// <summary>On a PC, OUT2 gates the interrupt line.</summary>
    Out2 = 1 << 3,
    Loop = 1 << 4,
    All = Dtr | Rts | Out1 | Out2 | Loop,
}

/// <summary>LSR (PC16550D §8.4).</summary>
[Flags]
public enum LineStatus : byte
{
    None = 0,
    DataReady = 1 << 0,
    Overrun = 1 << 1,
    ParityError = 1 << 2,
    FramingError = 1 << 3,
    BreakInterrupt = 1 << 4,
    HoldingEmpty = 1 << 5,
    TransmitterEmpty = 1 << 6,
    Errors = Overrun | ParityError | FramingError | BreakInterrupt,
}

/// <summary>MSR (PC16550D §8.9): line levels above, what changed since the last read below.</summary>
[Flags]
public enum ModemStatus : byte
{
    None = 0,
    DeltaCts = 1 << 0,
    DeltaDsr = 1 << 1,
    TrailingEdgeRi = 1 << 2,
    DeltaDcd = 1 << 3,
    Cts = 1 << 4,
    Dsr = 1 << 5,
    Ri = 1 << 6,
    Dcd = 1 << 7,
    Deltas = DeltaCts | DeltaDsr | TrailingEdgeRi | DeltaDcd,
    Lines = Cts | Dsr | Ri | Dcd,
}
