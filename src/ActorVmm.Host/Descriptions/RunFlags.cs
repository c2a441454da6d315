using System.Globalization;
using ActorVmm.Actors;
using ActorVmm.Backends.Taps;
using ActorVmm.Backends.UserNet;

namespace ActorVmm.Host.Descriptions;

/// <summary><c>--kernel path=...[,cmdline=...][,kernel_load_addr=...]</c></summary>
internal sealed record KernelFlag(string Path, string CommandLine, ulong LoadAddress, bool HasCommandLine, bool HasLoadAddress)
{
    public static KernelFlag Parse(string text)
    {
        var options = new OptionString("kernel", text);
        var defaults = new KernelSpec { Path = "" };
        var line = options.Text("cmdline");
        var path = options.Required("path");
        var load = options.Number("kernel_load_addr", ulong.MaxValue);
        options.RequireAllConsumed();
        return new(path, line ?? defaults.CommandLine, load ?? defaults.LoadAddress, line is not null, load is not null);
    }
}

/// <summary><c>--memory size_mib=N</c>; 256 where it says nothing.</summary>
internal sealed record MemoryFlag(uint SizeMib)
{
    public static MemoryFlag Parse(string text)
    {
        var options = new OptionString("memory", text);
        var size = options.Number("size_mib", uint.MaxValue);
        options.RequireAllConsumed();
        // The reference lets these through and fails later, without a name.
        return size is 0 or > VmLimits.MaxMemoryMib
            ? throw options.Invalid(string.Create(CultureInfo.InvariantCulture,
                $"Param 'size_mib', out of range: allowed is 1 to {VmLimits.MaxMemoryMib}"))
            : new((uint)(size ?? 256));
    }
}

/// <summary><c>--vcpu num=N</c>; 1 where it says nothing.</summary>
internal sealed record VcpuFlag(byte Num)
{
    public static VcpuFlag Parse(string text)
    {
        var options = new OptionString("vCPUs", text);
        var num = options.Number("num", byte.MaxValue, nonZero: true);
        options.RequireAllConsumed();
        return num > VmLimits.MaxVcpus
            ? throw options.Invalid(string.Create(CultureInfo.InvariantCulture,
                $"Param 'num', out of range: allowed is 1 to {VmLimits.MaxVcpus}"))
            : new((byte)(num ?? 1));
    }
}

/// <summary><c>--net tap=NAME</c></summary>
internal sealed record NetFlag(string Tap)
{
    public static NetFlag Parse(string text)
    {
        var options = new OptionString("network", text);
        var tap = options.Required("tap");
        options.RequireAllConsumed();
        return new(tap);
    }

    /// <summary>What is wrong with the demo's <c>--net</c>, which may also stand alone; null where nothing is.</summary>
    public static string? Fault(string? text)
    {
        if (string.IsNullOrEmpty(text)) return null;
        try
        {
            return TapSettings.NameFault(Parse(text).Tap) is { } fault ? $"--net {text}: {fault}" : null;
        }
        catch (OptionException wrong)
        {
            return wrong.Message;
        }
    }

    /// <summary>What the demo's <c>--net</c> is connected to: a tap, or a network in this process.</summary>
    public static NetBackend Backend(string? text, IReadOnlyList<string> forwards) => string.IsNullOrEmpty(text)
        ? new NetBackend.User(new UserNetSettings { Forwards = [.. forwards.Select(static forward => PortForward.Parse(forward, out _)!)] })
        : new NetBackend.Tap(Parse(text).Tap);
}

/// <summary><c>--block path=FILE</c></summary>
internal sealed record BlockFlag(string Path)
{
    public static BlockFlag Parse(string text)
    {
        var options = new OptionString("block", text);
        var path = options.Required("path");
        options.RequireAllConsumed();
        return new(path);
    }
}

/// <summary>vmm-reference's flags of <c>run</c>, as they were given; null where a flag was not.</summary>
internal sealed record RunFlags
{
    public string? Kernel { get; init; }
    public string? Memory { get; init; }
    public string? Vcpu { get; init; }
    public string? Block { get; init; }
    public string? Net { get; init; }

