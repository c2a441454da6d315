using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using ActorVmm.Actors;
using ActorVmm.Backends.Disks;
using ActorVmm.Host.Descriptions;

namespace ActorVmm.Host.Firecracker;

/// <summary>
/// What has been configured over a socket, kept as the configuration file that would say the same: the rules of files hold for it, and
/// <c>GET /vm/config</c> prints it.
/// </summary>
internal sealed class MicrovmConfig
{
    /// <summary>The keys of a configuration file, in the order in which they are printed; arrays are never null.</summary>
    private static readonly string[] s_keys =
    [
        "balloon", "drives", "boot-source", "cpu-config", "logger", "machine-config", "metrics", "mmds-config", "network-interfaces",
            "vsock",
        "entropy", "pmem", "memory-hotplug",
    ];

    private static readonly string[] s_arrays = ["drives", "network-interfaces", "pmem"];
    private readonly Dictionary<string, Node> _parts = new(StringComparer.Ordinal);

    public MicrovmConfig() => _parts["machine-config"] = Parse(
        """{"vcpu_count":1,"mem_size_mib":128,"smt":false,"track_dirty_pages":false,"huge_pages":"None"}""");

    /// <summary>
    /// A VM that a description has described, as far as a configuration file can say it: as it is built, without rate limits and what has
    /// been changed since.
    /// </summary>
    public static MicrovmConfig Of(VmSpec spec)
    {
        var boot = new JsonObject
        {
            ["kernel_image_path"] = spec.Kernel.Path, ["initrd_path"] = spec.Kernel.InitrdPath, ["boot_args"] = spec.Kernel.CommandLine,
        };
        var drives = spec.Disks.Select(static disk => (JsonNode)new JsonObject
        {
            ["drive_id"] = disk.Id, ["partuuid"] = disk.PartUuid, ["is_root_device"] = disk.IsRoot,
            ["cache_type"] = disk.Writeback ? "Writeback" : "Unsafe", ["is_read_only"] = disk.ReadOnly, ["path_on_host"] = disk.Path,
            ["io_engine"] = disk.Engine == IoEngine.Async ? "Async" : "Sync",
        });
        // Only a tap has a name on the host; a network within this process has none.
        var nets = spec.Nets.Select(static net => (JsonNode)new JsonObject
        {
            ["iface_id"] = net.Id, ["host_dev_name"] = (net.Backend as NetBackend.Tap)?.Name ?? "", ["guest_mac"] = net.Mac?.ToString(),
        });
        var config = new MicrovmConfig();
        var machine = new JsonObject { ["vcpu_count"] = spec.Vcpus, ["mem_size_mib"] = spec.MemoryMib };
        var parts = config.Patched("machine-config", Parse(machine.ToJsonString()))
            .With("boot-source", Parse(boot.ToJsonString()))
            .With("drives", Parse(new JsonArray([.. drives]).ToJsonString()))
            .With("network-interfaces", Parse(new JsonArray([.. nets]).ToJsonString()));
        return spec.Entropy.Count == 0 ? parts : parts.With("entropy", Parse("{}"));
    }

    /// <summary>A part, or null.</summary>
    public Node? Get(string key) => _parts.GetValueOrDefault(key);

    /// <summary>The machine as it would be with another part.</summary>
    public MicrovmConfig With(string key, Node value)
    {
        var copy = new MicrovmConfig();
        foreach (var (name, node) in _parts) copy._parts[name] = node;
        copy._parts[key] = value;
        return copy;
    }

    /// <summary>The machine with one more element of an array; one with the same id is replaced.</summary>
    public MicrovmConfig WithElement(string key, string idKey, Node value)
    {
        var array = new Node { Kind = NodeKind.Array };
        var id = value.Find(idKey)!.Text;
        var placed = false;
        foreach (var item in Get(key)?.Items ?? [])
        {
            var same = string.Equals(item.Find(idKey)?.Text, id, StringComparison.Ordinal);
            array.Items.Add(same ? value : item);
            placed |= same;
        }

        if (!placed) array.Items.Add(value);
        return With(key, array);
    }

