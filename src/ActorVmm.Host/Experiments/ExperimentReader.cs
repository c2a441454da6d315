using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using ActorVmm.Devices.Faults;
using ActorVmm.Host.Descriptions;
using ActorVmm.Host.Faults;
using ActorVmm.Hypervisor;

namespace ActorVmm.Host.Experiments;

/// <summary>Reads an experiment's file (HOCON). <c>config/experiments/</c> has two.</summary>
internal static class ExperimentReader
{
    /// <exception cref="DescriptionException">Everything that is wrong with it.</exception>
    public static Experiment ReadFile(string path) => Read(Encoding.UTF8.GetString(DescriptionReader.ReadBytes(path)), path);

    /// <exception cref="DescriptionException">Everything that is wrong with it.</exception>
    public static Experiment Read(string text, string source)
    {
        var errors = new ErrorList(source);
        var root = HoconTree.Parse(text, errors);
        errors.ThrowIfAny();
        if (root.Kind != NodeKind.Object) throw new DescriptionException([new(source, 0, 0, "", null, "an experiment is an object { ... }")]);
        var file = new ObjectReader(root, "", errors);
        var experiment = ReadRoot(file) with { Text = text };
        file.Finish();
        errors.ThrowIfAny();
        return experiment;
    }

    private static Experiment ReadRoot(ObjectReader file)
    {
        var name = file.String("name", Need.Required) ?? "";
        if (!DescriptionChecks.IsName(name)) file.Reject("name", "allowed are 1 to 64 letters, digits, '-' and '_'");
        var seeds = file.Object("seeds", Need.Nullable);
        var first = seeds?.Integer("first", Need.Nullable, 0, ulong.MaxValue) ?? 1;
        var count = (int)(seeds?.Integer("count", Need.Nullable, 1, 1_000_000) ?? 10);
        seeds?.Finish();
        var vm = file.Object("vm", Need.Nullable);
        var memory = (int)(vm?.Integer("memory-mib", Need.Nullable, 64, VmLimits.MaxMemoryMib) ?? 256);
        var vcpus = (int)(vm?.Integer("vcpus", Need.Nullable, 1, VmLimits.MaxVcpus) ?? 1);
        var clock = vm?.Choice("clock", Need.Nullable, StringComparison.Ordinal, "virtual", "host");
        vm?.Finish();
        var network = file.Choice("network", Need.Nullable, StringComparison.Ordinal, "none", "inside", "outside") switch
        {
            "inside" => ExperimentNetwork.Inside,
            "outside" => ExperimentNetwork.Outside,
            _ => ExperimentNetwork.None,
        };
        var disks = file.Objects("disks", Need.Nullable).Select(Disk).ToList();
        var safety = file.Object("safety", Need.Required);
        var script = safety is null ? [] : Lines(safety, "script");
        var plan = safety?.Object("faults", Need.Nullable) is { } faults ? FaultSection.Read(faults, seed: 0) : FaultPlan.None;
        safety?.Finish();
        var quiet = file.Object("quiet", Need.Nullable);
        var quietScript = quiet is null ? [] : Lines(quiet, "script");
        quiet?.Finish();
        var checks = file.Objects("checks", Need.Nullable).Select(check => Check(check, disks)).ToList();
        var properties = file.Objects("properties", Need.Required).Select(property => Property(property, checks, plan)).ToList();
        if (properties.Count == 0 && file.Has("properties")) file.Reject("properties", "an experiment without any shows nothing");
        return new Experiment
        {
            Name = name, Explains = file.String("explains", Need.Nullable) ?? "", FirstSeed = first, Seeds = count, MemoryMib = memory, Vcpus = vcpus,
            Clock = clock is "host" ? ClockMode.Host : ClockMode.Virtual, Network = network, Disks = disks, Script = script, QuietScript = quietScript, Plan = plan,
            Properties = properties, Checks = checks, Limit = Limit(file),
        };
    }

    private static TimeSpan Limit(ObjectReader file)
    {
        if (file.String("limit", Need.Nullable) is not { } text) return TimeSpan.FromMinutes(2);
        if (FaultSection.TryTime(text, out var nanoseconds) && nanoseconds is > 0 and <= 86_400_000_000_000) return TimeSpan.FromTicks((long)(nanoseconds / 100));
        file.Reject("limit", "allowed is a host time such as 90s or 5m, up to a day");
        return TimeSpan.FromMinutes(2);
    }

