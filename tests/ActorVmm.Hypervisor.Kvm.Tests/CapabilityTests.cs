using ActorVmm.Hypervisor.Kvm.Native;

namespace ActorVmm.Hypervisor.Kvm.Tests;

public class CapabilityTests
{
    private sealed class FakeLimits(int max, int recommended) : IKvmCapabilitySource
    {
        public int ApiVersion => 12;

        public int Check(KvmCap capability) => capability switch { KvmCap.MAX_VCPUS => max, KvmCap.NR_VCPUS => recommended, _ => 1 };
    }

    private sealed class FakeKvm(int version = 12, params KvmCap[] missing) : IKvmCapabilitySource
    {
        public int ApiVersion => version;

        public int Check(KvmCap capability) => Array.IndexOf(missing, capability) >= 0 ? 0 : 1;
    }

    [Fact]
    public void A_kvm_with_everything_passes() => Assert.Null(KvmCapabilities.FirstMissing(new FakeKvm(), []));

    [Fact]
    public void Another_api_version_is_refused_before_anything_else()
    {
        var refused = Assert.Throws<HypervisorException>(() => KvmCapabilities.Demand(new FakeKvm(11, KvmCap.IRQCHIP), []));
        Assert.Contains("API version 11", refused.Message, StringComparison.Ordinal);
        Assert.Contains("--hypervisor soft", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Each_missing_capability_is_named_with_what_to_do()
    {
        foreach (var (capability, _) in KvmCapabilities.Required)
        {
            var refused = Assert.Throws<HypervisorException>(() => KvmCapabilities.Demand(new FakeKvm(12, capability), []));
            Assert.Contains($"KVM_CAP_{capability}", refused.Message, StringComparison.Ordinal);
            Assert.Contains("--hypervisor soft", refused.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void The_first_of_several_is_the_one_that_is_named()
    {
        var message = KvmCapabilities.FirstMissing(new FakeKvm(12, KvmCap.XCRS, KvmCap.IRQFD), []);
        Assert.StartsWith("KVM_CAP_IRQFD", message, StringComparison.Ordinal);
    }

    [Fact]
    public void What_the_reference_checks_and_what_it_forgot_is_in_the_list()
    {
        var listed = KvmCapabilities.Required.Select(required => required.Capability).ToArray();
        Assert.Equal([KvmCap.IRQCHIP, KvmCap.IOEVENTFD, KvmCap.IRQFD, KvmCap.USER_MEMORY], listed.Take(4));
        foreach (var forgotten in new[] { KvmCap.PIT2, KvmCap.IMMEDIATE_EXIT, KvmCap.SET_TSS_ADDR, KvmCap.SET_IDENTITY_MAP_ADDR,
            KvmCap.ADJUST_CLOCK, KvmCap.XCRS })
            Assert.Contains(forgotten, listed);
    }

    [Fact]
    public void A_template_can_drop_a_check_and_add_one()
    {
        Assert.Null(KvmCapabilities.FirstMissing(new FakeKvm(12, KvmCap.XCRS), [new CapabilityDemand((uint)KvmCap.XCRS, Required: false)]));
        var missing = KvmCapabilities.FirstMissing(new FakeKvm(12, KvmCap.XSAVE2), [new CapabilityDemand((uint)KvmCap.XSAVE2,
            Required: true)]);
        Assert.Contains("208", missing, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(Libc.ENOENT, "kvm_intel or kvm_amd")]
    [InlineData(Libc.EACCES, "group")]
    [InlineData(Libc.EBUSY, "another hypervisor")]
    [InlineData(Libc.ENOMEM, "out of memory")]
    [InlineData(Libc.EMFILE, "ulimit")]
    [InlineData(Libc.ENOSPC, "slots")]
    public void Each_refusal_of_the_host_has_its_own_advice(int errno, string advice)
    {
        var error = KvmError.Of("KVM_CREATE_VM", errno);
        Assert.StartsWith("KVM_CREATE_VM failed: ", error.Message, StringComparison.Ordinal);
        Assert.Contains(advice, error.Message, StringComparison.Ordinal);
        Assert.Contains($"errno {errno}", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_host_without_kvm_says_so()
    {
        var refused = Assert.Throws<HypervisorException>(() => KvmSystem.Open("/dev/no-such-kvm"));
        Assert.Contains("this host offers no KVM", refused.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(3, 2, 3), InlineData(0, 8, 8), InlineData(0, 0, 4)]
    public void More_vcpus_than_the_host_allows_are_refused_with_both_numbers(int max, int recommended, int most)
    {
        var host = new FakeLimits(max, recommended);
        KvmCapabilities.DemandVcpus(host, most);
        var refused = Assert.Throws<HypervisorException>(() => KvmCapabilities.DemandVcpus(host, most + 1));
        Assert.StartsWith($"{most + 1} vCPUs: this host's KVM allows {most}", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_virtual_clock_and_impossible_vcpu_counts_are_refused()
    {
        using var memory = Memory.GuestMemory.Create(1 << 20);
        var kvm = new KvmHypervisor();
        Assert.Contains("virtual clock", Refusal(new MachineOptions(memory, 1, ClockMode.Virtual)), StringComparison.Ordinal);
        Assert.Contains("0 vCPUs", Refusal(new MachineOptions(memory, 0)), StringComparison.Ordinal);
        Assert.Contains("255 vCPUs", Refusal(new MachineOptions(memory, 255)), StringComparison.Ordinal);

        string Refusal(MachineOptions options) => Assert.Throws<HypervisorException>(() => kvm.CreateMachine(options)).Message;
    }
}
