using ActorVmm.Actors;
using ActorVmm.Actors.Host.Vm;
using ActorVmm.Host.Descriptions;

namespace ActorVmm.Host.Firecracker;

/// <summary>Where the microVM of a socket is.</summary>
internal enum MicrovmState
{
    NotStarted,
    Running,
    Paused,
}

/// <summary>The VM behind a Firecracker-compatible socket.</summary>
internal interface IMicrovm
{
    /// <summary>What <c>GET /</c> calls it.</summary>
    string Id { get; }

    MicrovmState State { get; }

    /// <summary>False where it has its configuration from elsewhere: what would change it is refused.</summary>
    bool IsConfigurable { get; }

    /// <summary>Its counters.</summary>
    VmReadings Readings { get; }

    /// <summary>Starts it; completes when its guest runs, and throws with the cause where it cannot be built.</summary>
    /// <param name="description">What was configured; null where <see cref="IsConfigurable"/> is false.</param>
    Task StartAsync(VmDescription? description);

    /// <summary>Stops vCPUs and clock; throws with the cause.</summary>
    Task PauseAsync();

    /// <summary>Undoes it.</summary>
    Task ResumeAsync();

    /// <summary>What the present run was built from; null before the start.</summary>
    VmSpec? Spec { get; }

    /// <summary>Where <see cref="IsConfigurable"/> is false: what the present run was built from, or the next start will build.</summary>
    VmSpec? Described { get; }

    /// <summary>Changes a device of the present run; throws with the cause where it refuses.</summary>
    /// <param name="device">Actor name: <c>blk0</c>, <c>net0</c>, ...</param>
    /// <param name="change">As <see cref="IVmHandle.UpdateDeviceAsync"/> takes it.</param>
    Task UpdateDeviceAsync(string device, object change);

    /// <summary>Presses the keys.</summary>
    void SendCtrlAltDel();
}
