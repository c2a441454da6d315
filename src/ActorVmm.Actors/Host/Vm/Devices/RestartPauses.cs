using System.Diagnostics;
using System.Globalization;

namespace ActorVmm.Actors.Host.Vm.Devices;

/// <summary>
/// How long a device was away when it failed: host time from the exception in its handler until the next instance has taken over the
/// checkpoint and let its effects out. The latest <see cref="Kept"/> are kept. Touched by whoever restarts the device.
/// </summary>
internal sealed class RestartPauses
{
    /// <summary>So many pauses are kept.</summary>
    public const int Kept = 16_384;

    private readonly List<TimeSpan> _latest = [];
    private long _failed;
    private int _next;

    /// <summary>An exception has left a handler; the pause begins.</summary>
    public void Failed() => _failed = Stopwatch.GetTimestamp();

    /// <summary>The next instance is in its place; the pause ends.</summary>
    public void Restarted() => Add(Stopwatch.GetElapsedTime(_failed));

    /// <summary>One pause more.</summary>
    public void Add(TimeSpan pause)
    {
        if (_latest.Count < Kept) _latest.Add(pause);
        else _latest[_next] = pause;
        _next = (_next + 1) % Kept;
    }

    /// <summary>
    /// The pause that <paramref name="percent"/> of the kept ones do not exceed (nearest rank); null where there is none.
    /// </summary>
    public TimeSpan? Percentile(int percent)
    {
        if (_latest.Count == 0) return null;
        TimeSpan[] sorted = [.. _latest.Order()];
        return sorted[Math.Max(0, (int)Math.Ceiling(sorted.Length * percent / 100.0) - 1)];
    }

    /// <summary>Median, 99th percentile and longest, in milliseconds.</summary>
    public override string ToString() => _latest.Count == 0 ? "none" : string.Create(CultureInfo.InvariantCulture,
        $"p50 {Percentile(50)!.Value.TotalMilliseconds:F2} ms, p99 {Percentile(99)!.Value.TotalMilliseconds:F2} ms, "
        + $"max {Percentile(100)!.Value.TotalMilliseconds:F2} ms");
}
