using System.Collections.Concurrent;
using ActorVmm.Actors;
using ActorVmm.Actors.Host.Vm;
using ActorVmm.Backends.UserNet;
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
    public Exception? DeviceRefusal { get; init; }
    public ConcurrentQueue<(string Device, object Change)> Updates { get; } = [];

    /// <summary>As it was configured; one that was running from the start has drives a and b, and interface a.</summary>
    public VmSpec? Spec => State == MicrovmState.NotStarted ? null : Started?.ToSpec() ?? new VmSpec
    {
        Name = Id, Kernel = new KernelSpec { Path = "vmlinuz" },
        Disks = [new DiskSpec { Id = "a", Path = "disk" }, new DiskSpec { Id = "b", Path = "disk" }],
        Nets = [new NetSpec { Id = "a", Backend = new NetBackend.User(new UserNetSettings()) }],
    };

    public VmSpec? Described => null;

    public Task UpdateDeviceAsync(string device, object change)
    {
        if (DeviceRefusal is not null) return Task.FromException(DeviceRefusal);
        Updates.Enqueue((device, change));
        return Task.CompletedTask;
    }

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
