namespace ActorVmm.Devices.Chipset;

/// <summary>The whole state of a local APIC as a value. Times are machine time in nanoseconds.</summary>
public readonly record struct LocalApicState
{
    /// <summary>IA32_APIC_BASE (SDM Vol. 3 §11.4.4).</summary>
    public ulong ApicBase { get; init; }
    public byte TaskPriority { get; init; }

    /// <summary>LDR in xAPIC layout (bits 31:24); in x2APIC mode it follows from the ID.</summary>
    public uint LogicalDestination { get; init; }
    public uint DestinationFormat { get; init; }
    public uint SpuriousVector { get; init; }

    /// <summary>ESR as software reads it.</summary>
    public uint ErrorStatus { get; init; }

    /// <summary>Errors since the last write to ESR.</summary>
    public uint ErrorsPending { get; init; }
    public ulong InterruptCommand { get; init; }
    public uint LvtTimer { get; init; }
    public uint LvtThermal { get; init; }
    public uint LvtPerformance { get; init; }
    public uint LvtLint0 { get; init; }
    public uint LvtLint1 { get; init; }
    public uint LvtError { get; init; }
    public uint InitialCount { get; init; }
    public uint DivideConfiguration { get; init; }

    /// <summary>When the timer fires; <see cref="ulong.MaxValue"/> while it is stopped.</summary>
    public ulong TimerDeadline { get; init; }

    /// <summary>IA32_TSC_DEADLINE, in the guest's TSC.</summary>
    public ulong TscDeadline { get; init; }

    /// <summary>What the guest's TSC is ahead of machine time's.</summary>
    public ulong TscOffset { get; init; }

    /// <summary>An ExtINT message is waiting for the core.</summary>
    public bool ExtIntPending { get; init; }

    /// <summary>Levels of LINT0 (bit 0) and LINT1 (bit 1).</summary>
    public byte LintLevels { get; init; }
    public VectorSet Requested { get; init; }
    public VectorSet InService { get; init; }
    public VectorSet LevelTriggered { get; init; }
}
