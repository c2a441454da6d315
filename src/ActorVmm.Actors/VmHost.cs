using ActorVmm.Hypervisor;

namespace ActorVmm.Actors;

/// <summary>The programmer's door to the actor system: starts VMs under <c>/user/host</c> and waits for them.</summary>
public interface IVmHost : IAsyncDisposable
{
    /// <summary>Builds and starts a VM; faults with the cause where it cannot be built.</summary>
    Task<IVmHandle> StartAsync(VmSpec spec, IHypervisor hypervisor, VmConsole console, IExitHandler? exitHandler = null);
}

/// <summary>A started VM.</summary>
public interface IVmHandle
{
    VmSpec Spec { get; }

    /// <summary>Completes when the VM has stopped, whatever way; never faults.</summary>
    Task<VmOutcome> Completion { get; }

    /// <summary>Stops the VM (power loss); <see cref="Completion"/> follows with <see cref="StopReason.Requested"/>.</summary>
    void Stop();

    /// <summary>Stops all vCPUs and the clock; completes when none runs.</summary>
    Task PauseAsync();

    /// <summary>Undoes <see cref="PauseAsync"/>.</summary>
    Task ResumeAsync();
}
