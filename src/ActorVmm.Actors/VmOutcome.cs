namespace ActorVmm.Actors;

/// <summary>Why a VM stopped.</summary>
public enum StopReason
{
    /// <summary>The guest reset itself through the keyboard controller (<c>reboot=k</c>, FADT reset register).</summary>
    ResetI8042,
    /// <summary>The guest reset itself through the chipset's reset control register, port 0xCF9 (<c>reboot=p</c>).</summary>
    ResetControl,
    /// <summary>The guest reset itself by a triple fault.</summary>
    TripleFault,
    /// <summary>ACPI S5, or the hypervisor's shutdown event.</summary>
    Poweroff,
    /// <summary>Every vCPU halted with interrupts off.</summary>
    Halted,
    /// <summary>The guest announced a panic (pvpanic).</summary>
    GuestPanic,
    /// <summary>The user or the host asked.</summary>
    Requested,
    /// <summary>The monitor or the hypervisor failed.</summary>
    Failed,
}

/// <summary>How a VM ended.</summary>
/// <param name="Reason">Which way.</param>
/// <param name="Detail">One line for people; for <see cref="StopReason.Failed"/> the cause with what to do.</param>
/// <param name="RetiredInstructions">Of all vCPUs; 0 where the hypervisor cannot count.</param>
public sealed record VmOutcome(StopReason Reason, string Detail, ulong RetiredInstructions)
{
    /// <summary>The process exit code: 0 for an end by the guest or the user, 34 panic, 33 failure of ours.</summary>
    public int ExitCode => Reason switch { StopReason.GuestPanic => 34, StopReason.Failed => 33, _ => 0 };

    /// <summary>The closing line without its prefix, e.g. <c>guest reset (i8042)</c>.</summary>
    public string Text => Reason switch
    {
        StopReason.ResetI8042 => "guest reset (i8042)",
        StopReason.ResetControl => "guest reset (port 0xcf9)",
        StopReason.TripleFault => "triple fault",
        StopReason.Poweroff => "poweroff",
        StopReason.Halted => "halted",
        StopReason.GuestPanic => "guest panic",
        StopReason.Requested => "requested",
        _ => $"failed: {Detail}",
    };
}
