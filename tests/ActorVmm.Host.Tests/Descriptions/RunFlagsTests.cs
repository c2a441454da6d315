using ActorVmm.Actors;
using ActorVmm.Host.Descriptions;

namespace ActorVmm.Host.Tests.Descriptions;

/// <summary>
/// vmm-reference's own tests of its command line and configuration, under their names (vmm-reference 4B), where they apply.
/// </summary>
public sealed class RunFlagsTests : IDisposable
{
    private readonly TemporaryDirectory _here = new();

    public void Dispose() => _here.Dispose();

    private static string Message(Action parse) => Assert.Throws<OptionException>(parse).Message;

    [Fact]
    public void test_cfg_arg_parse()
    {
        var options = new OptionString("kernel", "path=/path,string=HelloWorld,int=123,u8=1");
        Assert.Throws<OptionException>(options.RequireAllConsumed);

        Assert.Equal("/path", options.Text("path"));
        Assert.Equal("HelloWorld", options.Text("string"));
        Assert.Equal(1UL, options.Number("u8", byte.MaxValue, nonZero: true));
        Assert.Equal(123UL, options.Number("int", ulong.MaxValue));
        Assert.Equal(12UL, options.Number("int", ulong.MaxValue) ?? 12);
        Assert.Null(options.Number("int", ulong.MaxValue));
        options.RequireAllConsumed();
        Assert.Null(new OptionString("kernel", "path=").Text("path"));
    }

    [Fact]
    public void test_cfg_arg_grammar()
    {
        var options = new OptionString("x", ",,A=1,,a=2,b=c=d,flag,");
        Assert.Equal("2", options.Text("a")); // keys are lower-cased, the last wins
        Assert.Equal("c=d", options.Text("b")); // split at the first '='
        Assert.Equal("Invalid input for x: Unknown arguments found: 'flag'", Message(options.RequireAllConsumed));
    }

    [Fact]
    public void test_kernel_config()
    {
        var kernel = KernelFlag.Parse("path=/foo/bar,cmdline=\"foo=bar\",kernel_load_addr=42,");
        Assert.Equal(("/foo/bar", "\"foo=bar\"", 42UL), (kernel.Path, kernel.CommandLine, kernel.LoadAddress));

        Assert.Equal("Invalid input for kernel: Missing required argument: path", Message(() => KernelFlag.Parse("path=,cmdline=\"foo=bar\",kernel_load_addr=42,")));
        Assert.Equal("Invalid input for kernel: Missing required argument: path", Message(() => KernelFlag.Parse("")));
        Assert.Equal("Invalid input for kernel: Unknown arguments found: 'not'", Message(() => KernelFlag.Parse("path=/something,not=valid")));
        Assert.Equal("Invalid input for kernel: Param 'kernel_load_addr', parsing failed: invalid digit found in string",
            Message(() => KernelFlag.Parse("path=/something,kernel_load_addr=invalid")));
        Assert.Throws<OptionException>(() => KernelFlag.Parse("path=/something,kernel_load_addr=0x100000"));
        var defaults = KernelFlag.Parse("path=/k,kernel_load_addr=,cmdline=");
        Assert.Equal(("panic=1 pci=off", 0x100000UL), (defaults.CommandLine, defaults.LoadAddress));
    }

    [Fact]
    public void test_vcpu_config()
    {
        Assert.Equal("Invalid input for vCPUs: Param 'num', parsing failed: number would be zero for non-zero type", Message(() => VcpuFlag.Parse("num=0")));
        Assert.Equal("Invalid input for vCPUs: Param 'num', parsing failed: number too large to fit in target type", Message(() => VcpuFlag.Parse("num=256")));
        Assert.Equal(1, VcpuFlag.Parse("num=").Num);
        Assert.Equal(1, VcpuFlag.Parse("").Num);
        Assert.Equal(254, VcpuFlag.Parse("num=254").Num);
        Assert.Throws<OptionException>(() => VcpuFlag.Parse("num=abc"));
        Assert.Throws<OptionException>(() => VcpuFlag.Parse("num=1,foo=bar"));
        Assert.Contains("allowed is 1 to 254", Message(() => VcpuFlag.Parse("num=255")), StringComparison.Ordinal);
    }

    [Fact]
    public void test_network_config()
    {
        Assert.Equal("vmtap", NetFlag.Parse("tap=vmtap").Tap);
        foreach (var bad in (string[])["", "tap=", "blah=blah", "tap=something,blah=blah"])
            Assert.Throws<OptionException>(() => NetFlag.Parse(bad));
    }

    [Fact]
    public void test_block_config()
    {
        Assert.Equal("/foo/bar", BlockFlag.Parse("path=/foo/bar").Path);
        foreach (var bad in (string[])["", "path=", "blah=blah", "path=/foo/bar,blah=blah"])
            Assert.Throws<OptionException>(() => BlockFlag.Parse(bad));
    }

