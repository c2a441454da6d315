using ActorVmm.Hypervisor;
using ActorVmm.Testing.Actors;

namespace ActorVmm.Actors.Tests.Host.Vm.Bus;

public sealed class BusTests
{
    [Theory]
    [InlineData(1, 0xFFUL)]
    [InlineData(2, 0xFFFFUL)]
    [InlineData(4, 0xFFFF_FFFFUL)]
    public async Task An_address_that_nobody_claims_reads_as_all_ones(int size, ulong expected)
    {
        ulong port = 0, mmio = 0;
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.Out(0x9000, size, 1);
            yield return cpu.In(0x9000, size);
            port = cpu.Answer;
            yield return cpu.Load(0xE000_0000, size);
            mmio = cpu.Answer;
        }

        await using var fixture = new VmFixture();
        await fixture.RunAsync(new ScriptedHypervisor(Guest));

        Assert.Equal(expected, port);
        Assert.Equal(expected, mmio);
    }

    [Fact]
    public async Task The_exit_handler_claims_what_no_device_does_and_only_that()
    {
        ulong claimed = 0, device = 0, open = 0;
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.Out(0x9000, 4, 0x1234);
            yield return cpu.In(0x9000, 4);
            claimed = cpu.Answer;
            yield return cpu.Out(0x3FF, 0x42);
            yield return cpu.In(0x3FF);
            device = cpu.Answer;
            yield return cpu.In(0x9100);
            open = cpu.Answer;
        }

        var handler = new Latch(port: 0x9000);
        await using var fixture = new VmFixture();
        await fixture.RunAsync(new ScriptedHypervisor(Guest), handler: handler);

        Assert.Equal(0x1234UL, claimed);
        Assert.Equal(0x42UL, device);
        Assert.Equal(0xFFUL, open);
        Assert.Equal([0x9000UL, 0x9000UL, 0x9100UL], handler.Seen);
        Assert.Equal(StopReason.Halted, handler.Outcome!.Reason);
    }

    [Fact]
    public async Task An_exit_handler_that_throws_counts_as_an_open_bus()
    {
        ulong answer = 0;
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.In(0x9000);
            answer = cpu.Answer;
        }

        await using var fixture = new VmFixture();
        var outcome = await fixture.RunAsync(new ScriptedHypervisor(Guest), handler: new Thrower());

        Assert.Equal(0xFFUL, answer);
        Assert.Equal(StopReason.Halted, outcome.Reason);
    }

    [Fact]
    public async Task Devices_whose_addresses_overlap_fail_the_start_by_name()
    {
        await using var fixture = new VmFixture();
        var hypervisor = new ScriptedHypervisor(VmLifeTests.Hello);

        var refused = await Assert.ThrowsAsync<ArgumentException>(() => fixture.StartAsync(
            hypervisor, devices: parts => ProbeActor.Unit(parts, new ProbeFaults(), port: 0x3FE)));

        Assert.Contains("probe", refused.Message, StringComparison.Ordinal);
        Assert.Contains("serial0", refused.Message, StringComparison.Ordinal);
        await VmFixture.EventuallyAsync(() => hypervisor.LiveMachines == 0, "the machine is taken down");
    }

    [Fact]
    public async Task Inspection_shows_who_was_used_how_often()
    {
        static IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            for (var i = 0; i < 3; i++) yield return cpu.In(0x3FD);
            yield return cpu.Out(0x3F8, (byte)'x');
            yield return cpu.In(0x9000);
            yield return cpu.WaitForInterrupt();
        }

        await using var fixture = new VmFixture();
        var hypervisor = new ScriptedHypervisor(Guest);
        var vm = await fixture.StartAsync(hypervisor);
        await VmFixture.EventuallyAsync(() => hypervisor.Machine!.Scripted[0].RetiredInstructions == 6, "the guest waits");

        var tree = (await vm.InspectAsync().WaitAsync(VmFixture.Patience)).ToString();

        Assert.Contains("port 0x3f8-0x3ff = serial0 reads 3 writes 1", tree, StringComparison.Ordinal);
        Assert.Contains("open-bus = 1", tree, StringComparison.Ordinal);
        vm.Stop();
        await vm.Completion.WaitAsync(VmFixture.Patience);
    }

    private sealed class Latch(ulong port) : IExitHandler
    {
        private ulong _value;

        public List<ulong> Seen { get; } = [];
        public VmOutcome? Outcome { get; private set; }

        public bool TryHandle(VcpuExit access)
        {
            Seen.Add(access.Address);
            if (access.Address != port) return false;
            if (access.Kind == VcpuExitKind.PortWrite) _value = access.Data;
            else access.Data = _value;
            return true;
        }

        public void OnStopped(VmOutcome outcome) => Outcome = outcome;
    }

    private sealed class Thrower : IExitHandler
    {
        public bool TryHandle(VcpuExit access) => throw new InvalidOperationException("handler bug");

        public StopVerdict OnStopping(StopReason reason) => throw new InvalidOperationException("handler bug");

        public void OnStopped(VmOutcome outcome) => throw new InvalidOperationException("handler bug");
    }
}
