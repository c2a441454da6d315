namespace ActorVmm.Hypervisor.Kvm.Tests;

/// <summary>A test that needs a KVM on which at least a small machine runs; skipped elsewhere with the probe's words.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class KvmFactAttribute : FactAttribute
{
    private static readonly Lazy<ProbeReport> s_report = new(() => new KvmHypervisor().Probe());

    public KvmFactAttribute() => Skip = Reason;

    /// <summary>A check of the probe that must have passed, too.</summary>
    public string? Needs
    {
        get;
        set
        {
            field = value;
            if (Skip is null && s_report.Value.Items.FirstOrDefault(item =>
                item.Name == value) is { Works: false } broken) Skip = broken.Detail;
        }
    }

    internal static string? Reason => s_report.Value.Items.FirstOrDefault(item => item.Name == "machine") is { Works: true } ? null
        : s_report.Value.Verdict;
}

/// <summary>As <see cref="KvmFactAttribute"/>, for theories.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class KvmTheoryAttribute : TheoryAttribute
{
    public KvmTheoryAttribute() => Skip = KvmFactAttribute.Reason;
}
