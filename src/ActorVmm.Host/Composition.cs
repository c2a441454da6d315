namespace ActorVmm.Host;

/// <summary>The only place that knows which hypervisors and which actor host there are.</summary>
internal static class Composition
{
    public static HostServices Services() => new(
        new HypervisorCatalog(),
        new AkkaVmHostFactory((_, _) => throw new Hypervisor.HypervisorException("this build has no actor host")));
}
