using System.Globalization;
using System.Text.Json;
using ActorVmm.Host.Descriptions;
using ActorVmm.Host.Guests;
using Spectre.Console;

namespace ActorVmm.Host.Experiments;

/// <summary><c>experiment run</c>, <c>replay</c> and <c>diff</c>.</summary>
/// <param name="output">For results.</param>
/// <param name="errors">For progress and what is wrong.</param>
/// <param name="terminal">stderr is one: progress is a bar.</param>
internal sealed class ExperimentCommand(TextWriter output, TextWriter errors, bool terminal)
{
    /// <param name="file">The experiment.</param>
    /// <param name="seeds">Runs; null as the file says.</param>
    /// <param name="firstSeed">The first seed; null as the file says.</param>
    /// <param name="folder">Where the runs' folders are made; null for one below the current directory.</param>
    /// <param name="json">For machines.</param>
    /// <param name="cancel">Ends it.</param>
    public Task<int> RunAsync(string file, int? seeds, ulong? firstSeed, string? folder, bool json, CancellationToken cancel) => GuardAsync(async () =>
    {
        var experiment = ExperimentReader.ReadFile(file);
        experiment = experiment with { Seeds = seeds ?? experiment.Seeds, FirstSeed = firstSeed ?? experiment.FirstSeed };
        folder = Path.GetFullPath(folder ?? Path.Combine("runs", experiment.Name));
        var image = await ExperimentRun.ImageAsync(cancel);
        var runs = await RunAllAsync(experiment, image, folder, cancel);
        var verdicts = Judge.Of(experiment, runs);
        if (json) WriteJson(experiment, runs, verdicts, folder);
        else WriteTable(experiment, runs, verdicts, folder);
        return CodeOf(runs, verdicts);
    });

    /// <summary>The same seed, plan and guest once more: the same run, or the first place where it is not.</summary>
    public Task<int> ReplayAsync(string run, string? folder, CancellationToken cancel) => GuardAsync(async () =>
    {
        var before = ExperimentRun.Load(run);
        var experiment = ExperimentReader.ReadFile(Path.Combine(run, "experiment.conf"));
        if (experiment.Unrepeatable is { } why)
        {
            throw new ExperimentException($"{run} cannot be replayed: {why}. 'experiment run --seed {before.Seed.ToString(CultureInfo.InvariantCulture)} --seeds 1' "
                + "runs the same plan, which fires at the same requests; more is not promised");
        }

        var image = await ExperimentRun.ImageAsync(cancel);
        var guest = await GuestBoot.HashAsync(image, cancel);
        if (!string.Equals(guest, before.Guest, StringComparison.Ordinal))
            await errors.WriteLineAsync("actorvmm: the guest is another than it was: kernel or initramfs have changed since that run");
        if (!string.Equals(ExperimentRun.Version, before.Version, StringComparison.Ordinal))
            await errors.WriteLineAsync($"actorvmm: another build than that run's: {ExperimentRun.Version}, then {before.Version}");
        folder = Path.GetFullPath(folder ?? run.TrimEnd('/') + "-replay");
        var again = await ExperimentRun.RunAsync(experiment, before.Seed, image, folder, cancel);
        if (string.Equals(again.Fingerprint, before.Fingerprint, StringComparison.Ordinal))
        {
            await output.WriteLineAsync(string.Create(CultureInfo.InvariantCulture,
                $"the same run: console, trace and {again.Safety.Instructions + (again.Quiet?.Instructions ?? 0)} instructions ({folder})"));
            return ExitCodes.Success;
        }

        await output.WriteLineAsync("another run than before:");
        WriteDifference(run, folder);
        return ExitCodes.ExperimentDiffers;
    });

    /// <summary>The last event that two runs have in common, and the first in which they differ.</summary>
    public Task<int> DiffAsync(string left, string right) => GuardAsync(() =>
    {
        _ = ExperimentRun.Load(left);
        _ = ExperimentRun.Load(right);
        return Task.FromResult(WriteDifference(left, right) ? ExitCodes.ExperimentDiffers : ExitCodes.Success);
    });

    /// <summary>The safety phase of one run, in a process that a plan may kill.</summary>
    public Task<int> BootAsync(string folder, ulong seed, CancellationToken cancel) => GuardAsync(async () =>
    {
        await ExperimentRun.BootAsync(folder, seed, cancel);
        return ExitCodes.Success;
    });

