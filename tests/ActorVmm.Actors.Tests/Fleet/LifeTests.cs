using ActorVmm.Actors.Fleet;
using ActorVmm.Hypervisor;
using ActorVmm.Testing.Actors;

namespace ActorVmm.Actors.Tests.Fleet;

/// <summary>What operators do with VMs of a fleet, in any order.</summary>
public sealed class LifeTests
{
    [Fact]
    public async Task A_vm_is_defined_started_paused_resumed_stopped_started_again_and_removed()
    {
        await using var fixture = new FleetFixture();
        var fleet = fixture.Fleet;
        var hypervisor = await fixture.DefineAsync("a", FleetFixture.Idle);
        Assert.Equal(VmState.Stopped, fleet.Get("a").Status.State);

        Assert.Equal(VmState.Running, (await fleet.StartAsync("a").WaitAsync(VmFixture.Patience)).State);
        Assert.Equal(VmState.Running, (await fleet.StartAsync("a").WaitAsync(VmFixture.Patience)).State);
        Assert.Equal(VmState.Paused, (await fleet.PauseAsync("a").WaitAsync(VmFixture.Patience)).State);
        Assert.Equal(1, hypervisor.Machine!.ClockPauses);
        Assert.Equal(VmState.Running, (await fleet.ResumeAsync("a").WaitAsync(VmFixture.Patience)).State);
        var stopped = await fleet.StopAsync("a").WaitAsync(VmFixture.Patience);
        Assert.Equal((VmState.Stopped, "requested", 0), (stopped.State, stopped.LastCause, stopped.LastExitCode));
        var again = await fleet.StartAsync("a").WaitAsync(VmFixture.Patience);
        Assert.Equal((2, 0), (again.Runs, again.Restarts));
        await fleet.RestartAsync("a").WaitAsync(VmFixture.Patience);
        Assert.Equal(3, fleet.Get("a").Status.Runs);

        var refused = await Assert.ThrowsAsync<FleetException>(() => fleet.RemoveAsync("a").WaitAsync(VmFixture.Patience));
        Assert.Equal(FleetFault.Conflict, refused.Fault);
        await fleet.RemoveAsync("a", force: true).WaitAsync(VmFixture.Patience);
        Assert.Null(fleet.Find("a"));
        Assert.Equal(0, hypervisor.LiveMachines);
        await fixture.DefineAsync("a", FleetFixture.Idle); // the name is free
    }

    [Fact]
    public async Task Commands_that_make_no_sense_are_refused_with_the_reason()
    {
        await using var fixture = new FleetFixture(new FleetLimits(MaxVms: 2, MaxMemoryMib: 2));
        var fleet = fixture.Fleet;
        await fixture.DefineAsync("a", FleetFixture.Idle);

        async Task RefusedAsync(FleetFault fault, string words, Func<Task> command)
        {
            var refused = await Assert.ThrowsAsync<FleetException>(() => command().WaitAsync(VmFixture.Patience));
            Assert.Equal(fault, refused.Fault);
            Assert.Contains(words, refused.Message, StringComparison.Ordinal);
        }

        await RefusedAsync(FleetFault.NotFound, "no VM named b", () => fleet.StartAsync("b"));
        await RefusedAsync(FleetFault.NotFound, "no VM named b", () => fleet.RemoveAsync("b"));
        await RefusedAsync(FleetFault.Conflict, "a is stopped", () => fleet.PauseAsync("a"));
        await RefusedAsync(FleetFault.Conflict, "a is stopped", () => fleet.ResumeAsync("a"));
        await RefusedAsync(FleetFault.Conflict, "a is stopped", () => fleet.PulseAsync("a"));
        await RefusedAsync(FleetFault.Conflict, "named a already", () => fixture.DefineAsync("a", FleetFixture.Idle));
        await fixture.DefineAsync("b", FleetFixture.Idle);
        await RefusedAsync(FleetFault.Limit, "may have 2", () => fixture.DefineAsync("c", FleetFixture.Idle));
        await fleet.RemoveAsync("b").WaitAsync(VmFixture.Patience);
        await RefusedAsync(FleetFault.Limit, "allowed are 2", () => fleet.DefineAsync(
            fixture.Definition("d", new ScriptedHypervisor(FleetFixture.Idle)) with { Spec = VmFixture.Spec("d") with { MemoryMib = 2 } }));
    }

