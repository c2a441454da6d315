using System.Text;
using ActorVmm.Actors.Fleet;
using ActorVmm.Host.Descriptions;
using ActorVmm.Host.Fleet;

namespace ActorVmm.Host.Tests.Fleet;

public sealed class FleetReaderTests : IDisposable
{
    private readonly TemporaryDirectory _here = new();

    public void Dispose() => _here.Dispose();

    private FleetDescription Read(string text) =>
        FleetReader.Read(Encoding.UTF8.GetBytes(text), "fleet.conf", isJson: false, _here.Path);

    private string Errors(string text) =>
        string.Join('\n', Assert.Throws<DescriptionException>(() => Read(text)).Errors);

    [Fact]
    public void The_shipped_example_says_what_its_comments_say()
    {
        var fleet = FleetReader
            .Read(Encoding.UTF8.GetBytes(Repository.Example("fleet.conf").Replace("~/.cache/actorvmm/images/", "", StringComparison.Ordinal)
            .Replace("initramfs.cpio", "initrd", StringComparison.Ordinal)), "fleet.conf", isJson: false, _here.Path);

        Assert.Equal(["db", "web-0", "web-1", "web-2"], fleet.Vms.Select(vm => vm.Name));
        var db = fleet.Vms[0];
        Assert.Equal((192, 10, true), (db.Vm.MemoryMib, db.Order, db.AutoStart));
        Assert.Equal(new RestartPolicy(RestartMode.OnFailure, TimeSpan.FromSeconds(1), TimeSpan.FromMinutes(1), 5,
            TimeSpan.FromSeconds(30)), db.Restart);
        Assert.Equal(StopPolicy.Default, db.Stop);
        Assert.Equal((128, RestartMode.Always, TimeSpan.FromSeconds(5)),
            (fleet.Vms[1].Vm.MemoryMib, fleet.Vms[1].Restart.Mode, fleet.Vms[1].Stop.Deadline));
        // What the comments of the host section call the default is the default.
        Assert.Equal(new HostDescription(), fleet.Host);
    }

    [Fact]
    public void A_vm_is_its_template_with_its_own_keys_over_it()
    {
        var fleet = Read("""
            templates { t { kernel.path = vmlinuz, memory.size-mib = 64, restart.policy = always } }
            vms { a { template = t, vcpus.count = 2 }, b { template = t, count = 2, memory.size-mib = 32, restart.policy = never, start = manual, order = 1 } }
            """);
        Assert.Equal(["b-0", "b-1", "a"], fleet.Vms.Select(vm => vm.Name));
        Assert.Equal((64, 2, RestartMode.Always, true),
            (fleet.Vms[2].Vm.MemoryMib, fleet.Vms[2].Vm.Vcpus, fleet.Vms[2].Restart.Mode, fleet.Vms[2].AutoStart));
        Assert.Equal((32, RestartMode.Never, false), (fleet.Vms[0].Vm.MemoryMib, fleet.Vms[0].Restart.Mode, fleet.Vms[0].AutoStart));
        Assert.Equal(fleet.Vms[0].Fingerprint, fleet.Vms[1].Fingerprint);
        Assert.NotEqual(fleet.Vms[0].Fingerprint, fleet.Vms[2].Fingerprint);
    }

    [Theory]
    [InlineData("vms { a { template = t, kernel.path = vmlinuz } }", "there is no template of this name")]
    [InlineData("vms { a { kernel.path = nix } }", "no such file")]
    [InlineData("vms { a { kernel.path = vmlinuz, name = b } }", "the name is the entry's key")]
    [InlineData("vms { a { kernel.path = vmlinuz, count = 0 } }", "from 1 to 10000")]
    [InlineData("vms { a { kernel.path = vmlinuz, restart.policy = sometimes } }", "one of never, on-failure, always")]
    [InlineData("vms { a { kernel.path = vmlinuz, restart { policy = always, back-off = soon } } }", "a time such as 500ms")]
    [InlineData("vms { a { kernel.path = vmlinuz, stop.method = shout } }", "one of both, power-button")]
    [InlineData("vms { a { kernel.path = vmlinuz, kernle { } } }", "did you mean kernel?")]
    [InlineData("vms { a = 3 }", "allowed is an object")]
    [InlineData("vms { \"a b\" { kernel.path = vmlinuz } }", "is no name")]
    [InlineData("vms { a { kernel.path = vmlinuz, count = 2 }, a-1 { kernel.path = vmlinuz } }", "two VMs have this name")]
    [InlineData("host { tcp-port = 8080 }", "needs a bearer token")]
    [InlineData("host { max-vms = 0 }", "from 1 to 10000")]
    [InlineData("host { max-vms = 2 }, vms { a { kernel.path = vmlinuz, count = 3 } }",
        "host.max-vms = 2: this description has 3 VMs; the host may have 2")]
    [InlineData("host { max-memory-mib = 100 }, vms { a { kernel.path = vmlinuz, count = 2, memory.size-mib = 64 } }",
        "host.max-memory-mib = 100: the VMs of this description have 128 MiB of memory; allowed are 100")]
    [InlineData("vms { a { kernel.path = vmlinuz, count = 2000, memory.size-mib = 16 } }",
        "host.max-vms: this description has 2000 VMs; the host may have 1024")]
    [InlineData("host { socket = /tmp/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx/host.sock }",
        "bytes; allowed are 107 for a socket")]
    [InlineData("hots { }", "known here: host, templates, vms")]
    public void What_is_wrong_is_said(string text, string words) => Assert.Contains(words, Errors(text), StringComparison.Ordinal);

    [Theory]
    [InlineData("500ms", 0.5), InlineData("5s", 5), InlineData("1.5m", 90), InlineData("24h", 86400), InlineData("0s", 0)]
    public void A_time_has_a_unit(string text, double seconds)
    {
        Assert.True(FleetReader.TryDuration(text, out var time));
        Assert.Equal(seconds, time.TotalSeconds);
    }

    [Theory]
    [InlineData("5"), InlineData(""), InlineData("s"), InlineData("-1s"), InlineData("25h"), InlineData("1 s"), InlineData("1e3s"),
        InlineData("5sm")]
    public void Anything_else_is_no_time(string text) => Assert.False(FleetReader.TryDuration(text, out _));
}
