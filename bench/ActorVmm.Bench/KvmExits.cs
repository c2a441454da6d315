using System.Diagnostics;
using ActorVmm.Hypervisor;
using ActorVmm.Hypervisor.Kvm;
using ActorVmm.Hypervisor.Kvm.Native;
using ActorVmm.Testing.Actors;
using ActorVmm.Testing.Guests;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Bench;

/// <summary>
/// What a real exit costs through the bus and the device actor, against the same exit with the device called directly. The three variants
/// take turns in every round, in the same guest, on the same thread; medians of the rounds' ratios count.
/// </summary>
internal static class KvmExits
{
    private const int Rounds = 200;
    private const int Exits = 100;
    private const int HandlerSamples = 20_000;
    private const double Target = 1.06;
    private const double TargetOfTwo = 1.08;

    private static readonly (string Name, Action<Assembler, ExitLane> Access)[] Kinds =
    [
        ("PIO OUT", static (c, _) => c.@out(dx, al)),
        ("PIO IN", static (c, _) => c.@in(al, dx)),
        ("MMIO write", static (c, _) => c.mov(__byte_ptr[rbx], al)),
        ("MMIO read", static (c, _) => c.mov(cl, __byte_ptr[rbx])),
    ];

    private static readonly (string Name, Action<ExitLane, VcpuExit> Serve)[] Variants =
    [
        ("KVM_RUN alone", static (_, _) => { }),
        ("direct call", static (lane, exit) => lane.ServeDirect(exit)),
        ("bus and device actor", static (lane, exit) => lane.ServeThroughBus(exit)),
    ];

    /// <summary>
    /// Arguments: <c>exits</c>, <c>kick</c>, <c>latency</c> or <c>qemu</c> for that part alone; those of <see cref="ProgramVersusQemu"/> follow.
    /// </summary>
    public static int Run(string[] args)
    {
        bool Wanted(string part) => args.Length == 0 || string.Equals(args[0], part, StringComparison.Ordinal);
        var hypervisor = new KvmHypervisor();
        var report = hypervisor.Probe();
        if (report.Items.FirstOrDefault(item => item.Name == "machine") is not { Works: true })
        {
            Console.WriteLine($"skipped: {report.Verdict}");
            return 0;
        }

        if (Wanted("exits")) Exit(hypervisor);
        if (Wanted("kick")) KickMethods();
        if (Wanted("latency")) KvmLatency.Run(hypervisor);
        if (Wanted("qemu")) ProgramVersusQemu.Run(args.Length > 1 ? args[1..] : []);
        return 0;
    }

    private static void Exit(KvmHypervisor hypervisor)
    {
        using var rig = new ExitRig(lanes: 2);
        rig.AsVcpu(() =>
        {
            WarmUp(rig);
            Console.WriteLine($"one vCPU: us/exit and ratio to the direct call, medians of {Rounds} interleaved rounds of {Exits} exits");
            foreach (var (name, access) in Kinds) OneVcpu(hypervisor, rig.Lanes[0], name, access);
        });
        using (TinyGuest one = Loop(hypervisor, rig.Lanes[0], Kinds[1].Access), other = Loop(hypervisor, rig.Lanes[1], Kinds[1].Access))
            TwoVcpus("two vCPUs at once, each in a VM of its own", rig, [one.Machine.Vcpus[0], other.Machine.Vcpus[0]]);
        using (var both = LoopOfTwo(hypervisor, rig)) TwoVcpus("two vCPUs of one VM at once", rig, both.Machine.Vcpus);
        rig.AsVcpu(() => Handler(hypervisor, rig.Lanes[0]));
    }

    /// <summary>An endless loop of one access to the scratch register of the lane's device.</summary>
    private static TinyGuest Loop(IHypervisor hypervisor, ExitLane lane, Action<Assembler, ExitLane> access) =>
        new TinyGuest(hypervisor).Code(c =>
        {
            var again = c.CreateLabel();
            c.mov(edx, (uint)lane.Port + 7);
            c.mov(ebx, (uint)lane.Mmio + 7);
            c.mov(eax, 0x5A);
            c.Label(ref again);
            access(c, lane);
            c.jmp(again);
        }).Start64();

