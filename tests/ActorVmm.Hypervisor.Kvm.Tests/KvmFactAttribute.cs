namespace ActorVmm.Hypervisor.Kvm.Tests;

/// <summary>A test that needs a KVM on which at least a small machine runs; skipped elsewhere with the probe's verdict.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class KvmFactAttribute : FactAttribute
{
    private static readonly Lazy<string?> s_reason = new(WhyNot);

    public KvmFactAttribute() => Skip = s_reason.Value;

    internal static string? Reason => s_reason.Value;

    private static string? WhyNot()
    {
        var report = new KvmHypervisor().Probe();
        return report.Items.FirstOrDefault(item => item.Name == "machine") is { Works: true } ? null : report.Verdict;
    }
}

/// <summary>As <see cref="KvmFactAttribute"/>, for theories.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class KvmTheoryAttribute : TheoryAttribute
{
    public KvmTheoryAttribute() => Skip = KvmFactAttribute.Reason;
}
