using System.Globalization;
using ActorVmm.Actors;
using ActorVmm.Devices.Faults;
using ActorVmm.Host.Faults;
using ActorVmm.Hypervisor;
using ActorVmm.Hypervisor.Soft;

namespace ActorVmm.Host.Descriptions;

/// <summary>
/// ActorVmm's own description. <c>config/full.conf</c> shows every key with its default; README.md has the table.
/// </summary>
internal static class NativeDialect
{
    /// <summary>Keys that this version knows of and cannot serve yet: refused by name, except when empty.</summary>
    private static readonly (string Key, string What)[] NotBuiltYet =
    [
        ("vsock", "sockets between host and guest"),
        ("balloon", "the memory balloon"),
        ("snapshot", "snapshots"), ("cpu", "CPU models"),
    ];

    /// <returns>The description, or null where an error was recorded.</returns>
    public static VmDescription? Read(Node root, string baseDirectory, ErrorList errors)
    {
        var vm = new ObjectReader(root, "", errors);
        var name = vm.String("name", Need.Nullable);
        if (name is not null && !DescriptionChecks.IsName(name))
            vm.Reject("name", "allowed are 1 to 64 letters, digits, '-' and '_'");
        var hypervisor = vm.Choice("hypervisor", Need.Nullable, StringComparison.Ordinal, "auto", "kvm", "soft");
        var clock = vm.Choice("clock", Need.Nullable, StringComparison.Ordinal, "host", "virtual");
        var seed = vm.Integer("seed", Need.Nullable, 0, ulong.MaxValue);

        var memory = vm.Object("memory", Need.Nullable);
        var memoryMib = (int)(memory?.Integer("size-mib", Need.Nullable, 1, VmLimits.MaxMemoryMib) ?? 256);
        memory?.Finish();
        var vcpus = vm.Object("vcpus", Need.Nullable);
        var count = (int)(vcpus?.Integer("count", Need.Nullable, 1, VmLimits.MaxVcpus) ?? 1);
        var threshold = (int?)vcpus?.Integer("compile-threshold", Need.Nullable, 0, int.MaxValue);
        var codeCache = (int?)vcpus?.Integer("code-cache-mib", Need.Nullable, 1, 1024);
        var lockStep = vcpus?.Boolean("lock-step", Need.Nullable) ?? false;
        if (lockStep && (!string.Equals(clock, "virtual", StringComparison.Ordinal) || string.Equals(hypervisor, "kvm", StringComparison.Ordinal)))
            vcpus!.Reject("lock-step", "compares the two tiers of soft, under virtual time only; set hypervisor = soft and clock = virtual");
        vcpus?.Finish();
        var kernel = vm.Object("kernel", Need.Required) is { } part ? Kernel(part, baseDirectory, memoryMib) : null;
        var log = vm.Object("log", Need.Nullable) is { } logging ? Log(logging, baseDirectory) : null;

        var devices = new DeviceDescriptions
        {
            Disks = DiskDescriptions.Native(vm, baseDirectory),
            Nets = NetDescriptions.Native(vm),
            Entropy = vm.Object("entropy", Need.Nullable) is { } entropy ? Entropy(entropy) : null,
        };
        devices.CheckCount(vm, "block", "net");
        var faults = vm.Object("faults", Need.Nullable) is { } plan ? FaultSection.Read(plan, seed ?? 0) : FaultPlan.None;
        foreach (var (key, what) in NotBuiltYet)
            RefuseUnlessEmpty(vm, key, what);
        vm.Finish();
        if (errors.Any || kernel is null)
            return null;
        return new VmDescription
        {
            Name = name ?? "vm", Hypervisor = hypervisor ?? "auto", Kernel = kernel, MemoryMib = memoryMib, Vcpus = count, Seed = seed ?? 0,
            Clock = string.Equals(clock, "virtual", StringComparison.Ordinal) ? ClockMode.Virtual : ClockMode.Host, Log = log, Devices = devices,
            Faults = faults,
            CompileThreshold = threshold == SoftOptions.DefaultThreshold ? null : threshold, LockStep = lockStep,
            CodeCacheMib = codeCache == SoftOptions.DefaultCodeMib ? null : codeCache,
        };
    }

    private static KernelSpec? Kernel(ObjectReader kernel, string baseDirectory, int memoryMib)
    {
        var path = DescriptionChecks.File(kernel, "path", kernel.String("path", Need.Required, "the path of a kernel image"),
            baseDirectory);
        var initrd = DescriptionChecks.File(kernel, "initrd", kernel.String("initrd", Need.Nullable), baseDirectory);
        var defaults = new KernelSpec { Path = "" };
        var line = kernel.String("cmdline", Need.Nullable) ?? defaults.CommandLine;
        if (DescriptionChecks.CommandLineFault(line) is { } fault)
            kernel.Reject("cmdline", fault);
        var entry = kernel.Choice("entry", Need.Nullable, StringComparison.Ordinal, "auto", "elf64", "pvh", "bzimage", "payload");
        var load = kernel.Integer("load-address", Need.Nullable, 0, ulong.MaxValue, ", or 0x...") ?? defaults.LoadAddress;
        if (load >= (ulong)memoryMib << 20)
            kernel.Reject("load-address", string.Create(CultureInfo.InvariantCulture, $"is outside the guest's {memoryMib} MiB of memory"));
        kernel.Finish();
        return path is null ? null : defaults with
        {
            Path = path, InitrdPath = initrd, CommandLine = line, LoadAddress = load,
            Entry = Enum.Parse<KernelEntry>(entry ?? "auto", ignoreCase: true),
        };
    }

    private static EntropySpec Entropy(ObjectReader entropy)
    {
        var spec = new EntropySpec { Limits = RateLimits.Native(entropy, "rate-limiter") };
        entropy.Finish();
        return spec;
    }

    private static LogDescription Log(ObjectReader log, string baseDirectory)
    {
        var path = log.String("path", Need.Nullable);
        if (path is { Length: 0 } || path?.Contains('\0', StringComparison.Ordinal) == true)
            log.Reject("path", "allowed is the path of a file to append to");
        var level = log.Choice("level", Need.Nullable, StringComparison.Ordinal, "off", "error", "warning", "info", "debug", "trace");
        log.Finish();
        var usable = !string.IsNullOrEmpty(path) && !path.Contains('\0', StringComparison.Ordinal);
        return new LogDescription(usable ? Path.GetFullPath(path!, baseDirectory) : null, level ?? "info", ShowLevel: true);
    }

    private static void RefuseUnlessEmpty(ObjectReader vm, string key, string what)
    {
        if (vm.Take(key, Need.Nullable, what) is { } node
            && !(node.Kind == NodeKind.Array && node.Items.Count == 0) && !(node.Kind == NodeKind.Object && node.Members.Count == 0))
            vm.Reject(key, $"{what}: not built yet in this version; remove the key");
    }
}
