using System.Globalization;
using System.Text;
using ActorVmm.Actors.Fleet;
using ActorVmm.Host.Descriptions;

namespace ActorVmm.Host.Fleet;

/// <summary>
/// Reads the description of a host and its VMs: <c>host { }</c>, <c>templates { }</c> and <c>vms { }</c>. A VM is its template with its own
/// keys over it; every key that a single VM's description has may stand in either.
/// </summary>
internal static class FleetReader
{
    /// <summary>VMs of one entry at the most.</summary>
    public const int MaxCount = 10_000;

    private static readonly string[] s_ownKeys = ["template", "count", "order", "start", "restart", "stop", "on-reset"];

    /// <exception cref="DescriptionException">Everything that is wrong with it.</exception>
    public static FleetDescription ReadFile(string path)
    {
        var bytes = DescriptionReader.ReadBytes(path);
        var isJson = string.Equals(Path.GetExtension(path), ".json", StringComparison.OrdinalIgnoreCase);
        return Read(bytes, path, isJson, Path.GetDirectoryName(Path.GetFullPath(path))!);
    }

    /// <inheritdoc cref="ReadFile"/>
    public static FleetDescription Read(ReadOnlySpan<byte> utf8, string source, bool isJson, string baseDirectory)
    {
        var errors = new ErrorList(source);
        var root = isJson ? JsonTree.Parse(utf8, errors) : HoconTree.Parse(Encoding.UTF8.GetString(utf8), errors);
        var reader = new ObjectReader(root, "", errors);
        var section = reader.Object("host", Need.Nullable);
        var host = section is null ? new HostDescription() : Host(section, baseDirectory);
        var templates = Members(reader.Take("templates", Need.Nullable, "an object of VMs"), "templates", errors);
        var entries = Members(reader.Take("vms", Need.Nullable, "an object of VMs"), "vms", errors);
        reader.Finish();
        var vms = new List<FleetVm>();
        foreach (var (name, entry) in entries) vms.AddRange(Entry(name, entry, templates, baseDirectory, errors));
        foreach (var twice in vms.GroupBy(vm => vm.Name, StringComparer.Ordinal).Where(group => group.Count() > 1))
            errors.AddAt(0, 0, $"vms.{twice.Key}", "two VMs have this name");
        CheckLimits(host.Limits, vms, section, errors);
        errors.ThrowIfAny();
        return new FleetDescription(host, [.. vms.OrderBy(vm => vm.Order)]);
    }

    /// <summary>A host would refuse those of its own VMs that are beyond its own limits.</summary>
    private static void CheckLimits(FleetLimits limits, List<FleetVm> vms, ObjectReader? section, ErrorList errors)
    {
        void Exceeded(string key, string reason)
        {
            if (section is not null) section.Reject(key, reason);
            else errors.AddAt(0, 0, $"host.{key}", reason);
        }

        if (vms.Count > limits.MaxVms)
            Exceeded("max-vms", string.Create(CultureInfo.InvariantCulture,
                $"this description has {vms.Count} VMs; the host may have {limits.MaxVms}"));
        var memory = vms.Sum(static vm => (long)vm.Vm.MemoryMib);
        if (memory > limits.MaxMemoryMib)
            Exceeded("max-memory-mib", string.Create(CultureInfo.InvariantCulture,
                $"the VMs of this description have {memory} MiB of memory; allowed are {limits.MaxMemoryMib}"));
    }

    /// <summary>One VM from the body of an API call: a VM's keys, and <c>restart</c>, <c>stop</c>, <c>on-reset</c>.</summary>
    /// <exception cref="DescriptionException">Everything that is wrong with it.</exception>
    public static FleetVm ReadVm(ReadOnlySpan<byte> json, string baseDirectory)
    {
        var errors = new ErrorList("body");
        var root = JsonTree.Parse(json, errors);
        if (root.Kind != NodeKind.Object)
        {
            errors.Add(root, "", "a VM is an object { ... }");
            errors.ThrowIfAny();
        }

        var reader = new ObjectReader(root, "", errors);
        var name = reader.String("name", Need.Required, "a name of 1 to 64 letters, digits, '-' and '_'");
        foreach (var key in (ReadOnlySpan<string>)["template", "count", "order"])
            if (reader.Has(key)) reader.Reject(key, "has a meaning in a host's description only");
        if (name is not null && !DescriptionChecks.IsName(name)) reader.Reject("name", "allowed are 1 to 64 letters, digits, '-' and '_'");
        errors.ThrowIfAny();
        var vm = Entry(name!, Without(root, ["name"]), new(StringComparer.Ordinal), baseDirectory, errors).FirstOrDefault();
        errors.ThrowIfAny();
        return vm!;
    }

