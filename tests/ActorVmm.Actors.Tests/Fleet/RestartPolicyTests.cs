using ActorVmm.Actors.Fleet;
using ActorVmm.Hypervisor;
using ActorVmm.Testing.Actors;

namespace ActorVmm.Actors.Tests.Fleet;

public sealed class RestartPolicyTests
{
    private static GuestScript Ends(string way) => cpu => End(cpu, way);

    private static IEnumerator<VcpuExitKind> End(ScriptedVcpu cpu, string way)
    {
        if (way == "failure") yield return cpu.Fail("on purpose");
        else if (way == "poweroff") yield return cpu.Out(0x604, 2, (5 << 10) | (1 << 13));
        else yield return cpu.HaltForever();
        while (true) yield return cpu.WaitForInterrupt();
    }

    [Theory]
    [InlineData(RestartMode.Never, "failure", 0, VmState.Failed)]
    [InlineData(RestartMode.Never, "poweroff", 0, VmState.Stopped)]
    [InlineData(RestartMode.OnFailure, "poweroff", 0, VmState.Stopped)]
    [InlineData(RestartMode.OnFailure, "halt", 0, VmState.Stopped)]
    [InlineData(RestartMode.OnFailure, "failure", 3, VmState.Failed)]
    [InlineData(RestartMode.Always, "poweroff", 3, VmState.Stopped)]
    public async Task It_restarts_what_the_policy_says_as_often_as_its_limit(RestartMode mode, string way, int restarts, VmState end)
    {
        await using var fixture = new FleetFixture();
        await fixture.DefineAsync("a", Ends(way), FleetFixture.Policy(mode));
        try { await fixture.Fleet.StartAsync("a").WaitAsync(VmFixture.Patience); }
        catch (FleetException) { /* it was over before it was seen to run */ }

        await VmFixture.EventuallyAsync(() => fixture.Fleet.Get("a").Status is { State: VmState.Stopped or VmState.Failed },
            "it ends for good");
        var status = fixture.Fleet.Get("a").Status;
        Assert.Equal(restarts, status.Restarts);
        Assert.Equal(restarts + 1, status.Runs);
        Assert.Equal(restarts > 0 ? VmState.Failed : end, status.State);
        if (restarts > 0) Assert.Contains("given up after 3 restarts in a row", status.LastCause, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_vm_that_cannot_be_built_is_tried_again_too_and_the_starter_hears_why()
    {
        await using var fixture = new FleetFixture();
        var broken = new ScriptedHypervisor(FleetFixture.Idle) { Refusal = new HypervisorException("no such device") };
        await fixture.Fleet.DefineAsync(fixture.Definition("a", broken, FleetFixture.Policy(RestartMode.OnFailure, limit: 2)));

        var refused = await Assert.ThrowsAsync<FleetException>(() => fixture.Fleet.StartAsync("a").WaitAsync(VmFixture.Patience));

        Assert.Contains("no such device", refused.Message, StringComparison.Ordinal);
        await fixture.EventuallyAsync("a", VmState.Failed);
        Assert.Equal(2, fixture.Fleet.Get("a").Status.Restarts);
    }

    [Fact]
    public async Task An_operators_start_begins_a_new_row_and_a_stop_ends_the_waiting()
    {
        await using var fixture = new FleetFixture();
        await fixture.DefineAsync("a", Ends("failure"), FleetFixture.Policy(RestartMode.Always, limit: 1000, milliseconds: 60_000) with
        {
            MaxBackOff = TimeSpan.FromMinutes(1),
        });
        try { await fixture.Fleet.StartAsync("a").WaitAsync(VmFixture.Patience); }
        catch (FleetException) { /* the same */ }
        await fixture.EventuallyAsync("a", VmState.BackingOff);

        Assert.Equal(VmState.Stopped, (await fixture.Fleet.StopAsync("a").WaitAsync(VmFixture.Patience)).State);
        Assert.Equal(0, fixture.Fleet.Get("a").Status.Restarts);
        Assert.Equal("failed: on purpose", fixture.Fleet.Get("a").Status.LastCause);
    }

    [Fact]
    public void The_back_off_doubles_up_to_its_most()
    {
        var policy = RestartPolicy.Never with { BackOff = TimeSpan.FromSeconds(1), MaxBackOff = TimeSpan.FromSeconds(5) };
        Assert.Equal([1, 2, 4, 5, 5], Enumerable.Range(1, 5).Select(n => policy.DelayBefore(n).TotalSeconds));
        Assert.Equal(5, policy.DelayBefore(int.MaxValue).TotalSeconds);
    }

    /// <summary>VMs die at random; what is shown is right, and the counts are exact.</summary>
    [Fact]
    public async Task Vms_that_are_killed_at_random_come_back_and_every_restart_is_counted()
    {
        var random = new Random(6);
        var deaths = new int[8];
        await using var fixture = new FleetFixture();
        var machines = new ScriptedHypervisor[deaths.Length];
        for (var i = 0; i < deaths.Length; i++)
        {
            machines[i] = await fixture.DefineAsync($"vm-{i}", FleetFixture.Idle, FleetFixture.Policy(RestartMode.Always, limit: 1000));
            await fixture.Fleet.StartAsync($"vm-{i}").WaitAsync(VmFixture.Patience);
        }

        for (var round = 0; round < 100; round++)
        {
            var victim = random.Next(deaths.Length);
            // As a guest that switches itself off, which nobody asked for.
            fixture.Vms.Host.System.ActorSelection($"/user/host/vm-{victim}").Tell(
                new ActorVmm.Actors.Host.Vm.VmProtocol.PowerSignalled(ActorVmm.Devices.Power.PowerEvent.Poweroff),
                    Akka.Actor.ActorRefs.NoSender);
            deaths[victim]++;
            var expected = deaths[victim];
            await VmFixture.EventuallyAsync(
                () => fixture.Fleet.Get($"vm-{victim}").Status is { State: VmState.Running } status && status.Restarts == expected,
                $"vm-{victim} runs again, restart {expected}: {fixture.Fleet.Get($"vm-{victim}").Status}");
        }

        for (var i = 0; i < deaths.Length; i++)
        {
            var status = fixture.Fleet.Get($"vm-{i}").Status;
            Assert.Equal((deaths[i], deaths[i] + 1, VmState.Running), (status.Restarts, status.Runs, status.State));
            Assert.Equal(1, machines[i].LiveMachines);
        }
    }
}
