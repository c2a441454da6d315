using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;
using ActorVmm.Host.Hypervisors;
using ActorVmm.Hypervisor;

namespace ActorVmm.Host.Commands;

/// <summary>What works on this host, and what to do about what does not. Always probes afresh.</summary>
internal sealed class DoctorCommand(HostServices services, TextWriter output, Func<IReadOnlyList<ProbeItem>>? hostFacts = null)
{
    // What an attribute cannot say: the names of hypervisors and kernels are for people.
    private static readonly DoctorJson s_json =
        new(new JsonSerializerOptions(DoctorJson.Default.Options) { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping });

    /// <summary>Prints the report.</summary>
    /// <returns><see cref="ExitCodes.Success"/> where some hypervisor runs guests here, else <see cref="ExitCodes.Failure"/>.</returns>
    public int Run(bool json)
    {
        var host = (hostFacts ?? HostFacts.Collect)();
        var reports = services.Hypervisors.ProbeAll();
        var chosen = reports.FirstOrDefault(report => report.Usable)?.Hypervisor;
        var verdict = Verdict(reports, chosen);
        if (json) output.WriteLine(JsonSerializer.Serialize(new DoctorReport(host, reports, chosen, verdict), s_json.DoctorReport));
        else Print(host, reports, verdict);
        return chosen is null ? ExitCodes.Failure : ExitCodes.Success;
    }

    private void Print(IReadOnlyList<ProbeItem> host, IReadOnlyList<ProbeReport> reports, string verdict)
    {
        output.WriteLine("host");
        Items(host);
        foreach (var report in reports)
        {
            output.WriteLine();
            output.WriteLine($"hypervisor {report.Hypervisor}");
            Items(report.Items);
            output.WriteLine($"  => {report.Verdict}");
        }
        output.WriteLine();
        output.WriteLine(verdict);
    }

    private void Items(IReadOnlyList<ProbeItem> items)
    {
        var width = items.Count == 0 ? 0 : items.Max(item => item.Name.Length);
        foreach (var item in items) output.WriteLine($"  {(item.Works ? "ok  " : "NO  ")} {item.Name.PadRight(width)}  {item.Detail}");
    }

    private static string Verdict(IReadOnlyList<ProbeReport> reports, string? chosen)
    {
        if (chosen is null) return "verdict: no hypervisor runs guests on this host; see the lines marked NO";
        var passedOver = reports.TakeWhile(report => report.Hypervisor != chosen).Select(report => report.Verdict).ToArray();
        return passedOver.Length == 0
            ? $"verdict: {chosen} chosen; next: ./actorvmm demo"
            : $"verdict: {string.Join("; ", passedOver)}. {chosen} chosen; next: ./actorvmm demo";
    }
}

/// <summary>What <c>doctor --json</c> prints.</summary>
/// <param name="Host">What holds whatever the hypervisor.</param>
/// <param name="Hypervisors">Each hypervisor's report, in the order of preference.</param>
/// <param name="Chosen">The one that <c>auto</c> takes; null where there is none.</param>
/// <param name="Verdict">One line for people.</param>
internal sealed record DoctorReport(
    IReadOnlyList<ProbeItem> Host, IReadOnlyList<ProbeReport> Hypervisors, string? Chosen, string Verdict);

[JsonSourceGenerationOptions(WriteIndented = true, PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower)]
[JsonSerializable(typeof(DoctorReport))]
internal sealed partial class DoctorJson : JsonSerializerContext;
