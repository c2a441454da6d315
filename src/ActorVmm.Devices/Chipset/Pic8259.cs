using System.Numerics;

namespace ActorVmm.Devices.Chipset;

/// <summary>One 8259A (Intel 8259A datasheet): its registers and its arbitration, as a value.</summary>
public record struct Pic8259State
{
    /// <summary>Interrupt request register.</summary>
    public byte Irr;

    /// <summary>In-service register.</summary>
    public byte Isr;

    /// <summary>Interrupt mask register (OCW1).</summary>
    public byte Imr;

    /// <summary>Input levels.</summary>
    public byte Lines;

    /// <summary>Edge/level control: 1 = level-triggered.</summary>
    public byte Elcr;

    /// <summary>Vector of input 0 (ICW2).</summary>
    public byte VectorBase;

    /// <summary>The input with the lowest priority; the next one has the highest.</summary>
    public byte Lowest;

    /// <summary>Which initialization word comes next: 0 none, else 2, 3 or 4.</summary>
    public byte InitStep;
    public bool NeedsIcw4;

    /// <summary>ICW1 bit 1: no cascade, so no ICW3.</summary>
    public bool Single;
    public bool ReadIsr;
    public bool SpecialMask;
    public bool Poll;
    public bool AutoEoi;
    public bool RotateOnAutoEoi;
    public bool SpecialFullyNested;

    /// <summary>After power-on, before firmware or the guest initializes it.</summary>
    public static Pic8259State PowerOn => new() { Lowest = 7 };

    /// <summary>Drives one input: edges and levels become requests.</summary>
    internal void SetLine(int input, bool level)
    {
        var bit = (byte)(1 << input);
        if ((Elcr & bit) != 0)
        {
            Irr = (byte)(level ? Irr | bit : Irr & ~bit);
        }
        else if (level)
        {
            if ((Lines & bit) == 0) Irr |= bit;
        }
        else
        {
            Irr &= (byte)~bit; // a request must stay until it is acknowledged (datasheet, "Edge and level triggered modes")
        }

        Lines = (byte)(level ? Lines | bit : Lines & ~bit);
    }

    /// <summary>
    /// The input that wants service now, or -1. <paramref name="cascade"/> is the slave's input on a master (0 for a slave).
    /// </summary>
    internal readonly int Requesting(byte cascade)
    {
        var requests = (byte)(Irr & ~Imr);
        if (requests == 0) return -1;
        var request = HighestPriority(requests);
        var service = Isr;
        if (SpecialMask) service &= (byte)~Imr;
        if (SpecialFullyNested) service &= (byte)~cascade; // a second request from the slave may interrupt the first
        return service == 0 || Rank(request) < Rank(HighestPriority(service)) ? request : -1;
    }

    /// <summary>Takes a request into service (the second INTA pulse).</summary>
    internal void TakeIntoService(int input)
    {
        var bit = (byte)(1 << input);
        if (AutoEoi)
        {
            if (RotateOnAutoEoi) Lowest = (byte)input;
        }
        else
        {
            Isr |= bit;
        }

        if ((Elcr & bit) == 0) Irr &= (byte)~bit; // a level keeps requesting
    }

    internal void WriteCommand(byte value)
    {
        if ((value & 0x10) != 0) Initialize(value);
        else if ((value & 0x08) != 0) WriteOcw3(value);
        else WriteOcw2(value);
    }

    internal void WriteData(byte value)
    {
        switch (InitStep)
        {
            case 2:
                VectorBase = (byte)(value & 0xF8);
                InitStep = (byte)(!Single ? 3 : NeedsIcw4 ? 4 : 0);
                break;
            case 3:
                InitStep = (byte)(NeedsIcw4 ? 4 : 0); // the wiring is the PC's, whatever ICW3 says
                break;
            case 4:
                SpecialFullyNested = (value & 0x10) != 0;
                AutoEoi = (value & 0x02) != 0;
                InitStep = 0;
                break;
            default:
                Imr = value;
                break;
        }
    }

    readonly int HighestPriority(byte set)
    {
        // Rotated so that the highest priority is bit 0.
        var shift = (Lowest + 1) & 7;
        var rotated = (byte)((set >> shift) | (set << (8 - shift)));
        return (BitOperations.TrailingZeroCount(rotated) + shift) & 7;
    }

    readonly int Rank(int input) => (input - Lowest - 1) & 7;

    void Initialize(byte icw1)
    {
        // ICW1 clears the edge latches, the mask and the modes (datasheet, "Initialization command words").
        Irr = (byte)(Lines & Elcr);
        Isr = 0;
        Imr = 0;
        Lowest = 7;
        SpecialMask = false;
        ReadIsr = false;
        Poll = false;
        AutoEoi = false;
        RotateOnAutoEoi = false;
        SpecialFullyNested = false;
        Single = (icw1 & 0x02) != 0;
        NeedsIcw4 = (icw1 & 0x01) != 0;
        InitStep = 2;
    }

    void WriteOcw3(byte value)
    {
        if ((value & 0x40) != 0) SpecialMask = (value & 0x20) != 0;
        if ((value & 0x04) != 0) Poll = true;
        else if ((value & 0x02) != 0) ReadIsr = (value & 0x01) != 0;
    }

    void WriteOcw2(byte value)
    {
        var input = value & 7;
        switch (value >> 5)
        {
            case 0b000: RotateOnAutoEoi = false; break;
            case 0b100: RotateOnAutoEoi = true; break;
            case 0b001: EndHighest(rotate: false); break;
            case 0b101: EndHighest(rotate: true); break;
            case 0b011: Isr &= (byte)~(1 << input); break;
            case 0b111:
                Isr &= (byte)~(1 << input);
                Lowest = (byte)input;
                break;
            case 0b110: Lowest = (byte)input; break;
            default: break; // 010: no operation
        }
    }

    void EndHighest(bool rotate)
    {
        // The non-specific EOI does not clear a masked in-service bit in special mask mode (datasheet, "Special mask mode").
        var candidates = SpecialMask ? (byte)(Isr & ~Imr) : Isr;
        if (candidates == 0) return;
        var input = HighestPriority(candidates);
        Isr &= (byte)~(1 << input);
        if (rotate) Lowest = (byte)input;
    }

    public override readonly string ToString() =>
        $"irr={Irr:x2} isr={Isr:x2} imr={Imr:x2} lines={Lines:x2} elcr={Elcr:x2} base={VectorBase:x2}";
}
