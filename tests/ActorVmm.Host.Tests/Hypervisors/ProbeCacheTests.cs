using ActorVmm.Host.Hypervisors;
using ActorVmm.Hypervisor;

namespace ActorVmm.Host.Tests.Hypervisors;

public sealed class ProbeCacheTests : IDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("actorvmm-test-").FullName;

    private sealed class Counting(string name, bool usable = true) : IHypervisor
    {
        public int Probes { get; private set; }
        public string Name => name;

        public ProbeReport Probe()
        {
            Probes++;
            return new ProbeReport(name, usable, [new ProbeItem("thing", usable, "seen")], usable ? "works" : "is broken");
        }

        public IMachine CreateMachine(MachineOptions options) => throw new HypervisorException("not run here");
    }

    private ProbeCache Cache(string? boot = "boot-1") => new(_directory, () => boot);

    [Fact]
    public void A_second_start_in_the_same_boot_does_not_probe_again()
    {
        var hypervisor = new Counting("kvm", usable: false);
        var first = Cache().Get(hypervisor, out var remembered);
        Assert.False(remembered);
        var second = Cache().Get(hypervisor, out remembered);
        Assert.True(remembered);
        Assert.Equal(1, hypervisor.Probes);
        Assert.Equal((first.Hypervisor, first.Usable, first.Verdict), (second.Hypervisor, second.Usable, second.Verdict));
        Assert.Equal(first.Items, second.Items);
    }

    [Fact]
    public void Another_boot_probes_again()
    {
        var hypervisor = new Counting("kvm");
        Cache("boot-1").Get(hypervisor, out _);
        Cache("boot-2").Get(hypervisor, out var remembered);
        Assert.False(remembered);
        Assert.Equal(2, hypervisor.Probes);
    }

    [Fact]
    public void Without_a_boot_id_nothing_is_remembered()
    {
        var hypervisor = new Counting("kvm");
        Cache(null).Get(hypervisor, out _);
        Cache(null).Get(hypervisor, out _);
        Assert.Equal(2, hypervisor.Probes);
        Assert.Empty(Directory.GetFiles(_directory));
    }

    [Theory]
    [InlineData("")]
    [InlineData("{")]
    [InlineData("null")]
    [InlineData("{\"Key\":\"boot-1\"}")]
    public void A_damaged_file_is_probed_over(string content)
    {
        var hypervisor = new Counting("kvm");
        Cache().Get(hypervisor, out _);
        File.WriteAllText(Assert.Single(Directory.GetFiles(_directory)), content);
        Assert.True(Cache().Get(hypervisor, out var remembered).Usable);
        Assert.False(remembered);
        Cache().Get(hypervisor, out remembered);
        Assert.True(remembered);
    }

    [Fact]
    public void A_directory_that_cannot_be_written_is_no_error()
    {
        var file = Path.Combine(_directory, "file");
        File.WriteAllText(file, "");
        Assert.True(new ProbeCache(Path.Combine(file, "below"), () => "boot-1").Get(new Counting("kvm"), out _).Usable);
    }

    [Fact]
    public void Auto_says_why_it_chose()
    {
        var kvm = new Counting("kvm", usable: false);
        var soft = new Counting("soft");
        var catalog = new HypervisorCatalog(("kvm", () => kvm), ("soft", () => soft)) { Remembered = Cache() };
        Assert.Equal("soft", catalog.Select("auto", out var reason).Name);
        Assert.Equal("kvm: is broken; soft: works", reason);
        Assert.Equal("soft", catalog.Select("auto", out reason).Name);
        Assert.Contains("probed earlier", reason, StringComparison.Ordinal);
        Assert.Equal(1, kvm.Probes);
        Assert.Equal("kvm", catalog.Select("kvm", out reason).Name);
        Assert.Equal("asked for", reason);
    }

    [Fact]
    public void A_choice_that_the_probe_speaks_against_is_obeyed_and_doubted()
    {
        var (kvm, soft) = (new Counting("kvm", usable: false), new Counting("soft"));
        var catalog = new HypervisorCatalog(("kvm", () => kvm), ("soft", () => soft)) { Remembered = Cache() };
        Assert.Equal("is broken", catalog.DoubtAbout("kvm")!.Verdict);
        Assert.Equal("is broken", catalog.DoubtAbout("kvm")!.Verdict);
        Assert.Equal(1, kvm.Probes);
        Assert.Null(catalog.DoubtAbout("soft"));
        Assert.Null(catalog.DoubtAbout("auto"));
        Assert.Null(catalog.DoubtAbout("xen"));
        Assert.Null(new HypervisorCatalog(("kvm", () => kvm)).DoubtAbout("kvm")); // nothing is remembered: not asked
        Assert.Equal(1, kvm.Probes);
    }

    public void Dispose() => Directory.Delete(_directory, recursive: true);
}
