using System.Diagnostics;
using System.Diagnostics.Metrics;
using ActorVmm.Hypervisor;

namespace ActorVmm.Actors.Host.Vm.Vcpus;

/// <summary>
/// Latency and traces of exits, by sample: one exit in 1024 of each vCPU is timed, and only while somebody listens. All other exits pay
/// for one test of a counter that they count anyway.
/// </summary>
public static class ExitTelemetry
{
    /// <summary>Name of the activity source.</summary>
    public const string Name = "ActorVmm";

    /// <summary>Name of the histogram of exits.</summary>
    public const string DurationName = "actorvmm.exit.duration";

    /// <summary>Name of the meter of the histograms.</summary>
    public const string MeterName = Name + ".Exits";

    /// <summary>An exit whose number has none of these bits is sampled.</summary>
    internal const long SampleMask = 1023;

    private static readonly ActivitySource s_source = new(Name);
    private static readonly Meter s_meter = new(MeterName);

    private static readonly Histogram<double> s_duration = s_meter.CreateHistogram(
        DurationName, "s", "From a vCPU's exit to its answer; one exit in 1024.",
        tags: null, new InstrumentAdvice<double>
        {
            HistogramBucketBoundaries = [1e-7, 2.5e-7, 5e-7, 1e-6, 2.5e-6, 5e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1],
        });

    private static readonly Histogram<double> s_request = s_meter.CreateHistogram(
        "actorvmm.request.duration", "s", "From the taking of a virtio request to its answer; one request in 1024.",
        tags: null, new InstrumentAdvice<double>
        {
            HistogramBucketBoundaries = [1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 1e-3, 1e-2, 0.1, 1, 10],
        });

    /// <summary>True while anybody listens to the requests' histogram or to the source.</summary>
    internal static bool AreRequestsWatched => s_request.Enabled || s_source.HasListeners();

    /// <summary>The sampled exit within which this thread is at the moment; null where it is in none.</summary>
    internal static Activity? CurrentExit =>
        s_source.HasListeners() && Activity.Current is { } current && ReferenceEquals(current.Source, s_source) ? current : null;

    /// <summary>True while anybody listens to the histogram or to the source.</summary>
    public static bool IsWatched => s_duration.Enabled || s_source.HasListeners();

    internal static ExitSample Begin(string vm, int vcpu, VcpuExitKind kind, ulong address)
    {
        var activity = s_source.StartActivity("exit");
        activity?.SetTag("vm", vm).SetTag("vcpu", vcpu).SetTag("kind", kind.ToString()).SetTag("address", address);
        return new ExitSample(vm, kind, Stopwatch.GetTimestamp(), activity);
    }

    internal static void End(in ExitSample sample, string device, string outcome)
    {
        s_duration.Record(Stopwatch.GetElapsedTime(sample.Began).TotalSeconds,
            new("vm", sample.Vm), new("device", device), new("kind", sample.Kind.ToString()));
        if (sample.Activity is not { } activity) return;
        activity.SetTag("device", device).SetTag("outcome", outcome);
        activity.Dispose();
    }

    /// <summary>The span of a request; the exit that rang for it is its parent, and stays this thread's current one.</summary>
    internal static Activity? BeginRequest(Activity? exit)
    {
        var current = Activity.Current;
        var activity = s_source.StartActivity("request", ActivityKind.Internal, exit?.Context ?? default);
        Activity.Current = current;
        return activity;
    }

    internal static void EndRequest(Activity? activity, TimeSpan duration, string vm, string device, int queue)
    {
        s_request.Record(duration.TotalSeconds, new("vm", vm), new("device", device), new("queue", queue));
        End(activity?.SetTag("vm", vm).SetTag("device", device).SetTag("queue", queue));
    }

    /// <summary>It will never be answered: the device was reset.</summary>
    internal static void AbandonRequest(Activity? activity) => End(activity?.SetStatus(ActivityStatusCode.Error, "abandoned"));

    private static void End(Activity? activity)
    {
        // The end of a span makes its parent the current one of this thread, which may be in another exit or in none.
        var current = Activity.Current;
        activity?.Dispose();
        Activity.Current = current;
    }
}

/// <summary>One exit that is being timed.</summary>
internal readonly record struct ExitSample(string Vm, VcpuExitKind Kind, long Began, Activity? Activity);
