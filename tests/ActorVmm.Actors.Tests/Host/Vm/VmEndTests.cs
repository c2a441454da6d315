using Akka.Actor;
using ActorVmm.Hypervisor;
using ActorVmm.Testing.Actors;

namespace ActorVmm.Actors.Tests.Host.Vm;

/// <summary>The ways a run ends, and what the embedding program may say about it.</summary>
public sealed class VmEndTests
{
    private static IEnumerator<VcpuExitKind> ResetByKeyboard(ScriptedVcpu cpu)
    {
        yield return cpu.Out(0x64, 0xFE);
        yield return cpu.Out(0x3F8, (byte)'X'); // never reached: the run stops within the exit before
    }

    private static IEnumerator<VcpuExitKind> ResetByChipset(ScriptedVcpu cpu)
    {
        yield return cpu.Out(0xCF9, 0x06);
        yield return cpu.Out(0x3F8, (byte)'X');
    }

    private static IEnumerator<VcpuExitKind> SwitchOff(ScriptedVcpu cpu)
    {
        yield return cpu.Out(0x604, 2, (1 << 13) | (5 << 10));
        yield return cpu.Out(0x3F8, (byte)'X');
    }

    private static IEnumerator<VcpuExitKind> Panic(ScriptedVcpu cpu)
    {
        yield return cpu.Store(ActorVmm.Boot.MemoryLayout.Pvpanic, 1, 1);
        yield return cpu.Out(0x3F8, (byte)'X');
    }

    public static TheoryData<string, StopReason, int> Ends => new()
    {
        { nameof(ResetByKeyboard), StopReason.ResetI8042, 0 },
        { nameof(ResetByChipset), StopReason.ResetControl, 0 },
        { nameof(SwitchOff), StopReason.Poweroff, 0 },
        { nameof(Panic), StopReason.GuestPanic, 34 },
    };

    [Theory, MemberData(nameof(Ends))]
    public async Task A_power_request_stops_the_guest_within_its_exit(string guest, StopReason reason, int exitCode)
    {
        GuestScript script = guest switch
        {
            nameof(ResetByKeyboard) => ResetByKeyboard,
            nameof(ResetByChipset) => ResetByChipset,
            nameof(SwitchOff) => SwitchOff,
            _ => Panic,
        };
        await using var fixture = new VmFixture();

        var outcome = await fixture.RunAsync(new ScriptedHypervisor(script));

        Assert.Equal(reason, outcome.Reason);
        Assert.Equal(exitCode, outcome.ExitCode);
        Assert.Equal("", fixture.Console.Output);
        Assert.Equal(1UL, outcome.RetiredInstructions);
    }

    [Fact]
    public async Task The_exit_handler_turns_a_reset_into_a_restart_with_fresh_devices()
    {
        var scratch = new List<ulong>();
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.In(0x3FF);
            scratch.Add(cpu.Answer);
            yield return cpu.Out(0x3FF, 0x42);
            yield return cpu.Out(0x64, 0xFE);
        }

        var handler = new RestartTwice();
        await using var fixture = new VmFixture();
        var hypervisor = new ScriptedHypervisor(Guest);

        var outcome = await fixture.RunAsync(hypervisor, VmFixture.Spec(vcpus: 2), handler);

