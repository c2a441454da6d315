namespace ActorVmm.Devices.Chipset;

/// <summary>
/// One counter of an 8254 (Intel 8254 datasheet) as a value. Nothing runs: counts and outputs follow from the tick at which the count was
/// loaded. Ticks are those of <see cref="Pit8254.FrequencyHz"/> since machine time 0.
/// </summary>
public record struct PitChannel
{
    /// <summary>Mode bits as programmed, 0 to 7; 6 and 7 mean 2 and 3.</summary>
    public byte ModeBits;
    public bool Bcd;

    /// <summary>1 low byte, 2 high byte, 3 low then high.</summary>
    public byte Access;

    /// <summary>The count in force, 1 to 65536.</summary>
    public uint Count;

    /// <summary>A count was written since the control word.</summary>
    public bool Loaded;

    /// <summary>Counting has begun (modes 1 and 5 wait for the gate).</summary>
    public bool Started;

    /// <summary>Tick at which the current count was loaded.</summary>
    public ulong StartTick;

    /// <summary>
    /// A count that takes over at <see cref="PendingTick"/> (modes 2 and 3) or at the next gate edge (1 and 5); 0 for none.
    /// </summary>
    public uint PendingCount;
    public ulong PendingTick;
    public bool Gate;

    /// <summary>Ticks counted before the gate closed.</summary>
    public ulong Frozen;

    /// <summary>The first byte of a two-byte write.</summary>
    public byte WriteLow;
    public bool WriteHighNext;
    public bool ReadHighNext;

    /// <summary>Latched count: bytes still to be read (0 none, 1 one, 2 both).</summary>
    public byte LatchedBytes;
    public ushort LatchedCount;
    public bool StatusLatched;
    public byte LatchedStatus;

    readonly int Mode => ModeBits >= 6 ? ModeBits - 4 : ModeBits;
    readonly bool Periodic => Mode is 2 or 3;
    readonly bool GateTriggered => Mode is 1 or 5;

    /// <summary>The output pin at a tick (8254 datasheet, "Mode definitions").</summary>
    internal readonly bool Output(ulong tick)
    {
        if (!Started) return Mode != 0;
        if (Periodic && !Gate) return true; // a closed gate sets the output high at once
        var elapsed = Elapsed(tick);
        return Mode switch
        {
            0 => elapsed >= Count,
            1 => elapsed >= Count,
            2 => elapsed % Count != Count - 1,
            3 => elapsed % Count < (Count + 1) / 2,
            _ => elapsed != Count, // 4 and 5: low for one tick
        };
    }

    /// <summary>What IRQ 0 shows between rising edges: the low phases of the periodic modes are as short as the pulse.</summary>
    internal readonly bool RestLevel(ulong tick) => (Periodic && Started) || Output(tick);

    /// <summary>The counting element's value at a tick, before BCD.</summary>
    internal readonly ushort Counter(ulong tick)
    {
        if (!Started) return (ushort)Count;
        var elapsed = Elapsed(tick);
        return (ushort)(Mode switch
        {
            2 => Count - elapsed % Count,
            3 => Count - elapsed % Count * 2 % Count & ~1UL, // counts down by two, twice per period
            _ => Count - elapsed,                           // and on below zero
        });
    }

    /// <summary>The first tick after <paramref name="tick"/> at which the output rises; MaxValue where none will.</summary>
    internal readonly ulong NextRise(ulong tick)
    {
        if (!Started || (!Gate && !GateTriggered)) return ulong.MaxValue;
        var elapsed = Elapsed(tick);
        switch (Mode)
        {
            case 0 or 1: return elapsed < Count ? StartTick + Count : ulong.MaxValue;
            case 4 or 5: return elapsed < Count + 1 ? StartTick + Count + 1 : ulong.MaxValue;
            default: return StartTick + (elapsed / Count + 1) * Count;
        }
    }

    /// <summary>Lets a pending count take over if its time has come.</summary>
    internal void Settle(ulong tick)
    {
        if (PendingCount == 0 || !Periodic || tick < PendingTick) return;
        (Count, PendingCount, StartTick) = (PendingCount, 0, PendingTick);
    }

