using System.Diagnostics;
using System.Globalization;
using ActorVmm.Testing.Actors;

namespace ActorVmm.Bench;

/// <summary>
/// What the fault hooks cost where no plan uses them: the exit path, and 4 KiB reads of a disk, of one process with the hooks against those of
/// another whose JIT has left them out. The processes take turns; the median of the ratios of neighbouring rounds counts.
/// </summary>
internal static class FaultHooksBench
{
    private const string Switch = "ActorVmm.NoFaultHooks";
    private const int Exits = 2_000;
    private const int Samples = 400;
    private const int Requests = 500;

    private static readonly TimeSpan s_warmUp = TimeSpan.FromSeconds(2);

    /// <summary>Arguments: rounds (7); exit, block, or both where left out.</summary>
    public static int Run(string[] args)
    {
        if (args is ["child", var which, var hooks]) return Child(which, string.Equals(hooks, "with", StringComparison.Ordinal));
        var rounds = args.Length > 0 ? int.Parse(args[0], CultureInfo.InvariantCulture) : 7;
        foreach (var (path, what) in ((string, string)[])[("exit", "exit through bus and device"), ("block", "4k read, three exits")])
        {
            if (args.Length > 1 && !string.Equals(args[1], path, StringComparison.Ordinal)) continue;
            var (with, without) = (new double[rounds], new double[rounds]);
            for (var round = 0; round < rounds; round++)
            {
                // Which goes first changes, so that a host that gets busier favours neither.
                foreach (var order in round % 2 == 0 ? (string[])["with", "without"] : ["without", "with"])
                    (order == "with" ? with : without)[round] = Measure(path, order);
            }

            Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{what}: {Sampling.Median(with):F1} ns with hooks, {Sampling.Median(without):F1} ns without; best {with.Min():F1} and "
                + $"{without.Min():F1}; ratio {Sampling.MedianRatio(with, without):F4} (target <= 1.01) over {rounds} rounds"));
        }

        return 0;
    }

    private static double Measure(string path, string hooks)
    {
        var start = new ProcessStartInfo(Environment.ProcessPath!) { RedirectStandardOutput = true };
        foreach (var argument in (string[])[typeof(FaultHooksBench).Assembly.Location, "fault-hooks", "child", path, hooks]) start.ArgumentList.Add(argument);
        using var child = Process.Start(start)!;
        var text = child.StandardOutput.ReadToEnd();
        child.WaitForExit();
        return double.Parse(text, CultureInfo.InvariantCulture);
    }

    private static int Child(string path, bool hooks)
    {
        AppContext.SetSwitch(Switch, !hooks); // before anything of the hooks is compiled
        var times = string.Equals(path, "block", StringComparison.Ordinal)
            ? BlockExits.MeasureAsync(s_warmUp, Samples, Requests).GetAwaiter().GetResult()
            : MeasureExits();
        // The best of many short ones: what the host's other work adds is not the hooks'.
        Console.WriteLine(Sampling.Quantile(times, 0.1).ToString(CultureInfo.InvariantCulture));
        return 0;
    }

    private static double[] MeasureExits()
    {
        using var rig = new ExitRig();
        var times = new double[Samples];
        rig.AsVcpu(() =>
        {
            var warm = Stopwatch.GetTimestamp();
            while (Stopwatch.GetElapsedTime(warm) < s_warmUp) Sample(rig);
            for (var i = 0; i < Samples; i++) times[i] = Sample(rig);
        });
        return times;
    }

    private static double Sample(ExitRig rig)
    {
        var start = Stopwatch.GetTimestamp();
        for (var i = 0; i < Exits; i++) rig.ReadThroughBus();
        return Stopwatch.GetElapsedTime(start).TotalNanoseconds / Exits;
    }
}
