using System.Diagnostics;
using System.Globalization;
using ActorVmm.Actors;
using ActorVmm.Devices.Faults;
using ActorVmm.Hypervisor;
using ActorVmm.Hypervisor.Soft;
using ActorVmm.Testing.Actors;
using ActorVmm.Testing.Guests;
using Akka.Configuration;

namespace ActorVmm.Bench;

/// <summary>
/// What a VM notices of a neighbour in the same process that fails, again and again: the gaps between the ticks of a guest that computes and
/// exits, while nobody else is there and while the other VM is started, fails, and is started anew. The phases take turns.
/// </summary>
internal static class NeighbourStall
{
    private static readonly TimeSpan s_phase = TimeSpan.FromSeconds(3);

    /// <summary>Argument: rounds (7).</summary>
    public static int Run(string[] args) => RunAsync(args.Length > 0 ? int.Parse(args[0], CultureInfo.InvariantCulture) : 7).GetAwaiter().GetResult();

    private static async Task<int> RunAsync(int rounds)
    {
        var folder = Directory.CreateTempSubdirectory("actorvmm-bench-");
        try
        {
            // About 50 us of counting, then OUT to a port that nobody claims, for ever.
            var ticks = Path.Combine(folder.FullName, "ticks");
            await File.WriteAllBytesAsync(ticks, TinyElf.Of([0xB9, 0x40, 0x9C, 0x00, 0x00, 0xFF, 0xC9, 0x75, 0xFC, 0xE6, 0x80, 0xEB, 0xF3]));
            // An undefined instruction without a table of handlers: a triple fault.
            var dies = Path.Combine(folder.FullName, "dies");
            await File.WriteAllBytesAsync(dies, TinyElf.Of([0x0F, 0x0B]));
            // Writes to the serial port for ever: its device will crash.
            var prints = Path.Combine(folder.FullName, "prints");
            await File.WriteAllBytesAsync(prints, TinyElf.Of([0x66, 0xBA, 0xF8, 0x03, 0xB0, 0x2E, 0xEE, 0xEB, 0xFD]));

            await using var host = VmHost.Create(ConfigurationFactory.ParseString(
                "akka.loglevel = OFF\nactorvmm.supervision { max-retries = 3, within = 10s, over-limit = fail }"));
            var meter = new Meter();
            var watched = await host.StartAsync(Spec("watched", ticks), new SoftHypervisor(), new ScriptedConsole().Console, meter);
            await meter.PhaseAsync(s_phase); // translated, compiled, warm
            Console.WriteLine("gaps between ticks of the watched guest, ms: p50, p99.9, longest; medians of "
                + string.Create(CultureInfo.InvariantCulture, $"{rounds} rounds of {s_phase.TotalSeconds} s each, and the longest of all"));
            (string Name, Func<CancellationToken, Task<int>> Neighbour)[] neighbours =
            [
                ("nobody else", static async stop => { await Task.Delay(Timeout.Infinite, stop).ContinueWith(static _ => { }, TaskScheduler.Default); return 0; }),
                ("a guest that computes", stop => ComputeAsync(host, ticks, stop)),
                ("a guest that dies", stop => FailAsync(host, Spec("dies", dies), stop)),
                ("a VM that fails", stop => FailAsync(host, Spec("fails", prints) with
                {
                    Faults = new FaultPlan(1, [new FaultRule { Kind = FaultKind.ActorCrash, Name = "crash", Device = "serial0", Every = 2 }]),
                }, stop)),
            ];
            var results = neighbours.ToDictionary(static one => one.Name, static _ => new List<(double[] Gaps, int Ends)>(), StringComparer.Ordinal);
            for (var round = 0; round < rounds; round++)
            {
                foreach (var (name, neighbour) in round % 2 == 0 ? neighbours : neighbours.Reverse())
                {
                    using var stop = new CancellationTokenSource();
                    var other = Task.Run(() => neighbour(stop.Token), CancellationToken.None);
                    var gaps = await meter.PhaseAsync(s_phase);
                    await stop.CancelAsync();
                    results[name].Add((gaps, await other));
                }
            }

            watched.Stop();
            await watched.Completion;
            foreach (var (name, phases) in results)
            {
                double Median(double share) => Sampling.Median([.. phases.Select(phase => Sampling.Quantile(phase.Gaps, share))]);
                var ends = Sampling.Median([.. phases.Select(static phase => (double)phase.Ends)]) / s_phase.TotalSeconds;
                Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                    $"  {name,-22} p50 {Median(0.5),8:F3}  p99.9 {Median(0.999),8:F3}  longest {Median(1),8:F3}   of all {phases.Max(static phase => phase.Gaps.Max()),8:F3}   "
                    + $"{ends,6:F1} ends per second"));
            }

            return 0;
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }

    private static VmSpec Spec(string name, string kernel) => new() { Name = name, MemoryMib = 64, Kernel = new KernelSpec { Path = kernel } };

    private static async Task<int> ComputeAsync(VmHost host, string kernel, CancellationToken stop)
    {
        var vm = await host.StartAsync(Spec("computes", kernel), new SoftHypervisor(), new ScriptedConsole().Console);
        await Task.Delay(Timeout.Infinite, stop).ContinueWith(static _ => { }, TaskScheduler.Default);
        vm.Stop();
        await vm.Completion;
        return 0;
    }

    /// <summary>Starts it each time that it has ended, without a pause.</summary>
    private static async Task<int> FailAsync(VmHost host, VmSpec spec, CancellationToken stop)
    {
        var ends = 0;
        for (; !stop.IsCancellationRequested; ends++)
        {
            var vm = await host.StartAsync(spec, new SoftHypervisor(), new ScriptedConsole().Console);
            var outcome = await vm.Completion;
            if (outcome.Reason is not (StopReason.TripleFault or StopReason.Failed)) throw new InvalidOperationException($"it ended by {outcome.Text}");
        }

        return ends;
    }

    /// <summary>Hears each tick on the vCPU's thread.</summary>
    private sealed class Meter : IExitHandler
    {
        private readonly Lock _lock = new();
        private List<double> _gaps = new(1 << 20);
        private long _last;

        public bool TryHandle(VcpuExit access)
        {
            var now = Stopwatch.GetTimestamp();
            lock (_lock)
            {
                if (_last != 0) _gaps.Add((now - _last) * 1000.0 / Stopwatch.Frequency);
                _last = now;
            }

            return true;
        }

        /// <summary>Milliseconds between ticks of the time from now on.</summary>
        public async Task<double[]> PhaseAsync(TimeSpan length)
        {
            lock (_lock) _gaps = new List<double>(1 << 20);
            await Task.Delay(length);
            lock (_lock) return [.. _gaps];
        }
    }
}
