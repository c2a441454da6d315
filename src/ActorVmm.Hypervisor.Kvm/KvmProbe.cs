namespace ActorVmm.Hypervisor.Kvm;

internal static class KvmProbe
{
    public static ProbeReport Run(KvmHypervisor hypervisor) => new(hypervisor.Name, false, [new("machine", true, "")], "");
}
