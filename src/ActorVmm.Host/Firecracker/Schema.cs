using System.Globalization;
using System.Text;
using ActorVmm.Host.Descriptions;

namespace ActorVmm.Host.Firecracker;

/// <summary>What a field of a body may be.</summary>
internal enum FieldType
{
    U8,
    U16,
    U32,
    U64,
    Bool,
    Text,
    Enumeration,
    Object,
    Texts,
    Any,
}

/// <summary>One field of a body.</summary>
/// <param name="Name">Its key.</param>
/// <param name="Type">What it may be.</param>
/// <param name="Required">It must be there.</param>
/// <param name="Nullable">It may be null.</param>
/// <param name="Words">The words of an enumeration.</param>
/// <param name="Shape">The fields of an object.</param>
internal sealed record Field(string Name, FieldType Type, bool Required = false, bool Nullable = false, string[]? Words = null,
    Schema? Shape = null);

/// <summary>
/// The shape of a body, checked as Firecracker's deserializer does, and told in its words: unknown and missing fields, types, ranges,
/// enumerations, doubled keys.
/// </summary>
/// <param name="fields">In the order in which messages list them.</param>
internal sealed class Schema(params Field[] fields)
{
    /// <summary>Unknown fields are passed over (token buckets, metrics).</summary>
    public bool IsOpen { get; init; }

    public IReadOnlyList<Field> Fields => fields;

    /// <summary>What is wrong, or null.</summary>
    public string? Check(Node node, string what)
    {
        if (node.Kind != NodeKind.Object) return At($"invalid type: {Kind(node)}, expected struct {what}", node);
        var seen = new HashSet<string>(StringComparer.Ordinal);
        foreach (var member in node.Members)
        {
            var field = Array.Find(fields, field => string.Equals(field.Name, member.Name, StringComparison.Ordinal));
            if (field is null)
            {
                if (IsOpen) continue;
                return At($"unknown field `{member.Name}`, expected {OneOf([.. fields.Select(known => known.Name)])}", member.Line,
                    member.Column + Encoding.UTF8.GetByteCount(member.Name) + 1);
            }

            if (!seen.Add(member.Name))
                return At($"duplicate field `{member.Name}`", member.Line, member.Column + Encoding.UTF8.GetByteCount(member.Name) + 1);
            if (CheckField(field, member.Value) is { } wrong) return wrong;
        }

        var missing = Array.Find(fields, field => field.Required && !seen.Contains(field.Name));
        return missing is null ? null : At($"missing field `{missing.Name}`", node);
    }

    private static string? CheckField(Field field, Node value)
    {
        if (value.Kind == NodeKind.Null && field.Type != FieldType.Any)
            return field.Nullable ? null : At($"invalid type: null, expected {Expected(field)}", value);
        return field.Type switch
        {
            FieldType.U8  => Number(field, value, byte.MaxValue),
            FieldType.U16 => Number(field, value, ushort.MaxValue),
            FieldType.U32 => Number(field, value, uint.MaxValue),
            FieldType.U64 => Number(field, value, ulong.MaxValue),
            FieldType.Bool => value.Kind == NodeKind.Boolean ? null : Invalid(field, value),
            FieldType.Text => value.Kind == NodeKind.String ? null : Invalid(field, value),
            FieldType.Enumeration => Enumeration(field, value),
            FieldType.Object => field.Shape!.Check(value, field.Name),
            FieldType.Texts => Texts(field, value),
            _ => null,
        };
    }

    private static string? Texts(Field field, Node value)
    {
        if (value.Kind != NodeKind.Array) return Invalid(field, value);
        var odd = value.Items.Find(item => item.Kind != NodeKind.String);
        return odd is null ? null : At($"invalid type: {Kind(odd)}, expected a string", odd);
    }

    private static string? Number(Field field, Node value, ulong most)
    {
        if (value.Kind != NodeKind.Number) return Invalid(field, value);
        if (value.Text.AsSpan().ContainsAny(".eE")) return At($"invalid type: floating point `{value.Text}`, expected {Expected(field)}",
            value);
        var fits = ulong.TryParse(value.Text, NumberStyles.None, CultureInfo.InvariantCulture, out var number) && number <= most;
        return fits ? null : At($"invalid value: integer `{value.Text}`, expected {Expected(field)}", value);
    }

    private static string? Enumeration(Field field, Node value)
    {
        if (value.Kind != NodeKind.String) return Invalid(field, value);
        return field.Words!.Contains(value.Text, StringComparer.Ordinal)
            ? null
            : At($"unknown variant `{value.Text}`, expected {OneOf(field.Words!)}", value);
    }

    private static string Invalid(Field field, Node value) => At($"invalid type: {Kind(value)}, expected {Expected(field)}", value);

    private static string Expected(Field field) => field.Type switch
    {
        FieldType.U8 => "u8", FieldType.U16 => "u16", FieldType.U32 => "u32", FieldType.U64 => "u64", FieldType.Bool => "a boolean",
        FieldType.Text => "a string", FieldType.Enumeration => "a string", FieldType.Texts => "a sequence", _ => $"struct {field.Name}",
    };

    private static string Kind(Node node) => node.Kind switch
    {
        NodeKind.Null => "null", NodeKind.Boolean => $"boolean `{node.Text}`", NodeKind.String => $"string \"{node.Text}\"",
        NodeKind.Number => node.Text.AsSpan().ContainsAny(".eE") ? $"floating point `{node.Text}`" : $"integer `{node.Text}`",
        NodeKind.Array => "sequence", _ => "map",
    };

