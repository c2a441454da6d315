using System.Globalization;
using System.Text;
using ActorVmm.Devices.Faults;
using ActorVmm.Host.Descriptions;

namespace ActorVmm.Host.Faults;

/// <summary>
/// The <c>faults</c> section of a description, and single rules as <c>inject</c> gives them. <c>config/faults.conf</c> shows every key.
/// </summary>
internal static class FaultSection
{
    /// <summary>Most rules of one plan: each costs a look per event.</summary>
    public const int MaxRules = 256;

    private static readonly (string Suffix, ulong Nanoseconds)[] s_units =
        [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000)];

    /// <summary>Reads the section. Errors are recorded, each with its key.</summary>
    public static FaultPlan Read(ObjectReader section, ulong seed)
    {
        var rules = new List<FaultRule>();
        foreach (var item in section.Objects("rules", Need.Nullable))
        {
            if (ReadRule(item, rules.Count) is not { } rule) continue;
            if (rules.Any(other => string.Equals(other.Name, rule.Name, StringComparison.Ordinal)))
                item.Reject("name", $"{rule.Name} is another rule's name");
            else if (rules.Count == MaxRules)
                item.RejectWhole(string.Create(CultureInfo.InvariantCulture, $"more than {MaxRules} rules"));
            else
                rules.Add(rule);
        }

        var own = section.Integer("seed", Need.Nullable, 0, ulong.MaxValue);
        var healAt = Time(section, "heal-at");
        var healAfter = Text(section, "heal-after-console");
        section.Finish();
        return new FaultPlan(own ?? seed, rules) { HealAt = healAt, HealAfterConsole = healAfter };
    }

    /// <summary>One rule as HOCON text: <c>kind = actor-crash, device = blk0, every = 100</c>, with or without braces around it.</summary>
    /// <exception cref="DescriptionException">What is wrong with it.</exception>
    public static FaultRule ParseRule(string hocon, string source = "rule")
    {
        ArgumentNullException.ThrowIfNull(hocon);
        var errors = new ErrorList(source);
        if (hocon.Length > VmLimits.MaxFileBytes) throw new DescriptionException([new(source, 0, 0, "", null, "larger than 1 MiB: this is no rule")]);
        var root = HoconTree.Parse(hocon, errors);
        errors.ThrowIfAny();
        if (root.Kind != NodeKind.Object) throw new DescriptionException([new(source, 0, 0, "", null, "a rule is an object { ... }")]);
        var rule = ReadRule(new ObjectReader(root, "", errors), number: 0);
        errors.ThrowIfAny();
        return rule!;
    }

    /// <summary>A plan as the text that <see cref="Read"/> gives the same plan from.</summary>
    public static string Write(FaultPlan plan)
    {
        ArgumentNullException.ThrowIfNull(plan);
        var text = new StringBuilder();
        text.Append(CultureInfo.InvariantCulture, $"seed = {plan.Seed}\n");
        if (plan.HealAt is { } at) text.Append(CultureInfo.InvariantCulture, $"heal-at = {at}ns\n");
        if (plan.HealAfterConsole is { } after) text.Append(CultureInfo.InvariantCulture, $"heal-after-console = {Quote(after)}\n");
        text.Append("rules = [\n");
        foreach (var rule in plan.Rules) text.Append("  { ").AppendJoin(", ", Keys(rule)).Append(" }\n");
        return text.Append("]\n").ToString();
    }

    private static FaultRule? ReadRule(ObjectReader rule, int number)
    {
        var name = rule.String("kind", Need.Required, "the name of a fault");
        var known = FaultKinds.TryParse(name ?? "", out var kind);
        if (name is not null && !known)
        {
            var nearest = Nearest.To(name, [.. FaultKinds.All.Select(FaultKinds.NameOf)]);
            rule.Reject("kind", nearest is null ? $"one of {string.Join(", ", FaultKinds.All.Select(FaultKinds.NameOf))} is expected" : $"did you mean {nearest}?");
        }

        var read = new FaultRule
        {
            Kind = kind,
            Name = Text(rule, "name") ?? (number == 0 ? name ?? "" : string.Create(CultureInfo.InvariantCulture, $"{name}-{number}")),
            Device = Text(rule, "device") ?? FaultRule.AnyDevice,
            Queue = (int?)rule.Integer("queue", Need.Nullable, 0, 1023),
            Direction = rule.Choice("direction", Need.Nullable, StringComparison.Ordinal, "read", "write", "flush", "discard", "tx", "rx"),
            First = rule.Integer("first", Need.Nullable, 0, ulong.MaxValue, ", or 0x..."),
            Last = rule.Integer("last", Need.Nullable, 0, ulong.MaxValue, ", or 0x..."),
            Point = Text(rule, "point"),
            SpareRetry = rule.Boolean("spare-retry", Need.Nullable) ?? false,
            Vcpu = (int?)rule.Integer("vcpu", Need.Nullable, 0, VmLimits.MaxVcpus - 1),
            Gsi = (int?)rule.Integer("gsi", Need.Nullable, 0, 23),
            Nth = rule.Integer("nth", Need.Nullable, 1, ulong.MaxValue),
            Every = rule.Integer("every", Need.Nullable, 1, ulong.MaxValue),
            Probability = Real(rule, "probability") ?? 1,
            Times = rule.Integer("times", Need.Nullable, 1, ulong.MaxValue),
            From = Time(rule, "from") ?? 0,
            Until = Time(rule, "until") ?? ulong.MaxValue,
            AfterConsole = Text(rule, "after-console"),
            Period = Time(rule, "period"),
            For = Time(rule, "for"),
            Delay = Time(rule, "delay"),
            Amount = rule.Integer("amount", Need.Nullable, 0, ulong.MaxValue),
            Factor = Real(rule, "factor"),
        };
        rule.Finish();
        if (!known) return null;
        if (read.Problem() is not var (key, reason)) return read;
        rule.Reject(key, reason);
        return null;
    }

    private static string? Text(ObjectReader reader, string key)
    {
        var text = reader.String(key, Need.Nullable);
        if (text is not { Length: 0 or > 256 }) return text;
        reader.Reject(key, "allowed are 1 to 256 characters");
        return null;
    }

    private static double? Real(ObjectReader reader, string key)
    {
        if (reader.Take(key, Need.Nullable, "a number") is not { } node) return null;
        if (node.Kind is NodeKind.Number or NodeKind.Text
            && double.TryParse(node.Text, NumberStyles.AllowDecimalPoint | NumberStyles.AllowExponent, CultureInfo.InvariantCulture, out var value))
            return value;
        reader.Reject(key, "allowed is a number");
        return null;
    }

    private static ulong? Time(ObjectReader reader, string key)
    {
        const string Allowed = "a time such as 250us, 10ms, 1.5s or 2m";
        if (reader.Take(key, Need.Nullable, Allowed) is not { } node) return null;
        if (node.Kind is NodeKind.String or NodeKind.Text or NodeKind.Number && TryTime(node.Text, out var time)) return time;
        reader.Reject(key, $"allowed is {Allowed}");
        return null;
    }

    /// <summary>A number with a unit, as nanoseconds.</summary>
    internal static bool TryTime(string text, out ulong nanoseconds)
    {
        nanoseconds = 0;
        foreach (var (suffix, unit) in s_units)
        {
            if (!text.EndsWith(suffix, StringComparison.Ordinal)) continue;
            if (!decimal.TryParse(text.AsSpan(0, text.Length - suffix.Length).TrimEnd(), NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture,
                    out var value)) continue;
            if (value > ulong.MaxValue / unit) return false;
            nanoseconds = (ulong)(value * unit);
            return true;
        }

        return false;
    }

    private static IEnumerable<string> Keys(FaultRule rule)
    {
        var invariant = CultureInfo.InvariantCulture;
        yield return $"kind = {FaultKinds.NameOf(rule.Kind)}";
        yield return $"name = {Quote(rule.Name)}";
        yield return $"device = {Quote(rule.Device)}";
        if (rule.Queue is { } queue) yield return string.Create(invariant, $"queue = {queue}");
        if (rule.Direction is { } direction) yield return $"direction = {direction}";
        if (rule.First is { } first) yield return string.Create(invariant, $"first = {first}");
        if (rule.Last is { } last) yield return string.Create(invariant, $"last = {last}");
        if (rule.Point is { } point) yield return $"point = {point}";
        if (rule.SpareRetry) yield return "spare-retry = true";
        if (rule.Vcpu is { } vcpu) yield return string.Create(invariant, $"vcpu = {vcpu}");
        if (rule.Gsi is { } gsi) yield return string.Create(invariant, $"gsi = {gsi}");
        if (rule.Nth is { } nth) yield return string.Create(invariant, $"nth = {nth}");
        if (rule.Every is { } every) yield return string.Create(invariant, $"every = {every}");
        if (rule.Probability < 1) yield return string.Create(invariant, $"probability = {rule.Probability:R}");
        if (rule.Times is { } times) yield return string.Create(invariant, $"times = {times}");
        if (rule.From > 0) yield return string.Create(invariant, $"from = {rule.From}ns");
        if (rule.Until < ulong.MaxValue) yield return string.Create(invariant, $"until = {rule.Until}ns");
        if (rule.AfterConsole is { } after) yield return $"after-console = {Quote(after)}";
        if (rule.Period is { } period) yield return string.Create(invariant, $"period = {period}ns");
        if (rule.For is { } lasting) yield return string.Create(invariant, $"for = {lasting}ns");
        if (rule.Delay is { } delay) yield return string.Create(invariant, $"delay = {delay}ns");
        if (rule.Amount is { } amount) yield return string.Create(invariant, $"amount = {amount}");
        if (rule.Factor is { } factor) yield return string.Create(invariant, $"factor = {factor:R}");
    }

    // HOCON's quoted string is JSON's.
    private static string Quote(string text) => System.Text.Json.JsonSerializer.Serialize(text, Api.ApiJson.Default.String);
}
