using ActorVmm.Actors;
using ActorVmm.Hypervisor.Soft;

namespace ActorVmm.Host;

/// <summary>The only place that knows which hypervisors and which actor host there are.</summary>
internal static class Composition
{
    public static HostServices Services() => new(
        new HypervisorCatalog(("soft", () => new SoftHypervisor())),
        new AkkaVmHostFactory((system, _) => VmHost.Attach(system)));
}
