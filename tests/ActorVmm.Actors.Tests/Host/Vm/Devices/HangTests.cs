using ActorVmm.Hypervisor;
using ActorVmm.Testing.Actors;

namespace ActorVmm.Actors.Tests.Host.Vm.Devices;

/// <summary>Handlers that do not come back: found, fenced off, replaced where that is safe, and the end of the VM where it is not.</summary>
public sealed class HangTests
{
    private const ushort Register = ProbeDevice.Port;
    private const ushort Hanging = ProbeDevice.Port + 6;
    private const string Soon = "actorvmm.supervision.hang-deadline = 100ms\nactorvmm.inspect-deadline = 500ms\n";

    [Fact]
    public async Task A_handler_that_hangs_on_a_vcpus_thread_is_a_delay_for_the_guest_and_comes_back_to_nothing()
    {
        var faults = new ProbeFaults().Hang(1);
        ulong register = 0;
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.Out(Register, 0x11);
            yield return cpu.Out(Hanging, (byte)'h');
            yield return cpu.Out(ProbeDevice.Port + 2, (byte)'!');
            yield return cpu.WaitForInterrupt();
            yield return cpu.In(Register);
            register = cpu.Answer;
        }

        await using var fixture = new VmFixture(Soon);
        var hypervisor = new ScriptedHypervisor(Guest);
        var vm = await fixture.StartAsync(hypervisor, devices: parts => ProbeActor.Unit(parts, faults));

        await VmFixture.EventuallyAsync(() => fixture.Console.Output == "h!", "the access was tried again, once, and the guest went on");
        var tree = (await vm.InspectAsync().WaitAsync(VmFixture.Patience)).ToString();
        Assert.Contains("rescued = 1", tree, StringComparison.Ordinal);
        Assert.Contains("attention = probe has not come back from a handler", tree, StringComparison.Ordinal);

        faults.Release.Set(); // the lost thread comes back: it prints and stores, into nothing
        await VmFixture.EventuallyAsync(() => faults.CameBack == 1, "the lost thread runs on");
        hypervisor.Machine!.SetInterruptLine(5, true);
        var outcome = await vm.Completion.WaitAsync(VmFixture.Patience);

