using ActorVmm.Actors;
using ActorVmm.Host.Guests;
using ActorVmm.Host.Hypervisors;
using ActorVmm.Hypervisor.Kvm;
using ActorVmm.Hypervisor.Soft;

namespace ActorVmm.Host;

/// <summary>The only place that knows which hypervisors and which actor host there are.</summary>
internal static class Composition
{
    public static HostServices Services() => new(
        new HypervisorCatalog(("kvm", () => new KvmHypervisor()), ("soft", () => new SoftHypervisor()))
        {
            Remembered = new ProbeCache(GuestCache.DefaultDirectory),
        },
        new AkkaVmHostFactory((system, _) => VmHost.Attach(system)));
}
