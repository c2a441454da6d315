using ActorVmm.Hypervisor;

namespace ActorVmm.Actors.Fleet;

/// <summary>One VM of a fleet: what is built, and what is done when it ends.</summary>
/// <param name="Spec">The machine; its name is the VM's name.</param>
/// <param name="Hypervisor">What runs it. Called for each run: a choice may take time, or fail.</param>
/// <param name="Console">The outside of its serial port, for all of its runs.</param>
public sealed record VmDefinition(VmSpec Spec, Func<IHypervisor> Hypervisor, VmConsole Console)
{
    /// <summary>When it is started again.</summary>
    public RestartPolicy Restart { get; init; } = RestartPolicy.Never;

    /// <summary>How it is stopped.</summary>
    public StopPolicy Stop { get; init; } = StopPolicy.Default;

    /// <summary>A guest that resets itself is started again within the same run, as a real machine is; else a reset ends the run.</summary>
    public bool RestartsOnReset { get; init; } = true;

    /// <summary>Says what the machine was made from: two definitions with the same text need no restart to become the other.</summary>
    public string Fingerprint { get; init; } = "";
}

/// <summary>Where a VM of a fleet is in its life.</summary>
public enum VmState
{
    /// <summary>It does not run, and nobody waits for it to.</summary>
    Stopped,

    /// <summary>It is being built.</summary>
    Starting,

    /// <summary>Its guest runs.</summary>
    Running,

    /// <summary>Its guest stands still, with its memory.</summary>
    Paused,

    /// <summary>It was asked to end.</summary>
    Stopping,

    /// <summary>It ended by itself, and will be started again when the back-off is over.</summary>
    BackingOff,

    /// <summary>It failed, and stays so until an operator starts it.</summary>
    Failed,
}

/// <summary>What is known of a VM at a moment; a new one with every change.</summary>
public sealed record VmStatus
{
    public required string Name { get; init; }
    public required VmState State { get; init; }

    /// <summary>When it came into this state.</summary>
    public required DateTimeOffset Since { get; init; }

    /// <summary>When the present or last run began; null before the first.</summary>
    public DateTimeOffset? StartedAt { get; init; }

    /// <summary>Runs begun so far.</summary>
    public int Runs { get; init; }

    /// <summary>Runs that the restart policy began.</summary>
    public int Restarts { get; init; }

    /// <summary>Resets of the guest within its runs.</summary>
    public int Resets { get; init; }

    /// <summary>Why the last run ended, or why it is paused; null before the first end.</summary>
    public string? LastCause { get; init; }

    /// <summary>The exit code of the last run; null before the first end.</summary>
    public int? LastExitCode { get; init; }

    /// <summary>Its description has changed since this run began.</summary>
    public bool NeedsRestart { get; init; }

    /// <summary>The hypervisor of the present or last run.</summary>
    public string? Hypervisor { get; init; }
    public int Vcpus { get; init; }
    public int MemoryMib { get; init; }
}

/// <summary>What a fleet refuses, and in which way.</summary>
public enum FleetFault
{
    /// <summary>No VM has that name.</summary>
    NotFound,

    /// <summary>Not in this state.</summary>
    Conflict,

    /// <summary>A limit of the host.</summary>
    Limit,

    /// <summary>It was tried and did not work.</summary>
    Failed,
}

/// <summary>A command that a fleet could not carry out; the message says why, for people.</summary>
public sealed class FleetException : Exception
{
    public FleetException(FleetFault fault, string message) : base(message) => Fault = fault;
    public FleetException(FleetFault fault, string message, Exception inner) : base(message, inner) => Fault = fault;
    public FleetException(string message) : base(message) { }
    public FleetException(string message, Exception inner) : base(message, inner) { }
    public FleetException() { }

    /// <summary>In which way.</summary>
    public FleetFault Fault { get; } = FleetFault.Failed;
}