    private static HostDescription Host(ObjectReader host, string baseDirectory)
    {
        var defaults = new HostDescription();
        var read = new HostDescription
        {
            Socket = PathOf(host, "socket", baseDirectory),
            TcpPort = (int?)host.Integer("tcp-port", Need.Nullable, 1, 65535),
            TokenFile = PathOf(host, "token-file", baseDirectory),
            FirecrackerSockets = PathOf(host, "firecracker-sockets", baseDirectory),
            ConsoleDirectory = PathOf(host, "console-directory", baseDirectory),
            ParallelStarts = (int)(host.Integer("parallel-starts", Need.Nullable, 1, 64) ?? (ulong)defaults.ParallelStarts),
            ConsoleKib = (int)(host.Integer("console-kib", Need.Nullable, 4, 65536) ?? (ulong)defaults.ConsoleKib),
            Limits = new FleetLimits(
                (int)(host.Integer("max-vms", Need.Nullable, 1, MaxCount) ?? (ulong)defaults.Limits.MaxVms),
                (long)(host.Integer("max-memory-mib", Need.Nullable, 1, 1UL << 32) ?? (ulong)defaults.Limits.MaxMemoryMib)),
            StopDeadline = Duration(host, "stop-deadline") ?? defaults.StopDeadline,
        };
        if (read.Socket is { } socket && !SocketFile.IsShortEnough(socket)) host.Reject("socket", SocketFile.TooLong(socket));
        if (read.TcpPort is not null && read.TokenFile is null)
            host.Reject("tcp-port", "the API over TCP needs a bearer token: give token-file too");
        host.Finish();
        return read;
    }

    private static IEnumerable<FleetVm> Entry(
        string name, Node entry, Dictionary<string, Node> templates, string baseDirectory, ErrorList errors)
    {
        var own = new ObjectReader(entry, $"vms.{name}", errors);
        if (!DescriptionChecks.IsName(name)) own.RejectWhole($"'{name}' is no name: allowed are 1 to 64 letters, digits, '-' and '_'");
        if (entry.Find("name") is not null) own.Reject("name", "the name is the entry's key");
        var whole = new Node { Kind = NodeKind.Object, Line = entry.Line, Column = entry.Column };
        if (own.String("template", Need.Nullable, "the name of a template") is { } template)
        {
            if (templates.TryGetValue(template, out var from)) Merge(whole, from);
            else own.Reject("template",
                $"there is no template of this name; there {(templates.Count == 0 ? "are none" : $"is {string.Join(", ", templates.Keys)}")}");
        }

        Merge(whole, entry);
        var all = new ObjectReader(whole, $"vms.{name}", errors);
        var count = all.Integer("count", Need.Nullable, 1, MaxCount);
        var order = (int)(all.Integer("order", Need.Nullable, 0, 1_000_000) ?? 100);
        var start = all.Choice("start", Need.Nullable, StringComparison.Ordinal, "auto", "manual");
        var reset = all.Choice("on-reset", Need.Nullable, StringComparison.Ordinal, "restart", "stop");
        var restart = all.Object("restart", Need.Nullable) is { } policy ? Restart(policy) : RestartPolicy.Never;
        var stop = all.Object("stop", Need.Nullable) is { } ending ? Stop(ending) : StopPolicy.Default;
        var machine = Without(whole, [.. s_ownKeys, "name"]);
        var vm = NativeDialect.Read(machine, baseDirectory, errors);
        if (vm is null || errors.Any) yield break;
        var fingerprint = Fingerprint(machine);
        for (ulong i = 0; i < (count ?? 1); i++)
        {
            var full = count is null ? name : string.Create(CultureInfo.InvariantCulture, $"{name}-{i}");
            yield return new FleetVm(vm with { Name = full })
            {
                Order = order, AutoStart = start is null or "auto", Restart = restart, Stop = stop,
                RestartsOnReset = reset is null or "restart", Fingerprint = fingerprint,
            };
        }
    }

    private static RestartPolicy Restart(ObjectReader section)
    {
        var never = RestartPolicy.Never;
        var mode = section.Choice("policy", Need.Required, StringComparison.Ordinal, "never", "on-failure", "always");
        var read = new RestartPolicy(
            mode switch { "always" => RestartMode.Always, "on-failure" => RestartMode.OnFailure, _ => RestartMode.Never },
            Duration(section, "back-off") ?? never.BackOff,
            Duration(section, "max-back-off") ?? never.MaxBackOff,
            (int)(section.Integer("limit", Need.Nullable, 1, 1000) ?? (ulong)never.Limit),
            Duration(section, "healthy-after") ?? never.HealthyAfter);
        section.Finish();
        return read;
    }

