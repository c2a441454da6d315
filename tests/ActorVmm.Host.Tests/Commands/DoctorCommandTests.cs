using System.Text.Json;
using ActorVmm.Host.Commands;
using ActorVmm.Host.Hypervisors;
using ActorVmm.Hypervisor;

namespace ActorVmm.Host.Tests.Commands;

public class DoctorCommandTests
{
    private sealed class Probed(string name, bool usable) : IHypervisor
    {
        public string Name => name;
        public ProbeReport Probe() => new(name, usable, [new ProbeItem("syscall", usable, usable ? "there and back" : "CS is wrong")],
            usable ? $"{name} works" : $"{name} is broken");
        public IMachine CreateMachine(MachineOptions options) => throw new HypervisorException("not run here");
    }

    private sealed class NoHosts : IVmHostFactory
    {
        public Actors.IVmHost Create(Akka.Configuration.Config settings, Serilog.ILogger log, bool verbose) =>
            throw new HypervisorException("not run here");
    }

    private static (int Code, string Text) Run(bool kvm, bool soft, bool json)
    {
        using var output = new StringWriter();
        var services = new HostServices(new HypervisorCatalog(("kvm", () => new Probed("kvm", kvm)), ("soft", () => new Probed("soft",
            soft))), new NoHosts());
        var code = new DoctorCommand(services, output, () => [new ProbeItem("cpu", true, "2 x Test CPU"), new ProbeItem("/dev/net/tun",
            false, "missing: load it")]).Run(json);
        return (code, output.ToString());
    }

    [Fact]
    public void Each_check_is_a_line_and_the_last_line_is_the_verdict()
    {
        var (code, text) = Run(kvm: false, soft: true, json: false);
        Assert.Equal(ExitCodes.Success, code);
        Assert.Contains("  ok   cpu           2 x Test CPU", text, StringComparison.Ordinal);
        Assert.Contains("  NO   /dev/net/tun  missing: load it", text, StringComparison.Ordinal);
        Assert.Contains("  NO   syscall  CS is wrong", text, StringComparison.Ordinal);
        Assert.EndsWith("verdict: kvm is broken. soft chosen; next: ./actorvmm demo\n", text, StringComparison.Ordinal);
    }

    [Fact]
    public void A_working_first_choice_is_chosen() => Assert.EndsWith("verdict: kvm chosen; next: ./actorvmm demo\n", Run(true, true,
        false).Text, StringComparison.Ordinal);

    [Fact]
    public void No_hypervisor_at_all_is_a_failure()
    {
        var (code, text) = Run(kvm: false, soft: false, json: false);
        Assert.Equal(ExitCodes.Failure, code);
        Assert.Contains("no hypervisor runs guests", text, StringComparison.Ordinal);
    }

    [Fact]
    public void Json_holds_the_same()
    {
        using var report = JsonDocument.Parse(Run(kvm: false, soft: true, json: true).Text);
        var root = report.RootElement;
        Assert.Equal("soft", root.GetProperty("chosen").GetString());
        Assert.Equal("cpu", root.GetProperty("host")[0].GetProperty("name").GetString());
        Assert.False(root.GetProperty("hypervisors")[0].GetProperty("usable").GetBoolean());
        Assert.Equal("syscall", root.GetProperty("hypervisors")[0].GetProperty("items")[0].GetProperty("name").GetString());
        Assert.StartsWith("verdict:", root.GetProperty("verdict").GetString(), StringComparison.Ordinal);
    }

    [Fact]
    public void This_host_has_facts_about_everything_asked()
    {
        var names = HostFacts.Collect().Select(item => item.Name);
        Assert.Equal(["cpu", "kernel", "memory", "virtualization", "nesting", "/dev/kvm", "/dev/net/tun"], names);
        Assert.All(HostFacts.Collect(), item => Assert.NotEmpty(item.Detail));
    }

    [Fact]
    public void A_device_that_is_missing_says_what_to_load() =>
        Assert.Equal(new ProbeItem("/dev/nothing", false, "missing: load it"), HostFacts.Device("/dev/nothing", "load it", "ask"));
}
