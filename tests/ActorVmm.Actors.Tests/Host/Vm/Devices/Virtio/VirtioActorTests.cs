using Akka.Actor;
using ActorVmm.Actors.Host.Vm;
using ActorVmm.Devices.Faults;
using ActorVmm.Devices.Virtio.Mmio;
using ActorVmm.Devices.Virtio.Queue;
using ActorVmm.Testing.Virtio;

namespace ActorVmm.Actors.Tests.Host.Vm.Devices.Virtio;

/// <summary>The shell around a virtio device: failures, doorbells, the backend's bell, reset.</summary>
public sealed class VirtioActorTests
{
    public static TheoryData<CrashPoint> EveryPoint() => new(Enum.GetValues<CrashPoint>());

    [Theory]
    [MemberData(nameof(EveryPoint))]
    public async Task A_crash_at_any_point_is_invisible_to_the_driver(CrashPoint point)
    {
        await using var guest = await VirtioGuest.StartAsync(() => new EchoDevice(16));
        var crash = new CrashAt(point, times: 2);
        guest.Slot.Ledger.CrashHook = point == CrashPoint.Resubmitting ? new CrashAt(CrashPoint.RequestTaken) : crash;
        var (first, firstAnswer) = guest.Add("first");
        var (second, secondAnswer) = guest.Add("second");
        guest.Driver.Kick(0);
        var used = await guest.AnswersAsync(2);

        Assert.Equal([(uint)first, (uint)second], used.Select(element => element.Head));
        Assert.Equal(("first", "second"), (guest.Text(firstAnswer), guest.Text(secondAnswer)));
        await VmFixture.EventuallyAsync(() => guest.Interrupted, "the interrupt");
        Assert.Equal((DeviceStatus)0xF, guest.Driver.Status);
        Assert.InRange(guest.Slot.Base.Restarts, 1, 2);
        Assert.Equal(0, guest.Slot.Ledger.Queues[0].InFlight);
        Assert.Equal(StopReason.Halted, (await guest.HaltAsync()).Reason);
    }

    [Fact]
    public async Task Crashes_while_the_work_is_taken_up_are_crashes_like_any_other()
    {
        await using var guest = await VirtioGuest.StartAsync(() => new EchoDevice(16));
        guest.Slot.Ledger.CrashHook = new CrashAt(CrashPoint.RequestTaken, times: 1).Then(new CrashAt(CrashPoint.Resubmitting, times: 3));
        guest.Add("x");
        guest.Driver.Kick(0);
        await guest.AnswersAsync(1);
        Assert.Equal(4, guest.Slot.Base.Restarts);
        Assert.Equal((DeviceStatus)0xF, guest.Driver.Status);
    }

    [Fact]
    public async Task The_backends_bell_brings_the_answer_and_the_interrupt_from_any_thread()
    {
        EchoDevice? device = null;
        await using var guest = await VirtioGuest.StartAsync(() => device = new EchoDevice(16) { Hold = true });
        var (_, answer) = guest.Add("late");
        guest.Driver.Kick(0);
        Assert.Single(device!.Held);
        Assert.Empty(guest.Driver.Rings[0].Collect());
        await Task.Run(guest.Slot.Ring);
        await guest.AnswersAsync(1);
        Assert.Equal("late", guest.Text(answer));
        await VmFixture.EventuallyAsync(() => guest.Interrupted, "the interrupt");
        Assert.Equal(InterruptCause.UsedBuffer, guest.Driver.HandleInterrupt());
        Assert.False(guest.Interrupted);
    }

    [Theory]
    [InlineData(CrashPoint.RequestDone), InlineData(CrashPoint.AnswerRecorded), InlineData(CrashPoint.IndexPublished),
        InlineData(CrashPoint.InterruptDecided)]
    public async Task A_crash_on_the_backends_message_loses_nothing(CrashPoint point)
    {
        // The failed message is not told again: the fresh instance has to look for itself.
        await using var guest = await VirtioGuest.StartAsync(() => new EchoDevice(16) { Hold = true });
        var (_, answer) = guest.Add("once");
        guest.Driver.Kick(0);
        guest.Slot.Ledger.CrashHook = new CrashAt(point);
        guest.Slot.Ring();
        await VmFixture.EventuallyAsync(() => guest.Slot.Base.Restarts == 1, "the restart");
        guest.Slot.Ring(); // the fresh instance's backend
        Assert.Single(await guest.AnswersAsync(1));
        Assert.Equal("once", guest.Text(answer));
        await VmFixture.EventuallyAsync(() => guest.Interrupted, "the interrupt");
    }

