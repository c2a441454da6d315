using ActorVmm.Actors.Fleet;
using ActorVmm.Hypervisor;
using ActorVmm.Testing.Actors;

namespace ActorVmm.Actors.Tests.Fleet;

/// <summary>A fleet of scripted guests, and the words of the tests' stories.</summary>
internal sealed class FleetFixture : IAsyncDisposable
{
    private readonly VmFixture _vms = new();

    public FleetFixture(FleetLimits? limits = null) => Fleet = new VmFleet(_vms.Host.System, _vms.Host, limits);

    public VmFleet Fleet { get; }
    public VmFixture Vms => _vms;

    public static IEnumerator<VcpuExitKind> Idle(ScriptedVcpu cpu) { while (true) yield return cpu.WaitForInterrupt(); }

    public static RestartPolicy Policy(RestartMode mode, int limit = 3, int milliseconds = 1) => new(
        mode, TimeSpan.FromMilliseconds(milliseconds), TimeSpan.FromMilliseconds(50), limit, TimeSpan.FromMinutes(5));

    /// <summary>Defines a VM.</summary>
    public async Task<ScriptedHypervisor> DefineAsync(string name, GuestScript guest, RestartPolicy? restart = null,
        StopPolicy? stop = null)
    {
        var hypervisor = new ScriptedHypervisor(guest);
        await Fleet.DefineAsync(Definition(name, hypervisor, restart, stop)).WaitAsync(VmFixture.Patience);
        return hypervisor;
    }

    public VmDefinition Definition(string name, ScriptedHypervisor hypervisor, RestartPolicy? restart = null, StopPolicy? stop = null) =>
        new(VmFixture.Spec(name), () => hypervisor, _vms.Console.Console)
        {
            Restart = restart ?? RestartPolicy.Never,
            Stop = stop ?? new StopPolicy(PowerKeyChoice.None, PowerKeyChoice.None, TimeSpan.FromSeconds(5)),
            Fingerprint = "one",
        };

    public Task EventuallyAsync(string name, VmState state) =>
        VmFixture.EventuallyAsync(() => Fleet.Find(name)?.Status.State == state, $"{name} is {state}, not {Fleet.Find(name)?.Status}");

    public ValueTask DisposeAsync() => _vms.DisposeAsync();
}
