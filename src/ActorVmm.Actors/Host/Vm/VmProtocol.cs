using ActorVmm.Devices.Faults;
using ActorVmm.Devices.Power;

namespace ActorVmm.Actors.Host.Vm;

/// <summary>What a VM hears.</summary>
internal static class VmProtocol
{
    /// <summary>Command: power loss.</summary>
    public sealed record Stop { public static readonly Stop Instance = new(); }

    /// <summary>
    /// Command; <paramref name="Done"/> completes when no vCPU runs and the clock stands, and faults where the VM ends instead.
    /// </summary>
    public sealed record Pause(TaskCompletionSource Done);

    /// <summary>Command; <paramref name="Done"/> completes when the vCPUs have been let go, and faults where the VM ends instead.</summary>
    public sealed record Resume(TaskCompletionSource Done);

    /// <summary>
    /// Command: one more fault, at run time; <paramref name="Done"/> completes when the rule is in force, and faults where the VM ends.
    /// </summary>
    public sealed record Inject(FaultRule Rule, TaskCompletionSource Done);

    /// <summary>Command: all faults end.</summary>
    public sealed record Heal { public static readonly Heal Instance = new(); }

    /// <summary>
    /// Command: pause, save, reset, restore, resume in place; <paramref name="Done"/> completes with the time that the guest stood still.
    /// </summary>
    public sealed record Pulse(TaskCompletionSource<TimeSpan> Done);

    /// <summary>Command: press a key of the machine; what the guest makes of it is the guest's affair.</summary>
    public sealed record Press(PowerKey Key);

    /// <summary>Event: a device passes on what the guest wants for its machine.</summary>
    public sealed record PowerSignalled(PowerEvent Signal);
}