    [Fact]
    public void test_memory_config()
    {
        Assert.Equal(42U, MemoryFlag.Parse("size_mib=42").SizeMib);
        Assert.Equal(256U, MemoryFlag.Parse("").SizeMib);
        Assert.Equal(256U, MemoryFlag.Parse("size_mib=").SizeMib);
        Assert.Throws<OptionException>(() => MemoryFlag.Parse("size_mib=ciao"));
        Assert.Equal("Invalid input for memory: Unknown arguments found: 'blah'", Message(() => MemoryFlag.Parse("blah=blah")));
        Assert.Throws<OptionException>(() => MemoryFlag.Parse("size_mib=12,blah=blah"));
        Assert.Contains("out of range", Message(() => MemoryFlag.Parse("size_mib=0")), StringComparison.Ordinal); // the reference fails later, in mmap
    }

    private string Kernel => "path=" + Path.Combine(_here.Path, "vmlinuz");
    private VmDescription Build(RunFlags flags, VmDescription? file = null) => flags.Apply(file, _here.Path);

    [Fact]
    public void test_builder_default_err() => Assert.Contains("--kernel path=", Message(() => Build(new())), StringComparison.Ordinal);

    [Fact]
    public void test_builder_kernel_config_none_default() =>
        Assert.Contains("--kernel path=", Message(() => Build(new() { Memory = "size_mib=1024", Vcpu = "num=2" })), StringComparison.Ordinal);

    [Fact]
    public void test_builder_kernel_config_success_default()
    {
        var vm = Build(new() { Kernel = Kernel });
        Assert.Equal((256, 1, "panic=1 pci=off", 0x100000UL), (vm.MemoryMib, vm.Vcpus, vm.Kernel.CommandLine, vm.Kernel.LoadAddress));
    }

    [Fact]
    public void test_builder_kernel_config_success_current_directory() =>
        Assert.Equal(Path.Combine(_here.Path, "vmlinuz"), Build(new() { Kernel = "path=vmlinuz" }).Kernel.Path);

    [Fact]
    public void test_builder_memory_config_success() => Assert.Equal(1024, Build(new() { Kernel = Kernel, Memory = "size_mib=1024" }).MemoryMib);

    [Fact]
    public void test_builder_memory_config_none_default() => Assert.Equal(256, Build(new() { Kernel = Kernel, Memory = null }).MemoryMib);

    [Fact]
    public void test_builder_vcpu_config_success() => Assert.Equal(2, Build(new() { Kernel = Kernel, Vcpu = "num=2" }).Vcpus);

    [Fact]
    public void test_builder_vcpu_config_none_default() => Assert.Equal(1, Build(new() { Kernel = Kernel, Vcpu = null }).Vcpus);

    [Fact]
    public void test_builder_net_config_is_a_tap()
    {
        var net = Assert.Single(Build(new() { Kernel = Kernel, Net = "tap=tap0" }).ToSpec().Nets);
        Assert.Equal(new NetBackend.Tap("tap0"), net.Backend);
        Assert.Contains("1 to 15 bytes", Message(() => Build(new() { Kernel = Kernel, Net = "tap=tap4567890123456" })), StringComparison.Ordinal);
    }

    [Fact]
    public void test_builder_net_config_none_default() => Assert.Equal(1, Build(new() { Kernel = Kernel, Net = null }).Vcpus);

    [Fact]
    public void test_builder_block_config_is_the_writable_root_with_flushes()
    {
        var disk = Assert.Single(Build(new() { Kernel = Kernel, Block = "path=/dev/null" }).ToSpec().Disks);
        Assert.Equal(("/dev/null", true, false, true), (disk.Path, disk.IsRoot, disk.ReadOnly, disk.Writeback));
        Assert.Contains("no such file", Message(() => Build(new() { Kernel = Kernel, Block = "path=/nowhere" })), StringComparison.Ordinal);
    }

    [Fact]
    public void test_builder_block_config_none_default() => Assert.Equal(1, Build(new() { Kernel = Kernel, Block = null }).Vcpus);

    [Fact]
    public void test_builder_vmm_config_success()
    {
        var vm = Build(new() { Kernel = Kernel + ",cmdline=panic=1 reboot=t,kernel_load_addr=2097152", Memory = "size_mib=512", Vcpu = "num=4" });
        var kernel = new KernelSpec { Path = Path.Combine(_here.Path, "vmlinuz"), CommandLine = "panic=1 reboot=t", LoadAddress = 0x200000 };
        Assert.Equal(new VmSpec { Name = "vm", Kernel = kernel, MemoryMib = 512, Vcpus = 4 }, vm.ToSpec());
    }

    [Fact]
    public void Flags_win_over_the_file_and_leave_the_rest_of_it()
    {
        var file = _here.Hocon("name = mine, kernel { path = vmlinuz, cmdline = from-file, initrd = initrd }, memory.size-mib = 64");
        var other = _here.Write("other", "");
        var vm = Build(new() { Kernel = "path=" + other, Vcpu = "num=3" }, file);

        Assert.Equal(("mine", 3, 64), (vm.Name, vm.Vcpus, vm.MemoryMib));
        Assert.Equal(file.Kernel with { Path = other }, vm.Kernel);
    }

    [Theory]
    [InlineData("path=/nowhere/at/all", "no such file"), InlineData("path=vmlinuz,kernel_load_addr=99999999999", "outside the guest's 256 MiB")]
    public void What_the_flags_describe_is_checked_like_a_description(string kernel, string expected) =>
        Assert.Contains(expected, Message(() => Build(new() { Kernel = kernel })), StringComparison.Ordinal);
}
