using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using ActorVmm.Host.Descriptions;

namespace ActorVmm.Host.Firecracker;

/// <summary>
/// Firecracker's API as one function from request to reply: which endpoint with which method and body, in which phase, with which words for
/// what is wrong. What is not built here says so. Requests come one after the other.
/// </summary>
/// <param name="vm">The VM behind the socket.</param>
/// <param name="metrics">Its metrics file, and the counters of this API.</param>
/// <param name="baseDirectory">Where relative paths start.</param>
internal sealed partial class FirecrackerApi(IMicrovm vm, FirecrackerMetrics metrics, string baseDirectory)
{
    /// <summary>The version of the contract that is kept.</summary>
    public const string Version = "1.17.0";

    /// <summary>The longest body, unless <c>--http-api-max-payload-size</c> says otherwise.</summary>
    public const int MaxPayload = 51200;

    private static readonly JsonWriterOptions s_plain = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    private MicrovmConfig _config = new();

    /// <summary>What the GETs show. What comes from a description is read anew each time, since a host may be given another.</summary>
    private MicrovmConfig Present => !vm.IsConfigurable && vm.Described is { } spec ? MicrovmConfig.Of(spec) : _config;

    /// <summary>Where the guest's serial output goes instead of standard output; null for there.</summary>
    public string? SerialOutPath { get; private set; }

    /// <summary>A refusal.</summary>
    public static MicroReply Fault(string message) => new(400, Json(json => json.WriteString("fault_message", message)));

    /// <summary>Answers one request. Never throws for what a client sends.</summary>
    public async Task<MicroReply> HandleAsync(MicroRequest request)
    {
        metrics.CountRequest(request.Method, request.Path);
        MicroReply reply;
        try
        {
            reply = await RouteAsync(request).ConfigureAwait(false);
        }
        catch (FaultException fault)
        {
            reply = Fault(fault.Message);
        }

        if (reply.Status >= 400) metrics.CountFailure(request.Method, request.Path);
        return reply;
    }

    private async Task<MicroReply> RouteAsync(MicroRequest request)
    {
        var tokens = request.Path.TrimStart('/').Split('/');
        if (tokens.Length > 1 && tokens[^1].Length == 0) tokens = tokens[..^1];
        var (first, second) = (tokens[0], tokens.Length > 1 ? tokens[1] : null);
        switch (request.Method)
        {
            case "GET": return request.Body is null ? Get(first, second) : throw new FaultException("GET request cannot have a body.");
            case "PUT":
                if (!s_puts.Contains(first)) break;
                return await PutAsync(first, second, request.Body ?? throw new FaultException("Empty PUT request.")).ConfigureAwait(false);
            case "PATCH":
                if (!s_patches.Contains(first)) break;
                return await PatchAsync(first, second,
                    request.Body ?? throw new FaultException("Empty PATCH request.")).ConfigureAwait(false);
            case "DELETE" when first is "drives" or "pmem" or "network-interfaces":
                if (request.Body is not null) throw new FaultException("DELETE request cannot have a body.");
                Id(second);
                RequireStarted();
                throw NotSupported("hot-unplug needs PCI, which is not built in this version");
        }

        throw request switch
        {
            { Method: "PUT", Body: null } => new FaultException("Empty PUT request."),
            { Method: "PATCH", Body: null } => new FaultException("Empty PATCH request."),
            _ => InvalidPath(request.Method, first),
        };
    }

    private static readonly HashSet<string> s_puts = new(StringComparer.Ordinal)
    {
        "actions", "balloon", "boot-source", "cpu-config", "drives", "logger", "machine-config", "metrics", "mmds", "network-interfaces",
            "pmem",
        "snapshot", "vsock", "entropy", "serial", "hotplug",
    };

    private static readonly HashSet<string> s_patches = new(StringComparer.Ordinal)
    {
        "balloon", "drives", "machine-config", "mmds", "network-interfaces", "vm", "pmem", "hotplug",
    };

