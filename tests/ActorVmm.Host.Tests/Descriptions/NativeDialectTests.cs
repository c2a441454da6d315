using ActorVmm.Actors;
using ActorVmm.Devices.Virtio;
using ActorVmm.Host.Descriptions;
using ActorVmm.Hypervisor;

namespace ActorVmm.Host.Tests.Descriptions;

public sealed class NativeDialectTests : IDisposable
{
    private readonly TemporaryDirectory _here = new();

    public void Dispose() => _here.Dispose();

    [Fact]
    public void The_least_description_is_a_kernel_path()
    {
        var spec = _here.Hocon("kernel.path = vmlinuz").ToSpec();

        Assert.Equal(new VmSpec { Name = "vm", Kernel = new KernelSpec { Path = Path.Combine(_here.Path, "vmlinuz") } }, spec);
        Assert.Equal((256, 1, ClockMode.Host, "panic=1 pci=off", 0x100000UL),
            (spec.MemoryMib, spec.Vcpus, spec.Clock, spec.Kernel.CommandLine, spec.Kernel.LoadAddress));
    }

    [Fact]
    public void The_example_with_every_key_gives_the_defaults_it_claims()
    {
        _here.Write("initramfs.cpio", "");
        var vm = _here.Hocon(Repository.Example("full.conf"));
        Assert.Equal(new TokenBucketSpec(1 << 20, 1 << 20, 1000), Assert.Single(vm.ToSpec().Entropy).Limits.Bandwidth);
        var least = _here.Hocon("kernel.path = vmlinuz");

        Assert.Equal(least with { Kernel = least.Kernel with { InitrdPath = vm.Kernel.InitrdPath }, Log = vm.Log, Devices = vm.Devices }, vm);
        var minimal = _here.Hocon(Repository.Example("minimal.conf"));
        Assert.Equal(vm with { Kernel = vm.Kernel with { CommandLine = minimal.Kernel.CommandLine }, Log = null, Devices = minimal.Devices }, minimal);
    }

    [Fact]
    public void A_path_that_begins_with_a_tilde_starts_at_home()
    {
        var home = Environment.GetFolderPath(Environment.SpecialFolder.UserProfile);
        var kernel = Path.Combine(_here.Path, "vmlinuz");
        Assert.Equal(kernel, _here.Hocon($"kernel.path = \"~/{Path.GetRelativePath(home, kernel)}\"").Kernel.Path);
        Assert.Contains("no such file", _here.HoconErrors("kernel.path = \"~vmlinuz\""), StringComparison.Ordinal); // a name like any other
    }

    [Fact]
    public void Every_key_is_read()
    {
        var vm = _here.Hocon("""
            name = "web-1", hypervisor = soft, clock : virtual, seed = 18446744073709551615
            kernel { path = vmlinuz, initrd = initrd, cmdline = "console=ttyS0 quiet", load-address = 0x200000, entry = pvh }
            memory { size-mib = 512 }
            vcpus.count = 4
            log { path = a.log, level = debug }
            """);

        Assert.Equal(("web-1", "soft", ClockMode.Virtual, ulong.MaxValue, 512, 4), (vm.Name, vm.Hypervisor, vm.Clock, vm.Seed, vm.MemoryMib, vm.Vcpus));
        Assert.Equal((Path.Combine(_here.Path, "initrd"), "console=ttyS0 quiet", 0x200000UL, KernelEntry.Pvh),
            (vm.Kernel.InitrdPath, vm.Kernel.CommandLine, vm.Kernel.LoadAddress, vm.Kernel.Entry));
        Assert.Equal(new LogDescription(Path.Combine(_here.Path, "a.log"), "debug", ShowLevel: true), vm.Log);
    }

    [Theory]
    [InlineData("auto", KernelEntry.Auto), InlineData("elf64", KernelEntry.Elf64), InlineData("pvh", KernelEntry.Pvh)]
    [InlineData("bzimage", KernelEntry.BzImage), InlineData("payload", KernelEntry.Payload)]
    public void Each_way_of_entry_has_its_word(string word, KernelEntry entry) =>
        Assert.Equal(entry, _here.Hocon($"kernel {{ path = vmlinuz, entry = {word} }}").Kernel.Entry);

    [Fact]
    public void JSON_with_a_kernel_and_no_boot_source_is_the_same_description() =>
        Assert.Equal(_here.Hocon("kernel.path = vmlinuz, vcpus.count = 2"), _here.Json("""{ "kernel": { "path": "vmlinuz" }, "vcpus": { "count": 2 } }"""));

