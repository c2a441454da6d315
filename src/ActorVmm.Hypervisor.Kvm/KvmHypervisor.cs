using ActorVmm.Hypervisor.Kvm.Native;
using ActorVmm.Hypervisor.Kvm.Probe;

namespace ActorVmm.Hypervisor.Kvm;

/// <summary>The kernel's hypervisor.</summary>
public sealed class KvmHypervisor(KvmCpuTemplate template) : ICpuTemplateHypervisor
{
    // The MP table and the 8-bit APIC ids allow 254.
    private const int MaxVcpus = 254;

    public KvmHypervisor() : this(KvmCpuTemplate.None) { }

    /// <summary>How vCPUs are called out of the guest; tests choose.</summary>
    internal KickMethod KickMethod { get; init; } = KickSignal.Method;

    /// <inheritdoc/>
    public string Name => "kvm";

    /// <inheritdoc/>
    public IHypervisor With(KvmCpuTemplate template) => new KvmHypervisor(template);

    /// <inheritdoc/>
    public ProbeReport Probe() => KvmProbe.Run(this);

    /// <inheritdoc/>
    public IMachine CreateMachine(MachineOptions options) => Create(options);

    /// <summary>As <see cref="CreateMachine"/>, with what only KVM has (interrupt events, message routes).</summary>
    public KvmMachine Create(MachineOptions options)
    {
        if (options.Clock == ClockMode.Virtual)
            throw new HypervisorException("KVM has no virtual clock (it cannot count instructions): use --hypervisor soft");
        if (options.VcpuCount is < 1 or > MaxVcpus)
            throw new HypervisorException($"{options.VcpuCount} vCPUs: 1 to {MaxVcpus} are possible");
        using var system = KvmSystem.Open();
        KvmCapabilities.Demand(system, template.Capabilities);
        KvmCapabilities.DemandVcpus(system, options.VcpuCount);
        return new KvmMachine(system, options, template, KickMethod);
    }
}
