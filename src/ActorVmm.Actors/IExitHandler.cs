using ActorVmm.Devices.Faults;
using ActorVmm.Hypervisor;

namespace ActorVmm.Actors;

/// <summary>
/// The embedding program's say in a VM (the seed's WrappedExitHandler): sees why it halts, may claim addresses that no device claims, may
/// override what happens on reset or triple fault. <see cref="TryHandle"/> is called on a vCPU's thread, the others on the VM's: answer at
/// once. An exception is logged, and counts as the default answer.
/// </summary>
public interface IExitHandler
{
    /// <summary>
    /// An access that no device claims. True where it was handled (for a read: <see cref="VcpuExit.Data"/> is the answer).
    /// </summary>
    bool TryHandle(VcpuExit access) => false;

    /// <summary>The guest asked to end the run. Return the verdict.</summary>
    StopVerdict OnStopping(StopReason reason) => StopVerdict.Stop;

    /// <summary>
    /// A fault of the VM's plan has fired. On the thread where it happens, before what follows from it; one at a time.
    /// </summary>
    void OnFault(FaultFiring firing) { }

    /// <summary>Nothing fires from this machine time on. As <see cref="OnFault"/>.</summary>
    void OnHealed(ulong nanoseconds) { }

    /// <summary>The VM has stopped.</summary>
    void OnStopped(VmOutcome outcome) { }
}

/// <summary>What to do when the guest resets or dies.</summary>
public enum StopVerdict
{
    /// <summary>End the run (the default).</summary>
    Stop,

    /// <summary>Reset the machine, load the kernel again, and go on.</summary>
    Restart,
}
