namespace ActorVmm.Hypervisor.Kvm.Tests;

public class ProbeTests
{
    [Fact]
    public void A_probe_never_throws_and_ends_with_a_verdict()
    {
        var report = new KvmHypervisor().Probe();
        Assert.Equal("kvm", report.Hypervisor);
        Assert.NotEmpty(report.Items);
        Assert.NotEmpty(report.Verdict);
        Assert.DoesNotContain('\n', report.Verdict);
        Assert.All(report.Items, item => Assert.NotEmpty(item.Detail));
    }

    [KvmFact]
    public void A_probe_looks_at_everything_that_linux_needs()
    {
        var names = new KvmHypervisor().Probe().Items.Select(item => item.Name).ToHashSet(StringComparer.Ordinal);
        foreach (var needed in new[]
        {
            "machine", "ring3", "syscall", "int3", "cmpxchg16b", "popcnt", "cpuid-mask", "timer", "second-vcpu", "ipi", "ioeventfd", "irqfd",
                "level-lines", "ring0-speed", "ring3-speed", "exit-cost",
        })
            Assert.Contains(needed, names);
    }

    [KvmFact]
    public void The_verdict_names_what_is_broken_and_only_then_says_unusable()
    {
        var report = new KvmHypervisor().Probe();
        var broken = report.Items.Where(item => !item.Works).Select(item => item.Name).ToArray();
        if (report.Usable) Assert.DoesNotContain(broken, name => name is "ring3" or "syscall" or "int3" or "timer");
        else Assert.Contains(broken, name => report.Verdict.Contains(name, StringComparison.Ordinal));
    }
}