    /// <summary>The VM that the flags describe, over the file's VM where there is one: a flag wins over the file.</summary>
    /// <exception cref="OptionException">A flag is wrong, or asks for what this version has not.</exception>
    public VmDescription Apply(VmDescription? file, string currentDirectory, IReadOnlyList<string>? overrides = null)
    {
        var kernel = Kernel is null ? null : KernelFlag.Parse(Kernel);
        var memory = Memory is null ? null : MemoryFlag.Parse(Memory);
        var vcpu = Vcpu is null ? null : VcpuFlag.Parse(Vcpu);
        var net = Net is null ? null : NetFlag.Parse(Net);
        var block = Block is null ? null : BlockFlag.Parse(Block);
        if (file is null)
            return WithNet(WithBlock(FromFlags(kernel, memory, vcpu, currentDirectory, overrides), block, currentDirectory), net);
        if (kernel is not null)
        {
            file = file with
            {
                Kernel = file.Kernel with
                {
                    Path = Path.GetFullPath(kernel.Path, currentDirectory),
                    CommandLine = kernel.HasCommandLine ? kernel.CommandLine : file.Kernel.CommandLine,
                    LoadAddress = kernel.HasLoadAddress ? kernel.LoadAddress : file.Kernel.LoadAddress,
                },
            };
        }
        file = file with { MemoryMib = (int?)memory?.SizeMib ?? file.MemoryMib, Vcpus = vcpu?.Num ?? file.Vcpus };
        // The same checks as for a description; a file that was valid stays so except where a flag changed it.
        _ = Checked(Tree(file.Kernel, file.MemoryMib, file.Vcpus, file.Kernel.InitrdPath), currentDirectory, null);
        return WithNet(WithBlock(file, block, currentDirectory), net);
    }

    /// <summary>The reference's one interface; it takes the place of the file's interfaces.</summary>
    private static VmDescription WithNet(VmDescription vm, NetFlag? net)
    {
        if (net is null) return vm;
        if (TapSettings.NameFault(net.Tap) is { } fault) throw new OptionException($"--net tap={net.Tap}: {fault}");
        return vm with { Devices = vm.Devices with { Nets = [new NetSpec { Id = "net0", Backend = new NetBackend.Tap(net.Tap) }] } };
    }

    /// <summary>The reference's one disk: the root, writable, with flushes. It takes the place of the file's disks.</summary>
    private static VmDescription WithBlock(VmDescription vm, BlockFlag? block, string currentDirectory)
    {
        if (block is null) return vm;
        var path = Path.GetFullPath(block.Path, currentDirectory);
        if (!File.Exists(path)) throw new OptionException($"--block path={block.Path}: no such file");
        var disk = new DiskSpec { Id = "root", Path = path, IsRoot = true, Writeback = true };
        return vm with { Devices = vm.Devices with { Disks = [disk] } };
    }

    private static VmDescription FromFlags(
        KernelFlag? kernel, MemoryFlag? memory, VcpuFlag? vcpu, string currentDirectory, IReadOnlyList<string>? overrides)
    {
        if (kernel is null)
            throw new OptionException("nothing to run: give a description FILE, or --kernel path=...");
        var spec = new KernelSpec { Path = kernel.Path, CommandLine = kernel.CommandLine, LoadAddress = kernel.LoadAddress };
        return Checked(Tree(spec, (int)(memory?.SizeMib ?? 256), vcpu?.Num ?? 1, null), currentDirectory, overrides);
    }

    private static VmDescription Checked(Node tree, string currentDirectory, IReadOnlyList<string>? overrides)
    {
        try
        {
            var errors = new ErrorList("command line");
            foreach (var setting in overrides ?? [])
                Override.Apply(tree, setting, errors);
            errors.ThrowIfAny();
            return DescriptionReader.FromTree(tree, "command line", currentDirectory);
        }
        catch (DescriptionException wrong)
        {
            throw new OptionException(wrong.Message, wrong);
        }
    }

    private static Node Tree(KernelSpec kernel, int memoryMib, int vcpus, string? initrd)
    {
        var root = new Node { Kind = NodeKind.Object };
        Put("kernel.path", kernel.Path);
        Put("kernel.cmdline", kernel.CommandLine);
        Put("kernel.load-address", kernel.LoadAddress.ToString(CultureInfo.InvariantCulture));
        if (initrd is not null)
            Put("kernel.initrd", initrd);
        Put("memory.size-mib", memoryMib.ToString(CultureInfo.InvariantCulture));
        Put("vcpus.count", vcpus.ToString(CultureInfo.InvariantCulture));
        return root;

        void Put(string path, string text) =>
            HoconTree.Put(root, path.Split('.'), new Node { Kind = NodeKind.Text, Text = text }, 0, 0);
    }
}
