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

    /// <summary>Presses the keys.</summary>
    void SendCtrlAltDel();
}
