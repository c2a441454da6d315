using System.Diagnostics.Metrics;
using System.Globalization;
using System.Text;

namespace ActorVmm.Host.Metrics;

/// <summary>
/// Meters as Prometheus reads them (text format 0.0.4). It listens itself instead of through OpenTelemetry's exporter: that one exists as
/// beta only, holds 2000 series per instrument, and goes on reporting VMs that have been removed.
/// </summary>
internal sealed class PrometheusText : IDisposable
{
    private readonly MeterListener _listener = new();
    private readonly Lock _gate = new();
    private readonly SortedDictionary<string, Family> _families = new(StringComparer.Ordinal);
    private readonly Action _refresh;
    private readonly Func<string, bool> _isKnown;

    /// <param name="refresh">Called before each look.</param>
    /// <param name="isKnown">Whether there is a VM of this name: the series of one that has gone are forgotten.</param>
    /// <param name="own">A meter that is shown; others of its name are another host's in this process.</param>
    /// <param name="meters">Names of more meters that are shown.</param>
    public PrometheusText(Action refresh, Func<string, bool> isKnown, Meter own, params string[] meters)
    {
        (_refresh, _isKnown) = (refresh, isKnown);
        _listener.InstrumentPublished = (instrument, listener) =>
        {
            if (ReferenceEquals(instrument.Meter, own) || meters.Contains(instrument.Meter.Name, StringComparer.Ordinal))
                listener.EnableMeasurementEvents(instrument);
        };
        _listener.SetMeasurementEventCallback<long>((instrument, value, tags, _) => Take(instrument, value, tags));
        _listener.SetMeasurementEventCallback<int>((instrument, value, tags, _) => Take(instrument, value, tags));
        _listener.SetMeasurementEventCallback<double>((instrument, value, tags, _) => Take(instrument, value, tags));
        _listener.Start();
    }

    /// <summary>All of it, as of now.</summary>
    public string Write()
    {
        lock (_gate)
        {
            // What is observed is told anew each time: a VM that has gone is not told again.
            foreach (var family in _families.Values) family.Forget(_isKnown);
            _refresh();
            _listener.RecordObservableInstruments();
            var text = new StringBuilder();
            foreach (var family in _families.Values) family.Write(text);
            return text.ToString();
        }
    }

    public void Dispose() => _listener.Dispose();

    private void Take(Instrument instrument, double value, ReadOnlySpan<KeyValuePair<string, object?>> tags)
    {
        var labels = Labels(tags);
        string? vm = null;
        foreach (var (key, tag) in tags)
            if (key is "vm") vm = tag as string;
        lock (_gate)
        {
            var name = NameOf(instrument);
            if (!_families.TryGetValue(name, out var family)) _families.Add(name, family = new Family(name, instrument));
            family.Take(labels, vm, value);
        }
    }

    private static string NameOf(Instrument instrument)
    {
        var name = new StringBuilder(instrument.Name.Replace('.', '_').Replace('-', '_'));
        var unit = instrument.Unit switch { "s" => "_seconds", "By" => "_bytes", _ => "" };
        if (!instrument.Name.EndsWith(unit.Replace('_', '.'), StringComparison.Ordinal)) name.Append(unit);
        if (IsCounter(instrument)) name.Append("_total");
        return name.ToString();
    }

    private static bool IsCounter(Instrument instrument) => instrument.GetType().Name is var type
        && (type.StartsWith("ObservableCounter", StringComparison.Ordinal) || type.StartsWith("Counter", StringComparison.Ordinal));

    private static string Labels(ReadOnlySpan<KeyValuePair<string, object?>> tags)
    {
        if (tags.Length == 0) return "";
        var text = new StringBuilder();
        foreach (var (key, value) in tags)
        {
            if (text.Length > 0) text.Append(',');
            text.Append(key.Replace('.', '_')).Append("=\"");
            foreach (var c in Convert.ToString(value, CultureInfo.InvariantCulture) ?? "")
                text.Append(c switch { '\\' => "\\\\", '"' => "\\\"", '\n' => "\\n", _ => c.ToString() });
            text.Append('"');
        }

        return text.ToString();
    }

    /// <summary>One metric with its series.</summary>
    private sealed class Family(string name, Instrument instrument)
    {
        private readonly double[] _bounds = [.. (instrument as Histogram<double>)?.Advice?.HistogramBucketBoundaries ?? []];

        private readonly SortedDictionary<string, (double[] Numbers, string? Vm)> _series = new(StringComparer.Ordinal);

        private bool IsObserved => instrument.IsObservable;
        private bool IsHistogram => instrument is Histogram<double>;

        /// <summary>Drops what will be told anew, and what is of a VM that has gone.</summary>
        public void Forget(Func<string, bool> isKnown)
        {
            if (IsObserved)
            {
                _series.Clear();
                return;
            }

            foreach (var gone in _series.Where(one => one.Value.Vm is { } vm && !isKnown(vm)).Select(one => one.Key).ToArray())
                _series.Remove(gone);
        }

        // A histogram's series: its buckets, then more, then the sum.
        public void Take(string labels, string? vm, double value)
        {
            if (!_series.TryGetValue(labels, out var series))
                _series.Add(labels, series = (new double[IsHistogram ? _bounds.Length + 2 : 1], vm));
            var numbers = series.Numbers;
            if (!IsHistogram)
            {
                numbers[0] = IsObserved ? value : numbers[0] + value;
                return;
            }

            var bucket = Array.FindIndex(_bounds, bound => value <= bound);
            numbers[bucket < 0 ? _bounds.Length : bucket]++;
            numbers[^1] += value;
        }

        public void Write(StringBuilder text)
        {
            if (_series.Count == 0) return;
            var type = IsHistogram ? "histogram" : IsCounter(instrument) ? "counter" : "gauge";
            text.Append(CultureInfo.InvariantCulture, $"# HELP {name} {instrument.Description}\n# TYPE {name} {type}\n");
            foreach (var (labels, (numbers, _)) in _series)
            {
                if (IsHistogram) WriteBuckets(text, labels, numbers);
                else text.Append(name).Append(labels.Length > 0 ? "{" + labels + "}" : "").Append(CultureInfo.InvariantCulture,
                    $" {numbers[0]}\n");
            }
        }

        private void WriteBuckets(StringBuilder text, string labels, double[] numbers)
        {
            var comma = labels.Length > 0 ? "," : "";
            double sum = 0;
            for (var i = 0; i <= _bounds.Length; i++)
            {
                sum += numbers[i];
                var bound = i < _bounds.Length ? _bounds[i].ToString(CultureInfo.InvariantCulture) : "+Inf";
                text.Append(CultureInfo.InvariantCulture, $"{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {sum}\n");
            }

            var braces = labels.Length > 0 ? "{" + labels + "}" : "";
            text.Append(CultureInfo.InvariantCulture, $"{name}_sum{braces} {numbers[^1]}\n{name}_count{braces} {sum}\n");
        }
    }
}