    [Fact]
    public async Task Doorbells_are_registered_with_the_driver_ring_without_an_exit_and_go_with_the_reset()
    {
        await using var guest = await VirtioGuest.StartAsync(() => new EchoDevice(16, 16), doorbells: true);
        var machine = guest.Hypervisor.Machine!;
        Assert.Equal([0UL, 1UL], machine.Doorbells.Select(bell => bell.Address.Match!.Value));
        Assert.All(machine.Doorbells, bell => Assert.Equal((0xD010_0050UL, false, 4), (bell.Address.Address, bell.Address.IsPort,
            bell.Address.Size)));

        for (var round = 0; round < 3; round++)
        {
            guest.Add($"a{round}", queue: 1);
            guest.Driver.Rings[1].Publish();
            machine.Doorbells[1].Ring();
            await guest.AnswersAsync(1, queue: 1);
        }

        guest.Driver.Write(MmioRegister.Status, 0);
        Assert.Empty(machine.Doorbells);
        guest.Driver.Start();
        Assert.Equal(2, machine.Doorbells.Count);
        await guest.HaltAsync();
        Assert.Empty(machine.Doorbells);
    }

    [Fact]
    public async Task A_storm_of_doorbells_does_not_pile_up_before_a_busy_device()
    {
        using var busy = new ManualResetEventSlim();
        using var go = new ManualResetEventSlim();
        var block = false;
        await using var guest = await VirtioGuest.StartAsync(() => new EchoDevice(16)
        {
            BeforeTake = () =>
            {
                if (!Volatile.Read(ref block)) return;
                Volatile.Write(ref block, false);
                busy.Set();
                go.Wait(VmFixture.Patience);
            },
        }, doorbells: true);
        var doorbell = Assert.Single(guest.Hypervisor.Machine!.Doorbells);
        Volatile.Write(ref block, true);
        doorbell.Ring();
        Assert.True(busy.Wait(VmFixture.Patience));
        var before = guest.Slot.Base.Handled;
        var (_, answer) = guest.Add("storm");
        guest.Driver.Rings[0].Publish();
        for (var i = 0; i < 100_000; i++) doorbell.Ring();
        go.Set();
        await guest.AnswersAsync(1);
        Assert.Equal("storm", guest.Text(answer));
        Assert.InRange(guest.Slot.Base.Handled - before, 1, 1_000);
    }

    [Fact]
    public async Task Doorbells_outlive_a_crash()
    {
        await using var guest = await VirtioGuest.StartAsync(() => new EchoDevice(16), doorbells: true);
        var doorbell = Assert.Single(guest.Hypervisor.Machine!.Doorbells);
        guest.Slot.Ledger.CrashHook = new CrashAt(CrashPoint.RequestTaken);
        var (_, answer) = guest.Add("x");
        guest.Driver.Rings[0].Publish();
        doorbell.Ring();
        await guest.AnswersAsync(1);
        Assert.Equal("x", guest.Text(answer));
        Assert.Equal(1, guest.Slot.Base.Restarts);
        Assert.Same(doorbell, Assert.Single(guest.Hypervisor.Machine!.Doorbells));
    }

    [Theory]
    [InlineData(FaultKind.DoorbellLost), InlineData(FaultKind.ActorCrash)]
    public async Task A_doorbell_that_a_fault_swallows_does_not_silence_those_after_it(FaultKind kind)
    {
        var fired = new FirstFiring();
        await using var guest = await VirtioGuest.StartAsync(() => new EchoDevice(16), doorbells: true, handler: fired);
        var doorbell = Assert.Single(guest.Hypervisor.Machine!.Doorbells);
        await guest.Vm.InjectAsync(new FaultRule { Kind = kind, Name = "once", Device = "echo0", Times = 1 });
        guest.Add("first");
        guest.Driver.Rings[0].Publish();
        doorbell.Ring();
        await fired.Task.WaitAsync(VmFixture.Patience);
        for (var round = 1; round <= 3; round++)
        {
            var (_, answer) = guest.Add($"again{round}");
            guest.Driver.Rings[0].Publish();
            doorbell.Ring();
            await VmFixture.EventuallyAsync(() => guest.Driver.Rings[0].UsedIndex == 1 + round, "the answer");
            Assert.Equal($"again{round}", guest.Text(answer));
        }
        Assert.Equal(kind == FaultKind.ActorCrash ? 1 : 0, guest.Slot.Base.Restarts);
    }

