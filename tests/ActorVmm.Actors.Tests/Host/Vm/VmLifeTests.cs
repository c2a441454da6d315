using ActorVmm.Hypervisor;
using ActorVmm.Testing.Actors;

namespace ActorVmm.Actors.Tests.Host.Vm;

public sealed class VmLifeTests
{
    internal static IEnumerator<VcpuExitKind> Hello(ScriptedVcpu cpu)
    {
        foreach (var letter in "hello"u8.ToArray()) yield return cpu.Out(0x3F8, letter);
        yield return cpu.HaltForever();
    }

    [Fact]
    public async Task A_guest_prints_on_its_console_and_halts()
    {
        await using var fixture = new VmFixture();
        var hypervisor = new ScriptedHypervisor(Hello);

        var outcome = await fixture.RunAsync(hypervisor);

        Assert.Equal(StopReason.Halted, outcome.Reason);
        Assert.Equal("hello", fixture.Console.Output);
        Assert.Equal(6UL, outcome.RetiredInstructions);
        Assert.Equal(0, hypervisor.LiveMachines);
        Assert.Equal(1, fixture.Loader.Loads);
    }

    [Fact]
    public async Task A_triple_fault_ends_the_run_as_such()
    {
        static IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu) { yield return cpu.TripleFault(); }
        await using var fixture = new VmFixture();

        Assert.Equal(StopReason.TripleFault, (await fixture.RunAsync(new ScriptedHypervisor(Guest))).Reason);
    }

    [Fact]
    public async Task A_hypervisor_that_cannot_go_on_ends_the_run_with_its_words()
    {
        static IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu) { yield return cpu.Fail("emulation failed at rip 0x1000"); }
        await using var fixture = new VmFixture();

        var outcome = await fixture.RunAsync(new ScriptedHypervisor(Guest));

        Assert.Equal(StopReason.Failed, outcome.Reason);
        Assert.Equal("emulation failed at rip 0x1000", outcome.Detail);
        Assert.Equal(33, outcome.ExitCode);
    }
}
