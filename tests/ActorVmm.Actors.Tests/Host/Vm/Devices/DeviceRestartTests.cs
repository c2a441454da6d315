using ActorVmm.Hypervisor;
using ActorVmm.Testing.Actors;

namespace ActorVmm.Actors.Tests.Host.Vm.Devices;

/// <summary>What the guest sees when device code throws: the table "What survives a failure" of the architecture.</summary>
public sealed class DeviceRestartTests
{
    private const ushort Register = ProbeDevice.Port;
    private const ushort Crashing = ProbeDevice.Port + 1;
    private const ushort Printing = ProbeDevice.Port + 2;

    [Fact]
    public async Task A_crash_is_invisible_to_the_guest()
    {
        var faults = new ProbeFaults().Crash(1);
        ulong answer = 0, register = 0;
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.Out(Register, 0x5A);
            yield return cpu.In(Crashing);
            answer = cpu.Answer;
            yield return cpu.In(Register);
            register = cpu.Answer;
        }

        await using var fixture = new VmFixture();
        var outcome = await fixture.RunAsync(new ScriptedHypervisor(Guest), devices: parts => ProbeActor.Unit(parts, faults));

        Assert.Equal(StopReason.Halted, outcome.Reason);
        Assert.Equal(0x5AUL, answer);    // the failed access was tried again, on the state of the checkpoint
        Assert.Equal(0x5AUL, register);
        Assert.Equal(2, faults.Builds);  // the device was built anew
    }

    [Fact]
    public async Task The_same_access_failing_twice_reads_as_all_ones_and_the_device_lives_on()
    {
        var faults = new ProbeFaults().Crash(2);
        ulong failed = 0, next = 0;
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.Out(Register, 0x5A);
            yield return cpu.In(Crashing, size: 2);
            failed = cpu.Answer;
            yield return cpu.In(Crashing);
            next = cpu.Answer;
        }

        await using var fixture = new VmFixture();
        await fixture.RunAsync(new ScriptedHypervisor(Guest), devices: parts => ProbeActor.Unit(parts, faults));

        Assert.Equal(0xFFFFUL, failed);
        Assert.Equal(0x5AUL, next);
        Assert.Equal(3, faults.Builds);
    }

    [Fact]
    public async Task What_a_failed_handler_has_done_to_its_state_is_gone()
    {
        var faults = new ProbeFaults().Crash(2);
        ulong register = 0;
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.Out(Register, 0x11);
            yield return cpu.Out(Crashing, 0x22); // stores, then throws; both times
            yield return cpu.In(Register);
            register = cpu.Answer;
        }

        await using var fixture = new VmFixture();
        await fixture.RunAsync(new ScriptedHypervisor(Guest), devices: parts => ProbeActor.Unit(parts, faults));

        Assert.Equal(0x11UL, register);
    }

    [Fact]
    public async Task An_effect_leaves_once_although_its_handler_ran_twice()
    {
        var faults = new ProbeFaults().Crash(1);
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.Out(Printing, (byte)'a'); // prints, then crashes; prints again when it is redelivered
            yield return cpu.Out(Printing, (byte)'b');
        }

        await using var fixture = new VmFixture();
        await fixture.RunAsync(new ScriptedHypervisor(Guest), devices: parts => ProbeActor.Unit(parts, faults));

        Assert.Equal("ab", fixture.Console.Output);
    }

    [Fact]
    public async Task An_alarm_survives_the_crash_of_its_device()
    {
        var faults = new ProbeFaults().Crash(1);
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.Out(ProbeDevice.Port + 4, 100);
            yield return cpu.In(Crashing);
            yield return cpu.ComputeForever();
        }

        await using var fixture = new VmFixture();
        var hypervisor = new ScriptedHypervisor(Guest);
        var vm = await fixture.StartAsync(hypervisor, devices: parts => ProbeActor.Unit(parts, faults));
        await VmFixture.EventuallyAsync(() => faults.Builds == 2 && hypervisor.Machine!.Alarm == 100, "restarted, with its alarm set");
        hypervisor.Machine!.Advance(150);

        await VmFixture.EventuallyAsync(() => fixture.Console.Output == "!", "the deadline is kept");
        vm.Stop();
        await vm.Completion.WaitAsync(VmFixture.Patience);
    }

    [Fact]
    public async Task Over_the_limit_the_policy_fail_ends_the_vm()
    {
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu) { while (true) yield return cpu.In(Crashing); }
        await using var fixture = new VmFixture("actorvmm.supervision { max-retries = 3, over-limit = fail }");
        var hypervisor = new ScriptedHypervisor(Guest);
        var faults = new ProbeFaults().Crash(int.MaxValue);

        var outcome = await fixture.RunAsync(hypervisor, devices: parts => ProbeActor.Unit(parts, faults));

        Assert.Equal(StopReason.Failed, outcome.Reason);
        Assert.Contains("probe failed too often: probe crashed", outcome.Detail, StringComparison.Ordinal);
        Assert.Equal(4, faults.Builds); // the first, and three restarts
        Assert.Equal(0, hypervisor.LiveMachines);
    }

    [Fact]
    public async Task Over_the_limit_the_policy_unplug_leaves_an_open_bus()
    {
        ulong last = 0;
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            for (var i = 0; i < 10; i++) { yield return cpu.In(Crashing); last = cpu.Answer; }
            yield return cpu.In(Register);
            last &= cpu.Answer;
        }

        await using var fixture = new VmFixture("actorvmm.supervision { max-retries = 1, over-limit = unplug }");
        var outcome = await fixture.RunAsync(
            new ScriptedHypervisor(Guest), devices: parts => ProbeActor.Unit(parts, new ProbeFaults().Crash(int.MaxValue)));

        Assert.Equal(StopReason.Halted, outcome.Reason); // the guest went on
        Assert.Equal(0xFFUL, last);
    }

    [Fact]
    public async Task Over_the_limit_the_vm_pauses_for_an_operator_and_nothing_is_lost()
    {
        var faults = new ProbeFaults().Crash(1);
        ulong answer = 0;
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.Out(Register, 0x77);
            yield return cpu.In(Crashing);
            answer = cpu.Answer;
        }

        await using var fixture = new VmFixture("actorvmm.supervision.max-retries = 0");
        var hypervisor = new ScriptedHypervisor(Guest);
        var vm = await fixture.StartAsync(hypervisor, devices: parts => ProbeActor.Unit(parts, faults));
        await VmFixture.EventuallyAsync(() => hypervisor.Machine!.ClockPauses == 1, "the clock stands");
        Assert.Equal(0UL, answer);

        await vm.ResumeAsync().WaitAsync(VmFixture.Patience);
        var outcome = await vm.Completion.WaitAsync(VmFixture.Patience);

        Assert.Equal(StopReason.Halted, outcome.Reason);
        Assert.Equal(0x77UL, answer); // the failed access was kept for the operator's second try
    }

    [Fact]
    public async Task A_device_that_cannot_be_made_fails_the_start_with_its_name()
    {
        await using var fixture = new VmFixture();
        var hypervisor = new ScriptedHypervisor(VmLifeTests.Hello);
        var faults = new ProbeFaults { BuildFailsFrom = 1 };

        var refused = await Assert.ThrowsAsync<HypervisorException>(() => fixture.StartAsync(hypervisor, devices: parts => ProbeActor.Unit(parts, faults)));

        Assert.Equal("probe cannot be made: cannot be built", refused.Message);
        await VmFixture.EventuallyAsync(() => hypervisor.LiveMachines == 0, "the machine is taken down");
    }

    [Fact]
    public async Task A_console_that_is_gone_does_not_take_the_serial_port_with_it()
    {
        await using var fixture = new VmFixture();
        fixture.Console.Broken = new IOException("terminal closed");

        var outcome = await fixture.RunAsync(new ScriptedHypervisor(VmLifeTests.Hello));

        Assert.Equal(StopReason.Halted, outcome.Reason);
        Assert.Equal("", fixture.Console.Output);
    }
}