    [Fact]
    public async Task A_guest_that_does_not_answer_its_power_button_loses_its_power_at_the_deadline()
    {
        await using var fixture = new FleetFixture();
        await fixture.DefineAsync("deaf", FleetFixture.Idle,
            stop: new StopPolicy(PowerKeyChoice.PowerButton, PowerKeyChoice.CtrlAltDel, TimeSpan.FromMilliseconds(60)));
        await fixture.Fleet.StartAsync("deaf").WaitAsync(VmFixture.Patience);

        var stopped = await fixture.Fleet.StopAsync("deaf").WaitAsync(VmFixture.Patience);

        Assert.Equal(VmState.Stopped, stopped.State);
        Assert.Contains(fixture.Fleet.Journal.ReadAfter(0), e => e.Detail.Contains("deadline is over", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_guest_that_hears_its_power_button_ends_by_itself()
    {
        // Enables the button's interrupt, sleeps until it comes, and writes SLP_TYP|SLP_EN (ACPI 6.5 table 4.12).
        static IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.Out(0x602, 2, 0x0100);
            while (true)
            {
                yield return cpu.In(0x600, size: 2);
                if ((cpu.Exit.Data & 0x100) != 0) break;
                yield return cpu.WaitForInterrupt();
            }

            yield return cpu.Out(0x604, 2, (5 << 10) | (1 << 13));
            while (true) yield return cpu.WaitForInterrupt();
        }

        await using var fixture = new FleetFixture();
        await fixture.DefineAsync("polite", Guest,
            stop: new StopPolicy(PowerKeyChoice.PowerButton, PowerKeyChoice.None, VmFixture.Patience));
        await fixture.Fleet.StartAsync("polite").WaitAsync(VmFixture.Patience);

        var stopped = await fixture.Fleet.StopAsync("polite").WaitAsync(VmFixture.Patience);

        Assert.Equal("poweroff", stopped.LastCause);
    }

    [Fact]
    public async Task A_guest_that_resets_itself_boots_again_within_its_run_and_a_stop_ends_that()
    {
        var boots = 0;
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            if (Interlocked.Increment(ref boots) < 4) yield return cpu.Out(0x64, 0xFE);
            while (true) yield return cpu.WaitForInterrupt();
        }

        await using var fixture = new FleetFixture();
        await fixture.DefineAsync("a", Guest);
        await fixture.Fleet.StartAsync("a").WaitAsync(VmFixture.Patience);

        await VmFixture.EventuallyAsync(() => fixture.Fleet.Get("a").Status.Resets == 3, "three resets are counted");
        Assert.Equal(VmState.Running, fixture.Fleet.Get("a").Status.State);
        Assert.Equal(1, fixture.Fleet.Get("a").Status.Runs);
        await fixture.Fleet.StopAsync("a").WaitAsync(VmFixture.Patience);
    }

    [Fact]
    public async Task A_redefinition_is_held_to_the_limit_of_memory_without_what_it_replaces()
    {
        await using var fixture = new FleetFixture(new FleetLimits(MaxVms: 2, MaxMemoryMib: 4));
        var hypervisor = await fixture.DefineAsync("a", FleetFixture.Idle);
        await fixture.DefineAsync("b", FleetFixture.Idle);
        VmDefinition Of(int mib) =>
            fixture.Definition("a", hypervisor) with { Spec = VmFixture.Spec("a") with { MemoryMib = mib }, Fingerprint = $"{mib}" };

        var refused = await Assert.ThrowsAsync<FleetException>(
            () => fixture.Fleet.DefineAsync(Of(4), replace: true).WaitAsync(VmFixture.Patience));
        Assert.Equal(FleetFault.Limit, refused.Fault);
        Assert.Contains("would have 5 MiB of memory; allowed are 4", refused.Message, StringComparison.Ordinal);
        Assert.Equal(1, fixture.Fleet.Get("a").Status.MemoryMib);
        Assert.Equal(3, (await fixture.Fleet.DefineAsync(Of(3), replace: true).WaitAsync(VmFixture.Patience)).MemoryMib);
    }

    [Fact]
    public async Task A_keeper_that_fails_while_a_second_run_begins_waits_for_that_run()
    {
        await using var fixture = new FleetFixture();
        var hypervisor = new ScriptedHypervisor(FleetFixture.Idle);
        using var mayStart = new ManualResetEventSlim(initialState: true);
        await fixture.Fleet.DefineAsync(fixture.Definition("a", hypervisor) with
        {
            Hypervisor = () => mayStart.Wait(VmFixture.Patience) ? hypervisor : throw new TimeoutException(),
        }).WaitAsync(VmFixture.Patience);
        await fixture.Fleet.StartAsync("a").WaitAsync(VmFixture.Patience);
        await fixture.Fleet.StopAsync("a").WaitAsync(VmFixture.Patience);
        mayStart.Reset();
        var starting = fixture.Fleet.StartAsync("a");
        await fixture.EventuallyAsync("a", VmState.Starting);

        fixture.Fleet.Get("a").Keeper.Tell(Akka.Actor.Kill.Instance, Akka.Actor.ActorRefs.NoSender);
        await Assert.ThrowsAsync<FleetException>(() => starting.WaitAsync(VmFixture.Patience));
        mayStart.Set();

        await fixture.EventuallyAsync("a", VmState.Running);
        Assert.Equal(2, fixture.Fleet.Get("a").Status.Runs);
        Assert.DoesNotContain(fixture.Fleet.Journal.ReadAfter(0), e => e.Kind == "failed");
    }

    [Fact]
    public async Task A_redefinition_takes_effect_with_the_next_start_and_says_so()
    {
        await using var fixture = new FleetFixture();
        var hypervisor = await fixture.DefineAsync("a", FleetFixture.Idle);
        await fixture.Fleet.StartAsync("a").WaitAsync(VmFixture.Patience);
        var other = fixture.Definition("a", hypervisor) with { Spec = VmFixture.Spec("a") with { MemoryMib = 3 }, Fingerprint = "two" };

        Assert.True((await fixture.Fleet.DefineAsync(other, replace: true).WaitAsync(VmFixture.Patience)).NeedsRestart);
        Assert.Equal(1, fixture.Fleet.Get("a").Status.MemoryMib);
        var restarted = await fixture.Fleet.RestartAsync("a").WaitAsync(VmFixture.Patience);

        Assert.Equal((false, 3), (restarted.NeedsRestart, restarted.MemoryMib));
    }

    [Fact]
    public async Task Commands_of_many_at_the_same_time_all_get_an_answer()
    {
        await using var fixture = new FleetFixture();
        await fixture.DefineAsync("a", FleetFixture.Idle);
        var fleet = fixture.Fleet;
        Func<Task>[] commands =
        [
            () => fleet.StartAsync("a"), () => fleet.StopAsync("a"), () => fleet.PauseAsync("a"), () => fleet.ResumeAsync("a"),
            () => fleet.KillAsync("a"), () => fleet.RestartAsync("a"), () => fleet.PulseAsync("a"), () => fleet.InspectAsync("a"),
        ];

        var storm = Enumerable.Range(0, 8).Select(person => Task.Run(async () =>
        {
            var random = new Random(person);
            for (var i = 0; i < 40; i++)
            {
                try { await commands[random.Next(commands.Length)]().WaitAsync(VmFixture.Patience); }
                catch (FleetException) { /* not in this state: an answer too */ }
            }
        }));
        await Task.WhenAll(storm);

        await fleet.StopAsync("a").WaitAsync(VmFixture.Patience); // it may be paused, which a start leaves as it is
        await fleet.StartAsync("a").WaitAsync(VmFixture.Patience);
        Assert.Equal(VmState.Running, fleet.Get("a").Status.State);
    }
}
