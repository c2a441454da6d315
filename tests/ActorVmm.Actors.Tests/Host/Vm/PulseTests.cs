using Akka.Actor;
using ActorVmm.Actors.Host.Vm.Vcpus;
using ActorVmm.Hypervisor;
using ActorVmm.Testing.Actors;

namespace ActorVmm.Actors.Tests.Host.Vm;

public sealed class PulseTests
{
    [Theory, MemberData(nameof(VmControlTests.Guests), MemberType = typeof(VmControlTests))]
    public async Task A_guest_goes_on_after_each_of_many_pulses_whatever_it_does(string guest)
    {
        await using var fixture = new VmFixture();
        var hypervisor = new ScriptedHypervisor(VmControlTests.Guest(guest));
        var vm = await fixture.StartAsync(hypervisor, VmFixture.Spec(vcpus: 2));
        var vcpu = hypervisor.Machine!.Scripted[0];
        for (var round = 0; round < 20; round++)
        {
            Assert.True(await vm.PulseAsync().WaitAsync(VmFixture.Patience) > TimeSpan.Zero);
            await VmFixture.EventuallyAsync(() => vcpu.IsInside, "the guest runs on");
            Assert.Equal(0, hypervisor.Machine.ClockPauses);
        }

        Assert.Equal(20, hypervisor.Machine.Resets);
    }

    [Fact]
    public async Task Device_state_comes_back_as_it_was()
    {
        // Writes the scratch register, waits to be pulsed, and prints what it reads then.
        static IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.Out(0x3FF, 0x5A);
            yield return cpu.Out(0x3F8, (byte)'1');
            yield return cpu.WaitForInterrupt();
            yield return cpu.In(0x3FF);
            yield return cpu.Out(0x3F8, (byte)cpu.Answer);
            while (true) yield return cpu.WaitForInterrupt();
        }

