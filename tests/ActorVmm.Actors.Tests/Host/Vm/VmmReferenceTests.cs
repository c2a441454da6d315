using ActorVmm.Hypervisor;
using ActorVmm.Testing.Actors;

namespace ActorVmm.Actors.Tests.Host.Vm;

/// <summary>The unit tests of rust-vmm's vmm-reference that speak of a VM as a whole, under its names.</summary>
public sealed class VmmReferenceTests
{
    private static IEnumerator<VcpuExitKind> Parked(ScriptedVcpu cpu) { while (true) yield return cpu.WaitForInterrupt(); }

    /// <summary>KvmVm: four vCPUs parked in HLT are ended, the exit handler hears of it, nothing of the VM is left.</summary>
    [Fact]
    public async Task test_shutdown()
    {
        var heard = new Heard();
        await using var fixture = new VmFixture();
        var hypervisor = new ScriptedHypervisor(Parked);
        var vm = await fixture.StartAsync(hypervisor, VmFixture.Spec(vcpus: 4), heard);
        await VmFixture.EventuallyAsync(() => hypervisor.Machine!.Scripted.All(vcpu => vcpu.IsInside), "all four are parked");

        vm.Stop();

        Assert.Equal(StopReason.Requested, (await vm.Completion.WaitAsync(VmFixture.Patience)).Reason);
        Assert.Equal(StopReason.Requested, heard.Outcome?.Reason);
        Assert.All(hypervisor.Machine!.Scripted, vcpu => Assert.False(vcpu.IsInside));
        Assert.True(hypervisor.Machine.IsDisposed);
    }

    /// <summary>VMM: 0 vCPUs fail, 1 and 254 are fine, and more than 254 are refused when the VM is made.</summary>
    [Theory]
    [InlineData(0, false)]
    [InlineData(1, true)]
    [InlineData(254, true)]
    [InlineData(255, false)]
    public async Task test_create_vcpus(int vcpus, bool works)
    {
        await using var fixture = new VmFixture();
        var hypervisor = new ScriptedHypervisor(Parked);
        if (!works)
        {
            var refused = await Assert.ThrowsAsync<HypervisorException>(() => fixture.StartAsync(hypervisor, VmFixture.Spec(vcpus: vcpus)));
            Assert.Contains($"{vcpus} vCPUs are asked for; 1 to 254 are possible", refused.Message, StringComparison.Ordinal);
            return;
        }

        var vm = await fixture.StartAsync(hypervisor, VmFixture.Spec(vcpus: vcpus));
        Assert.Equal(vcpus, hypervisor.Machine!.Vcpus.Count);
        vm.Stop();
        await vm.Completion.WaitAsync(VmFixture.Patience);
    }

    /// <summary>VMM: no memory is an error of the start, not a crash.</summary>
    [Fact]
    public async Task test_create_guest_memory()
    {
        await using var fixture = new VmFixture();
        await Assert.ThrowsAsync<HypervisorException>(() => fixture.StartAsync(new ScriptedHypervisor(Parked), VmFixture.Spec() with { MemoryMib = 0 }));
    }

    private sealed class Heard : IExitHandler
    {
        public VmOutcome? Outcome { get; private set; }

        public void OnStopped(VmOutcome outcome) => Outcome = outcome;
    }
}