    private static ExperimentDisk Disk(ObjectReader disk)
    {
        var name = disk.String("name", Need.Required) ?? "";
        if (!DescriptionChecks.IsName(name)) disk.Reject("name", "allowed are 1 to 64 letters, digits, '-' and '_'");
        var size = (int)(disk.Integer("size-mib", Need.Required, 1, 65536) ?? 1);
        var format = disk.Choice("format", Need.Nullable, StringComparison.Ordinal, "zeroes", "ext4");
        disk.Finish();
        return new ExperimentDisk(name, size, format is "ext4");
    }

    private static ImageCheck Check(ObjectReader check, List<ExperimentDisk> disks)
    {
        var name = check.String("name", Need.Required) ?? "";
        var disk = check.String("disk", Need.Required) ?? "";
        if (check.Has("disk") && disks.TrueForAll(other => !string.Equals(other.Name, disk, StringComparison.Ordinal)))
            check.Reject("disk", "there is no disk of this name");
        var program = Lines(check, "run");
        if (program.Count == 0) check.Reject("run", "a program and its arguments are expected; the disk's path is added");
        check.Finish();
        return new ImageCheck(name, disk, program);
    }

    private static ExperimentProperty Property(ObjectReader property, List<ImageCheck> checks, FaultPlan plan)
    {
        var name = property.String("name", Need.Required) ?? "";
        var kind = property.Choice("is", Need.Required, StringComparison.Ordinal, "always", "sometimes", "reachable") switch
        {
            "sometimes" => PropertyKind.Sometimes,
            "reachable" => PropertyKind.Reachable,
            _ => PropertyKind.Always,
        };
        ReadOnlySpan<(string Key, PropertySubject Subject)> subjects =
        [
            ("console", PropertySubject.Console), ("no-console", PropertySubject.NoConsole), ("quiet-console", PropertySubject.QuietConsole),
            ("no-quiet-console", PropertySubject.NoQuietConsole), ("exit", PropertySubject.Exit), ("quiet-exit", PropertySubject.QuietExit),
            ("check", PropertySubject.Check), ("fault", PropertySubject.Fault),
        ];
        ExperimentProperty? found = null;
        foreach (var (key, subject) in subjects)
        {
            if (property.String(key, Need.Nullable) is not { } value) continue;
            if (found is not null) property.Reject(key, "a property is about one thing");
            found = new ExperimentProperty(name, kind, subject, value);
            if (Problem(found, checks, plan) is { } problem) property.Reject(key, problem);
        }

        if (found is null) property.RejectWhole("says nothing: give console, no-console, quiet-console, no-quiet-console, exit, quiet-exit, check or fault");
        property.Finish();
        return found ?? new ExperimentProperty(name, kind, PropertySubject.Console, "");
    }

    private static string? Problem(ExperimentProperty property, List<ImageCheck> checks, FaultPlan plan)
    {
        switch (property.Subject)
        {
            case PropertySubject.Exit or PropertySubject.QuietExit:
                return GuestBoot.Exits.Contains(property.Value, StringComparer.Ordinal) ? null : $"one of {string.Join(", ", GuestBoot.Exits)} is expected";
            case PropertySubject.Check:
                return checks.Exists(check => string.Equals(check.Name, property.Value, StringComparison.Ordinal)) ? null : "there is no check of this name";
            case PropertySubject.Fault:
                return plan.Rules.Any(rule => string.Equals(rule.Name, property.Value, StringComparison.Ordinal)) ? null : "there is no rule of this name";
            default:
                try { _ = new Regex(property.Value, RegexOptions.Multiline | RegexOptions.CultureInvariant, TimeSpan.FromSeconds(10)); }
                catch (ArgumentException bad) { return $"is no regular expression: {bad.Message}"; }
                return null;
        }
    }

    private static List<string> Lines(ObjectReader reader, string key)
    {
        var lines = new List<string>();
        foreach (var node in reader.Array(key, Need.Nullable))
        {
            if (node.Kind is NodeKind.String or NodeKind.Text or NodeKind.Number && !node.Text.Contains('\n', StringComparison.Ordinal)) lines.Add(node.Text);
            else reader.Reject(string.Create(CultureInfo.InvariantCulture, $"{key}"), "an array of lines is expected");
        }

        return lines;
    }
}
