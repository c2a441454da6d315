namespace ActorVmm.Testing;

/// <summary>Whether the long forms of the tests are wanted: <c>ACTORVMM_NIGHTLY=1</c>.</summary>
public static class Nightly
{
    /// <summary>True in the nightly run.</summary>
    public static bool Wanted { get; } =
        string.Equals(Environment.GetEnvironmentVariable("ACTORVMM_NIGHTLY"), "1", StringComparison.Ordinal);

    /// <summary>Why a test of the nightly run is skipped in others.</summary>
    public const string Reason = "only in the nightly run: set ACTORVMM_NIGHTLY=1";

    /// <summary>The number for this run.</summary>
    public static long Count(long always, long nightly) => Wanted ? nightly : always;
}