    [Fact]
    public async Task A_plan_crashes_a_request_at_a_named_place_and_spares_its_second_try()
    {
        var fired = new FirstFiring();
        await using var guest = await VirtioGuest.StartAsync(() => new EchoDevice(16), handler: fired);
        string[] points = ["chain-walked", "request-taken", "request-done"];
        foreach (var point in points)
        {
            await guest.Vm.InjectAsync(new FaultRule
            {
                Kind = FaultKind.ActorCrash, Name = point, Device = "echo0", Point = point, Queue = 0, Times = 1, SpareRetry = true,
            });
        }
        for (var round = 0; round < 3; round++)
        {
            var (_, answer) = guest.Add($"x{round}");
            guest.Driver.Kick(0);
            await guest.AnswersAsync(1);
            Assert.Equal($"x{round}", guest.Text(answer));
            // One crash for each request: all three at once would have met the first one three times, and it had been given up.
            Assert.Equal(points.Take(round + 1), fired.Rules);
        }
        Assert.Equal(3, guest.Slot.Base.Restarts);
    }

    private sealed class FirstFiring : IExitHandler
    {
        private readonly TaskCompletionSource _fired = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public Task Task => _fired.Task;

        public List<string> Rules { get; } = [];

        public void OnFault(FaultFiring firing)
        {
            Rules.Add(firing.Rule);
            _fired.TrySetResult();
        }
    }

    [Fact]
    public async Task Saved_state_is_a_value_and_restoring_refuses_what_is_not_its_own()
    {
        var executed = new List<(string, int)>();
        await using var guest = await VirtioGuest.StartAsync(() => new EchoDevice(16) { Hold = true, Executed = executed });
        guest.Add("x");
        guest.Driver.Kick(0);
        var device = await guest.Fixture.Host.System.ActorSelection("/user/host/vm/devices/echo0").ResolveOne(VmFixture.Patience);
        var saved = await device.Ask<UnitProtocol.Saved>(UnitProtocol.Save.Instance, VmFixture.Patience);
        var state = Assert.IsType<VirtioState>(saved.State);
        Assert.Single(state.Queues[0].InFlight);
        guest.Slot.Ring();
        await guest.AnswersAsync(1);
        Assert.Single(state.Queues[0].InFlight); // it does not change behind its owner's back

        var done = await device.Ask<UnitProtocol.Done>(new UnitProtocol.Restore("nonsense"), VmFixture.Patience);
        Assert.NotNull(done.Refusal);
        done = await device.Ask<UnitProtocol.Done>(new UnitProtocol.Restore(state with { DeviceId = 1 }), VmFixture.Patience);
        Assert.Contains("type 1", done.Refusal, StringComparison.Ordinal);
        done = await device.Ask<UnitProtocol.Done>(new UnitProtocol.Restore(state), VmFixture.Patience);
        Assert.Null(done.Refusal);
        await VmFixture.EventuallyAsync(() => executed.Count == 2, "the request that was in flight is performed again");
        Assert.Equal([("x", 1), ("x", 2)], executed);
    }

    [Fact]
    public async Task Inspection_shows_registers_queues_and_requests()
    {
        await using var guest = await VirtioGuest.StartAsync(() => new EchoDevice(16) { Hold = true });
        guest.Add("x");
        guest.Driver.Kick(0);
        var tree = (await guest.Vm.InspectAsync()).ToString();
        Assert.Contains("queue-0 = queue 0: size 16, ready True, taken 1, answered 0, published 0, in flight 1", tree,
            StringComparison.Ordinal);
        Assert.Contains("DriverOk", tree, StringComparison.Ordinal);
        Assert.Contains($"gsi = {VirtioGuest.Gsi}", tree, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_reset_of_the_machine_resets_the_device()
    {
        var resets = 0;
        await using var guest = await VirtioGuest.StartAsync(() => new EchoDevice(16), handler: new RestartOnce(() => resets++));
        Assert.True(guest.Slot.Ledger.Queues[0].Setup.Ready);
        // The guest's code goes on where it was, in a machine that was just switched on.
        guest.ResetMachine();
        await VmFixture.EventuallyAsync(() => guest.Hypervisor.Machine!.Resets == 1, "the reset");
        await VmFixture.EventuallyAsync(() => !guest.Slot.Ledger.Queues[0].Setup.Ready, "the device's reset");
        Assert.Equal(1, resets);
    }

    private sealed class RestartOnce(Action seen) : IExitHandler
    {
        private bool _restarted;

        public StopVerdict OnStopping(StopReason reason)
        {
            if (_restarted || reason == StopReason.Halted) return StopVerdict.Stop;
            _restarted = true;
            seen();
            return StopVerdict.Restart;
        }
    }
}

internal static class CrashHooks
{
    /// <summary>Both look on.</summary>
    public static ICrashHook Then(this ICrashHook first, ICrashHook second) => new Both(first, second);

    private sealed class Both(ICrashHook first, ICrashHook second) : ICrashHook
    {
        public void Reached(CrashPoint point, int queue, ushort head)
        {
            first.Reached(point, queue, head);
            second.Reached(point, queue, head);
        }
    }
}
