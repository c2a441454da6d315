using System.Globalization;
using ActorVmm.Hypervisor;

namespace ActorVmm.Host.Hypervisors;

/// <summary>What <c>doctor</c> reports about the host itself, apart from its hypervisors.</summary>
internal static class HostFacts
{
    /// <summary>Processor, kernel, memory, /dev/kvm, nesting, /dev/net/tun. Missing files are facts, not errors.</summary>
    public static IReadOnlyList<ProbeItem> Collect()
    {
        var cpu = ReadLines("/proc/cpuinfo").ToArray();
        var flags = Field(cpu, "flags").Split(' ', StringSplitOptions.RemoveEmptyEntries).ToHashSet(StringComparer.Ordinal);
        var virtualized = flags.Contains("hypervisor");
        var extension = flags.Contains("vmx") ? "VT-x" : flags.Contains("svm") ? "AMD-V" : null;
        return
        [
            new("cpu", true, $"{Environment.ProcessorCount} x {Field(cpu, "model name")}"),
            new("kernel", true, string.Join(' ', ReadLines("/proc/sys/kernel/osrelease").DefaultIfEmpty("unknown"))),
            Memory(),
            new("virtualization", extension is not null,
                extension ?? (virtualized
                    ? "the processor offers none: this host is itself a virtual machine without nested virtualization"
                    : "the processor offers none: enable VT-x or AMD-V in the firmware")),
            new("nesting", true, virtualized ? $"this host is a virtual machine; {NestedSetting()}" : "this host is not a virtual machine"),
            Device("/dev/kvm", "load kvm_intel or kvm_amd, or use --hypervisor soft",
                "add the user to the group that owns it (usually kvm)"),
            Device("/dev/net/tun", "load the module tun; without it there is no network device",
                "run as root, or give the user a tap device of its own"),
        ];
    }

    /// <summary>Whether a device node is there and may be opened for reading and writing.</summary>
    internal static ProbeItem Device(string path, string missing, string forbidden)
    {
        if (!File.Exists(path)) return new ProbeItem(path, false, $"missing: {missing}");
        try
        {
            using var handle = File.OpenHandle(path, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite);
            return new ProbeItem(path, true, "present, may be opened");
        }
        catch (UnauthorizedAccessException)
        {
            return new ProbeItem(path, false, $"no permission: {forbidden}");
        }
        catch (IOException refused)
        {
            return new ProbeItem(path, false, $"cannot be opened: {refused.Message}");
        }
    }

    private static ProbeItem Memory()
    {
        var lines = ReadLines("/proc/meminfo").ToArray();
        var available = Field(lines, "MemAvailable").Split(' ')[0];
        var known = ulong.TryParse(available, NumberStyles.None, CultureInfo.InvariantCulture, out var kib);
        var enough = !known || kib >= 256 * 1024;
        var text = known ? string.Create(CultureInfo.InvariantCulture, $"{kib / 1024} MiB available") : "unknown";
        return new ProbeItem("memory", enough, enough ? text : $"{text}: a guest of 256 MiB does not fit");
    }

    private static string NestedSetting()
    {
        foreach (var module in new[] { "kvm_intel", "kvm_amd" })
            if (ReadLines($"/sys/module/{module}/parameters/nested").FirstOrDefault() is { } setting) return $"{module} nested={setting}";
        return "neither kvm_intel nor kvm_amd is loaded";
    }

    private static string Field(IEnumerable<string> lines, string name)
    {
        foreach (var line in lines)
        {
            var colon = line.IndexOf(':', StringComparison.Ordinal);
            if (colon > 0 && line.AsSpan(0, colon).Trim().SequenceEqual(name)) return line[(colon + 1)..].Trim();
        }
        return "";
    }

    private static string[] ReadLines(string path)
    {
        try
        {
            return File.ReadAllLines(path);
        }
        catch (Exception unreadable) when (unreadable is IOException or UnauthorizedAccessException)
        {
            return [];
        }
    }
}
