namespace ActorVmm.Devices.Serial;

/// <summary>A queue of up to 16 bytes as a value: the oldest byte is the lowest.</summary>
public readonly record struct ByteFifo(UInt128 Bytes, byte Count)
{
    /// <summary>Entries of a 16550A's FIFO (PC16550D §1.0).</summary>
    public const int Capacity = 16;

    /// <summary>The queue with one more byte; the caller has checked that there is room.</summary>
    public ByteFifo Push(byte value) => new(Bytes | ((UInt128)value << (8 * Count)), (byte)(Count + 1));

    /// <summary>The queue without its oldest byte; an empty queue gives 0 and stays empty.</summary>
    public ByteFifo Pop(out byte value)
    {
        value = (byte)Bytes;
        return Count == 0 ? default : new ByteFifo(Bytes >> 8, (byte)(Count - 1));
    }
}

/// <summary>
/// Everything a guest can see or influence in a 16550A, as an unmanaged value of fixed size: copying it is the checkpoint.
/// </summary>
public record struct SerialState
{
    public InterruptEnable InterruptEnable;

    /// <summary>Enable, DMA mode and trigger bits as last accepted; the self-clearing bits are never kept.</summary>
    public FifoControl FifoControl;
    public LineControl LineControl;
    public ModemControl ModemControl;

    /// <summary>The sticky error bits of LSR; the others are derived.</summary>
    public LineStatus LineErrors;
    public ModemStatus ModemStatus;
    public byte Scratch;
    public ushort Divisor;

    /// <summary>The transmitter-empty interrupt is pending (cleared by the IIR read that reports it and by a THR write).</summary>
    public bool HoldingEmptyPending;

    /// <summary>The character timeout has elapsed with bytes waiting.</summary>
    public bool TimeoutPending;

    /// <summary>The driver reads LSR with the FIFO on: it may be polling for input.</summary>
    public bool Polled;

    /// <summary>Machine time in nanoseconds at which the character timeout elapses; 0 while it is not running.</summary>
    public ulong TimeoutAt;
    public ByteFifo Received;

    /// <summary>After power-on: 9600 baud 8N1, OUT2 set as PC firmware leaves it, the far end ready (CTS, DSR, DCD).</summary>
    public static SerialState PowerOn => new()
    {
        LineControl = LineControl.WordLengthMask,
        ModemControl = ModemControl.Out2,
        ModemStatus = ModemStatus.Cts | ModemStatus.Dsr | ModemStatus.Dcd,
        Divisor = 12,
    };
}