    /// <summary>Two vCPUs of one machine in one and the same loop of IN, each with the port of its own lane in DX.</summary>
    private static TinyGuest LoopOfTwo(KvmHypervisor hypervisor, ExitRig rig)
    {
        var guest = new TinyGuest(hypervisor, vcpus: 2).Code(c =>
        {
            var again = c.CreateLabel();
            c.Label(ref again);
            c.@in(al, dx);
            c.jmp(again);
        }).Start64(change: state => state with { General = state.General with { Rdx = rig.Lanes[0].Port + 7UL } });
        var (first, second) = (guest.Machine.Vcpus[0].GetState(), guest.Machine.Vcpus[1].GetState());
        guest.Machine.Vcpus[1].SetState(second with
        {
            Activity = VcpuActivity.Running,
            General = first.General with { Rdx = rig.Lanes[1].Port + 7UL },
            Special = first.Special with { ApicBase = second.Special.ApicBase },
        });
        return guest;
    }

    private static void OneVcpu(IHypervisor hypervisor, ExitLane lane, string name, Action<Assembler, ExitLane> access)
    {
        using var guest = Loop(hypervisor, lane, access);
        var vcpu = guest.Machine.Vcpus[0];
        var times = Variants.Select(_ => new double[Rounds]).ToArray();
        long bytes = 0;
        for (var i = 0; i < 10; i++) foreach (var (_, serve) in Variants) Measure(vcpu, lane, serve, Exits);
        for (var round = 0; round < Rounds; round++)
        {
            for (var i = 0; i < Variants.Length; i++)
            {
                var at = (i + round) % Variants.Length;
                var before = GC.GetAllocatedBytesForCurrentThread();
                times[at][round] = Measure(vcpu, lane, Variants[at].Serve, Exits);
                bytes += GC.GetAllocatedBytesForCurrentThread() - before;
            }
        }

        var perExit = bytes / (double)(Rounds * Exits * Variants.Length);
        for (var i = 0; i < Variants.Length; i++)
            Print(name, i, times, i == Variants.Length - 1 ? $"target <= {Target}, {perExit:F3} B/exit" : "");
    }

    /// <summary>What each way of calling a vCPU out of its guest costs the exits that nobody calls it out of.</summary>
    private static void KickMethods()
    {
        KickMethod[] methods = [KickMethod.Handler, KickMethod.Mask];
        using var rig = new ExitRig(lanes: 1);
        var lane = rig.Lanes[0];
        Console.WriteLine($"way of kicking: us per KVM_RUN, medians of {Rounds} interleaved rounds of {Exits} exits");
        foreach (var (name, access) in Kinds)
        {
            var guests = Array.ConvertAll(methods, method => Loop(new KvmHypervisor { KickMethod = method }, lane, access));
            var times = Array.ConvertAll(methods, _ => new double[Rounds]);
            for (var round = -10; round < Rounds; round++)
            {
                for (var i = 0; i < methods.Length; i++)
                {
                    var at = (i + round + 10) % methods.Length;
                    var time = Measure(guests[at].Machine.Vcpus[0], lane, Variants[0].Serve, Exits);
                    if (round >= 0) times[at][round] = time;
                }
            }
            for (var i = 0; i < methods.Length; i++)
                Console.WriteLine($"  {name,-10} {methods[i],-21} {Sampling.Median(times[i]),7:F2} {Sampling.MedianRatio(times[i], times[0]),6:F3}");
            foreach (var guest in guests) guest.Dispose();
        }
    }

