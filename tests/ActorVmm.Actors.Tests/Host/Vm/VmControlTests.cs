using System.Text.RegularExpressions;
using Akka.Actor;
using ActorVmm.Actors.Host.Vm.Vcpus;
using ActorVmm.Hypervisor;
using ActorVmm.Testing.Actors;

namespace ActorVmm.Actors.Tests.Host.Vm;

/// <summary>Pause, resume, stop and questions, whatever the guest is doing.</summary>
public sealed class VmControlTests
{
    private static IEnumerator<VcpuExitKind> Computing(ScriptedVcpu cpu) { yield return cpu.ComputeForever(); }

    private static IEnumerator<VcpuExitKind> Idle(ScriptedVcpu cpu) { while (true) yield return cpu.WaitForInterrupt(); }

    private static IEnumerator<VcpuExitKind> Chatting(ScriptedVcpu cpu) { while (true) yield return cpu.In(0x3FD); }

    public static TheoryData<string> Guests => ["computing", "idle", "chatting"];

    internal static GuestScript Guest(string name) => name switch { "computing" => Computing, "idle" => Idle, _ => Chatting };

    [Theory, MemberData(nameof(Guests))]
    public async Task A_guest_pauses_resumes_and_stops_whatever_it_does(string guest)
    {
        await using var fixture = new VmFixture();
        var hypervisor = new ScriptedHypervisor(Guest(guest));
        var vm = await fixture.StartAsync(hypervisor, VmFixture.Spec(vcpus: 2));
        var vcpu = hypervisor.Machine!.Scripted[1];

        for (var round = 0; round < 20; round++)
        {
            await VmFixture.EventuallyAsync(() => vcpu.Runs > 0, "the guest runs");
            await vm.PauseAsync().WaitAsync(VmFixture.Patience);
            Assert.False(vcpu.IsInside);
            Assert.Equal(1, hypervisor.Machine.ClockPauses);
            var runs = vcpu.Runs;
            await vm.ResumeAsync().WaitAsync(VmFixture.Patience);
            await VmFixture.EventuallyAsync(() => vcpu.Runs > runs, "the guest runs on");
            Assert.Equal(0, hypervisor.Machine.ClockPauses);
        }

        vm.Stop();
        var outcome = await vm.Completion.WaitAsync(VmFixture.Patience);
        Assert.Equal(StopReason.Requested, outcome.Reason);
        Assert.Equal(0, vcpu.Intruders);
        Assert.Equal(0, hypervisor.LiveMachines);
    }

    [Theory, MemberData(nameof(Guests))]
    public async Task No_question_to_a_vcpu_is_lost(string guest)
    {
        await using var fixture = new VmFixture();
        var vm = await fixture.StartAsync(new ScriptedHypervisor(Guest(guest)));
        var vcpu = fixture.Host.System.ActorSelection("/user/host/vm/vcpus/0");

        for (var i = 0; i < 300; i++)
        {
            var state = await vcpu.Ask<VcpuProtocol.StateIs>(VcpuProtocol.GetState.Instance, VmFixture.Patience);
            Assert.Equal(0, state.Vcpu);
        }

        vm.Stop();
        await vm.Completion.WaitAsync(VmFixture.Patience);
    }

    [Fact]
    public async Task A_vcpu_that_waits_for_a_stuck_device_is_paused_asked_and_stopped_as_any_other()
    {
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.WaitForInterrupt();
            yield return cpu.In(ProbeDevice.Port);
        }

        await using var fixture = new VmFixture();
        var hypervisor = new ScriptedHypervisor(Guest);
        var vm = await fixture.StartAsync(hypervisor, devices: parts => ProbeActor.Unit(parts, new ProbeFaults()));
        using var entered = new ManualResetEventSlim();
        using var release = new ManualResetEventSlim();
        fixture.Host.System.ActorSelection("/user/host/vm/devices/probe").Tell(new ProbeActor.Hang(entered, release));
        Assert.True(entered.Wait(VmFixture.Patience));
        hypervisor.Machine!.SetInterruptLine(5, true);

        var vcpu = fixture.Host.System.ActorSelection("/user/host/vm/vcpus/0");
        await VmFixture.EventuallyAsync(
            () => vcpu.Ask<VcpuProtocol.StateIs>(VcpuProtocol.GetState.Instance, VmFixture.Patience).Result.AwaitsReply, "it waits");
        await vm.PauseAsync().WaitAsync(VmFixture.Patience);
        var tree = (await vm.InspectAsync().WaitAsync(VmFixture.Patience)).ToString();
        Assert.Contains("probe\n", tree, StringComparison.Ordinal);
        Assert.Contains("unresolved", tree, StringComparison.Ordinal); // the stuck device is shown, not waited for
        await vm.ResumeAsync().WaitAsync(VmFixture.Patience);
        vm.Stop();
        await VmFixture.EventuallyAsync(() => !hypervisor.Machine.Scripted[0].IsInside, "the vCPU is out of the guest");
        release.Set();

