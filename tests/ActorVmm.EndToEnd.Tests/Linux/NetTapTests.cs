using ActorVmm.EndToEnd.Tests.Harness;
using ActorVmm.Host.Guests;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.EndToEnd.Tests.Linux;

/// <summary>Linux's own network driver on taps in a network namespace, with the kernel of the host on the other side.</summary>
[Collection(LinuxGuests.Name)]
public sealed class NetTapTests(GuestFiles files, ITestOutputHelper output) : IDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    private NetNamespace? _network;

    public void Dispose() => _network?.Dispose();

    [SkippableFact]
    public async Task A_tap_goes_down_and_up_and_away_and_comes_back_and_the_guest_sees_its_cable()
    {
        var network = Network();
        network.AddTap("tap0", "10.9.0.1/24");
        await using var vm = await StartAsync(network, "{ tap = tap0, mac = \"06:00:AC:10:00:02\", mtu = 1400 }");
        await TellAsync(vm, async () =>
        {
            var shell = vm.Shell;
            await shell.RunAsync("ip addr add 10.9.0.2/24 dev eth0 && ip link set eth0 up");
            Assert.Equal("06:00:ac:10:00:02 1400 1", await shell.RunAsync("cd /sys/class/net/eth0 && echo $(cat address mtu carrier)"));
            Assert.Contains("3 packets received", await shell.RunAsync("ping -c 3 10.9.0.1"), StringComparison.Ordinal);
            Assert.Contains("3 received", network.Exec("ping", "-c", "3", "-i", "0.2", "10.9.0.2"), StringComparison.Ordinal);

            network.Ip("link set tap0 down");
            await shell.RunAsync("while [ $(cat carrier) = 1 ]; do usleep 20000; done");
            await shell.RunAsync("ping -c 1 -W 1 10.9.0.1; true");
            network.Ip("link set tap0 up");
            await shell.RunAsync("while [ $(cat carrier) = 0 ]; do usleep 20000; done; until ping -c 1 -W 1 10.9.0.1; do :; done");

            network.Ip("link del tap0");
            await shell.RunAsync("while [ $(cat carrier) = 1 ]; do usleep 20000; done");
            network.AddTap("tap0", "10.9.0.1/24");
            await shell.RunAsync("while [ $(cat carrier) = 0 ]; do usleep 20000; done; until ping -c 1 -W 1 10.9.0.1; do :; done");
        });
        await EndAsync(vm);
        Assert.Contains("tap0", network.Ip("link show"), StringComparison.Ordinal); // it was there before
    }

    [SkippableFact]
    public async Task A_tap_that_is_not_there_is_made_and_goes_with_the_VM_and_several_queues_carry_traffic()
    {
        var network = Network();
        await using var vm = await StartAsync(network, "{ tap = made0, pairs = 2 }", "vcpus.count = 2");
        network.Ip("addr add 10.9.0.1/24 dev made0");
        await TellAsync(vm, async () =>
        {
            var shell = vm.Shell;
            await shell.RunAsync("ip addr add 10.9.0.2/24 dev eth0 && ip link set eth0 up");
            Assert.Equal("2 2", await shell.RunAsync("echo $(ls -d /sys/class/net/eth0/queues/tx-* | wc -l) $(ls -d /sys/class/net/eth0/queues/rx-* | wc -l)"));
            Assert.Contains("20 received", network.Exec("ping", "-c", "20", "-i", "0.02", "10.9.0.2"), StringComparison.Ordinal);
            Assert.Contains("3 packets received", await shell.RunAsync("ping -c 3 10.9.0.1"), StringComparison.Ordinal);
        });
        await EndAsync(vm);
        Assert.DoesNotContain("made0", network.Ip("link show"), StringComparison.Ordinal);
    }

    private NetNamespace Network()
    {
        NetNamespace.Require();
        return _network = new NetNamespace();
    }

    private async Task<ActorVmmProcess> StartAsync(NetNamespace network, string nets, string more = "")
    {
        var image = await GuestImage.PrepareAsync(new GuestCache(), NetUserTests.WithNet);
        var file = Path.Combine(files.Directory, $"{Guid.NewGuid():n}.conf");
        await File.WriteAllTextAsync(file, $"""
            kernel {"{"} path = "{image.KernelPath}", initrd = "{image.InitramfsPath}", cmdline = "{RunningGuest.CommandLine} reboot=k" {"}"}
            hypervisor = soft
            net = [{nets}]
            {more}
            """);
        var vm = ActorVmmProcess.StartIn(network, "run", file);
        await vm.Shell.LogInAsync();
        return vm;
    }

    private async Task TellAsync(ActorVmmProcess vm, Func<Task> story)
    {
        try
        {
            await story();
        }
        catch
        {
            output.WriteLine(vm.Transcript.Tail(60));
            throw;
        }
    }

    private static async Task EndAsync(ActorVmmProcess vm)
    {
        vm.Shell.Type("poweroff -f");
        Assert.Equal((0, "stopped: poweroff"), await vm.EndAsync(Patience));
    }
}
