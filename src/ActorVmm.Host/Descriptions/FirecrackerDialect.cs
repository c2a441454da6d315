using ActorVmm.Actors;

namespace ActorVmm.Host.Descriptions;

/// <summary>
/// A Firecracker configuration file (<c>--config-file</c>), with its rules: unknown keys are ignored at the top level and refused inside
/// objects; optional objects may be null, the arrays may not. What Firecracker can do and this version cannot is refused by name.
/// The devices' own rules are in <see cref="FirecrackerDevices"/>.
/// </summary>
internal static class FirecrackerDialect
{
    /// <summary>Firecracker's command line where the file gives none.</summary>
    public const string DefaultBootArgs =
        "reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.dumbkbd swiotlb=noforce";

    private const int DefaultMemoryMib = 128;

    /// <returns>The description, or null where an error was recorded.</returns>
    public static VmDescription? Read(Node root, string baseDirectory, ErrorList errors)
    {
        if (root.Kind != NodeKind.Object)
        {
            errors.Add(root, "", "a Firecracker configuration is an object { ... }");
            return null;
        }
        var file = new ObjectReader(root, "", errors);
        var log = file.Object("logger", Need.Nullable) is { } logger ? Logger(logger, baseDirectory) : null;
        var metrics = FirecrackerDevices.Metrics(file, baseDirectory);
        var (vcpus, memoryMib) = file.Object("machine-config", Need.Nullable) is { } machine ? Machine(machine) : (1, DefaultMemoryMib);
        var cpu = CpuConfig.Read(file, baseDirectory);
        var kernel = file.Object("boot-source", Need.Required) is { } boot ? Boot(boot, baseDirectory) : null;
        var devices = FirecrackerDevices.Read(file, memoryMib, baseDirectory);
        if (errors.Any || kernel is null)
            return null;
        return new VmDescription { Kernel = kernel, MemoryMib = memoryMib, Vcpus = vcpus, Log = log, Cpu = cpu, MetricsPath = metrics, Devices = devices };
    }

    private static KernelSpec? Boot(ObjectReader boot, string baseDirectory)
    {
        var image = boot.String("kernel_image_path", Need.Required, "the path of a kernel image");
        var path = DescriptionChecks.File(boot, "kernel_image_path", image, baseDirectory);
        var initrd = DescriptionChecks.File(boot, "initrd_path", boot.String("initrd_path", Need.Nullable), baseDirectory);
        var line = boot.String("boot_args", Need.Nullable) ?? DefaultBootArgs;
        if (DescriptionChecks.CommandLineFault(line) is { } fault)
            boot.Reject("boot_args", fault);
        boot.Finish();
        return path is null ? null : new KernelSpec { Path = path, InitrdPath = initrd, CommandLine = line };
    }

    private static (int Vcpus, int MemoryMib) Machine(ObjectReader machine)
    {
        var vcpus = (int)(machine.Integer("vcpu_count", Need.Required, 1, VmLimits.MaxFirecrackerVcpus) ?? 1);
        var memory = (int)(machine.Integer("mem_size_mib", Need.Required, 1, VmLimits.MaxMemoryMib) ?? DefaultMemoryMib);
        if (machine.Boolean("smt", Need.Optional) == true)
        {
            if (vcpus > 1 && vcpus % 2 == 1)
                machine.Reject("vcpu_count", "with smt, allowed is 1 or an even number");
            machine.Reject("smt", "sibling threads: not built yet in this version; set it to false");
        }
        if (machine.Boolean("track_dirty_pages", Need.Optional) == true)
            machine.Reject("track_dirty_pages", "dirty page tracking: not built yet in this version; set it to false");
        var pages = machine.Choice("huge_pages", Need.Optional, StringComparison.Ordinal, "None", "Transparent", "2M");
        if (pages is "2M" && memory % 2 == 1)
            machine.Reject("mem_size_mib", "with 2M huge pages, allowed is an even number");
        if (pages is not (null or "None"))
            machine.Reject("huge_pages", "huge pages: not built yet in this version; set it to \"None\"");
        var template = machine.Choice(
            "cpu_template", Need.Nullable, StringComparison.Ordinal, "None", "C3", "T2", "T2S", "T2CL", "T2A", "V1N1");
        if (template is not (null or "None"))
            machine.Reject("cpu_template", "CPU templates: not built yet in this version; set it to \"None\"");
        if (machine.String("gdb_socket_path", Need.Nullable) is not null)
            machine.Reject("gdb_socket_path", "the debugger socket: not built yet in this version; remove it");
        machine.Finish();
        return (vcpus, memory);
    }

    private static LogDescription Logger(ObjectReader logger, string baseDirectory)
    {
        var path = logger.String("log_path", Need.Nullable);
        var usable = path is { Length: > 0 } && !path.Contains('\0', StringComparison.Ordinal);
        if (path is not null && !usable)
            logger.Reject("log_path", "allowed is the path of a file to append to");
        var level = logger.Choice("level", Need.Nullable, StringComparison.OrdinalIgnoreCase,
            "Off", "Error", "Warn", "Warning", "Info", "Debug", "Trace");
        var showLevel = logger.Boolean("show_level", Need.Nullable) ?? false;
        if (logger.Boolean("show_log_origin", Need.Nullable) == true)
            logger.Reject("show_log_origin", "source positions in log lines: not built yet in this version; set it to false");
        if (logger.String("module", Need.Nullable) is not null)
            logger.Reject("module", "filtering the log by module: not built yet in this version; remove it");
        logger.Finish();
        var name = level switch { null => "info", "Warn" => "warning", _ => level.ToLowerInvariant() };
        return new LogDescription(usable ? Path.GetFullPath(path!, baseDirectory) : null, name, showLevel);
    }
}
