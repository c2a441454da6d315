using System.Text.Json.Serialization;

namespace ActorVmm.Host.Experiments;

/// <summary>What <c>experiment run --json</c> prints.</summary>
internal sealed record ExperimentReport(
    string Experiment, string Version, string Folder, IReadOnlyList<PropertyReport> Properties, IReadOnlyList<RunResult> Runs);

/// <summary>A property and what the runs say of it.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Is">always, sometimes or reachable.</param>
/// <param name="Holds">Whether the runs bear it out.</param>
/// <param name="True">Seeds of the runs in which it was true.</param>
/// <param name="False">Seeds of those in which it was not.</param>
internal sealed record PropertyReport(string Name, string Is, bool Holds, IReadOnlyList<ulong> True, IReadOnlyList<ulong> False);

/// <summary>Files of a run, and what is printed for machines.</summary>
[JsonSourceGenerationOptions(WriteIndented = true, PropertyNamingPolicy = JsonKnownNamingPolicy.KebabCaseLower)]
[JsonSerializable(typeof(ExperimentReport))]
[JsonSerializable(typeof(RunResult))]
[JsonSerializable(typeof(BootResult))]
internal sealed partial class ExperimentJson : JsonSerializerContext;
