using ActorVmm.Devices.Faults;
using ActorVmm.Hypervisor;
using ActorVmm.Testing.Actors;

namespace ActorVmm.Actors.Tests.Host.Vm.Faults;

/// <summary>Each fault that no device need know of: what the guest or the trace notices, and that it is off by default.</summary>
public sealed class InjectedFaultTests
{
    private const ushort Register = ProbeDevice.Port;
    private const ushort RaiseLine = ProbeDevice.Port + 3;
    private const ushort LowerLine = ProbeDevice.Port + 5;

    public static TheoryData<string> CrashPoints => [.. FaultPoints.All.Take(4)];

    /// <summary>Runs a guest with a plan; the trace and all else that was seen.</summary>
    private static async Task<(VmOutcome Outcome, Seen Seen, ScriptedMachine Machine, string Console)> RunAsync(
        GuestScript guest, FaultRule[] rules, string hocon = "", ProbeFaults? probe = null, ClockMode clock = ClockMode.Virtual)
    {
        await using var fixture = new VmFixture("actorvmm.supervision.max-retries = 1000\n" + hocon);
        var (seen, hypervisor) = (new Seen(), new ScriptedHypervisor(guest));
        var spec = VmFixture.Spec() with { Faults = new FaultPlan(7, rules), Clock = clock };
        var outcome = await fixture.RunAsync(hypervisor, spec, seen, parts => ProbeActor.Unit(parts, probe ?? new ProbeFaults()));
        return (outcome, seen, hypervisor.Machine!, fixture.Console.Output);
    }

    private static FaultRule Rule(FaultKind kind, string device = "probe") => new() { Kind = kind, Name = FaultKinds.NameOf(kind), Device = device };

    [Theory, MemberData(nameof(CrashPoints))]
    public async Task A_crash_at_any_point_of_a_message_is_invisible_to_the_guest(string point)
    {
        var answers = new List<ulong>();
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            for (byte i = 0; i < 20; i++)
            {
                yield return cpu.Out(Register, i);
                yield return cpu.Out(ProbeDevice.Port + 2, (byte)('a' + i)); // prints: an effect
                yield return cpu.In(Register);
                answers.Add(cpu.Answer);
            }
        }

        var probe = new ProbeFaults();
        var (outcome, seen, _, console) = await RunAsync(Guest, [Rule(FaultKind.ActorCrash) with { Point = point, Every = 3 }], probe: probe);