    private async Task<IReadOnlyList<RunEvidence>> RunAllAsync(Experiment experiment, GuestImage image, string folder, CancellationToken cancel)
    {
        var seeds = Enumerable.Range(0, experiment.Seeds).Select(number => unchecked(experiment.FirstSeed + (ulong)number)).ToArray();
        var runs = new RunEvidence[seeds.Length];
        async Task AllAsync(Action<RunEvidence> done) => await Parallel.ForAsync(0, seeds.Length,
            new ParallelOptions { MaxDegreeOfParallelism = Environment.ProcessorCount, CancellationToken = cancel }, async (number, stop) =>
            {
                var place = Path.Combine(folder, string.Create(CultureInfo.InvariantCulture, $"seed-{seeds[number]}"));
                var result = await ExperimentRun.RunAsync(experiment, seeds[number], image, place, stop);
                var (console, quiet) = ExperimentRun.Consoles(place);
                done(runs[number] = new RunEvidence(result, console, quiet));
            });

        if (!terminal)
        {
            var ended = 0;
            await AllAsync(run => errors.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{Interlocked.Increment(ref ended),4}/{seeds.Length}  seed {run.Result.Seed,-6}  {run.Result.Safety.Exit,-10}  " +
                $"{run.Result.Safety.Firings.Values.Sum(),5} faults  {run.Result.HostSeconds,6:F1} s")));
            return runs;
        }

        var console = AnsiConsole.Create(new AnsiConsoleSettings { Out = new AnsiConsoleOutput(errors), Ansi = AnsiSupport.Yes });
        await console.Progress().AutoClear(true).StartAsync(async context =>
        {
            var bar = context.AddTask(Markup.Escape(experiment.Name), maxValue: seeds.Length);
            await AllAsync(_ => bar.Increment(1));
        });
        return runs;
    }

    private void WriteTable(Experiment experiment, IReadOnlyList<RunEvidence> runs, IReadOnlyList<PropertyVerdict> verdicts, string folder)
    {
        var console = AnsiConsole.Create(new AnsiConsoleSettings { Out = new AnsiConsoleOutput(output), Ansi = AnsiSupport.Detect });
        if (experiment.Explains.Length > 0) console.WriteLine(experiment.Explains);
        var table = new Table().Border(TableBorder.Simple).AddColumns("property", "is", "true in", "verdict", "example");
        foreach (var verdict in verdicts)
        {
            table.AddRow(
                Markup.Escape(verdict.Property.Name), verdict.Property.Kind.ToString().ToLowerInvariant(),
                string.Create(CultureInfo.InvariantCulture, $"{verdict.True.Count} of {runs.Count}"),
                verdict.Holds ? "holds" : "[red]does not hold[/]",
                verdict.Example is { } seed ? string.Create(CultureInfo.InvariantCulture, $"seed {seed}") : "");
        }

        console.Write(table);
        var rules = new Table().Border(TableBorder.Simple).AddColumns("fault", "fired", "in runs");
        foreach (var rule in experiment.Plan.Rules)
        {
            var counts = runs.Select(run => run.Result.Safety.Firings.GetValueOrDefault(rule.Name)).ToArray();
            rules.AddRow(Markup.Escape(rule.Name), counts.Sum().ToString(CultureInfo.InvariantCulture),
                counts.Count(static count => count > 0).ToString(CultureInfo.InvariantCulture));
        }

        if (experiment.Plan.Rules.Count > 0) console.Write(rules);
        foreach (var run in runs.Where(static run => run.Result.Safety.Exit is "failed" or "timeout" || run.Result.Quiet?.Exit is "failed" or "timeout"))
            console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"seed {run.Result.Seed}: {run.Result.Safety.Exit} {run.Result.Safety.Detail}"));
        console.WriteLine($"runs: {folder}");
    }

    private void WriteJson(Experiment experiment, IReadOnlyList<RunEvidence> runs, IReadOnlyList<PropertyVerdict> verdicts, string folder) =>
        output.WriteLine(JsonSerializer.Serialize(
            new ExperimentReport(experiment.Name, ExperimentRun.Version, folder,
                [.. verdicts.Select(static verdict => new PropertyReport(verdict.Property.Name,
                    verdict.Property.Kind.ToString().ToLowerInvariant(), verdict.Holds, verdict.True, verdict.False))],
                [.. runs.Select(static run => run.Result)]),
            ExperimentJson.Default.ExperimentReport));

    /// <summary>A monitor that fails comes before a guest that does not end, and that before what is not true.</summary>
    internal static int CodeOf(IReadOnlyList<RunEvidence> runs, IReadOnlyList<PropertyVerdict> verdicts)
    {
        bool Ended(string exit) => runs.Any(run => string.Equals(run.Result.Safety.Exit, exit, StringComparison.Ordinal)
            || string.Equals(run.Result.Quiet?.Exit, exit, StringComparison.Ordinal));
        bool Asked(string exit) => verdicts.Any(verdict =>
            verdict.Property.Subject is PropertySubject.Exit or PropertySubject.QuietExit && string.Equals(verdict.Property.Value, exit, StringComparison.Ordinal));
        if (Ended("failed") && !Asked("failed")) return ExitCodes.ExperimentCrash;
        if (Ended("timeout") && !Asked("timeout")) return ExitCodes.ExperimentTimeout;
        return verdicts.All(static verdict => verdict.Holds) ? ExitCodes.Success : ExitCodes.ExperimentProperty;
    }

    private bool WriteDifference(string left, string right)
    {
        var (first, second) = (ExperimentRun.Events(left), ExperimentRun.Events(right));
        var same = 0;
        while (same < first.Count && same < second.Count && string.Equals(first[same], second[same], StringComparison.Ordinal)) same++;
        if (same == first.Count && same == second.Count)
        {
            output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"no difference in {same} events"));
            return false;
        }

        output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{same} events are the same"));
        if (same > 0) output.WriteLine($"  both   {first[same - 1]}");
        output.WriteLine($"  left   {(same < first.Count ? first[same] : "(has ended)")}");
        output.WriteLine($"  right  {(same < second.Count ? second[same] : "(has ended)")}");
        return true;
    }

    private async Task<int> GuardAsync(Func<Task<int>> work)
    {
        try
        {
            return await work();
        }
        catch (DescriptionException wrong)
        {
            foreach (var error in wrong.Errors) await errors.WriteLineAsync(error.ToString());
            return ExitCodes.BadDescription;
        }
        catch (Exception cannot) when (cannot is ExperimentException or GuestException or IOException or UnauthorizedAccessException
            or Hypervisor.HypervisorException)
        {
            await errors.WriteLineAsync($"actorvmm: {cannot.Message}");
            return ExitCodes.Failure;
        }
    }
}