    /// <summary>Two vCPUs on two threads, each with a device of its own on the one bus.</summary>
    private static void TwoVcpus(string which, ExitRig rig, IReadOnlyList<IVcpu> vcpus)
    {
        var times = Variants.Select(_ => new double[Rounds]).ToArray();
        using var start = new Barrier(rig.Lanes.Count);
        using var end = new Barrier(rig.Lanes.Count);
        var threads = rig.Lanes.Select((lane, number) => Task.Factory.StartNew(() => lane.AsVcpu(() =>
        {
            var vcpu = vcpus[number];
            for (var i = 0; i < 10; i++) foreach (var (_, serve) in Variants) Measure(vcpu, lane, serve, Exits);
            for (var round = 0; round < Rounds; round++)
            {
                for (var i = 1; i < Variants.Length; i++)
                {
                    var at = 1 + ((i + round) % (Variants.Length - 1));
                    start.SignalAndWait();
                    var began = Stopwatch.GetTimestamp();
                    Measure(vcpu, lane, Variants[at].Serve, Exits);
                    end.SignalAndWait();
                    // Until both are through: what one vCPU gains by the other's waiting does not count.
                    if (number == 0) times[at][round] = Sampling.MicrosecondsSince(began) / Exits;
                }
            }
        }), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default)).ToArray();
        Task.WaitAll(threads);

        Console.WriteLine($"{which}: us per exit of both");
        for (var i = 1; i < Variants.Length; i++)
            Print("PIO IN x2", i, times, i == Variants.Length - 1 ? $"target <= {TargetOfTwo}" : "");
    }

    private static void Print(string name, int variant, double[][] times, string target)
    {
        var (median, ratio) = (Sampling.Median(times[variant]), Sampling.MedianRatio(times[variant], times[1]));
        Console.WriteLine($"  {name,-10} {Variants[variant].Name,-21} {median,7:F2} {ratio,6:F3}  {target}");
    }

    /// <summary>From the return of KVM_RUN to the answer, while another thread of this process computes.</summary>
    private static void Handler(IHypervisor hypervisor, ExitLane lane)
    {
        using var guest = Loop(hypervisor, lane, Kinds[1].Access);
        var vcpu = guest.Machine.Vcpus[0];
        var samples = new double[HandlerSamples];
        using var over = new CancellationTokenSource();
        var hog = new Thread(() => { while (!over.IsCancellationRequested) Thread.SpinWait(100); }) { IsBackground = true };
        hog.Start();
        for (var i = 0; i < samples.Length; i++)
        {
            vcpu.Run();
            var began = Stopwatch.GetTimestamp();
            lane.ServeThroughBus(vcpu.Exit);
            samples[i] = Sampling.MicrosecondsSince(began);
        }

        over.Cancel();
        hog.Join();
        Console.WriteLine($"handler of PIO IN beside a busy thread: {Sampling.P50P99(samples)}   target p50 <= 1, p99 <= 15");
    }

    private static double Measure(IVcpu vcpu, ExitLane lane, Action<ExitLane, VcpuExit> serve, int exits)
    {
        var start = Stopwatch.GetTimestamp();
        for (var i = 0; i < exits; i++)
        {
            if (vcpu.Run() is not (VcpuExitKind.PortRead or VcpuExitKind.PortWrite or VcpuExitKind.MmioRead or VcpuExitKind.MmioWrite))
                throw new InvalidOperationException($"the guest did something else: {vcpu.Exit}");
            serve(lane, vcpu.Exit);
        }

        return Sampling.MicrosecondsSince(start) / exits;
    }

    /// <summary>JIT in all its tiers, without waiting for real exits.</summary>
    private static void WarmUp(ExitRig rig)
    {
        var start = Stopwatch.GetTimestamp();
        while (Stopwatch.GetElapsedTime(start) < TimeSpan.FromSeconds(2))
        {
            for (var i = 0; i < 1000; i++) rig.ReadThroughBus();
            for (var i = 0; i < 1000; i++) rig.PrintThroughBus((byte)i);
        }
    }
}
