using System.Globalization;
using ActorVmm.Host.Descriptions;

namespace ActorVmm.Host.Firecracker;

/// <summary>The parts of a microVM: what each may be, and in which words it is refused.</summary>
internal sealed partial class FirecrackerApi
{
    private static readonly string[] s_levels = ["Off", "Trace", "Debug", "Info", "Warn", "Warning", "Error"];

    private MicroReply Configure(string key, Node value, Func<MicrovmConfig, Node, string?> check)
    {
        RequireConfigurable();
        var changed = _config.With(key, value);
        if (check(changed, value) is { } wrong) throw new FaultException(wrong);
        _config = changed;
        return MicroReply.NoContent;
    }

    private MicroReply Element(string key, string idKey, string id, Node value, Func<MicrovmConfig, Node, string?> check)
    {
        Match(id, value, idKey);
        RequireConfigurable();
        var changed = _config.WithElement(key, idKey, value);
        if (check(changed, value) is { } wrong) throw new FaultException(wrong);
        _config = changed;
        return MicroReply.NoContent;
    }

    /// <summary>By the rules of files alone.</summary>
    private Func<MicrovmConfig, Node, string?> PlainCheck(string key) => (changed, _) => Rules(changed, key);

    private string? Rules(MicrovmConfig changed, string key, string prefix = "")
    {
        if (changed.WrongWith(key, baseDirectory) is not { } wrong) return null;
        return wrong.Contains("not built yet", StringComparison.Ordinal) ? NotSupported(wrong).Message : prefix + wrong;
    }

    private string? CheckBoot(MicrovmConfig changed, Node boot)
    {
        if (OpenFault(boot.Find("kernel_image_path")!.Text) is { } kernel) return $"The kernel file cannot be opened: {kernel}";
        if (boot.Find("initrd_path") is { Kind: NodeKind.String } initrd && OpenFault(initrd.Text) is { } missing)
            return $"The initrd file cannot be opened due to invalid path or invalid permissions. {missing}";
        if (boot.Find("boot_args") is { Kind: NodeKind.String } line && DescriptionChecks.CommandLineFault(line.Text) is { } fault)
            return $"The kernel command line is invalid: {fault}";
        return Rules(changed, "boot-source");
    }

    private MicroReply PutMachine(byte[] body)
    {
        var machine = Read(body, Schemas.MachineConfig, "MachineConfig");
        RequireConfigurable();
        // What is left out has its default: nothing of an earlier configuration stays.
        var whole = new MicrovmConfig().Patched("machine-config", machine).Get("machine-config")!;
        return SetMachine(_config.With("machine-config", whole), machine);
    }

    private MicroReply PatchMachine(byte[] body)
    {
        var change = Read(body, Schemas.MachineConfigUpdate, "MachineConfigUpdate");
        if (change.Members.TrueForAll(member => member.Value.Kind == NodeKind.Null)) throw new FaultException("Empty PATCH request.");
        RequireConfigurable();
        return SetMachine(_config.Patched("machine-config", change), change);
    }

    private MicroReply SetMachine(MicrovmConfig changed, Node given)
    {
        var machine = changed.Get("machine-config")!;
        var vcpus = int.Parse(machine.Find("vcpu_count")!.Text, CultureInfo.InvariantCulture);
        var memory = ulong.Parse(machine.Find("mem_size_mib")!.Text, CultureInfo.InvariantCulture);
        var smt = machine.Find("smt") is { Kind: NodeKind.Boolean, Text: "true" };
        if (vcpus is < 1 or > VmLimits.MaxFirecrackerVcpus || (smt && vcpus > 1 && vcpus % 2 == 1))
            throw new FaultException("The number of vCPUs must be greater than 0, less than 32 and must be 1 or an even number if SMT is enabled.");
        if (memory == 0 || (memory % 2 == 1 && machine.Find("huge_pages")?.Text is "2M"))
            throw new FaultException("The memory size (MiB) is either 0, or not a multiple of the configured page size.");
        if (Rules(changed, "machine-config") is { } wrong) throw new FaultException(wrong);
        _config = changed;
        return MicroReply.NoContent with { Deprecated = given.Find("cpu_template") is { Kind: not NodeKind.Null } };
    }

