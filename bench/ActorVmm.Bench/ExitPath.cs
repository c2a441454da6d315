using System.Diagnostics;
using ActorVmm.Testing.Actors;

namespace ActorVmm.Bench;

/// <summary>
/// Nanoseconds and bytes per exit, told on a vCPU's thread, processed, and replied. Variants take turns in every round, so that a busy host
/// slows all of them alike; the medians of the rounds and of their ratios count.
/// </summary>
internal static class ExitPath
{
    private const int Rounds = 600;

    // A round of a quarter of a millisecond usually fits between two interruptions by the host's other work.
    private const int Exits = 2_000;

    private static readonly TimeSpan WarmUp = TimeSpan.FromSeconds(2);

    public static int Run(string[] args)
    {
        using var rig = new ExitRig();
        ulong sink = 0;
        (string Name, Action Exit, double TargetNanoseconds)[] variants =
        [
            ("direct call", () => sink += rig.ReadDirect(), double.NaN),
            ("device actor, 1 hop", () => sink += rig.ReadOneHop(), 120),
            ("bus router + device actor", () => sink += rig.ReadThroughBus(), 120),
            ("the same, OUT with an effect", () => rig.PrintThroughBus((byte)sink), double.NaN),
        ];
        var times = variants.Select(_ => new double[Rounds]).ToArray();
        var bytes = new long[variants.Length];

        rig.AsVcpu(() =>
        {
            // JIT in all its tiers (it compiles on a thread of its own, which a busy host runs late), and the mailboxes' segments.
            var warm = Stopwatch.GetTimestamp();
            while (Stopwatch.GetElapsedTime(warm) < WarmUp) foreach (var variant in variants) Measure(variant.Exit);
            for (var round = 0; round < Rounds; round++)
            {
                for (var i = 0; i < variants.Length; i++)
                {
                    var at = (i + round) % variants.Length;
                    var before = GC.GetAllocatedBytesForCurrentThread();
                    times[at][round] = Measure(variants[at].Exit);
                    bytes[at] += GC.GetAllocatedBytesForCurrentThread() - before;
                }
            }
        });

        Console.WriteLine($"{"variant",-30} {"ns/exit",8} {"best",8} {"target",8} {"B/exit",8}   median of {Rounds} interleaved rounds of {Exits} exits");
        for (var i = 0; i < variants.Length; i++)
        {
            var target = double.IsNaN(variants[i].TargetNanoseconds) ? "" : $"<= {variants[i].TargetNanoseconds}";
            var perExit = bytes[i] / (double)Rounds / Exits;
            Console.WriteLine($"{variants[i].Name,-30} {Sampling.Median(times[i]),8:F1} {times[i].Min(),8:F1} {target,8} {perExit,8:F3}");
        }

        return 0;
    }

    private static double Measure(Action exit)
    {
        var start = Stopwatch.GetTimestamp();
        for (var i = 0; i < Exits; i++) exit();
        return Stopwatch.GetElapsedTime(start).TotalNanoseconds / Exits;
    }
}
