using System.Text.RegularExpressions;

namespace ActorVmm.Host.Experiments;

/// <summary>A property over all runs.</summary>
/// <param name="Property">What was asked.</param>
/// <param name="True">Seeds of runs in which it was true.</param>
/// <param name="False">The others.</param>
internal sealed record PropertyVerdict(ExperimentProperty Property, IReadOnlyList<ulong> True, IReadOnlyList<ulong> False)
{
    /// <summary>True where the experiment passes by it.</summary>
    public bool Holds => Property.Kind == PropertyKind.Always ? False.Count == 0 && True.Count > 0 : True.Count > 0;

    /// <summary>A seed that shows it: one that breaks an <c>always</c>, or one that makes a <c>sometimes</c> true.</summary>
    public ulong? Example => Property.Kind == PropertyKind.Always ? (False.Count > 0 ? False[0] : null) : True.Count > 0 ? True[0] : null;
}

/// <summary>What one run showed.</summary>
/// <param name="Result">How it went.</param>
/// <param name="Console">Of the safety phase.</param>
/// <param name="QuietConsole">Of the quiet phase; empty where there was none.</param>
internal sealed record RunEvidence(RunResult Result, string Console, string QuietConsole);

/// <summary>Properties against what was seen.</summary>
internal static class Judge
{
    public static IReadOnlyList<PropertyVerdict> Of(Experiment experiment, IReadOnlyList<RunEvidence> runs) =>
        [.. experiment.Properties.Select(property =>
        {
            var byTruth = runs.ToLookup(run => IsTrue(property, run), run => run.Result.Seed);
            return new PropertyVerdict(property, [.. byTruth[true]], [.. byTruth[false]]);
        })];

    public static bool IsTrue(ExperimentProperty property, RunEvidence run) => property.Subject switch
    {
        PropertySubject.Console => Shows(run.Console, property.Value),
        PropertySubject.NoConsole => !Shows(run.Console, property.Value),
        PropertySubject.QuietConsole => Shows(run.QuietConsole, property.Value),
        PropertySubject.NoQuietConsole => !Shows(run.QuietConsole, property.Value),
        PropertySubject.Exit => Is(run.Result.Safety.Exit, property.Value),
        PropertySubject.QuietExit => Is(run.Result.Quiet?.Exit, property.Value),
        PropertySubject.Check => run.Result.Checks.GetValueOrDefault(property.Value),
        _ => run.Result.Safety.Firings.GetValueOrDefault(property.Value) > 0,
    };

    private static bool Is(string? left, string right) => string.Equals(left, right, StringComparison.Ordinal);

    // The console has CR LF, which no pattern should have to know.
    private static bool Shows(string console, string pattern) => Regex.IsMatch(
        console.Replace("\r", "", StringComparison.Ordinal), pattern, RegexOptions.Multiline | RegexOptions.CultureInvariant, TimeSpan.FromSeconds(10));
}