        Assert.Equal(StopReason.Requested, (await vm.Completion.WaitAsync(VmFixture.Patience)).Reason);
        Assert.Equal(0, hypervisor.LiveMachines);
    }

    [Fact]
    public async Task A_state_that_is_asked_for_in_the_middle_of_a_read_modify_write_has_made_its_store()
    {
        static IEnumerator<VcpuExitKind> Counting(ScriptedVcpu cpu)
        {
            while (true)
            {
                yield return cpu.AndOn(cpu.In(ProbeDevice.Port, size: 4));
                yield return cpu.Out(ProbeDevice.Port, size: 4, cpu.Answer + 1);
            }
        }

        await using var fixture = new VmFixture();
        var hypervisor = new ScriptedHypervisor(Counting);
        var vm = await fixture.StartAsync(hypervisor, devices: parts => ProbeActor.Unit(parts, new ProbeFaults()));
        var vcpu = fixture.Host.System.ActorSelection("/user/host/vm/vcpus/0");
        for (var i = 0; i < 50; i++)
        {
            var runs = hypervisor.Machine!.Scripted[0].Runs;
            await VmFixture.EventuallyAsync(() => hypervisor.Machine.Scripted[0].Runs > runs, "the guest runs");
            await vm.PauseAsync().WaitAsync(VmFixture.Patience);
            var state = await vcpu.Ask<VcpuProtocol.StateIs>(VcpuProtocol.GetState.Instance, VmFixture.Patience);
            Assert.False(state.AwaitsReply);
            var tree = (await vm.InspectAsync().WaitAsync(VmFixture.Patience)).ToString();
            var counts = Regex.Match(tree, @"probe reads (\d+) writes (\d+)", RegexOptions.None, VmFixture.Patience);
            Assert.True(counts.Success, tree);
            Assert.Equal(counts.Groups[1].Value, counts.Groups[2].Value);
            await vm.ResumeAsync().WaitAsync(VmFixture.Patience);
        }
    }

    [Fact]
    public async Task A_device_over_its_deadline_reads_as_all_ones_and_its_late_answer_harms_nothing()
    {
        ulong late = 0, serial = 0;
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.WaitForInterrupt();
            yield return cpu.In(ProbeDevice.Port, size: 4);
            late = cpu.Answer;
            yield return cpu.Out(0x3FF, 0x42);
            yield return cpu.In(0x3FF);
            serial = cpu.Answer;
            yield return cpu.WaitForInterrupt();
        }

        await using var fixture = new VmFixture("actorvmm.reply-deadline = 50ms");
        var hypervisor = new ScriptedHypervisor(Guest);
        var vm = await fixture.StartAsync(hypervisor, devices: parts => ProbeActor.Unit(parts, new ProbeFaults()));
        using var entered = new ManualResetEventSlim();
        using var release = new ManualResetEventSlim();
        fixture.Host.System.ActorSelection("/user/host/vm/devices/probe").Tell(new ProbeActor.Hang(entered, release));
        Assert.True(entered.Wait(VmFixture.Patience));
        hypervisor.Machine!.SetInterruptLine(5, true);

        await VmFixture.EventuallyAsync(() => serial == 0x42, "the vCPU goes on");
        Assert.Equal(0xFFFF_FFFFUL, late);
        release.Set();
        hypervisor.Machine.SetInterruptLine(5, true);
        Assert.Equal(StopReason.Halted, (await vm.Completion.WaitAsync(VmFixture.Patience)).Reason);
        Assert.Equal(0x42UL, serial);
    }

    [Fact]
    public async Task A_vm_is_stopped_while_it_is_paused()
    {
        await using var fixture = new VmFixture();
        var hypervisor = new ScriptedHypervisor(Computing);
        var vm = await fixture.StartAsync(hypervisor);
        await vm.PauseAsync().WaitAsync(VmFixture.Patience);

        vm.Stop();

        Assert.Equal(StopReason.Requested, (await vm.Completion.WaitAsync(VmFixture.Patience)).Reason);
        await Assert.ThrowsAsync<InvalidOperationException>(() => vm.ResumeAsync().WaitAsync(VmFixture.Patience));
    }
}
