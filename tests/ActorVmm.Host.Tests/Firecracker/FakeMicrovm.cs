using ActorVmm.Actors.Host.Vm;
using ActorVmm.Host.Descriptions;
using ActorVmm.Host.Firecracker;

namespace ActorVmm.Host.Tests.Firecracker;

/// <summary>A microVM that does as it is told, and remembers.</summary>
internal sealed class FakeMicrovm : IMicrovm
{
    public string Id { get; init; } = "golden";
    public MicrovmState State { get; set; }
    public bool IsConfigurable { get; init; } = true;
    public VmReadings Readings { get; set; } = VmReadings.None;
    public VmDescription? Started { get; private set; }
    public int CtrlAltDels { get; private set; }
    public Exception? Refusal { get; init; }

    public Task StartAsync(VmDescription? description)
    {
        if (Refusal is not null) return Task.FromException(Refusal);
        Started = description;
        State = MicrovmState.Running;
        return Task.CompletedTask;
    }

    public Task PauseAsync()
    {
        State = MicrovmState.Paused;
        return Task.CompletedTask;
    }

    public Task ResumeAsync()
    {
        State = MicrovmState.Running;
        return Task.CompletedTask;
    }

    public void SendCtrlAltDel() => CtrlAltDels++;
}
