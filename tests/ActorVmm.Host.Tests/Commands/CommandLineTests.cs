using System.Globalization;
using ActorVmm.Actors;
using ActorVmm.Host.Commands;
using ActorVmm.Host.Hypervisors;
using ActorVmm.Hypervisor;
using ActorVmm.Hypervisor.Kvm;
using Microsoft.Win32.SafeHandles;

namespace ActorVmm.Host.Tests.Commands;

/// <summary>The commands as a user sees them: exit status and stderr. Includes vmm-reference's <c>test_launch</c>.</summary>
public sealed class CommandLineTests : IDisposable
{
    private readonly TemporaryDirectory _here = new();
    private readonly StringWriter _errors = new(CultureInfo.InvariantCulture);

    public void Dispose()
    {
        _here.Dispose();
        _errors.Dispose();
    }

    private bool KvmWorks { get; set; }

    private string Kernel => "path=" + Path.Combine(_here.Path, "vmlinuz");

    private Task<int> Invoke(FakeVmHost host, string input, params string[] arguments)
    {
        var keys = File.OpenHandle(_here.Write("keys", input));
        var screen = File.OpenHandle(Path.Combine(_here.Path, "screen"), FileMode.Create, FileAccess.Write);
        var descriptors = new ConsoleDescriptors(Number(keys), Number(screen), _errors, _ => { });
        var services = new HostServices(new HypervisorCatalog(
            ("kvm", () => new FakeKvm(KvmWorks)), ("soft", () => new FakeHypervisor("soft")))
        {
            Remembered = new ProbeCache(Path.Combine(_here.Path, "probes"), () => "this boot"),
        }, host);
        return Run();

        async Task<int> Run()
        {
            using (keys)
            using (screen)
                return await new CommandLineInterface(services, descriptors).InvokeAsync(arguments);
        }
    }

    private static int Number(SafeFileHandle handle) => (int)handle.DangerousGetHandle();

    private async Task<(int Status, string Errors)> Fails(params string[] arguments)
    {
        var host = new FakeVmHost();
        var status = await Invoke(host, "", arguments);
        Assert.Null(host.Started);
        return (status, _errors.ToString());
    }

    private string Description(string cpu) => _here.Write("vm.json",
        $$"""{ "boot-source": { "kernel_image_path": "vmlinuz" }, "drives": [], "cpu-config": {{cpu}} }""");