    private static StopPolicy Stop(ObjectReader section)
    {
        var method = section.Choice("method", Need.Nullable, StringComparison.Ordinal, "both", "power-button", "ctrl-alt-del", "power-off");
        var deadline = Duration(section, "deadline") ?? StopPolicy.Default.Deadline;
        section.Finish();
        return method switch
        {
            "power-button" => new StopPolicy(PowerKeyChoice.PowerButton, PowerKeyChoice.None, deadline),
            "ctrl-alt-del" => new StopPolicy(PowerKeyChoice.CtrlAltDel, PowerKeyChoice.None, deadline),
            "power-off"    => new StopPolicy(PowerKeyChoice.None, PowerKeyChoice.None, deadline),
            _              => StopPolicy.Default with { Deadline = deadline },
        };
    }

    /// <summary>A time such as <c>500ms</c>, <c>5s</c>, <c>2m</c> or <c>1h</c>, up to a day.</summary>
    private static TimeSpan? Duration(ObjectReader reader, string key)
    {
        if (reader.String(key, Need.Nullable, "a time such as 500ms, 5s or 2m") is not { } text) return null;
        if (TryDuration(text, out var time)) return time;
        reader.Reject(key, "allowed is a time such as 500ms, 5s or 2m, up to 24h");
        return null;
    }

    /// <inheritdoc cref="Duration"/>
    public static bool TryDuration(string text, out TimeSpan time)
    {
        time = default;
        var digits = text.AsSpan().TrimEnd("mshd");
        var unit = text.AsSpan(digits.Length);
        if (!double.TryParse(digits, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var number)) return false;
        var seconds = unit switch { "ms" => 0.001, "s" => 1, "m" => 60, "h" => 3600, _ => double.NaN } * number;
        if (!(seconds >= 0 && seconds <= 86400)) return false;
        time = TimeSpan.FromSeconds(seconds);
        return true;
    }

    private static string? PathOf(ObjectReader reader, string key, string baseDirectory)
    {
        if (reader.String(key, Need.Nullable, "a path") is not { } path) return null;
        if (path.Length > 0 && !path.Contains('\0', StringComparison.Ordinal)) return DescriptionChecks.FullPath(path, baseDirectory);
        reader.Reject(key, "allowed is a path");
        return null;
    }

    private static Dictionary<string, Node> Members(Node? node, string path, ErrorList errors)
    {
        var members = new Dictionary<string, Node>(StringComparer.Ordinal);
        if (node is null) return members;
        if (node.Kind != NodeKind.Object)
        {
            errors.Add(node, path, "allowed is an object { name { ... } }");
            return members;
        }

        foreach (var member in node.Members)
        {
            if (member.Value.Kind != NodeKind.Object) errors.Add(member.Value, $"{path}.{member.Name}", "allowed is an object { ... }");
            else if (!members.TryAdd(member.Name, member.Value)) errors.AddAt(member.Line, member.Column, $"{path}.{member.Name}",
                "given twice");
        }

        return members;
    }

    private static void Merge(Node into, Node from)
    {
        foreach (var member in from.Members)
            HoconTree.Put(into, [member.Name], Copy(member.Value), member.Line, member.Column);
    }

    private static Node Copy(Node node)
    {
        var copy = new Node { Kind = node.Kind, Line = node.Line, Column = node.Column, Text = node.Text, Source = node.Source };
        foreach (var member in node.Members) copy.Members.Add(member with { Value = Copy(member.Value) });
        foreach (var item in node.Items) copy.Items.Add(Copy(item));
        return copy;
    }

    private static Node Without(Node node, string[] keys)
    {
        var copy = new Node { Kind = node.Kind, Line = node.Line, Column = node.Column };
        copy.Members.AddRange(node.Members.Where(member => !keys.Contains(member.Name, StringComparer.Ordinal)));
        return copy;
    }

    private static string Fingerprint(Node node) => node.Kind switch
    {
        NodeKind.Object => "{" + string.Join(',', node.Members.OrderBy(member => member.Name, StringComparer.Ordinal)
            .Select(member => $"{member.Name}:{Fingerprint(member.Value)}")) + "}",
        NodeKind.Array => "[" + string.Join(',', node.Items.Select(Fingerprint)) + "]",
        NodeKind.Null => "null",
        _ => '"' + node.Text.Replace("\"", "\\\"", StringComparison.Ordinal) + '"',
    };
}
