namespace ActorVmm.Host;

/// <summary>What the commands are built on.</summary>
/// <param name="Hypervisors">The hypervisors of this build.</param>
/// <param name="VmHosts">Makes the actor system.</param>
public sealed record HostServices(IHypervisorCatalog Hypervisors, IVmHostFactory VmHosts);