    internal void Control(byte value)
    {
        Access = (byte)((value >> 4) & 3);
        ModeBits = (byte)((value >> 1) & 7);
        Bcd = (value & 1) != 0;
        Loaded = false;
        Started = false;
        PendingCount = 0;
        Frozen = 0;
        WriteHighNext = false;
        ReadHighNext = false;
        LatchedBytes = 0;
        StatusLatched = false;
    }

    internal void Write(byte value, ulong tick)
    {
        switch (Access)
        {
            case 1: Load(value, tick); break;
            case 2: Load((ushort)(value << 8), tick); break;
            case 3 when !WriteHighNext:
                WriteLow = value;
                WriteHighNext = true;
                if (Mode == 0) Started = false; // the first byte stops the count and the output goes low
                break;
            case 3:
                WriteHighNext = false;
                Load((ushort)(WriteLow | (value << 8)), tick);
                break;
            default: break; // not programmed yet
        }
    }

    internal byte Read(ulong tick)
    {
        if (StatusLatched)
        {
            StatusLatched = false;
            return LatchedStatus;
        }

        if (LatchedBytes != 0)
        {
            var high = Access == 2 || LatchedBytes == 1 && Access == 3;
            LatchedBytes--;
            return (byte)(high ? LatchedCount >> 8 : LatchedCount);
        }

        var count = ToGuest(Counter(tick));
        switch (Access)
        {
            case 2: return (byte)(count >> 8);
            case 3:
                ReadHighNext = !ReadHighNext;
                return (byte)(ReadHighNext ? count : count >> 8);
            default: return (byte)count;
        }
    }

    internal void LatchCount(ulong tick)
    {
        if (LatchedBytes != 0) return; // a second latch before the read is ignored
        LatchedCount = ToGuest(Counter(tick));
        LatchedBytes = (byte)(Access == 3 ? 2 : 1);
    }

    internal void LatchStatus(ulong tick)
    {
        if (StatusLatched) return;
        var nullCount = !Loaded || PendingCount != 0;
        LatchedStatus = (byte)((Output(tick) ? 0x80 : 0) | (nullCount ? 0x40 : 0) | (Access << 4) | (ModeBits << 1) | (Bcd ? 1 : 0));
        StatusLatched = true;
    }

    internal void SetGate(bool open, ulong tick)
    {
        if (open == Gate) return;
        if (!open && Started && !GateTriggered) Frozen = Elapsed(tick);
        Gate = open;
        if (!open) return;
        if (GateTriggered)
        {
            if (!Loaded) return;
            if (PendingCount != 0) (Count, PendingCount) = (PendingCount, 0);
            (Started, StartTick) = (true, tick);
        }
        else if (Started)
        {
            if (Periodic && PendingCount != 0) (Count, PendingCount) = (PendingCount, 0);
            StartTick = Periodic ? tick : tick - Frozen;
        }
    }

    readonly ulong Elapsed(ulong tick) => Gate || GateTriggered ? tick - StartTick : Frozen;

    readonly ushort ToGuest(ushort count)
    {
        if (!Bcd) return count;
        var value = count % 10_000;
        return (ushort)((value / 1000 << 12) | (value / 100 % 10 << 8) | (value / 10 % 10 << 4) | (value % 10));
    }

    readonly uint FromGuest(ushort written)
    {
        if (!Bcd) return written == 0 ? 65536u : written;
        var digits = (uint)written;
        var value = (digits >> 12) * 1000 + ((digits >> 8) & 15) * 100 + ((digits >> 4) & 15) * 10 + (digits & 15);
        return value == 0 ? 10_000u : value;
    }

    void Load(ushort written, ulong tick)
    {
        var count = FromGuest(written);
        if (Periodic) count = Math.Max(count, 2); // 1 is illegal in modes 2 and 3
        if (GateTriggered)
        {
            if (Loaded) PendingCount = count;
            else Count = count;
        }
        else if (Periodic && Started)
        {
            // In force from the end of the current period.
            PendingCount = count;
            PendingTick = Gate ? StartTick + (Elapsed(tick) / Count + 1) * Count : ulong.MaxValue;
        }
        else
        {
            (Count, Started, StartTick, Frozen) = (count, true, tick, 0);
        }

        Loaded = true;
    }

    public override readonly string ToString() =>
        $"mode={Mode} count={Count} access={Access} gate={Gate} " +
        $"{(Started ? $"since tick {StartTick}" : Loaded ? "waiting for gate" : "not loaded")}";
}
