using System.Globalization;
using System.Text;
using ActorVmm.Host.Api;

namespace ActorVmm.Host.Commands;

/// <summary>How the commands print what a host says: aligned columns for people.</summary>
internal static class Output
{
    /// <summary>Columns as wide as their widest cell, two blanks between them.</summary>
    public static string Table(IReadOnlyList<string> header, IEnumerable<IReadOnlyList<string>> rows)
    {
        var all = new List<IReadOnlyList<string>> { header };
        all.AddRange(rows);
        var widths = Enumerable.Range(0, header.Count).Select(column => all.Max(row => row[column].Length)).ToArray();
        var text = new StringBuilder();
        foreach (var row in all)
        {
            var line = new StringBuilder();
            for (var column = 0; column < row.Count; column++) line.Append(row[column].PadRight(widths[column] + 2));
            text.Append(line.ToString().TrimEnd()).Append('\n');
        }

        return text.ToString();
    }

    /// <summary><c>ps</c>.</summary>
    public static string Vms(IReadOnlyList<VmView> vms) => Table(
        ["NAME", "STATE", "UPTIME", "RESTARTS", "CPU", "MEMORY", "LAST CAUSE"],
        vms.Select(vm => (IReadOnlyList<string>)
        [
            vm.Name, vm.State + (vm.NeedsRestart ? " (needs restart)" : ""), vm.UptimeSeconds is { } up ? Age(up) : "-",
            vm.Restarts.ToString(CultureInfo.InvariantCulture),
            vm.UptimeSeconds is > 0 and var seconds ? string.Create(CultureInfo.InvariantCulture,
                $"{100 * vm.CpuSeconds / seconds:F0}%") : "-",
            Memory(vm), OneLine(vm.LastCause ?? "-"),
        ]));

    /// <summary>Touched and whole guest RAM.</summary>
    public static string Memory(VmView vm) => string.Create(CultureInfo.InvariantCulture, $"{vm.ResidentMib:F0}/{vm.MemoryMib} MiB");

    /// <summary>A time in its two largest units.</summary>
    public static string Age(double seconds)
    {
        var time = TimeSpan.FromSeconds(seconds);
        return time switch
        {
            { TotalSeconds: < 60 } => string.Create(CultureInfo.InvariantCulture, $"{time.Seconds}s"),
            { TotalMinutes: < 60 } => string.Create(CultureInfo.InvariantCulture, $"{time.Minutes}m{time.Seconds}s"),
            { TotalHours: < 24 }   => string.Create(CultureInfo.InvariantCulture, $"{time.Hours}h{time.Minutes}m"),
            _                      => string.Create(CultureInfo.InvariantCulture, $"{(int)time.TotalDays}d{time.Hours}h"),
        };
    }

    /// <summary><c>tree</c>: a unit per line with what tells its health.</summary>
    public static string Tree(NodeView root)
    {
        var text = new StringBuilder();
        Append(text, root, "", "");
        return text.ToString();
    }

    /// <summary><c>inspect</c>: a unit with all its values, and what is below it.</summary>
    public static string Inspect(NodeView node)
    {
        var text = new StringBuilder().Append(node.Path).Append('\n');
        var width = node.Values.Keys.Select(key => key.Length).DefaultIfEmpty(0).Max();
        foreach (var (key, value) in node.Values) text.Append("  ").Append(key.PadRight(width)).Append("  ").Append(OneLine(value, 400))
            .Append('\n');
        foreach (var child in node.Children) text.Append(Inspect(child));
        return text.ToString();
    }

    private static void Append(StringBuilder text, NodeView node, string first, string rest)
    {
        text.Append(first).Append(node.Name);
        foreach (var key in (ReadOnlySpan<string>)["state", "restarts", "failures", "mailbox", "last-error"])
        {
            if (!node.Values.TryGetValue(key, out var value) || value is "none") continue;
            if (key == "state" && value.Length > 14) continue; // a device's registers: inspect shows them
            text.Append("  ").Append(key).Append('=').Append(OneLine(value));
        }

        text.Append('\n');
        for (var i = 0; i < node.Children.Count; i++)
        {
            var last = i == node.Children.Count - 1;
            Append(text, node.Children[i], rest + (last ? "`- " : "|- "), rest + (last ? "   " : "|  "));
        }
    }

    private static string OneLine(string text, int longest = 100)
    {
        text = string.Concat(text.Select(static c => char.IsControl(c) ? ' ' : c));
        return text.Length > longest ? text[..(longest - 3)] + "..." : text;
    }
}