    [Theory]
    [InlineData(false, "auto", "kvm: does not work here; soft: works"), InlineData(false, "soft", "asked for"), InlineData(true, "soft", "asked for")]
    public async Task A_cpu_config_that_says_something_is_refused_where_soft_runs_the_guest(bool kvm, string hypervisor, string why)
    {
        KvmWorks = kvm;
        var (status, errors) = await Fails("run", Description("""{ "kvm_capabilities": ["121"] }"""), "--hypervisor", hypervisor);
        Assert.Equal(152, status);
        Assert.StartsWith("actorvmm: cpu-config: ", errors, StringComparison.Ordinal);
        Assert.Contains($"'soft' cannot ({why})", errors, StringComparison.Ordinal);
        Assert.Contains("--hypervisor kvm", errors, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(false, "auto", "Hypervisor soft: kvm: does not work here; soft: works", false)]
    [InlineData(true, "auto", "Hypervisor kvm: kvm: works", false)]
    [InlineData(false, "kvm", "Hypervisor kvm: asked for", true)]
    [InlineData(true, "kvm", "Hypervisor kvm: asked for", false)]
    [InlineData(false, "soft", "Hypervisor soft: asked for", false)]
    public async Task The_log_says_which_hypervisor_runs_the_guest_and_why_and_warns_where_the_probe_speaks_against_it(
        bool kvm, string hypervisor, string choice, bool doubted)
    {
        KvmWorks = kvm;
        var log = Path.Combine(_here.Path, "log");
        var description = _here.Write("logged.json", $$"""
            { "boot-source": { "kernel_image_path": "vmlinuz" }, "drives": [], "logger": { "log_path": "{{log}}", "level": "Info" } }
            """);
        Assert.Equal(0, await Invoke(new FakeVmHost(), "q", "run", description, "--hypervisor", hypervisor));
        Assert.Equal(0, await Invoke(new FakeVmHost(), "q", "run", description, "--hypervisor", hypervisor));
        var lines = await File.ReadAllLinesAsync(log);
        const string doubt = "kvm was asked for, but its probe says: does not work here";
        Assert.Equal(2, lines.Count(line => line.EndsWith(choice, StringComparison.Ordinal)
            || line.Contains(choice + " (probed earlier in this boot of the host)", StringComparison.Ordinal)
            || (hypervisor == "auto" && line.Contains("(probed earlier in this boot of the host)", StringComparison.Ordinal))));
        Assert.Equal(doubted ? 2 : 0, lines.Count(line => line.EndsWith(doubt, StringComparison.Ordinal)));
    }

    [Theory]
    [InlineData("{}"), InlineData("null"), InlineData("""{ "msr_modifiers": [] }""")]
    public async Task A_cpu_config_that_says_nothing_runs_on_soft(string cpu)
    {
        var host = new FakeVmHost();
        Assert.Equal(0, await Invoke(host, "q", "run", Description(cpu), "--hypervisor", "soft"));
        Assert.Equal("soft", host.Hypervisor!.Name);
    }

    [Theory]
    [InlineData(false, "kvm"), InlineData(true, "auto")]
    public async Task A_cpu_config_reaches_kvm_asked_for_or_chosen(bool works, string hypervisor)
    {
        KvmWorks = works;
        var host = new FakeVmHost();
        Assert.Equal(0, await Invoke(host, "q", "run", Description("""{ "kvm_capabilities": ["!56"] }"""), "--hypervisor", hypervisor));
        Assert.Equal([new CapabilityDemand(56, Required: false)], Assert.IsType<FakeKvm>(host.Hypervisor).Template!.Capabilities);
    }

    public static TheoryData<string> BadLaunches => [
        "", "bogus", "run", "run foo bar", "run --memory size_mib=256", "run --kernel", "run --nothing",
        "run --kernel path=K --memory size_mib=zz", "run --kernel path=K --memory foobar=1", "run --kernel path=K --vcpu num=0",
        "run --kernel path=K --vcpu num=foobar", "run --kernel path=K --vcpu num=1,foo=1", "run --kernel path=K,kernel_load_addr=foobar",
        "run --kernel path=K,foobar=1", "run --kernel foobar", "run --kernel path=/nowhere", "run --kernel path=K --clock never",
        "run --kernel path=K --hypervisor xen", "run --kernel path=K --set nothing", "run --kernel path=K --set vcpus.count=0",
        "run --kernel path=K --block path=/nowhere", "run --kernel path=K --net tap=a/b", "run --kernel path=K --net tap=1234567890123456", "demo --net tap=", "demo --net user",
        "demo --forward tcp:1-2", "demo --net tap=t --forward tcp:1-2", "demo --net --forward 80",
        "demo --vcpus 0", "demo --vcpus 255", "demo --memory x",
        "demo --memory 0", "demo --kernel /nowhere", "demo extra", "check", "check a b",
    ];

    [Theory, MemberData(nameof(BadLaunches))]
    public async Task test_launch_refuses_a_bad_command_line_with_153_and_says_why(string line)
    {
        var words = line.Split(' ', StringSplitOptions.RemoveEmptyEntries).Select(word => word.Replace("path=K", Kernel, StringComparison.Ordinal));
        var (status, errors) = await Fails([.. words]);
        Assert.Equal(153, status);
        Assert.StartsWith("actorvmm: ", errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task test_launch_runs_what_the_flags_say()
    {
        var host = new FakeVmHost();
        Assert.Equal(0, await Invoke(host, "uname\n",
            "run", "--memory", "size_mib=128", "--vcpu", "num=1", "--kernel", Kernel + ",cmdline=foobar,kernel_load_addr=1048577"));
        var kernel = new KernelSpec { Path = Path.Combine(_here.Path, "vmlinuz"), CommandLine = "foobar", LoadAddress = 1_048_577 };
        Assert.Equal(new VmSpec { Name = "vm", Kernel = kernel, MemoryMib = 128, Vcpus = 1 }, host.Started);
        Assert.Equal("uname\n\x04", host.Typed);
        Assert.True(host.Disposed);
    }

    [Fact]
    public async Task test_launch_minimal_has_the_defaults()
    {
        var host = new FakeVmHost();
        Assert.Equal(0, await Invoke(host, "", "run", "--kernel", Kernel, "--memory", "size_mib=", "--vcpu", "num="));
        Assert.Equal((256, 1), (host.Started!.MemoryMib, host.Started.Vcpus));
    }

    [Theory]
    [InlineData("q", 0, "poweroff"), InlineData("r", 0, "guest reset (i8042)"), InlineData("t", 0, "triple fault"), InlineData("h", 0, "halted")]
    [InlineData("p", 34, "guest panic"), InlineData("f", 33, "failed: as typed")]
    public async Task The_closing_line_and_the_exit_code_say_how_the_run_ended(string keys, int status, string text)
    {
        Assert.Equal(status, await Invoke(new FakeVmHost(), keys, "run", "--kernel", Kernel));
        Assert.Equal($"stopped: {text}{Environment.NewLine}", _errors.ToString());
        Assert.StartsWith("Welcome", File.ReadAllText(Path.Combine(_here.Path, "screen")), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Run_starts_what_a_file_says_with_flags_and_overrides_on_top()
    {
        var host = new FakeVmHost();
        var file = _here.Write("vm.conf", "name = web, kernel.path = vmlinuz, vcpus.count = 2, clock = virtual");
        Assert.Equal(0, await Invoke(host, "", "run", file, "--set", "memory.size-mib=64", "--set", "name=other", "--vcpu", "num=3", "--clock", "host"));
        Assert.Equal(("other", 3, 64, ClockMode.Host), (host.Started!.Name, host.Started.Vcpus, host.Started.MemoryMib, host.Started.Clock));
    }

    [Theory]
    [InlineData("run"), InlineData("check")]
    public async Task A_bad_description_ends_with_152_and_all_its_errors(string command)
    {
        var file = _here.Write("vm.json", """{ "boot-source": {}, "drives": null }""");
        var (status, errors) = await Fails(command, file);
        Assert.Equal(152, status);
        Assert.Equal(2, errors.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length);
        Assert.StartsWith(file + ":1:18: boot-source.kernel_image_path: missing", errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Check_accepts_a_good_description_and_starts_nothing()
    {
        var (status, errors) = await Fails("check", _here.Write("vm.conf", "kernel.path = vmlinuz"), "--set", "vcpus.count=2");
        Assert.Equal(0, status);
        Assert.Contains("valid: 2 vCPU, 256 MiB", errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_VM_that_cannot_be_built_is_a_failure_of_ours_with_its_cause()
    {
        var host = new FakeVmHost { StartFailure = new HypervisorException("no /dev/kvm; use --hypervisor soft") };
        Assert.Equal(33, await Invoke(host, "", "run", "--kernel", Kernel));
        Assert.Equal("actorvmm: no /dev/kvm; use --hypervisor soft" + Environment.NewLine, _errors.ToString());
        Assert.True(host.Disposed);
    }

    [Fact]
    public async Task A_malformed_kernel_is_a_bad_description()
    {
        var host = new FakeVmHost { StartFailure = new ActorVmm.Boot.BootException("vmlinuz", "magic", "0", "no ELF and no bzImage") };
        Assert.Equal(152, await Invoke(host, "", "run", "--kernel", Kernel));
        Assert.Contains("no ELF and no bzImage", _errors.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Demo_with_a_kernel_of_ones_own_fetches_nothing_and_says_that_input_is_a_script()
    {
        var host = new FakeVmHost();
        Assert.Equal(0, await Invoke(host, "q", "demo", "--kernel", Path.Combine(_here.Path, "vmlinuz"), "--initrd", Path.Combine(_here.Path, "initrd"), "--vcpus", "2", "--memory", "512"));
        Assert.Equal(("demo", 2, 512), (host.Started!.Name, host.Started.Vcpus, host.Started.MemoryMib));
        Assert.StartsWith("console=ttyS0,115200n8r reboot=k panic=-1 ", host.Started.Kernel.CommandLine, StringComparison.Ordinal);
        Assert.EndsWith(" actorvmm.input=script", host.Started.Kernel.CommandLine, StringComparison.Ordinal);
        Assert.Empty(host.Started.Entropy);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Demo_with_a_disk_or_a_network_has_an_entropy_device(bool disk)
    {
        string[] options = disk ? ["--disk", _here.Write("disk.img", new string('.', 512))] : ["--net"];
        var host = new FakeVmHost();
        Assert.Equal(0, await Invoke(host, "q", ["demo", "--kernel", Path.Combine(_here.Path, "vmlinuz"), .. options]));
        Assert.Single(host.Started!.Entropy);
        Assert.Equal(1, host.Started.Disks.Count + host.Started.Nets.Count);
    }
}

public sealed class HypervisorCatalogTests
{
    private static HypervisorCatalog Catalog(bool kvm, bool soft) => new(
        ("kvm", () => new FakeHypervisor("kvm", kvm)), ("soft", () => new FakeHypervisor("soft", soft)));

    [Theory]
    [InlineData(true, true, "kvm"), InlineData(false, true, "soft")]
    public void Auto_takes_the_first_that_works(bool kvm, bool soft, string chosen) => Assert.Equal(chosen, Catalog(kvm, soft).Select("auto").Name);

    [Fact]
    public void An_explicit_choice_is_obeyed() => Assert.Equal("kvm", Catalog(kvm: false, soft: true).Select("kvm").Name);

    [Fact]
    public void Where_nothing_works_or_the_name_is_unknown_the_error_says_so()
    {
        Assert.Contains("kvm: does not work here; soft: does not", Assert.Throws<HypervisorException>(() => Catalog(false, false).Select("auto")).Message, StringComparison.Ordinal);
        Assert.Contains("there is kvm, soft", Assert.Throws<HypervisorException>(() => Catalog(true, true).Select("xen")).Message, StringComparison.Ordinal);
    }
}