        Assert.Equal(StopReason.ResetI8042, outcome.Reason);
        Assert.Equal(2, hypervisor.Machine!.Resets);
        Assert.Equal(3, fixture.Loader.Loads);
        Assert.Equal([StopReason.ResetI8042, StopReason.ResetI8042, StopReason.ResetI8042], handler.Asked);
        Assert.Equal(0UL, scratch[0]);
        Assert.Equal(0, hypervisor.LiveMachines);
    }

    [Fact]
    public async Task A_triple_fault_may_be_turned_into_a_restart_too()
    {
        static IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu) { yield return cpu.TripleFault(); }
        await using var fixture = new VmFixture();
        var hypervisor = new ScriptedHypervisor(Guest);

        Assert.Equal(StopReason.TripleFault, (await fixture.RunAsync(hypervisor, handler: new RestartTwice())).Reason);
        Assert.Equal(2, hypervisor.Machine!.Resets);
    }

    [Fact]
    public async Task Ram_is_empty_again_after_a_restart()
    {
        var found = new List<ulong>();
        var hypervisor = (ScriptedHypervisor?)null;
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            Assert.True(hypervisor!.Machine!.Memory.TryRead(new ActorVmm.Memory.GuestAddress(0x8000), out ulong value));
            found.Add(value);
            hypervisor.Machine.Memory.TryWrite(new ActorVmm.Memory.GuestAddress(0x8000), 0x1234UL);
            yield return cpu.Out(0x64, 0xFE);
        }

        hypervisor = new ScriptedHypervisor(Guest);
        await using var fixture = new VmFixture();
        await fixture.RunAsync(hypervisor, handler: new RestartTwice());

        Assert.Equal([0UL, 0UL, 0UL], found);
    }

    [Fact]
    public async Task Halting_is_the_end_only_when_every_vcpu_has()
    {
        // The others halt only once the first is inside: a check before that would find it on its way in, and let it go unnoticed.
        using var inside = new ManualResetEventSlim();
        IEnumerator<VcpuExitKind> Boot(ScriptedVcpu cpu)
        {
            inside.Set();
            yield return cpu.WaitForInterrupt();
            yield return cpu.HaltForever();
        }

        IEnumerator<VcpuExitKind> Other(ScriptedVcpu cpu)
        {
            inside.Wait(VmFixture.Patience);
            yield return cpu.HaltForever();
        }

        await using var fixture = new VmFixture();
        var hypervisor = new ScriptedHypervisor(Boot, Other);
        var vm = await fixture.StartAsync(hypervisor, VmFixture.Spec(vcpus: 3));
        var boot = hypervisor.Machine!.Scripted[0];
        await VmFixture.EventuallyAsync(() => boot.Runs > 1 && boot.IsInside, "checked, and let go again");
        Assert.False(vm.Completion.IsCompleted);

        hypervisor.Machine.SetInterruptLine(5, true);

        Assert.Equal(StopReason.Halted, (await vm.Completion.WaitAsync(VmFixture.Patience)).Reason);
    }

    [Fact]
    public async Task A_processor_that_nobody_started_does_not_keep_a_halted_machine_alive()
    {
        static IEnumerator<VcpuExitKind> Boot(ScriptedVcpu cpu) { yield return cpu.HaltForever(); }
        static IEnumerator<VcpuExitKind> Other(ScriptedVcpu cpu) { yield return cpu.WaitForInit(); }
        await using var fixture = new VmFixture();

        Assert.Equal(StopReason.Halted, (await fixture.RunAsync(new ScriptedHypervisor(Boot, Other), VmFixture.Spec(vcpus: 4))).Reason);
    }

    [Fact]
    public async Task A_vcpu_that_breaks_ends_its_vm_and_no_other()
    {
        static IEnumerator<VcpuExitKind> Breaking(ScriptedVcpu cpu)
        {
            yield return cpu.Out(0x3F8, (byte)'b');
            yield return cpu.Break("the handle is gone");
        }

        static IEnumerator<VcpuExitKind> Waiting(ScriptedVcpu cpu)
        {
            yield return cpu.WaitForInterrupt();
            yield return cpu.Out(0x3F8, (byte)'w');
        }

        await using var fixture = new VmFixture();
        var healthy = new ScriptedHypervisor(Waiting);
        var broken = new ScriptedHypervisor(Breaking);
        var survivor = await fixture.StartAsync(healthy, VmFixture.Spec("survivor"));

        var outcome = await fixture.RunAsync(broken, VmFixture.Spec("victim", vcpus: 2));

        Assert.Equal(StopReason.Failed, outcome.Reason);
        Assert.Contains("failed: the handle is gone", outcome.Detail, StringComparison.Ordinal);
        Assert.Equal(0, broken.LiveMachines);
        Assert.False(survivor.Completion.IsCompleted);
        healthy.Machine!.SetInterruptLine(5, true);
        Assert.Equal(StopReason.Halted, (await survivor.Completion.WaitAsync(VmFixture.Patience)).Reason);
        Assert.EndsWith("w", fixture.Console.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_machine_that_cannot_be_built_leaves_nothing_and_says_why()
    {
        await using var fixture = new VmFixture();
        var refused = await Assert.ThrowsAsync<HypervisorException>(
            () => fixture.StartAsync(new ScriptedHypervisor(VmLifeTests.Hello) { Refusal = new HypervisorException("no such feature") }));
        Assert.Equal("no such feature", refused.Message);
    }

    [Fact]
    public async Task A_guest_that_cannot_be_loaded_takes_its_machine_down_again()
    {
        await using var fixture = new VmFixture(loader: new NoKernel { Failure = new InvalidDataException("not a kernel") });
        var hypervisor = new ScriptedHypervisor(VmLifeTests.Hello);

        await Assert.ThrowsAsync<InvalidDataException>(() => fixture.StartAsync(hypervisor));

        Assert.Equal(0, hypervisor.LiveMachines);
    }

    [Fact]
    public async Task A_name_is_used_once_at_a_time()
    {
        await using var fixture = new VmFixture();
        static IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu) { yield return cpu.ComputeForever(); }
        var first = await fixture.StartAsync(new ScriptedHypervisor(Guest));

        await Assert.ThrowsAsync<ArgumentException>(() => fixture.StartAsync(new ScriptedHypervisor(Guest)));
        await Assert.ThrowsAsync<ArgumentException>(() => fixture.StartAsync(new ScriptedHypervisor(Guest), VmFixture.Spec("not/a name")));

        first.Stop();
        await first.Completion.WaitAsync(VmFixture.Patience);
        Assert.Equal(StopReason.Halted, (await fixture.RunAsync(new ScriptedHypervisor(VmLifeTests.Hello))).Reason);
    }

    [Fact]
    public async Task A_host_that_is_disposed_stops_its_vms_and_leaves_nothing()
    {
        static IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu) { yield return cpu.ComputeForever(); }
        var hypervisor = new ScriptedHypervisor(Guest);
        IVmHandle a, b;
        await using (var fixture = new VmFixture())
        {
            a = await fixture.StartAsync(hypervisor, VmFixture.Spec("a"));
            b = await fixture.StartAsync(hypervisor, VmFixture.Spec("b"));
        }

        Assert.Equal(StopReason.Requested, (await a.Completion).Reason);
        Assert.Equal(StopReason.Requested, (await b.Completion).Reason);
        Assert.Equal(0, hypervisor.LiveMachines);
    }

    [Fact]
    public async Task A_machine_is_not_taken_down_under_whoever_still_loads_a_kernel_into_it()
    {
        static IEnumerator<VcpuExitKind> Resetting(ScriptedVcpu cpu)
        {
            yield return cpu.Out(0x64, 0xFE);
            while (true) yield return cpu.WaitForInterrupt();
        }

        using var entered = new ManualResetEventSlim();
        using var release = new ManualResetEventSlim();
        var loader = new NoKernel
        {
            Loading = number =>
            {
                if (number == 1) return;
                entered.Set();
                release.Wait();
            },
        };
        await using var fixture = new VmFixture(loader: loader);
        var hypervisor = new ScriptedHypervisor(Resetting);
        var vm = await fixture.StartAsync(hypervisor, handler: new RestartTwice());
        Assert.True(await Task.Run(() => entered.Wait(VmFixture.Patience)));
        var memory = hypervisor.Machine!.Memory;

        fixture.Host.System.ActorSelection("/user/host/vm").Tell(Kill.Instance);

        Assert.Equal(StopReason.Failed, (await vm.Completion.WaitAsync(VmFixture.Patience)).Reason);
        Assert.False(hypervisor.Machine.IsDisposed);
        Assert.True(memory.TryWrite(new Memory.GuestAddress(0), "the loader is still at it"u8));
        release.Set();
        await VmFixture.EventuallyAsync(() => hypervisor.LiveMachines == 0, "the machine is taken down");
        await VmFixture.EventuallyAsync(() => !memory.TryWrite(new Memory.GuestAddress(0), "gone"u8), "its memory too");
    }

    private sealed class RestartTwice : IExitHandler
    {
        public List<StopReason> Asked { get; } = [];

        public StopVerdict OnStopping(StopReason reason)
        {
            Asked.Add(reason);
            return Asked.Count <= 2 ? StopVerdict.Restart : StopVerdict.Stop;
        }
    }
}