    /// <summary>The machine with some fields of an object changed.</summary>
    public MicrovmConfig Patched(string key, Node change)
    {
        var whole = new Node { Kind = NodeKind.Object };
        whole.Members.AddRange((Get(key)?.Members ?? []).Where(member => change.Find(member.Name) is null or { Kind: NodeKind.Null }));
        whole.Members.AddRange(change.Members.Where(member => member.Value.Kind != NodeKind.Null));
        return With(key, whole);
    }

    /// <summary>
    /// The machine with one element of an array changed as a running device was: what the change leaves out or gives as null stays, in
    /// each rate limiter bucket by bucket. The same machine where there is no such element (it has its devices from elsewhere).
    /// </summary>
    public MicrovmConfig Updated(string key, string idKey, Node change)
    {
        var id = change.Find(idKey)!.Text;
        var old = Get(key)?.Items.Find(item => string.Equals(item.Find(idKey)?.Text, id, StringComparison.Ordinal));
        if (old is null) return this;
        return WithElement(key, idKey, Merged(old, change, static (before, after) =>
            before.Kind == NodeKind.Object && after.Kind == NodeKind.Object ? Merged(before, after, static (_, bucket) => bucket) : after));
    }

    private static Node Merged(Node old, Node change, Func<Node, Node, Node> both)
    {
        var whole = new Node { Kind = NodeKind.Object };
        foreach (var member in old.Members)
            whole.Members.Add(change.Find(member.Name) is { Kind: not NodeKind.Null } after
                ? member with { Value = both(member.Value, after) } : member);
        whole.Members.AddRange(change.Members.Where(member => member.Value.Kind != NodeKind.Null && old.Find(member.Name) is null));
        return whole;
    }

    /// <summary>The description that it makes, and everything that is wrong with it.</summary>
    public VmDescription? Describe(string baseDirectory, ErrorList errors) => FirecrackerDialect.Read(Root(), baseDirectory, errors);

    /// <summary>What is wrong with one part of it, by the rules of files; null where nothing is.</summary>
    public string? WrongWith(string key, string baseDirectory)
    {
        var errors = new ErrorList("body");
        try
        {
            Describe(baseDirectory, errors);
        }
        catch (DescriptionException wrong)
        {
            return wrong.Errors[0].Reason;
        }

        return errors.All.FirstOrDefault(error => error.Key.StartsWith(key, StringComparison.Ordinal)) is { } first
            ? $"{first.Key[(first.Key.LastIndexOf('.') + 1)..]}: {first.Reason}"
            : null;
    }

    /// <summary>The whole of it as JSON.</summary>
    public string ToJson()
    {
        using var bytes = new MemoryStream();
        using (var json = new Utf8JsonWriter(bytes)) Write(json, Root(whole: true));
        return Encoding.UTF8.GetString(bytes.ToArray());
    }

    /// <summary>One part as JSON.</summary>
    public string ToJson(string key)
    {
        using var bytes = new MemoryStream();
        using (var json = new Utf8JsonWriter(bytes)) Write(json, _parts[key]);
        return Encoding.UTF8.GetString(bytes.ToArray());
    }

    private Node Root(bool whole = false)
    {
        var root = new Node { Kind = NodeKind.Object };
        foreach (var key in s_keys)
        {
            var isArray = s_arrays.Contains(key, StringComparer.Ordinal);
            if (_parts.TryGetValue(key, out var part)) root.Members.Add(new Member(key, part, 0, 0));
            else if (isArray || whole) root.Members
                .Add(new Member(key, new Node { Kind = isArray ? NodeKind.Array : NodeKind.Null }, 0, 0));
        }

        return root;
    }

    private static Node Parse(string json) => JsonTree.Parse(Encoding.UTF8.GetBytes(json), new ErrorList("default"));

    private static void Write(Utf8JsonWriter json, Node node)
    {
        switch (node.Kind)
        {
            case NodeKind.Object:
                json.WriteStartObject();
                foreach (var member in node.Members)
                {
                    json.WritePropertyName(member.Name);
                    Write(json, member.Value);
                }

                json.WriteEndObject();
                break;
            case NodeKind.Array:
                json.WriteStartArray();
                foreach (var item in node.Items) Write(json, item);
                json.WriteEndArray();
                break;
            case NodeKind.Boolean or NodeKind.Number: json.WriteRawValue(node.Text); break;
            case NodeKind.Null: json.WriteNullValue(); break;
            default: json.WriteStringValue(node.Text); break;
        }
    }
}