        await using var fixture = new VmFixture();
        var hypervisor = new ScriptedHypervisor(Guest);
        var vm = await fixture.StartAsync(hypervisor);
        await VmFixture.EventuallyAsync(() => fixture.Console.Output == "1", "the register is written");
        await vm.PulseAsync().WaitAsync(VmFixture.Patience);
        hypervisor.Machine!.SetInterruptLine(5, level: true);
        await VmFixture.EventuallyAsync(() => fixture.Console.Output == "1Z", "the register has kept its value");
    }

    [Fact]
    public async Task What_comes_from_outside_while_the_machine_is_taken_apart_is_not_undone()
    {
        // Prints the register whenever it is interrupted.
        static IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.Out(ProbeDevice.Port, (byte)'a');
            while (true)
            {
                yield return cpu.In(ProbeDevice.Port);
                yield return cpu.Out(0x3F8, (byte)cpu.Answer);
                yield return cpu.WaitForInterrupt();
            }
        }

        await using var fixture = new VmFixture();
        var hypervisor = new ScriptedHypervisor(Guest);
        var vm = await fixture.StartAsync(hypervisor, devices: parts => ProbeActor.Unit(parts, new ProbeFaults()));
        await VmFixture.EventuallyAsync(() => fixture.Console.Output == "a", "the register is written");
        var probe = fixture.Host.System.ActorSelection("/user/host/vm/devices/probe");
        var machine = hypervisor.Machine!;
        machine.Rebuilding = () => probe.Tell(new ProbeActor.Bump()); // once after the devices were saved, once after they were reset
        await vm.PulseAsync().WaitAsync(VmFixture.Patience);
        machine.Rebuilding = null;
        await VmFixture.EventuallyAsync(() =>
        {
            machine.SetInterruptLine(5, level: true);
            return fixture.Console.Output.EndsWith('c');
        }, "both are seen");
    }

    [Fact]
    public async Task An_access_whose_device_is_busy_is_waited_for()
    {
        static IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.WaitForInterrupt();
            yield return cpu.Out(ProbeDevice.Port, (byte)'a');
            yield return cpu.In(ProbeDevice.Port);
            yield return cpu.Out(0x3F8, (byte)cpu.Answer);
            while (true) yield return cpu.WaitForInterrupt();
        }

        await using var fixture = new VmFixture();
        var hypervisor = new ScriptedHypervisor(Guest);
        var vm = await fixture.StartAsync(hypervisor, devices: parts => ProbeActor.Unit(parts, new ProbeFaults()));
        using var entered = new ManualResetEventSlim();
        using var release = new ManualResetEventSlim();
        fixture.Host.System.ActorSelection("/user/host/vm/devices/probe").Tell(new ProbeActor.Hang(entered, release));
        Assert.True(entered.Wait(VmFixture.Patience));
        hypervisor.Machine!.SetInterruptLine(5, level: true);
        var vcpu = fixture.Host.System.ActorSelection("/user/host/vm/vcpus/0");
        await VmFixture.EventuallyAsync(
            () => vcpu.Ask<VcpuProtocol.StateIs>(VcpuProtocol.GetState.Instance, VmFixture.Patience).Result.AwaitsReply, "it waits");

        var pulse = vm.PulseAsync();
        await VmFixture.EventuallyAsync(() => hypervisor.Machine.ClockPauses == 1, "the vCPU is out of the guest");
        release.Set();
        await pulse.WaitAsync(VmFixture.Patience);
        await VmFixture.EventuallyAsync(() => fixture.Console.Output == "a", "the access has been answered, and the guest goes on");
    }

    [Fact]
    public async Task An_answer_that_is_there_before_the_word_of_it_ends_its_instruction()
    {
        // One instruction that reads and then stores what it has read: without the answer it would store something else.
        static IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.Out(ProbeDevice.Port, (byte)'a');
            yield return cpu.WaitForInterrupt();
            yield return cpu.AndOn(cpu.In(ProbeDevice.Port));
            yield return cpu.Out(0x3F8, (byte)cpu.Answer);
            while (true) yield return cpu.WaitForInterrupt();
        }

        await using var fixture = new VmFixture();
        var hypervisor = new ScriptedHypervisor(Guest);
        var vm = await fixture.StartAsync(hypervisor, devices: parts => ProbeActor.Unit(parts, new ProbeFaults()));
        var probe = fixture.Host.System.ActorSelection("/user/host/vm/devices/probe");
        var vcpu = fixture.Host.System.ActorSelection("/user/host/vm/vcpus/0");
        using var asked = new ManualResetEventSlim();
        using var goOn = new ManualResetEventSlim();
        using var entered = new ManualResetEventSlim();
        using var release = new ManualResetEventSlim();
        using var enteredAgain = new ManualResetEventSlim();
        using var releaseAgain = new ManualResetEventSlim();

        probe.Tell(new ProbeActor.Hang(entered, release));
        Assert.True(entered.Wait(VmFixture.Patience));
        hypervisor.Machine!.SetInterruptLine(5, level: true);
        await VmFixture.EventuallyAsync(() => Waits(vcpu), "the read waits");
        var pulse = vm.PulseAsync();
        await VmFixture.EventuallyAsync(() => hypervisor.Machine.ClockPauses == 1, "the vCPU is out of the guest");

        // Its thread is held where it is asked, so that the next question comes before the word of the answer, and behind the answer.
        hypervisor.Machine.Scripted[0].Asked = () =>
        {
            asked.Set();
            goOn.Wait(VmFixture.Patience);
        };
        vcpu.Tell(VcpuProtocol.GetState.Instance);
        Assert.True(asked.Wait(VmFixture.Patience));
        hypervisor.Machine.Scripted[0].Asked = null;
        var question = vcpu.Ask<VcpuProtocol.StateIs>(VcpuProtocol.GetState.Instance, VmFixture.Patience);
        probe.Tell(new ProbeActor.Hang(enteredAgain, releaseAgain));
        release.Set();
        Assert.True(enteredAgain.Wait(VmFixture.Patience)); // behind the read, which has been answered
        releaseAgain.Set();
        goOn.Set();
        Assert.True((await question).AwaitsReply);
        await pulse.WaitAsync(VmFixture.Patience);
        await VmFixture.EventuallyAsync(() => fixture.Console.Output == "a", "the guest goes on");
    }

    private static bool Waits(ActorSelection vcpu) =>
        vcpu.Ask<VcpuProtocol.StateIs>(VcpuProtocol.GetState.Instance, VmFixture.Patience).Result.AwaitsReply;

    [Fact]
    public async Task A_vm_that_was_paused_stays_paused()
    {
        await using var fixture = new VmFixture();
        var hypervisor = new ScriptedHypervisor(VmControlTests.Guest("computing"));
        var vm = await fixture.StartAsync(hypervisor);
        await vm.PauseAsync().WaitAsync(VmFixture.Patience);
        await vm.PulseAsync().WaitAsync(VmFixture.Patience);
        Assert.Equal("paused", (await vm.InspectAsync()).Values["state"]);
        Assert.Equal(1, hypervisor.Machine!.ClockPauses);
        Assert.False(hypervisor.Machine.Scripted[0].IsInside);
    }

    [Fact]
    public async Task A_vm_with_an_unplugged_device_is_pulsed_and_restarted_like_any_other()
    {
        var faults = new ProbeFaults().Crash(int.MaxValue);
        static IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.In(ProbeDevice.Port + 1);
            yield return cpu.Out(0x3F8, (byte)'.');
            yield return cpu.WaitForInterrupt();
            yield return cpu.Out(0x64, 0xFE); // reset
            while (true) yield return cpu.WaitForInterrupt();
        }

        await using var fixture = new VmFixture("actorvmm.supervision.devices.probe { max-retries = 0, over-limit = unplug }");
        var hypervisor = new ScriptedHypervisor(Guest);
        var vm = await fixture.StartAsync(hypervisor, handler: new RestartsAlways(),
            devices: parts => ProbeActor.Unit(parts, faults));
        await VmFixture.EventuallyAsync(() => fixture.Console.Output == ".", "the guest goes on without the device");
        Assert.Contains("probe = unplugged", (await vm.InspectAsync().WaitAsync(VmFixture.Patience)).ToString(), StringComparison.Ordinal);
        for (var round = 1; round <= 3; round++)
        {
            await vm.PulseAsync().WaitAsync(VmFixture.Patience);
            Assert.Equal(round, hypervisor.Machine!.Resets);
        }

        hypervisor.Machine!.SetInterruptLine(5, level: true);
        await VmFixture.EventuallyAsync(() => fixture.Console.Output == "..", "the guest starts again");
        vm.Stop();
        Assert.Equal(StopReason.Requested, (await vm.Completion.WaitAsync(VmFixture.Patience)).Reason);
    }

    private sealed class RestartsAlways : IExitHandler
    {
        public StopVerdict OnStopping(StopReason reason) => StopVerdict.Restart;
    }

    [Fact]
    public async Task The_counters_are_read_while_it_runs_and_kept_when_it_has_ended()
    {
        await using var fixture = new VmFixture();
        var vm = await fixture.StartAsync(new ScriptedHypervisor(VmLifeTests.Hello));
        await vm.Completion.WaitAsync(VmFixture.Patience);
        var readings = vm.Readings;
        Assert.Equal(5, readings.Vcpus[0].Exits);
        Assert.Equal(5, readings.Ranges.Single(range => range.Device == "serial0").Writes);
        Assert.Equal(1UL << 20, readings.MemoryBytes);
        Assert.True(readings.Devices.Single(device => device.Name == "serial0").Handled >= 5);
    }
}
