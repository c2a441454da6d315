using System.Diagnostics;

namespace ActorVmm.Bench;

/// <summary>What is said about a series of samples.</summary>
internal static class Sampling
{
    public static double Median(double[] values) => Quantile(values, 0.5);

    /// <summary>The smallest value that at least the <paramref name="share"/> of all values do not exceed.</summary>
    public static double Quantile(double[] values, double share)
    {
        var sorted = values.Order().ToArray();
        return sorted[Math.Clamp((int)Math.Ceiling(share * sorted.Length) - 1, 0, sorted.Length - 1)];
    }

    /// <summary>The median of what each round says about the two: a busy host slows both halves of a round alike.</summary>
    public static double MedianRatio(double[] values, double[] reference) =>
        Median([.. values.Zip(reference, (value, against) => value / against)]);

    /// <summary>From one time stamp of the stopwatch to another; finer than a TimeSpan, whose ticks are 100 ns.</summary>
    public static double Microseconds(long from, long to) => (to - from) * 1e6 / Stopwatch.Frequency;

    public static double MicrosecondsSince(long from) => Microseconds(from, Stopwatch.GetTimestamp());

    public static string P50P99(double[] microseconds) =>
        $"p50 {Median(microseconds),7:F2}  p99 {Quantile(microseconds, 0.99),7:F2}  best {microseconds.Min(),7:F2} us";
}