    private MicroReply Get(string first, string? second) => first switch
    {
        "" => Ok(json =>
        {
            json.WriteString("id", vm.Id);
            json.WriteString("state",
                vm.State switch { MicrovmState.Running => "Running", MicrovmState.Paused => "Paused", _ => "Not started" });
            json.WriteString("vmm_version", Version);
            json.WriteString("app_name", "Firecracker");
        }),
        "version" => Ok(static json => json.WriteString("firecracker_version", Version)),
        "vm" when second is "config" => new MicroReply(200, Present.ToJson()),
        "machine-config" => new MicroReply(200, Present.ToJson("machine-config")),
        "balloon" => throw NotBuilt("the memory balloon"),
        "mmds" => throw NotBuilt("the metadata service"),
        "hotplug" when second is "memory" => throw NotBuilt("memory hot-plug"),
        _ => throw InvalidPath("GET", first),
    };

    private async Task<MicroReply> PutAsync(string first, string? second, byte[] body)
    {
        switch (first)
        {
            case "actions": return await ActionAsync(Read(body, Schemas.Action, "InstanceActionInfo").Find("action_type")!.Text)
                .ConfigureAwait(false);
            case "boot-source": return Configure("boot-source", Read(body, Schemas.BootSource, "BootSourceConfig"), CheckBoot);
            case "machine-config": return PutMachine(body);
            case "cpu-config": return Configure("cpu-config", Any(body), PlainCheck("cpu-config"));
            case "drives": return Element("drives", "drive_id", Id(second), Read(body, Schemas.Drive, "BlockDeviceConfig"), CheckDrive);
            case "network-interfaces":
                return Element("network-interfaces", "iface_id", Id(second), Read(body, Schemas.Net, "NetworkInterfaceConfig"), CheckNet);
            case "entropy": return Configure("entropy", Read(body, Schemas.Entropy, "EntropyDeviceConfig"), PlainCheck("entropy"));
            case "logger": return PutLogger(body);
            case "metrics": return PutMetrics(body);
            case "serial": return PutSerial(body);
            case "vsock": return Unbuilt("vsock", body);
            case "balloon": return Unbuilt("the memory balloon", body);
            case "pmem":
                Id(second);
                return Unbuilt("persistent memory", body);
            case "mmds": return Unbuilt("the metadata service", body);
            case "snapshot" when second is "create" or "load": return Unbuilt("snapshots", body);
            case "hotplug" when second is "memory": return Unbuilt("memory hot-plug", body);
            default: throw InvalidPath("PUT", first);
        }
    }

    private async Task<MicroReply> PatchAsync(string first, string? second, byte[] body)
    {
        switch (first)
        {
            case "vm": return await SetStateAsync(Read(body, Schemas.VmState, "VmState").Find("state")!.Text).ConfigureAwait(false);
            case "machine-config": return PatchMachine(body);
            case "drives":
                return await UpdateDriveAsync(Match(Id(second), Read(body, Schemas.DriveUpdate, "BlockDeviceUpdateConfig"), "drive_id"))
                    .ConfigureAwait(false);
            case "network-interfaces":
                return await UpdateNetAsync(Match(Id(second), Read(body, Schemas.NetUpdate, "NetworkInterfaceUpdateConfig"), "iface_id"))
                    .ConfigureAwait(false);
            case "balloon": throw NotBuilt("the memory balloon");
            case "mmds": throw NotBuilt("the metadata service");
            case "pmem": throw NotBuilt("persistent memory");
            case "hotplug" when second is "memory": throw NotBuilt("memory hot-plug");
            default: throw InvalidPath("PATCH", first);
        }
    }

    // ---- Actions.

    private async Task<MicroReply> ActionAsync(string action)
    {
        if (string.Equals(action, "InstanceStart", StringComparison.Ordinal)) return await StartAsync().ConfigureAwait(false);
        RequireStarted();
        if (string.Equals(action, "FlushMetrics", StringComparison.Ordinal)) metrics.Flush();
        else vm.SendCtrlAltDel();
        return MicroReply.NoContent;
    }

