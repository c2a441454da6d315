using ActorVmm.Actors.Host.Vm.Vcpus;
using ActorVmm.Host.Api;
using OpenTelemetry;
using OpenTelemetry.Metrics;
using OpenTelemetry.Resources;
using OpenTelemetry.Trace;
using Serilog;

namespace ActorVmm.Host.Metrics;

/// <summary>
/// Metrics and traces to an OpenTelemetry collector, where the usual variables of the environment name one:
/// <c>OTEL_EXPORTER_OTLP_ENDPOINT</c>, or those for metrics or traces alone. Protocol, headers, intervals, sampler and resource are read
/// from their variables by the SDK. Without an endpoint nothing of the SDK is loaded.
/// </summary>
internal sealed class OtlpExport : IDisposable
{
    private const string Endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT";
    private const string MetricsEndpoint = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT";
    private const string TracesEndpoint = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

    private readonly MeterProvider? _metrics;
    private readonly TracerProvider? _traces;

    private OtlpExport(bool metrics, bool traces)
    {
        var resource = ResourceBuilder.CreateDefault();
        if (!IsSet("OTEL_SERVICE_NAME")) resource.AddService("actorvmm", serviceVersion: ApiPage.Version);
        if (metrics)
        {
            _metrics = Sdk.CreateMeterProviderBuilder().SetResourceBuilder(resource)
                .AddMeter(HostMeters.Name, ExitTelemetry.MeterName, "System.Runtime").AddOtlpExporter().Build();
        }

        if (traces) _traces = Sdk.CreateTracerProviderBuilder().SetResourceBuilder(resource).AddSource(ExitTelemetry.Name).AddOtlpExporter().Build();
    }

    /// <summary>Begins where the environment asks for it; else null. What cannot be begun is logged: a host runs without it as well.</summary>
    public static OtlpExport? Start(ILogger log)
    {
        var all = IsSet(Endpoint);
        var metrics = (all || IsSet(MetricsEndpoint)) && !IsOff("OTEL_METRICS_EXPORTER");
        var traces = (all || IsSet(TracesEndpoint)) && !IsOff("OTEL_TRACES_EXPORTER");
        var isDisabled = string.Equals(Environment.GetEnvironmentVariable("OTEL_SDK_DISABLED"), "true", StringComparison.OrdinalIgnoreCase);
        if (isDisabled || (!metrics && !traces)) return null;
        try
        {
            return new OtlpExport(metrics, traces);
        }
        catch (Exception wrong) when (wrong is FormatException or UriFormatException or ArgumentException or NotSupportedException)
        {
            log.Error("Nothing is sent to an OpenTelemetry collector: {Why}", wrong.Message);
            return null;
        }
    }

    /// <summary>Sends what is left, and ends; a collector that does not answer holds this up for a moment only.</summary>
    public void Dispose()
    {
        const int PatienceMilliseconds = 2000;
        _metrics?.Shutdown(PatienceMilliseconds);
        _traces?.Shutdown(PatienceMilliseconds);
        _metrics?.Dispose();
        _traces?.Dispose();
    }

    private static bool IsSet(string variable) => Environment.GetEnvironmentVariable(variable) is { Length: > 0 };

    private static bool IsOff(string variable) =>
        string.Equals(Environment.GetEnvironmentVariable(variable), "none", StringComparison.OrdinalIgnoreCase);
}
