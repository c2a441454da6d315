using ActorVmm.Hypervisor.Kvm;
using ActorVmm.Testing.Guests;

namespace ActorVmm.Hypervisor.Tests.Subjects;

/// <summary>KVM, as far as this host's KVM goes: what its probe guest found missing is skipped in the probe's words.</summary>
public class KvmSubject : IConformanceSubject
{
    private static readonly Lazy<ProbeReport> s_report = new(() => new KvmHypervisor().Probe());

    public virtual IHypervisor Hypervisor { get; } = new KvmHypervisor();

    public string? WhyNotAtAll => s_report.Value.Items.FirstOrDefault(item => item.Name == "machine") is { Works: true } ? null
        : s_report.Value.Verdict;

    public string? WhyNot(string feature)
    {
        var item = s_report.Value.Items.FirstOrDefault(item => item.Name == feature)
            ?? throw new InvalidOperationException($"the probe does not look at '{feature}'");
        return item.Works ? null : $"{feature}: {item.Detail}";
    }

    public string? Excuse(GuestRun run) =>
        run.Detail?.Contains(KvmVerdicts.CannotEmulate, StringComparison.Ordinal) == true ? run.Detail : null;
}

/// <summary>KVM, where every level-triggered line of a device is an irqfd.</summary>
public sealed class IrqfdSubject : KvmSubject
{
    public override IHypervisor Hypervisor { get; } = new IrqfdHypervisor();
}

/// <summary>KVM, every vCPU kicked all the time.</summary>
public sealed class KickedKvmSubject : KvmSubject, IConformanceSubject
{
    public bool IsKicked => true;
}
