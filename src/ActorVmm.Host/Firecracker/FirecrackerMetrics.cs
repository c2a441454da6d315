using System.Globalization;
using System.Text.Json;
using ActorVmm.Actors;
using ActorVmm.Actors.Host.Vm;
using ActorVmm.Actors.Host.Vm.Devices;

namespace ActorVmm.Host.Firecracker;

/// <summary>
/// Firecracker's metrics: one JSON object per line, counters since the line before. The numbers are read from the VM's counters when a line
/// is due; nothing is counted for it while the guest runs.
/// </summary>
/// <param name="time">The clock of the lines.</param>
internal sealed class FirecrackerMetrics(TimeProvider time) : IDisposable
{
    private readonly Lock _gate = new();
    private readonly SortedDictionary<string, long> _api = new(StringComparer.Ordinal);
    private StreamWriter? _file;
    private ExitTimes? _times;
    private VmReadings _last = VmReadings.None;

    /// <summary>Where the counters come from.</summary>
    public Func<VmReadings> Readings { get; set; } = static () => VmReadings.None;

    /// <summary>What the present run was built from: it has the names of the devices. Null where nothing runs.</summary>
    public Func<VmSpec?> Spec { get; set; } = static () => null;

    /// <summary>True where there is a file.</summary>
    public bool IsOpen
    {
        get { lock (_gate) return _file is not null; }
    }