    private async Task<MicroReply> StartAsync()
    {
        RequireNotStarted();
        VmDescription? description = null;
        if (vm.IsConfigurable)
        {
            if (_config.Get("boot-source") is null) throw new FaultException("Cannot start microvm without kernel configuration.");
            var errors = new ErrorList("configuration");
            description = _config.Describe(baseDirectory, errors);
            if (description is null || errors.Any) throw new FaultException($"Cannot start microvm: {errors.All[0]}");
        }

        await TryAsync(() => vm.StartAsync(description)).ConfigureAwait(false);
        return MicroReply.NoContent;
    }

    private async Task<MicroReply> SetStateAsync(string state)
    {
        RequireStarted();
        await TryAsync(string.Equals(state, "Paused", StringComparison.Ordinal) ? vm.PauseAsync : vm.ResumeAsync).ConfigureAwait(false);
        return MicroReply.NoContent;
    }

    private static async Task TryAsync(Func<Task> step)
    {
        try
        {
            await step().ConfigureAwait(false);
        }
        catch (Exception cannot) when (cannot is not FaultException)
        {
            throw new FaultException(cannot.GetBaseException().Message, cannot);
        }
    }

    // ---- Bodies and phases.

    private static Node Read(byte[] body, Schema schema, string what)
    {
        var node = Any(body);
        return schema.Check(node, what) is { } wrong ? throw Unreadable(wrong) : node;
    }

    private static Node Any(byte[] body)
    {
        try
        {
            return JsonTree.Parse(body, new ErrorList("body"));
        }
        catch (DescriptionException wrong)
        {
            var error = wrong.Errors[0];
            throw Unreadable($"{error.Reason.Replace("not JSON: ", "", StringComparison.Ordinal).TrimEnd('.')} at line {error.Line} column {error.Column}");
        }
    }

    private static string Id(string? id)
    {
        if (string.IsNullOrEmpty(id)) throw new FaultException("The ID cannot be empty.");
        return id.All(static c => char.IsAsciiLetterOrDigit(c) || c == '_')
            ? id
            : throw new FaultException("API Resource IDs can only contain alphanumeric characters and underscores.");
    }

    private static Node Match(string id, Node body, string key) =>
        string.Equals(body.Find(key)!.Text, id, StringComparison.Ordinal)
            ? body
            : throw new FaultException("The id from the path does not match the id from the body!");

    private void RequireNotStarted()
    {
        if (vm.State != MicrovmState.NotStarted)
            throw new FaultException("The requested operation is not supported after starting the microVM.");
    }

    private void RequireStarted()
    {
        if (vm.State == MicrovmState.NotStarted)
            throw new FaultException("The requested operation is not supported before starting the microVM.");
    }

    private void RequireConfigurable()
    {
        RequireNotStarted();
        if (!vm.IsConfigurable) throw NotSupported("this microVM has its configuration from its host's description");
    }

    private static MicroReply Unbuilt(string what, byte[] body)
    {
        Any(body); // what is no JSON is told so first
        throw NotBuilt(what);
    }

    private static MicroReply Ok(Action<Utf8JsonWriter> write) => new(200, Json(write));

    private static string Json(Action<Utf8JsonWriter> write)
    {
        using var bytes = new MemoryStream();
        using (var json = new Utf8JsonWriter(bytes, s_plain))
        {
            json.WriteStartObject();
            write(json);
            json.WriteEndObject();
        }

        return Encoding.UTF8.GetString(bytes.ToArray());
    }

    private static FaultException InvalidPath(string method, string path) => new($"Invalid request method and/or path: {method} {path}.");

    private static FaultException Unreadable(string why) => new($"An error occurred when deserializing the json body of a request: {why}.");

    private static FaultException NotSupported(string what) => new($"The requested operation is not supported: {what}.");

    private static FaultException NotBuilt(string what) => NotSupported($"{what}: not built yet in this version");

    /// <summary>A refusal on its way out.</summary>
    private sealed class FaultException : Exception
    {
        public FaultException(string message) : base(message) { }
        public FaultException(string message, Exception inner) : base(message, inner) { }
        public FaultException() { }
    }
}