    [Theory]
    [InlineData("kernal.path = vmlinuz", "kernal: unknown key; did you mean kernel?")]
    [InlineData("kernel { path = vmlinuz, cmd_line = x }", "kernel.cmd_line: unknown key; did you mean cmdline?")]
    [InlineData("kernel.path = vmlinuz, memory.size_mib = 1", "memory.size_mib: unknown key; did you mean size-mib?")]
    [InlineData("kernel.path = vmlinuz, vcpus.number = 1", "vcpus.number: unknown key; known here: count")]
    public void An_unknown_key_is_refused_with_the_nearest_known_one(string text, string expected) =>
        Assert.Contains(expected, _here.HoconErrors(text), StringComparison.Ordinal);

    [Theory]
    [InlineData("vcpus.count = 0", "vcpus.count = 0: allowed is a whole number from 1 to 254")]
    [InlineData("vcpus.count = 255", "vcpus.count = 255: allowed is a whole number from 1 to 254")]
    [InlineData("memory.size-mib = 0", "memory.size-mib = 0: allowed is a whole number from 1 to 1048576")]
    [InlineData("memory.size-mib = 512m", "memory.size-mib = 512m: allowed is a whole number")]
    [InlineData("clock = later", "clock = later: allowed is one of host, virtual")]
    [InlineData("hypervisor = xen", "hypervisor = xen: allowed is one of auto, kvm, soft")]
    [InlineData("name = \"a/b\"", "name = a/b: allowed are 1 to 64 letters, digits, '-' and '_'")]
    [InlineData("name = \"ab\\n\"", "allowed are 1 to 64 letters, digits, '-' and '_'")]
    [InlineData("seed = -1", "seed = -1: allowed is a whole number")]
    [InlineData("kernel.entry = fast", "kernel.entry = fast: allowed is one of auto, elf64, pvh, bzimage, payload")]
    [InlineData("kernel.load-address = 0x10000000", "is outside the guest's 256 MiB of memory")]
    [InlineData("kernel.initrd = nowhere", "kernel.initrd = nowhere: cannot be opened: no such file")]
    [InlineData("memory = 512", "memory = 512: allowed is an object")]
    [InlineData("vcpus.count = [1]", "vcpus.count = an array of 1: allowed is")]
    [InlineData("block = [{ path = x }]", "block[0].path = x: cannot be opened: no such file")]
    [InlineData("log.level = loud", "log.level = loud: allowed is one of off, error, warning, info, debug, trace")]
    public void A_bad_value_is_refused_with_what_is_allowed(string line, string expected)
    {
        var error = Assert.Single(_here.HoconErrors("kernel.path = vmlinuz\n" + line).Split('\n'));
        Assert.StartsWith("vm.conf:2:", error, StringComparison.Ordinal);
        Assert.Contains(expected, error, StringComparison.Ordinal);
    }

    [Fact]
    public void Empty_lists_of_what_is_not_built_yet_are_harmless() =>
        Assert.Equal("vm", _here.Hocon("kernel.path = vmlinuz, block = [], net = [], faults {}").Name);

    [Fact]
    public void A_firecracker_file_in_a_file_that_is_not_json_is_explained() =>
        Assert.Contains("give the file a name that ends in .json", _here.HoconErrors("boot-source { kernel_image_path = vmlinuz }"), StringComparison.Ordinal);

    [Fact]
    public void A_file_is_read_by_its_extension_and_paths_start_at_its_directory()
    {
        _here.Write("sub/k", "");
        var conf = _here.Write("sub/a.conf", "kernel.path = k");
        var json = _here.Write("sub/a.JSON", """{ "boot-source": { "kernel_image_path": "../vmlinuz" }, "drives": [] }""");

        Assert.Equal(Path.Combine(_here.Path, "sub/k"), DescriptionReader.ReadFile(conf).Kernel.Path);
        Assert.Equal(Path.Combine(_here.Path, "vmlinuz"), DescriptionReader.ReadFile(json).Kernel.Path);
    }

    [Fact]
    public void A_file_that_cannot_be_read_is_named()
    {
        var missing = Assert.Throws<DescriptionException>(() => DescriptionReader.ReadFile(Path.Combine(_here.Path, "none.conf")));
        Assert.Contains("none.conf: cannot be read: no such file", missing.Message, StringComparison.Ordinal);
        Assert.Throws<DescriptionException>(() => DescriptionReader.ReadFile(_here.Path));
        var endless = Assert.Throws<DescriptionException>(() => DescriptionReader.ReadFile("/dev/zero"));
        Assert.Contains("this is no VM description", endless.Message, StringComparison.Ordinal);
    }
}
