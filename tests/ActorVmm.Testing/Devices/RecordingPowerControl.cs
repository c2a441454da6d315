using ActorVmm.Devices.Power;

namespace ActorVmm.Testing.Devices;

/// <summary>Keeps the power requests of a guest.</summary>
public sealed class RecordingPowerControl : IPowerControl
{
    public List<PowerEvent> Requests { get; } = [];

    public void Request(PowerEvent powerEvent) => Requests.Add(powerEvent);
}