    private static string OneOf(string[] names) => names.Length switch
    {
        0 => "no fields", 1 => $"`{names[0]}`", 2 => $"`{names[0]}` or `{names[1]}`",
        _ => "one of " + string.Join(", ", names.Select(name => $"`{name}`")),
    };

    private static string At(string what, Node node) => At(what, node.Line, node.Column);

    private static string At(string what, int line, int column) =>
        string.Create(CultureInfo.InvariantCulture, $"{what} at line {line} column {column}");
}

/// <summary>The bodies that the API takes.</summary>
internal static class Schemas
{
    private static readonly Schema s_bucket = new(
        new Field("size", FieldType.U64, Required: true), new Field("one_time_burst", FieldType.U64, Nullable: true),
        new Field("refill_time", FieldType.U64, Required: true)) { IsOpen = true };

    private static readonly Schema s_limiter = new(
        new Field("bandwidth", FieldType.Object, Nullable: true, Shape: s_bucket),
            new Field("ops", FieldType.Object, Nullable: true, Shape: s_bucket));

    private static readonly string[] s_templates = ["C3", "T2", "T2S", "T2CL", "T2A", "V1N1", "None"];

    public static Schema Action { get; } = new(
        new Field("action_type", FieldType.Enumeration, Required: true, Words: ["FlushMetrics", "InstanceStart", "SendCtrlAltDel"]));

    public static Schema VmState { get; } = new(new Field("state", FieldType.Enumeration, Required: true, Words: ["Paused", "Resumed"]));

    public static Schema BootSource { get; } = new(
        new Field("kernel_image_path", FieldType.Text, Required: true), new Field("initrd_path", FieldType.Text, Nullable: true),
        new Field("boot_args", FieldType.Text, Nullable: true));

    public static Schema MachineConfig { get; } = Machine(required: true);

    public static Schema MachineConfigUpdate { get; } = Machine(required: false);

    public static Schema Drive { get; } = new(
        new Field("drive_id", FieldType.Text, Required: true), new Field("partuuid", FieldType.Text, Nullable: true),
        new Field("is_root_device", FieldType.Bool, Required: true),
        new Field("cache_type", FieldType.Enumeration, Words: ["Unsafe", "Writeback"]),
            new Field("is_read_only", FieldType.Bool, Nullable: true),
        new Field("path_on_host", FieldType.Text, Nullable: true),
            new Field("rate_limiter", FieldType.Object, Nullable: true, Shape: s_limiter),
        new Field("io_engine", FieldType.Enumeration, Nullable: true, Words: ["Sync", "Async"]),
            new Field("socket", FieldType.Text, Nullable: true));

    public static Schema DriveUpdate { get; } = new(
        new Field("drive_id", FieldType.Text, Required: true), new Field("path_on_host", FieldType.Text, Nullable: true),
        new Field("rate_limiter", FieldType.Object, Nullable: true, Shape: s_limiter));

    public static Schema Net { get; } = new(
        new Field("iface_id", FieldType.Text, Required: true), new Field("host_dev_name", FieldType.Text, Required: true),
        new Field("guest_mac", FieldType.Text, Nullable: true), new Field("mtu", FieldType.U16, Nullable: true),
        new Field("rx_rate_limiter", FieldType.Object, Nullable: true, Shape: s_limiter),
        new Field("tx_rate_limiter", FieldType.Object, Nullable: true, Shape: s_limiter));

    public static Schema NetUpdate { get; } = new(
        new Field("iface_id", FieldType.Text, Required: true),
        new Field("rx_rate_limiter", FieldType.Object, Nullable: true, Shape: s_limiter),
        new Field("tx_rate_limiter", FieldType.Object, Nullable: true, Shape: s_limiter));

    public static Schema Entropy { get; } = new(new Field("rate_limiter", FieldType.Object, Nullable: true, Shape: s_limiter));

    public static Schema Logger { get; } = new(
        new Field("log_path", FieldType.Text, Nullable: true), new Field("level", FieldType.Text, Nullable: true),
        new Field("show_level", FieldType.Bool, Nullable: true), new Field("show_log_origin", FieldType.Bool, Nullable: true),
        new Field("module", FieldType.Text, Nullable: true));

    public static Schema Metrics { get; } = new(
        new Field("metrics_path", FieldType.Text, Required: true), new Field("emit_id", FieldType.Bool),
        new Field("properties", FieldType.Any)) { IsOpen = true };

    public static Schema Serial { get; } = new(
        new Field("serial_out_path", FieldType.Text, Nullable: true),
            new Field("rate_limiter", FieldType.Object, Nullable: true, Shape: s_bucket));

    private static Schema Machine(bool required) => new(
        new Field("vcpu_count", FieldType.U8, required, !required), new Field("mem_size_mib", FieldType.U64, required, !required),
        new Field("smt", FieldType.Bool, Nullable: !required),
        new Field("cpu_template", FieldType.Enumeration, Nullable: true, Words: s_templates),
        new Field("track_dirty_pages", FieldType.Bool, Nullable: !required),
        new Field("huge_pages", FieldType.Enumeration, Nullable: !required, Words: ["None", "Transparent", "2M"]),
        new Field("gdb_socket_path", FieldType.Text, Nullable: true));
}