    private string? CheckDrive(MicrovmConfig changed, Node drive)
    {
        var others = changed.Get("drives")!.Items.Where(other => !ReferenceEquals(other, drive));
        if (IsRoot(drive) && others.Any(IsRoot)) return "A root block device already exists!";
        var path = drive.Find("path_on_host") is { Kind: NodeKind.String } given ? given.Text : null;
        if (path is not null && OpenFault(path) is { } missing)
            return $"Unable to create the virtio block device: Virtio backend error: Error manipulating the backing file: {missing} {path}";
        return Rules(changed, "drives", "Unable to create the virtio block device: ");

        static bool IsRoot(Node node) => node.Find("is_root_device") is { Text: "true" };
    }

    private string? CheckNet(MicrovmConfig changed, Node net)
    {
        var mac = net.Find("guest_mac")?.Text;
        var others = changed.Get("network-interfaces")!.Items.Where(other => !ReferenceEquals(other, net));
        if (!string.IsNullOrEmpty(mac)
            && others.Any(other => string.Equals(other.Find("guest_mac")?.Text, mac, StringComparison.OrdinalIgnoreCase)))
            return $"The MAC address is already in use: {mac}";
        return Rules(changed, "network-interfaces", "Could not create the network device: ");
    }

    private MicroReply PutLogger(byte[] body)
    {
        var logger = Read(body, Schemas.Logger, "LoggerConfig");
        if (logger.Find("level") is { Kind: NodeKind.String } level && !s_levels.Contains(level.Text, StringComparer.OrdinalIgnoreCase))
            throw Unreadable(string.Create(CultureInfo.InvariantCulture,
                $"unknown variant `{level.Text}`, expected one of `Off`, `Trace`, `Debug`, `Info`, `Warn`, `Error` at line {level.Line} column {level.Column}"));
        return Configure("logger", logger, (changed, node) =>
            node.Find("log_path") is { Kind: NodeKind.String } path && AppendFault(path.Text) is { } fault
                ? $"Failed to open target file: {fault}"
                : Rules(changed, "logger"));
    }

    private MicroReply PutMetrics(byte[] body)
    {
        const string Bad = "Cannot initialize the metrics system due to bad user input: ";
        var given = Read(body, Schemas.Metrics, "MetricsConfig");
        return Configure("metrics", given, (_, node) =>
        {
            if (metrics.IsOpen) return Bad + "Reinitialization of metrics not allowed.";
            if (node.Find("properties") is { Kind: not (NodeKind.Object or NodeKind.Null) })
                return Bad + "properties: allowed is an object of strings";
            var path = DescriptionChecks.FullPath(node.Find("metrics_path")!.Text, baseDirectory);
            return metrics.Open(path) is { } fault ? Bad + fault : null;
        });
    }

    private MicroReply PutSerial(byte[] body)
    {
        var serial = Read(body, Schemas.Serial, "SerialConfig");
        RequireConfigurable();
        if (serial.Find("rate_limiter") is { Kind: not NodeKind.Null }) throw NotBuilt("a rate limit for the serial port");
        var path = serial.Find("serial_out_path") is { Kind: NodeKind.String } given ? DescriptionChecks.FullPath(given.Text,
            baseDirectory) : null;
        if (path is not null && AppendFault(path) is { } fault) throw new FaultException($"Failed to open target file: {fault}");
        SerialOutPath = path;
        return MicroReply.NoContent;
    }

    // ---- Files, in the words of the system.

    private string? OpenFault(string path) => Fault(path, static full =>
    {
        if (Directory.Exists(full)) throw new IOException("Is a directory (os error 21)");
        File.OpenHandle(full).Dispose();
    });

    private string? AppendFault(string path) =>
        Fault(path, static full => new FileStream(full, FileMode.Append, FileAccess.Write, FileShare.ReadWrite).Dispose());

    private string? Fault(string path, Action<string> open)
    {
        try
        {
            if (path.Length == 0) return "No such file or directory (os error 2)";
            open(DescriptionChecks.FullPath(path, baseDirectory));
            return null;
        }
        catch (Exception missing) when (missing is FileNotFoundException or DirectoryNotFoundException)
        {
            return "No such file or directory (os error 2)";
        }
        catch (UnauthorizedAccessException)
        {
            return "Permission denied (os error 13)";
        }
        catch (Exception cannot) when (cannot is IOException or ArgumentException or NotSupportedException)
        {
            return cannot.Message;
        }
    }
}