    /// <summary>Opens the file to append to; what is wrong with it, or null.</summary>
    public string? Open(string path)
    {
        lock (_gate)
        {
            try
            {
                _file = new StreamWriter(new FileStream(path, FileMode.Append, FileAccess.Write, FileShare.ReadWrite));
                _times ??= new ExitTimes(() => Spec()?.Name);
                return null;
            }
            catch (Exception cannot) when (
                cannot is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
            {
                return cannot.Message;
            }
        }
    }

    /// <summary>A call of the API came.</summary>
    public void CountRequest(string method, string path) => Count($"{Section(method)}.{Name(path)}_count");

    /// <summary>A call of the API was refused.</summary>
    public void CountFailure(string method, string path) => Count($"{Section(method)}.{Name(path)}_fails");

    /// <summary>Writes a line, where there is a file.</summary>
    public void Flush()
    {
        lock (_gate)
        {
            if (_file is null) return;
            var now = Readings();
            using var bytes = new MemoryStream();
            using (var json = new Utf8JsonWriter(bytes)) WriteLine(json, _last, now);
            try
            {
                _file.WriteLine(System.Text.Encoding.UTF8.GetString(bytes.ToArray()));
                _file.Flush();
            }
            catch (IOException)
            {
                return; // a full disk costs metrics, never the VM; the counts go into the next line
            }

            _last = now;
            _api.Clear();
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Flush();
        lock (_gate)
        {
            _file?.Dispose();
            _file = null;
            _times?.Dispose();
        }
    }

    private void WriteLine(Utf8JsonWriter json, VmReadings before, VmReadings now)
    {
        json.WriteStartObject();
        json.WriteNumber("utc_timestamp_ms", time.GetUtcNow().ToUnixTimeMilliseconds());
        foreach (var section in _api.GroupBy(pair => pair.Key.Split('.')[0], StringComparer.Ordinal))
        {
            json.WriteStartObject(section.Key);
            foreach (var (key, count) in section) json.WriteNumber(key[(section.Key.Length + 1)..], count);
            json.WriteEndObject();
        }

        long Delta(Func<RangeReadings, bool> which, Func<RangeReadings, long> what) =>
            Math.Max(0, now.Ranges.Where(which).Sum(what) - before.Ranges.Where(which).Sum(what));
        json.WriteStartObject("vcpu");
        json.WriteNumber("exit_io_in", Delta(IsPort, range => range.Reads));
        json.WriteNumber("exit_io_out", Delta(IsPort, range => range.Writes));
        json.WriteNumber("exit_mmio_read", Delta(range => !IsPort(range), range => range.Reads));
        json.WriteNumber("exit_mmio_write", Delta(range => !IsPort(range), range => range.Writes));
        _times?.WriteTo(json);
        json.WriteNumber("failures",
            Math.Max(0, now.Devices.Sum(device => device.Failures) - before.Devices.Sum(device => device.Failures)));
        json.WriteEndObject();
        foreach (var device in now.Devices)
        {
            var old = before.Devices.FirstOrDefault(other => string.Equals(other.Name, device.Name, StringComparison.Ordinal));
            bool Mine(RangeReadings range) => string.Equals(range.Device, device.Name, StringComparison.Ordinal);
            json.WriteStartObject(SectionOf(device.Name));
            if (device.Work.Disk is { } disk) WriteDisk(json, disk, old?.Work.Disk);
            else if (device.Work.Net is { } net) WriteNet(json, net, old?.Work.Net);
            else if (device.Work.Queues is [var queue]) WriteEntropy(json, queue, old?.Work.Queues is [var before0] ? before0 : null);
            else
            {
                json.WriteNumber("read_count", Delta(Mine, range => range.Reads));
                json.WriteNumber("write_count", Delta(Mine, range => range.Writes));
            }

            json.WriteNumber("error_count", Math.Max(0, device.Failures - (old?.Failures ?? 0)));
            json.WriteNumber("restart_count", Math.Max(0, device.Restarts - (old?.Restarts ?? 0)));
            json.WriteEndObject();
        }

        json.WriteEndObject();
    }

    // A run that began meanwhile counts from zero.
    private static void Write(Utf8JsonWriter json, string name, long now, long? before) =>
        json.WriteNumber(name, now >= (before ?? 0) ? now - (before ?? 0) : now);

    private static void WriteDisk(Utf8JsonWriter json, DiskReadings now, DiskReadings? before)
    {
        Write(json, "read_count", now.Reads, before?.Reads);
        Write(json, "read_bytes", now.ReadBytes, before?.ReadBytes);
        Write(json, "write_count", now.Writes, before?.Writes);
        Write(json, "write_bytes", now.WrittenBytes, before?.WrittenBytes);
        Write(json, "flush_count", now.Flushes, before?.Flushes);
        Write(json, "execute_fails", now.Errors, before?.Errors);
        Write(json, "invalid_reqs_count", now.Malformed, before?.Malformed);
        Write(json, "rate_limiter_throttled_events", now.Throttled, before?.Throttled);
    }

    private static void WriteNet(Utf8JsonWriter json, NetReadings now, NetReadings? before)
    {
        Write(json, "rx_packets_count", now.Received, before?.Received);
        Write(json, "rx_bytes_count", now.ReceivedBytes, before?.ReceivedBytes);
        Write(json, "rx_fails", now.ReceivedDropped, before?.ReceivedDropped);
        Write(json, "tx_packets_count", now.Sent, before?.Sent);
        Write(json, "tx_bytes_count", now.SentBytes, before?.SentBytes);
        Write(json, "tx_fails", now.SentDropped, before?.SentDropped);
    }

    private static void WriteEntropy(Utf8JsonWriter json, QueueReadings now, QueueReadings? before)
    {
        Write(json, "entropy_event_count", now.Requests, before?.Requests);
        Write(json, "entropy_bytes", now.BytesToGuest, before?.BytesToGuest);
    }

    private void Count(string key)
    {
        lock (_gate) _api[key] = _api.GetValueOrDefault(key) + 1;
    }

    private static bool IsPort(RangeReadings range) => range.Range.StartsWith("port", StringComparison.Ordinal);

    private static string Section(string method) => $"{method.ToLowerInvariant()}_api_requests";

    // Only names of the contract: a client must not make the line grow.
    private static string Name(string path) => path.Trim('/').Split('/')[0] switch
    {
        "" => "instance_info", "version" => "vmm_version", "machine-config" => "machine_cfg", "actions" => "actions",
            "boot-source" => "boot_source",
        "drives" => "drive", "network-interfaces" => "network", "logger" => "logger", "metrics" => "metrics", "vsock" => "vsock",
            "mmds" => "mmds",
        "cpu-config" => "cpu_cfg", "serial" => "serial", "balloon" => "balloon", "pmem" => "pmem", "vm" => "vm", "entropy" => "entropy",
        "snapshot" => "snapshot", "hotplug" => "hotplug_memory", _ => "other",
    };

    // serial0 is Firecracker's uart, rng0 its entropy; blk0 and net0 are block_ and net_ with the ids that they were given.
    private string SectionOf(string device) => device switch
    {
        "serial0" => "uart",
        "rng0" => "entropy",
        _ when device.StartsWith("blk", StringComparison.Ordinal) => $"block_{IdOf(device, Spec()?.Disks.Select(static disk => disk.Id))}",
        _ when device.StartsWith("net", StringComparison.Ordinal) => $"net_{IdOf(device, Spec()?.Nets.Select(static net => net.Id))}",
        _ => device,
    };

    private static string IdOf(string device, IEnumerable<string>? ids) =>
        int.TryParse(device.AsSpan(3), NumberStyles.None, CultureInfo.InvariantCulture, out var index)
            && ids?.ElementAtOrDefault(index) is { Length: > 0 } id ? id : device[3..];
}
