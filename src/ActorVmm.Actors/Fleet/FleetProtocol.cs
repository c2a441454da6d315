namespace ActorVmm.Actors.Fleet;

/// <summary>What a fleet and its keepers hear. Each command carries the promise of its answer.</summary>
internal static class FleetProtocol
{
    /// <summary>Command to the fleet: one more VM, stopped; or another definition for one that is there.</summary>
    public sealed record Define(VmDefinition Definition, bool Replace, TaskCompletionSource<VmStatus> Done);

    /// <summary>Command to the fleet: the VM is forgotten. One that runs is killed first where <paramref name="Force"/> says so.</summary>
    public sealed record Remove(string Name, bool Force, TaskCompletionSource<VmStatus> Done);

    /// <summary>Command: run.</summary>
    public sealed record Start(TaskCompletionSource<VmStatus> Done);

    /// <summary>Command: end in order; the power is cut at the deadline.</summary>
    public sealed record Stop(TimeSpan? Deadline, TaskCompletionSource<VmStatus> Done);

    /// <summary>Command: power loss.</summary>
    public sealed record Kill(TaskCompletionSource<VmStatus> Done);

    /// <summary>Command: stop and start; with the present definition.</summary>
    public sealed record Restart(TimeSpan? Deadline, TaskCompletionSource<VmStatus> Done);

    /// <summary>Command: stand still.</summary>
    public sealed record Pause(TaskCompletionSource<VmStatus> Done);

    /// <summary>Command: go on.</summary>
    public sealed record Resume(TaskCompletionSource<VmStatus> Done);

    /// <summary>Command to a keeper: be ready to be removed; answered to the fleet by <see cref="Removable"/>.</summary>
    public sealed record PrepareRemoval(bool Force, TaskCompletionSource<VmStatus> Done);

    /// <summary>Event: the keeper's VM does not run and may be removed.</summary>
    public sealed record Removable(string Name, TaskCompletionSource<VmStatus> Done);

    /// <summary>Command to a keeper: from the next start on, this is the VM.</summary>
    public sealed record Redefine(VmDefinition Definition, TaskCompletionSource<VmStatus> Done);
}

/// <summary>Limits of a host.</summary>
/// <param name="MaxVms">VMs defined at the same time, 1 to 10000.</param>
/// <param name="MaxMemoryMib">Guest RAM of all defined VMs together.</param>
public sealed record FleetLimits(int MaxVms = 1024, long MaxMemoryMib = 1 << 20);
