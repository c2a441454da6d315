namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>A segment or gate descriptor, 8 bytes of GDT, LDT or IDT (SDM Vol. 3 §3.4.5, §5.8.3).</summary>
/// <param name="Raw">The bytes as stored, little-endian.</param>
internal readonly record struct Descriptor(ulong Raw)
{
    private uint High => (uint)(Raw >> 32);

    public int Type => (int)(High >> 8) & 15;

    /// <summary>The S bit: code or data rather than a system segment or gate.</summary>
    public bool IsCodeOrData => (High & 0x1000) != 0;
    public int Dpl => (int)(High >> 13) & 3;
    public bool Present => (High & 0x8000) != 0;
    public bool Long => (High & 0x20_0000) != 0;
    public bool Big => (High & 0x40_0000) != 0;

    public bool IsCode => IsCodeOrData && (Type & 8) != 0;
    public bool IsConforming => IsCode && (Type & 4) != 0;
    public bool IsReadable => IsCodeOrData && (Type & 10) != 8;
    public bool IsWritableData => IsCodeOrData && (Type & 10) == 2;
    public bool IsAccessed => (Type & 1) != 0;

    /// <summary>32-bit base of a segment; system segments of long mode have 32 more bits in the next 8 bytes.</summary>
    public uint Base => (uint)(Raw >> 16) & 0xFF_FFFF | High & 0xFF00_0000;

    /// <summary>In bytes, the granularity applied.</summary>
    public uint Limit
    {
        get
        {
            var limit = (uint)Raw & 0xFFFF | High & 0xF_0000;
            return (High & 0x80_0000) != 0 ? limit << 12 | 0xFFF : limit;
        }
    }

    /// <summary>In the form of <see cref="Segment.Attributes"/>.</summary>
    public ushort Attributes => (ushort)(High >> 8 & 0xF0FF);

    public Segment ToSegment(ushort selector) => new() { Selector = selector, Limit = Limit, Attributes = Attributes };

    // --- gates ---

    public ushort GateSelector => (ushort)(Raw >> 16);

    /// <summary>Bits 31:0 of a gate's offset.</summary>
    public uint GateOffset => (uint)Raw & 0xFFFF | High & 0xFFFF_0000;

    /// <summary>Interrupt stack table index of a 64-bit gate.</summary>
    public int GateStack => (int)High & 7;

    /// <summary>Parameters that a legacy call gate copies.</summary>
    public int GateParameters => (int)High & 31;
}

/// <summary>Types of system descriptors (SDM Vol. 3 table 3-2).</summary>
internal static class SystemType
{
    public const int Tss16 = 1, Ldt = 2, Tss16Busy = 3, CallGate16 = 4, TaskGate = 5, InterruptGate16 = 6, TrapGate16 = 7;
    public const int Tss32 = 9, Tss32Busy = 11, CallGate32 = 12, InterruptGate32 = 14, TrapGate32 = 15;
}
