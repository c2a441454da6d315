using System.Diagnostics;
using System.Globalization;
using System.Text;
using ActorVmm.EndToEnd.Tests.Harness;
using ActorVmm.Host.Guests;
using ActorVmm.Testing;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.EndToEnd.Tests.Linux;

/// <summary>Linux's own network driver on taps in a network namespace, with the kernel of the host on the other side.</summary>
[Collection(LinuxGuests.Name)]
public sealed class NetTapTests(GuestFiles files, ITestOutputHelper output) : IDisposable
{
    private const int Bytes = 1_000_000;
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    // What a packet may leave undone: sent (columns) and received (rows), and whether it may fill several buffers.
    private static readonly string[] s_sent = ["csum", "host-tso4, host-tso6, host-ufo", ""];
    private static readonly string[] s_received = ["guest-csum", "guest-tso4, guest-tso6, guest-ufo", ""];

    private readonly List<Process> _processes = [];
    private NetNamespace? _network;

    public void Dispose()
    {
        foreach (var process in _processes)
        {
            if (!process.HasExited) process.Kill(entireProcessTree: true);
            process.WaitForExit();
            process.Dispose();
        }
        _network?.Dispose();
    }

    [SkippableTheory]
    [InlineData(0)]
    [InlineData(1)]
    public async Task Bulk_transfers_arrive_whole_with_every_combination_of_offloads(int half)
    {
        Skip.If(half == 1 && !Nightly.Wanted, Nightly.Reason);
        var network = Network();
        var nets = new StringBuilder();
        var combinations = new List<string>();
        for (var i = 0; i < 9; i++)
        {
            var merge = i % 2 == half;
            var without = string.Join(", ", ((string[])[s_sent[i / 3], s_received[i % 3], merge ? "" : "mrg-rxbuf"]).Where(static word => word.Length > 0));
            combinations.Add(without);
            network.AddTap($"tap{i}", $"10.9.{i}.1/24");
            nets.Append(CultureInfo.InvariantCulture, $"{{ tap = tap{i}, without = [{without}] }}\n");
        }
        var busybox = files.Image.Guest.BusyboxPath;
        var content = FileServer.Content(Bytes);
        await File.WriteAllBytesAsync(Path.Combine(files.Directory, "bulk"), content);
        _processes.Add(network.Start(busybox, "httpd", "-f", "-p", "8000", "-h", files.Directory));
        await using var vm = await StartAsync(network, nets.ToString());
        await TellAsync(vm, async () =>
        {
            var shell = vm.Shell;
            var sum = FileServer.Sha256(content);
            for (var i = 0; i < combinations.Count; i++)
            {
                await shell.RunAsync($"ip addr add 10.9.{i}.2/24 dev eth{i} && ip link set eth{i} up");
                Assert.Equal($"{sum}  -", await shell.RunAsync($"wget -q -O - http://10.9.{i}.1:8000/bulk | tee /tmp/bulk | sha256sum"));
                var received = network.Start(busybox, "nc", "-l", "-p", "9000");
                _processes.Add(received);
                var uploaded = HashAsync(received.StandardOutput.BaseStream);
                await shell.RunAsync($"until nc 10.9.{i}.1 9000 </tmp/bulk; do :; done");
                Assert.Equal((combinations[i], sum), (combinations[i], await uploaded.WaitAsync(Patience)));
            }
        });
        await EndAsync(vm);
    }

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

    private static async Task<string> HashAsync(Stream stream)
    {
        using var bytes = new MemoryStream();
        await stream.CopyToAsync(bytes);
        return FileServer.Sha256(bytes.ToArray());
    }
}
