using System.Globalization;

namespace ActorVmm.Hypervisor.Soft.Tests.Differential;

/// <summary>How the environment steers a run.</summary>
internal static class Settings
{
    /// <summary>How many cases; the nightly run sets 1000000.</summary>
    public const string CasesVariable = "ACTORVMM_DIFF_CASES";

    /// <summary>The run's seed, decimal or 0x hexadecimal.</summary>
    public const string SeedVariable = "ACTORVMM_DIFF_SEED";

    /// <summary>One case, as CASESEED:SLOT.</summary>
    public const string CaseVariable = "ACTORVMM_DIFF_CASE";

    public static ulong? Number(string variable) =>
        Environment.GetEnvironmentVariable(variable) is { Length: > 0 } text ? Parse(text) : null;

    public static ulong Parse(string text) => text.StartsWith("0x", StringComparison.OrdinalIgnoreCase)
        ? ulong.Parse(text[2..], NumberStyles.HexNumber, CultureInfo.InvariantCulture)
        : ulong.Parse(text, CultureInfo.InvariantCulture);
}
