using System.Text.Json;
using System.Text.Json.Serialization;
using ActorVmm.Hypervisor;

namespace ActorVmm.Host.Hypervisors;

/// <summary>
/// Remembers what a hypervisor's probe found, per boot of the host and per build of the hypervisor: the probe takes a second, and its
/// answer changes only when the kernel or we do. Whatever is wrong with the file, the probe is run again.
/// </summary>
public sealed class ProbeCache
{
    private const string BootIdPath = "/proc/sys/kernel/random/boot_id";

    private readonly string _directory;
    private readonly Func<string?> _bootId;

    /// <param name="directory">Where the files are kept; made when the first is written.</param>
    /// <param name="bootId">Identifies this boot of the host; null where it cannot be told (nothing is remembered then).</param>
    public ProbeCache(string directory, Func<string?>? bootId = null)
    {
        _directory = directory;
        _bootId = bootId ?? ReadBootId;
    }

    /// <summary>The remembered report of this boot, else a new one, which is remembered.</summary>
    /// <param name="hypervisor">What to ask.</param>
    /// <param name="remembered">True where the report was made earlier.</param>
    public ProbeReport Get(IHypervisor hypervisor, out bool remembered)
    {
        remembered = false;
        if (Key(hypervisor) is not { } key) return hypervisor.Probe();
        var path = Path.Combine(_directory, $"probe-{hypervisor.Name}.json");
        if (Read(path) is { } entry && string.Equals(entry.Key, key, StringComparison.Ordinal))
        {
            remembered = true;
            return entry.Report;
        }
        var report = hypervisor.Probe();
        Write(path, new Entry(key, report));
        return report;
    }

    private string? Key(IHypervisor hypervisor)
    {
        // Permission to use the device may change within a boot (a group, a container): then what was found no longer holds.
        var access = File.Exists("/dev/kvm") ? Environment.UserName : "no device";
        return _bootId() is { } boot ? $"{boot} {hypervisor.GetType().Module.ModuleVersionId} {access}" : null;
    }

    private static Entry? Read(string path)
    {
        try
        {
            var entry = JsonSerializer.Deserialize(File.ReadAllBytes(path), ProbeJson.Default.Entry);
            // A file cut short or edited may lack anything.
            return entry is { Key: not null, Report: { Hypervisor: not null, Items: not null, Verdict: not null } } ? entry : null;
        }
        catch (Exception broken) when (broken is IOException or UnauthorizedAccessException or JsonException)
        {
            return null;
        }
    }

    private void Write(string path, Entry entry)
    {
        try
        {
            Directory.CreateDirectory(_directory);
            // Whole or not at all: another process may read at the same time.
            var partial = $"{path}.{Environment.ProcessId}";
            File.WriteAllBytes(partial, JsonSerializer.SerializeToUtf8Bytes(entry, ProbeJson.Default.Entry));
            File.Move(partial, path, overwrite: true);
        }
        catch (Exception unwritable) when (unwritable is IOException or UnauthorizedAccessException)
        {
            // A cache that cannot be written costs a second per start, no more.
        }
    }

    private static string? ReadBootId()
    {
        try
        {
            return File.ReadAllText(BootIdPath).Trim();
        }
        catch (Exception unreadable) when (unreadable is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    internal sealed record Entry(string Key, ProbeReport Report);
}

[JsonSerializable(typeof(ProbeCache.Entry))]
internal sealed partial class ProbeJson : JsonSerializerContext;
