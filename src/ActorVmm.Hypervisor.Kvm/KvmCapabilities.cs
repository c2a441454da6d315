using ActorVmm.Hypervisor.Kvm.Native;

namespace ActorVmm.Hypervisor.Kvm;

/// <summary>What is asked of /dev/kvm before anything is built; a test answers in its place.</summary>
internal interface IKvmCapabilitySource
{
    /// <summary>KVM_GET_API_VERSION.</summary>
    int ApiVersion { get; }

    /// <summary>KVM_CHECK_EXTENSION: 0 where missing, else 1 or a capability's own number.</summary>
    int Check(KvmCap capability);
}

/// <summary>The capabilities that every machine needs, each with its reason.</summary>
internal static class KvmCapabilities
{
    public static readonly IReadOnlyList<(KvmCap Capability, string Why)> Required =
    [
        (KvmCap.IRQCHIP, "interrupt controllers in the kernel"),
        (KvmCap.IOEVENTFD, "doorbells"),
        (KvmCap.IRQFD, "interrupts from any thread"),
        (KvmCap.USER_MEMORY, "guest memory"),
        (KvmCap.PIT2, "the interval timer"),
        (KvmCap.PIT_STATE2, "saving the interval timer"),
        (KvmCap.IMMEDIATE_EXIT, "completing an access without running on"),
        (KvmCap.SET_TSS_ADDR, "real mode on Intel processors"),
        (KvmCap.SET_IDENTITY_MAP_ADDR, "real mode on Intel processors"),
        (KvmCap.EXT_CPUID, "the guest's CPUID"),
        (KvmCap.MP_STATE, "halted and waiting vCPUs"),
        (KvmCap.VCPU_EVENTS, "pending exceptions in a saved state"),
        (KvmCap.DEBUGREGS, "debug registers in a saved state"),
        (KvmCap.XSAVE, "vector registers in a saved state"),
        (KvmCap.XCRS, "vector registers in a saved state"),
        (KvmCap.ADJUST_CLOCK, "pausing the machine's clock"),
        (KvmCap.IRQ_ROUTING, "interrupt routes"),
        (KvmCap.SIGNAL_MSI, "message-signalled interrupts"),
    ];

    /// <summary>The first thing that is missing with what to do, or null. <paramref name="changes"/>: a template's additions and
    /// removals.</summary>
    public static string? FirstMissing(IKvmCapabilitySource kvm, IReadOnlyList<CapabilityDemand> changes)
    {
        if (kvm.ApiVersion != KvmApi.ApiVersion)
            return $"KVM API version {kvm.ApiVersion} instead of {KvmApi.ApiVersion}: this kernel is not supported; use --hypervisor soft";
        foreach (var (capability, why) in Required)
        {
            if (kvm.Check(capability) <= 0 && !changes.Any(change => change.Number == (uint)capability && !change.Required))
                return $"KVM_CAP_{capability} is missing ({why}): update the host's kernel, or use --hypervisor soft";
        }
        foreach (var change in changes)
            if (change.Required && kvm.Check((KvmCap)change.Number) <= 0)
                return $"KVM capability {change.Number}, which cpu-config requires, is missing: use another template or host";
        return null;
    }

    /// <summary>Refuses a KVM that lacks something.</summary>
    /// <exception cref="HypervisorException">Names the first missing capability and what to do.</exception>
    public static void Demand(IKvmCapabilitySource kvm, IReadOnlyList<CapabilityDemand> changes)
    {
        if (FirstMissing(kvm, changes) is { } missing) throw new HypervisorException(missing);
    }

    /// <summary>Refuses more vCPUs than one VM may have here (kvm/api.rst §4.7).</summary>
    /// <exception cref="HypervisorException">Names both numbers.</exception>
    public static void DemandVcpus(IKvmCapabilitySource kvm, int count)
    {
        // Hosts without the limit allow what they recommend, and at least four.
        var most = kvm.Check(KvmCap.MAX_VCPUS) is > 0 and var max ? max : Math.Max(kvm.Check(KvmCap.NR_VCPUS), 4);
        if (count > most) throw new HypervisorException($"{count} vCPUs: this host's KVM allows {most}; give the guest fewer");
    }
}
