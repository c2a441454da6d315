using System.Diagnostics.Metrics;
using System.Text.Json;
using ActorVmm.Actors.Host.Vm.Vcpus;
using ActorVmm.Hypervisor;

namespace ActorVmm.Host.Firecracker;

/// <summary>
/// Firecracker's <c>exit_*_agg</c>: least, greatest and added-up microseconds of the exits of one VM, by kind, since the line before. They
/// are those of the exits that are sampled (one in 1024), and only these are timed at all; the listener is what makes them be.
/// </summary>
internal sealed class ExitTimes : IDisposable
{
    private static readonly (VcpuExitKind Kind, string Name)[] s_kinds =
    [
        (VcpuExitKind.PortRead, "exit_io_in_agg"), (VcpuExitKind.PortWrite, "exit_io_out_agg"),
        (VcpuExitKind.MmioRead, "exit_mmio_read_agg"), (VcpuExitKind.MmioWrite, "exit_mmio_write_agg"),
    ];

    private readonly MeterListener _listener = new();
    private readonly Lock _gate = new();
    private readonly (double Least, double Greatest, double Sum)[] _times = new (double, double, double)[s_kinds.Length];
    private readonly Func<string?> _vm;

    /// <param name="vm">The VM's name, once it runs.</param>
    public ExitTimes(Func<string?> vm)
    {
        _vm = vm;
        _listener.InstrumentPublished = static (instrument, listener) =>
        {
            if (instrument.Meter.Name == ExitTelemetry.MeterName && instrument.Name == ExitTelemetry.DurationName)
                listener.EnableMeasurementEvents(instrument);
        };
        _listener.SetMeasurementEventCallback<double>((_, seconds, tags, _) => Take(seconds, tags));
        _listener.Start();
    }

    /// <summary>Writes what has come since the last call.</summary>
    public void WriteTo(Utf8JsonWriter json)
    {
        lock (_gate)
        {
            for (var i = 0; i < s_kinds.Length; i++)
            {
                json.WriteStartObject(s_kinds[i].Name);
                json.WriteNumber("min_us", (long)(_times[i].Least * 1e6));
                json.WriteNumber("max_us", (long)(_times[i].Greatest * 1e6));
                json.WriteNumber("sum_us", (long)(_times[i].Sum * 1e6));
                json.WriteEndObject();
            }

            Array.Clear(_times);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _listener.Dispose();

    private void Take(double seconds, ReadOnlySpan<KeyValuePair<string, object?>> tags)
    {
        string? vm = null, kind = null;
        foreach (var (key, value) in tags)
        {
            if (key is "vm") vm = value as string;
            if (key is "kind") kind = value as string;
        }

        var index = Array.FindIndex(s_kinds, known => string.Equals(known.Kind.ToString(), kind, StringComparison.Ordinal));
        if (index < 0 || !string.Equals(vm, _vm(), StringComparison.Ordinal)) return;
        lock (_gate)
        {
            ref var times = ref _times[index];
            times = (times.Sum > 0 ? Math.Min(times.Least, seconds) : seconds, Math.Max(times.Greatest, seconds), times.Sum + seconds);
        }
    }
}