        Assert.Equal(StopReason.Halted, outcome.Reason);
        Assert.Equal(Enumerable.Range(0, 20).Select(i => (ulong)i), answers);
        Assert.Equal("abcdefghijklmnopqrst", console); // nothing lost, nothing twice
        Assert.InRange(seen.Firings.Count, 15, 60);
        Assert.All(seen.Firings, firing => Assert.Equal((FaultKind.ActorCrash, "probe", "crashes"), (firing.Kind, firing.Device, firing.Outcome)));
        Assert.Equal(seen.Firings.Count + 1, probe.Builds); // a restart for each
    }

    [Theory, MemberData(nameof(CrashPoints))]
    public async Task A_crash_of_the_serial_port_at_any_point_loses_and_doubles_no_byte_either_way(string point)
    {
        var typed = new List<byte>();
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.Out(0x3FA, 0x07);
            yield return cpu.Out(0x3FC, 0x0B); // RTS: input may come
            yield return cpu.Out(0x3F9, 0x01);
            foreach (var letter in "the quick brown fox") yield return cpu.Out(0x3F8, (byte)letter);
            while (typed.Count < 10)
            {
                yield return cpu.In(0x3FD);
                if ((cpu.Answer & 1) == 0) continue;
                yield return cpu.In(0x3F8);
                typed.Add((byte)cpu.Answer);
            }
        }

        await using var fixture = new VmFixture("actorvmm.supervision.max-retries = 1000");
        fixture.Console.WhenSeen("fox", "0123456789");
        var seen = new Seen();
        var rule = Rule(FaultKind.ActorCrash, "serial0") with { Point = point, Every = 2, Times = 200 };
        await fixture.RunAsync(new ScriptedHypervisor(Guest), VmFixture.Spec() with { Faults = new FaultPlan(1, [rule]) }, seen);
        Assert.Equal("the quick brown fox", fixture.Console.Output);
        Assert.Equal("0123456789"u8.ToArray(), typed);
        Assert.True(seen.Firings.Count > 10);
    }

    [Theory]
    [InlineData(true, 0x21UL, 1)]
    [InlineData(false, 0UL, 2)]
    public async Task An_access_on_its_second_try_is_spared_where_the_rules_say_so(bool spared, ulong read, int firings)
    {
        var answer = ulong.MaxValue;
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.Out(Register, 0x21);
            yield return cpu.In(Register);
            answer = cpu.Answer;
        }

        // Both wait for the same write: the second meets it again when it is tried once more.
        FaultRule Once(string point) => Rule(FaultKind.ActorCrash) with
        {
            Name = point, Point = point, Direction = "write", Nth = 1, SpareRetry = spared,
        };
        var (_, seen, _, _) = await RunAsync(Guest, [Once(FaultPoints.Entered), Once(FaultPoints.Handled)]);

        Assert.Equal(read, answer);
        Assert.Equal(firings, seen.Firings.Count);
    }

    [Theory, MemberData(nameof(CrashPoints))]
    public async Task An_alarm_whose_message_crashes_at_any_point_has_its_effect_once(string point)
    {
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.Out(ProbeDevice.Port + 4, 100);
            yield return cpu.ComputeForever();
        }

        await using var fixture = new VmFixture();
        var (seen, probe, hypervisor) = (new Seen(), new ProbeFaults(), new ScriptedHypervisor(Guest));
        var rule = Rule(FaultKind.ActorCrash) with { Point = point, Nth = 2 }; // the first message is the guest's access
        var spec = VmFixture.Spec() with { Faults = new FaultPlan(7, [rule]) };
        var vm = await fixture.StartAsync(hypervisor, spec, seen, devices: parts => ProbeActor.Unit(parts, probe));
        await VmFixture.EventuallyAsync(() => hypervisor.Machine!.Alarm == 100, "the alarm is set");
        hypervisor.Machine!.Advance(150);

        await VmFixture.EventuallyAsync(() => seen.Firings.Count == 1 && fixture.Console.Output.Length > 0, "the deadline is kept");
        vm.Stop();
        await vm.Completion.WaitAsync(VmFixture.Patience);
        Assert.Equal("!", fixture.Console.Output);
        Assert.Equal(2, probe.Builds);
    }

    [Fact]
    public async Task A_hang_is_found_and_the_guest_goes_on()
    {
        ulong answer = 0;
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.Out(Register, 0x21);
            yield return cpu.In(Register);
            answer = cpu.Answer;
        }

        var (outcome, seen, _, _) = await RunAsync(Guest, [Rule(FaultKind.ActorHang) with { Nth = 2 }],
            "actorvmm.supervision.hang-deadline = 100ms");

        Assert.Equal(StopReason.Halted, outcome.Reason);
        Assert.Equal(0x21UL, answer);
        Assert.Equal("hangs", Assert.Single(seen.Firings).Outcome);
    }

    [Fact]
    public async Task A_slow_handler_takes_its_time_and_answers()
    {
        ulong answer = 0;
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.Out(Register, 0x22);
            yield return cpu.In(Register);
            answer = cpu.Answer;
        }

        var begun = TimeProvider.System.GetTimestamp();
        var (_, seen, _, _) = await RunAsync(Guest, [Rule(FaultKind.ActorSlow) with { Nth = 2, Delay = 80_000_000 }]);

        Assert.Equal(0x22UL, answer);
        Assert.Single(seen.Firings);
        Assert.True(TimeProvider.System.GetElapsedTime(begun) >= TimeSpan.FromMilliseconds(80));
    }

    [Fact]
    public async Task A_mailbox_that_stands_still_delays_every_message_and_keeps_their_order()
    {
        ulong answer = 0;
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.Out(Register, 0x23);
            yield return cpu.In(Register);
            answer = cpu.Answer;
        }

        var begun = TimeProvider.System.GetTimestamp();
        var (outcome, seen, _, _) = await RunAsync(Guest, [Rule(FaultKind.MailboxStall) with { Nth = 1, For = 80_000_000 }]);

        Assert.Equal(StopReason.Halted, outcome.Reason);
        Assert.Equal(0x23UL, answer);
        Assert.Single(seen.Firings);
        Assert.True(TimeProvider.System.GetElapsedTime(begun) >= TimeSpan.FromMilliseconds(80));
    }

    [Fact]
    public async Task A_lost_doorbell_does_not_reach_the_device()
    {
        ulong answer = 0;
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.Out(Register, 1);
            yield return cpu.Out(Register, 2); // lost
            yield return cpu.In(Register);
            answer = cpu.Answer;
        }

        var (_, seen, _, _) = await RunAsync(Guest, [Rule(FaultKind.DoorbellLost) with { First = 0, Last = 0, Nth = 2 }]);

        Assert.Equal(1UL, answer);
        Assert.Equal("lost", Assert.Single(seen.Firings).Outcome);
    }

    private static IEnumerator<VcpuExitKind> Raising(ScriptedVcpu cpu)
    {
        for (var i = 0; i < 3; i++)
        {
            yield return cpu.Out(RaiseLine, 1);
            for (var j = 0; j < 50; j++) yield return cpu.In(Register);
            yield return cpu.Out(LowerLine, 1);
        }
    }

    private static int Rises(ScriptedMachine machine, int gsi) => machine.Lines.Count(line => line == (gsi, true));

    [Fact]
    public async Task A_lost_interrupt_leaves_the_line_low()
    {
        var (_, seen, machine, _) = await RunAsync(Raising, [Rule(FaultKind.IrqLost) with { Nth = 2 }]);
        Assert.Equal(2, Rises(machine, ProbeDevice.Gsi));
        Assert.Equal($"line {ProbeDevice.Gsi} stays low", Assert.Single(seen.Firings).Outcome);
    }

    [Fact]
    public async Task A_late_interrupt_comes_at_its_machine_time()
    {
        var (_, seen, machine, _) = await RunAsync(Raising, [Rule(FaultKind.IrqLate) with { Nth = 2, Delay = 20 }]);
        Assert.Equal(3, Rises(machine, ProbeDevice.Gsi)); // late, but there: within the 50 accesses before the line falls
        Assert.Single(seen.Firings);
        var (_, _, missed, _) = await RunAsync(Raising, [Rule(FaultKind.IrqLate) with { Nth = 2, Delay = 2000 }]);
        Assert.Equal(2, Rises(missed, ProbeDevice.Gsi)); // the device had changed its mind by then
    }

    [Fact]
    public async Task A_spurious_interrupt_rises_and_falls_for_nothing()
    {
        var (_, seen, machine, _) = await RunAsync(Raising,
            [Rule(FaultKind.IrqSpurious, "*") with { Gsi = 10, From = 10, Period = 20, Times = 3 }]);
        Assert.Equal([(10, true), (10, false), (10, true), (10, false), (10, true), (10, false)], machine.Lines.Where(line => line.Gsi == 10));
        Assert.Equal([10UL, 30UL, 50UL], seen.Firings.Select(firing => firing.Nanoseconds)); // at exactly its time
    }

    [Fact]
    public async Task Bytes_of_the_console_are_lost_and_changed_where_the_plan_says_so()
    {
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu) { foreach (var letter in "abcdefghij") yield return cpu.Out(0x3F8, (byte)letter); }

        var (_, lost, _, short1) = await RunAsync(Guest, [Rule(FaultKind.SerialDrop, "serial0") with { Every = 5 }]);
        Assert.Equal("abcdfghi", short1);
        Assert.Equal(2, lost.Firings.Count);

        var (_, changed, _, text) = await RunAsync(Guest, [Rule(FaultKind.SerialCorruption, "serial0") with { Nth = 3 }]);
        Assert.Equal(10, text.Length);
        Assert.Equal("ab" + "defghij", text.Remove(2, 1));
        Assert.Equal(1, System.Numerics.BitOperations.PopCount((uint)(text[2] ^ 'c')));
        Assert.Single(changed.Firings);
    }

    [Theory]
    [InlineData(FaultKind.VcpuPause)]
    [InlineData(FaultKind.VcpuSlow)]
    public async Task A_vcpu_is_held_out_of_the_guest_and_goes_on(FaultKind kind)
    {
        var stop = false;
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu) { while (!Volatile.Read(ref stop)) yield return cpu.In(Register); }
        await using var fixture = new VmFixture();
        var (seen, hypervisor) = (new Seen(), new ScriptedHypervisor(Guest));
        var rule = Rule(kind, "*") with { From = 50, For = 40_000_000, Factor = 4 };
        var spec = VmFixture.Spec() with { Clock = ClockMode.Virtual, Faults = new FaultPlan(7, [rule]) };
        var vm = await fixture.StartAsync(hypervisor, spec, seen, parts => ProbeActor.Unit(parts, new ProbeFaults()));

        string Held(string tree) => tree.Split("held = ")[1].Split('\n')[0];
        var expected = kind == FaultKind.VcpuPause ? "1" : "2"; // a slow one is held in each of its turns
        var held = "";
        while (held != expected) held = Held((await vm.InspectAsync().WaitAsync(VmFixture.Patience)).ToString());
        var retired = hypervisor.Machine!.Scripted[0].RetiredInstructions;
        await VmFixture.EventuallyAsync(() => hypervisor.Machine.Scripted[0].RetiredInstructions > retired + 100, "it goes on");
        Assert.Equal("vcpu0", Assert.Single(seen.Firings).Device);
        Volatile.Write(ref stop, true);
        Assert.Equal(StopReason.Halted, (await vm.Completion.WaitAsync(VmFixture.Patience)).Reason);
    }

    [Fact]
    public async Task A_bit_of_memory_flips_once()
    {
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu) { for (var i = 0; i < 50; i++) yield return cpu.In(Register); }
        byte[] ram = [];
        await using var fixture = new VmFixture();
        var (seen, hypervisor) = (new Seen(), new ScriptedHypervisor(Guest));
        seen.Stopping = () =>
        {
            ram = new byte[16];
            Assert.True(hypervisor.Machine!.Memory.TryRead(new Memory.GuestAddress(0x1000), ram));
        };
        var spec = VmFixture.Spec() with
        {
            Clock = ClockMode.Virtual,
            Faults = new FaultPlan(7, [Rule(FaultKind.MemoryBitFlip, "*") with { From = 10, First = 0x1000, Last = 0x100F }]),
        };
        await fixture.RunAsync(hypervisor, spec, seen, parts => ProbeActor.Unit(parts, new ProbeFaults()));

        Assert.Equal(1, ram.Sum(value => System.Numerics.BitOperations.PopCount(value)));
        Assert.Matches("^bit [0-7] of 0x100[0-9a-f] flips$", Assert.Single(seen.Firings).Outcome);
    }

    [Fact]
    public async Task A_clock_that_cannot_be_moved_is_said_in_the_trace()
    {
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu) { for (var i = 0; i < 50; i++) yield return cpu.In(Register); }
        var (_, seen, _, _) = await RunAsync(Guest, [Rule(FaultKind.ClockJump, "*") with { From = 10, Delay = 1000 }]);
        Assert.Equal("cannot be moved under this hypervisor", Assert.Single(seen.Firings).Outcome);
    }

    [Fact]
    public async Task Without_a_plan_nothing_of_this_happens()
    {
        var (outcome, seen, machine, _) = await RunAsync(Raising, []);
        Assert.Equal(StopReason.Halted, outcome.Reason);
        Assert.Empty(seen.Firings);
        Assert.Equal(3, Rises(machine, ProbeDevice.Gsi));
        Assert.All(machine.Lines, line => Assert.Equal(ProbeDevice.Gsi, line.Gsi));
    }

    [Fact]
    public async Task The_same_seed_and_plan_give_the_same_trace()
    {
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            for (byte i = 0; i < 200; i++)
            {
                yield return cpu.Out(Register, i);
                yield return cpu.Out(RaiseLine, 1);
                yield return cpu.Out(LowerLine, 1);
                yield return cpu.Out(0x3F8, (byte)'x');
            }
        }

        FaultRule[] plan =
        [
            Rule(FaultKind.ActorCrash) with { Probability = 0.1 }, Rule(FaultKind.IrqLost) with { Probability = 0.2 },
            Rule(FaultKind.SerialDrop, "serial0") with { Probability = 0.3 }, Rule(FaultKind.IrqSpurious, "*") with { Gsi = 9, Period = 50, Probability = 0.5, Until = 4000 },
        ];
        var first = await RunAsync(Guest, plan);
        var second = await RunAsync(Guest, plan);

        Assert.True(first.Seen.Firings.Count > 50);
        Assert.Equal(first.Seen.Firings.Select(FaultTraceLine.Of), second.Seen.Firings.Select(FaultTraceLine.Of));
        Assert.Equal(first.Machine.Lines, second.Machine.Lines);
        Assert.Equal(first.Console, second.Console);
    }

    [Fact]
    public async Task A_fault_is_injected_at_run_time_and_healed()
    {
        var stop = false;
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu) { while (!Volatile.Read(ref stop)) yield return cpu.In(Register); }
        await using var fixture = new VmFixture("actorvmm.supervision.max-retries = 1000");
        var (seen, probe) = (new Seen(), new ProbeFaults());
        var vm = await fixture.StartAsync(new ScriptedHypervisor(Guest), null, seen, parts => ProbeActor.Unit(parts, probe));
        Assert.Empty(seen.Firings);

        await vm.InjectAsync(Rule(FaultKind.ActorCrash) with { Times = 3 }).WaitAsync(VmFixture.Patience);
        await VmFixture.EventuallyAsync(() => probe.Builds == 4, "three crashes");
        await Assert.ThrowsAsync<ArgumentException>(() => vm.InjectAsync(Rule(FaultKind.ActorSlow)));

        await vm.InjectAsync(Rule(FaultKind.IrqSpurious, "*") with { Name = "late", Gsi = 5, From = ulong.MaxValue - 1 }).WaitAsync(VmFixture.Patience);
        vm.HealFaults();
        await VmFixture.EventuallyAsync(() => seen.Heals == 1, "healed");
        Assert.Equal(3, seen.Firings.Count);
        Volatile.Write(ref stop, true);
        Assert.Equal(StopReason.Halted, (await vm.Completion.WaitAsync(VmFixture.Patience)).Reason);
    }

    /// <summary>What the embedding program hears.</summary>
    internal sealed class Seen : IExitHandler
    {
        private readonly List<FaultFiring> _firings = [];
        private int _heals;

        public IReadOnlyList<FaultFiring> Firings { get { lock (_firings) return [.. _firings]; } }
        public int Heals => Volatile.Read(ref _heals);
        public Action? Stopping { get; set; }

        public void OnFault(FaultFiring firing) { lock (_firings) _firings.Add(firing); }
        public void OnHealed(ulong nanoseconds) => Interlocked.Increment(ref _heals);

        public StopVerdict OnStopping(StopReason reason)
        {
            Stopping?.Invoke();
            return StopVerdict.Stop;
        }
    }
}