        Assert.Equal(StopReason.Halted, outcome.Reason);
        Assert.Equal((ulong)'h', register);
        Assert.Equal("h!", fixture.Console.Output);
        Assert.Equal(2, faults.Builds);
        Assert.Equal(0, hypervisor.Machine.Scripted[0].Intruders); // never two threads in the vCPU
    }

    [Fact]
    public async Task A_handler_that_hangs_twice_on_the_same_access_costs_the_guest_that_access()
    {
        var faults = new ProbeFaults().Hang(2);
        ulong failed = 0, next = 0;
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.Out(Register, 0x5A);
            yield return cpu.In(Hanging, size: 2);
            failed = cpu.Answer;
            yield return cpu.In(Hanging);
            next = cpu.Answer;
            yield return cpu.Out(0x3F8, (byte)'.');
            yield return cpu.ComputeForever();
        }

        await using var fixture = new VmFixture(Soon);
        var hypervisor = new ScriptedHypervisor(Guest);
        var vm = await fixture.StartAsync(hypervisor, devices: parts => ProbeActor.Unit(parts, faults));
        await VmFixture.EventuallyAsync(() => fixture.Console.Output == ".", "the guest goes on");

        Assert.Equal(0xFFFFUL, failed);
        Assert.Equal(0x5AUL, next);
        Assert.Equal(2, faults.Hung);
        faults.Release.Set();
        vm.Stop();
        Assert.Equal(StopReason.Requested, (await vm.Completion.WaitAsync(VmFixture.Patience)).Reason);
    }

    [Fact]
    public async Task A_vcpu_is_paused_and_resumed_while_the_thread_it_had_is_lost()
    {
        var faults = new ProbeFaults().Hang(1);
        ulong answer = 0;
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.Out(Register, 0x33);
            yield return cpu.In(Hanging);
            answer = cpu.Answer;
            yield return cpu.ComputeForever();
        }

        await using var fixture = new VmFixture(Soon);
        var hypervisor = new ScriptedHypervisor(Guest);
        var vm = await fixture.StartAsync(hypervisor, devices: parts => ProbeActor.Unit(parts, faults));
        await VmFixture.EventuallyAsync(() => faults.Hung == 1, "it hangs");

        await vm.PauseAsync().WaitAsync(VmFixture.Patience); // answered by the thread that takes the vCPU over
        Assert.Equal(1, hypervisor.Machine!.ClockPauses);
        await vm.ResumeAsync().WaitAsync(VmFixture.Patience);
        await VmFixture.EventuallyAsync(() => answer == 0x33, "the guest has its answer");
        vm.Stop();

        // Nobody waits for the lost thread, and the end is the one that was asked for.
        Assert.Equal(StopReason.Requested, (await vm.Completion.WaitAsync(VmFixture.Patience)).Reason);
        Assert.Equal(1, hypervisor.LiveMachines);
        faults.Release.Set();
        await VmFixture.EventuallyAsync(() => hypervisor.LiveMachines == 0, "with the thread back, nothing is left of the VM");
    }

    [Fact]
    public async Task A_handler_that_hangs_on_a_host_thread_is_replaced_and_the_waiting_vcpu_asks_again()
    {
        var faults = new ProbeFaults();
        ulong answer = 0;
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.Out(Register, 0x44);
            yield return cpu.WaitForInterrupt();
            yield return cpu.In(Register);
            answer = cpu.Answer;
            yield return cpu.ComputeForever();
        }

        await using var fixture = new VmFixture(Soon);
        var hypervisor = new ScriptedHypervisor(Guest);
        var vm = await fixture.StartAsync(hypervisor, devices: parts => ProbeActor.Unit(parts, faults));
        using var entered = new ManualResetEventSlim();
        using var release = new ManualResetEventSlim();
        await VmFixture.EventuallyAsync(() => hypervisor.Machine!.Scripted[0].RetiredInstructions >= 2, "the guest waits");
        fixture.Host.System.ActorSelection("/user/host/vm/devices/probe").Tell(new ProbeActor.Hang(entered, release));
        Assert.True(entered.Wait(VmFixture.Patience));
        hypervisor.Machine!.SetInterruptLine(5, true);

        await VmFixture.EventuallyAsync(() => answer == 0x44, "the device that took its place answers");
        var tree = (await vm.InspectAsync().WaitAsync(VmFixture.Patience)).ToString();
        Assert.Contains("rescued = 0", tree, StringComparison.Ordinal); // the vCPU's own thread was never inside
        release.Set();
        vm.Stop();
        Assert.Equal(StopReason.Requested, (await vm.Completion.WaitAsync(VmFixture.Patience)).Reason);
    }

    [Fact]
    public async Task A_device_that_may_write_to_memory_is_never_given_a_second_instance()
    {
        var faults = new ProbeFaults().Hang(1);
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.In(Hanging);
            yield return cpu.Out(0x3F8, (byte)'x');
        }

        await using var fixture = new VmFixture(Soon);
        var hypervisor = new ScriptedHypervisor(Guest);
        var outcome = await fixture.RunAsync(hypervisor, devices: parts => ProbeActor.Unit(parts, faults, registersOnly: false));

        Assert.Equal(StopReason.Failed, outcome.Reason);
        Assert.Contains("probe has not come back from a handler within", outcome.Detail, StringComparison.Ordinal);
        Assert.Contains("it may still write to guest memory", outcome.Detail, StringComparison.Ordinal);
        Assert.Equal(1, faults.Builds);
        Assert.Equal(1, hypervisor.LiveMachines); // memory stays under the thread that may come back
        faults.Release.Set();
        await VmFixture.EventuallyAsync(() => hypervisor.LiveMachines == 0, "with the thread back, nothing is left of the VM");
        Assert.Equal("", fixture.Console.Output); // and the guest did not run on
    }

    [Fact]
    public async Task A_vm_that_loses_too_many_threads_fails()
    {
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu) { while (true) yield return cpu.In(Hanging); }
        var faults = new ProbeFaults().Hang(int.MaxValue);

        await using var fixture = new VmFixture(Soon + "actorvmm.supervision.max-lost-threads = 2");
        var outcome = await fixture.RunAsync(new ScriptedHypervisor(Guest), devices: parts => ProbeActor.Unit(parts, faults));

        Assert.Equal(StopReason.Failed, outcome.Reason);
        Assert.Contains("3 threads are lost, which is too many", outcome.Detail, StringComparison.Ordinal);
        faults.Release.Set();
    }

    [Fact]
    public async Task After_a_thread_is_lost_for_good_a_vm_of_that_name_starts_again_and_never_with_the_same_disk()
    {
        var faults = new ProbeFaults().Hang(1);
        IEnumerator<VcpuExitKind> Hangs(ScriptedVcpu cpu) { yield return cpu.In(Hanging); }
        IEnumerator<VcpuExitKind> Prints(ScriptedVcpu cpu) { yield return cpu.Out(0x3F8, (byte)'x'); }
        var disk = Path.GetTempFileName();
        try
        {
            await File.WriteAllBytesAsync(disk, new byte[4096]);
            var withDisk = VmFixture.Spec() with { Disks = [new DiskSpec { Id = "d", Path = disk }] };
            await using var fixture = new VmFixture(Soon);
            var outcome = await fixture.RunAsync(new ScriptedHypervisor(Hangs), withDisk, null, parts => ProbeActor.Unit(parts, faults, registersOnly: false));
            Assert.Equal(StopReason.Failed, outcome.Reason);
            Assert.Equal(0, faults.CameBack); // it is still inside

            // What it may still write to is locked by it.
            var refused = await Assert.ThrowsAsync<HypervisorException>(() => fixture.StartAsync(new ScriptedHypervisor(Prints), withDisk));
            Assert.Contains(disk, refused.Message, StringComparison.Ordinal);
            for (var time = 1; time <= 2; time++)
            {
                var again = await fixture.RunAsync(new ScriptedHypervisor(Prints), VmFixture.Spec());
                Assert.Equal(StopReason.Halted, again.Reason);
                Assert.Equal(new string('x', time), fixture.Console.Output);
            }

            faults.Release.Set();
            await VmFixture.EventuallyAsync(() => faults.CameBack == 1, "the lost thread comes back, to nothing");
            Assert.Equal("xx", fixture.Console.Output);
        }
        finally
        {
            File.Delete(disk);
        }
    }

    [Fact]
    public async Task A_host_ends_although_a_thread_never_comes_back()
    {
        var faults = new ProbeFaults().Hang(1);
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu) { yield return cpu.In(Hanging); }
        var fixture = new VmFixture(Soon + "actorvmm.control-deadline = 500ms");
        await fixture.RunAsync(new ScriptedHypervisor(Guest), devices: parts => ProbeActor.Unit(parts, faults, registersOnly: false));
        await fixture.DisposeAsync();
        Assert.Equal((1, 0), (faults.Hung, faults.CameBack));
        faults.Release.Set();
    }

    [Fact]
    public async Task A_device_that_hangs_over_its_limit_is_unplugged_where_its_policy_says_so()
    {
        var faults = new ProbeFaults().Hang(1);
        ulong answer = 0, serial = 0;
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.In(Hanging, size: 4);
            answer = cpu.Answer;
            yield return cpu.Out(0x3FF, 0x42);
            yield return cpu.In(0x3FF);
            serial = cpu.Answer;
            yield return cpu.Out(0x3F8, (byte)'.');
            yield return cpu.ComputeForever();
        }

        await using var fixture = new VmFixture(Soon + "actorvmm.supervision.devices.probe { max-retries = 0, over-limit = unplug }");
        var vm = await fixture.StartAsync(new ScriptedHypervisor(Guest), devices: parts => ProbeActor.Unit(parts, faults));
        await VmFixture.EventuallyAsync(() => fixture.Console.Output == ".", "the guest goes on");

        Assert.Equal(0xFFFF_FFFFUL, answer);
        Assert.Equal(0x42UL, serial);
        var tree = (await vm.InspectAsync().WaitAsync(VmFixture.Patience)).ToString();
        Assert.Contains("probe = unplugged", tree, StringComparison.Ordinal);
        faults.Release.Set();
        vm.Stop();
        await vm.Completion.WaitAsync(VmFixture.Patience);
    }

    [Fact]
    public async Task A_device_that_hangs_over_its_limit_waits_for_the_operator_and_the_access_is_kept()
    {
        var faults = new ProbeFaults().Hang(1);
        ulong answer = 0;
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.Out(Register, 0x66);
            yield return cpu.In(Hanging);
            answer = cpu.Answer;
            yield return cpu.ComputeForever();
        }

        await using var fixture = new VmFixture(Soon + "actorvmm.supervision.devices.probe.max-retries = 0");
        var hypervisor = new ScriptedHypervisor(Guest);
        var vm = await fixture.StartAsync(hypervisor, devices: parts => ProbeActor.Unit(parts, faults));
        await VmFixture.EventuallyAsync(() => hypervisor.Machine!.ClockPauses == 1, "the VM is paused");
        var tree = (await vm.InspectAsync().WaitAsync(VmFixture.Patience)).ToString();
        Assert.Contains("state = paused", tree, StringComparison.Ordinal);
        Assert.Contains("probe = hung, waiting for an operator", tree, StringComparison.Ordinal);
        Assert.Equal(0UL, answer);

        await vm.ResumeAsync().WaitAsync(VmFixture.Patience);
        await VmFixture.EventuallyAsync(() => answer == 0x66, "the guest has its answer");
        faults.Release.Set();
        vm.Stop();
        await vm.Completion.WaitAsync(VmFixture.Patience);
    }

    [Fact]
    public async Task An_alarm_that_hangs_its_device_costs_neither_the_vcpu_nor_the_other_alarms()
    {
        var faults = new ProbeFaults();
        var late = new AlarmFaults();
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.Out(ProbeDevice.Port + 4, 100);
            yield return cpu.Out(ProbeDevice.Port + 0x14, 100);
            yield return cpu.ComputeForever();
        }

        await using var fixture = new VmFixture(Soon);
        var hypervisor = new ScriptedHypervisor(Guest);
        var vm = await fixture.StartAsync(hypervisor, null, null,
            parts => ProbeActor.Unit(parts, faults.Alarm(late)),
            parts => ProbeActor.Unit(parts, new ProbeFaults(), "other", ProbeDevice.Port + 0x10));
        // Both deadlines are set once the guest computes; before that the second could still begin at a later time.
        await VmFixture.EventuallyAsync(() => hypervisor.Machine!.Scripted[0].RetiredInstructions >= 3, "the alarms are set");
        hypervisor.Machine!.Advance(150);

        await VmFixture.EventuallyAsync(() => fixture.Console.Output == "!!", "both alarms were served");
        Assert.Equal(1, late.Hung);
        late.Release.Set();
        vm.Stop();
        await vm.Completion.WaitAsync(VmFixture.Patience);
    }
}
