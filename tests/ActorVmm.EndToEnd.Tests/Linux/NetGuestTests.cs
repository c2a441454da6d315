using System.Globalization;
using System.Text.Json;
using System.Text.RegularExpressions;
using ActorVmm.Actors;
using ActorVmm.Actors.Host.Vm;
using ActorVmm.Actors.Host.Vm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Net;
using ActorVmm.EndToEnd.Tests.Harness;
using ActorVmm.Host.Guests;
using ActorVmm.Testing.Guests;
using ActorVmm.Testing.Native;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.EndToEnd.Tests.Linux;

/// <summary>
/// Linux's network driver on a tap, with the host's kernel on the other side: load, cable, address, size and counters, seen from both ends
/// and from the device.
/// </summary>
[Collection(LinuxGuests.Name)]
public sealed class NetGuestTests : IDisposable
{
    private readonly ITestOutputHelper _output;
    private readonly string _here = Directory.CreateTempSubdirectory("actorvmm-net-").FullName;
    private PrivateNetwork? _network;

    public NetGuestTests(ITestOutputHelper output) => _output = output;

    public void Dispose()
    {
        _network?.Dispose();
        Directory.Delete(_here, recursive: true);
    }

    [SkippableFact]
    public async Task Iperf3_runs_both_ways_through_two_queues_of_a_guest_with_two_vcpus()
    {
        var tools = DiskImages.Tools(_here, "iperf3");
        await using var guest = await StartAsync(new NetSpec { Id = "eth0", Backend = Tap(pairs: 2), Pairs = 2 }, vcpus: 2,
            new DiskSpec { Id = "tools", Path = tools, ReadOnly = true });
        using var server = _network!.Start("iperf3", "-s", "-p", "5201");
        await guest.TellAsync(async () =>
        {
            var shell = guest.Shell;
            await UpAsync(shell);
            await shell.RunAsync("mkdir /tools && mount -t ext4 -o ro /dev/vda /tools && mount -t tmpfs tmpfs /tools/tmp "
                + "&& mount -o bind /dev /tools/dev && mount -t proc proc /tools/proc");
            Assert.Equal("2 2", await shell.RunAsync("echo $(ls -d /sys/class/net/eth0/queues/tx-* | wc -l) $(ls -d /sys/class/net/eth0/queues/rx-* | wc -l)"));
            foreach (var direction in (string[])["", "-R", "--bidir"])
            {
                // Two streams: with one per vCPU, both pairs of queues carry.
                await shell.RunAsync($"chroot /tools /usr/bin/iperf3 -c 10.9.0.1 -P 4 -t 2 -J {direction} > /tmp/json");
                using var report = JsonDocument.Parse(await shell.RunAsync("cat /tmp/json"));
                var end = report.RootElement.GetProperty("end");
                foreach (var sum in direction == "--bidir" ? (string[])["sum_received", "sum_received_bidir_reverse"] : ["sum_received"])
                {
                    var rate = end.GetProperty(sum).GetProperty("bits_per_second").GetDouble() / 1e6;
                    _output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"iperf3 {direction} {sum}: {rate:F0} Mbit/s"));
                    Assert.True(end.GetProperty(sum).GetProperty("bytes").GetInt64() > 1_000_000);
                }
            }
            var device = await InspectAsync(guest);
            Assert.Contains("2 of 2 pairs", device["type"], StringComparison.Ordinal);
            // Both transmit queues have carried data, and the device has sent all that it took.
            Assert.All((string[])["queue-1", "queue-3"], queue => Assert.InRange(Taken(device[queue]), 100, long.MaxValue));
            Assert.DoesNotContain("Refused", device["type"], StringComparison.Ordinal);
            Assert.DoesNotContain("NoRoom", device["type"], StringComparison.Ordinal);
            await OffAsync(guest);
        });
        server.Kill();
    }

    [SkippableFact]
    public async Task The_cable_is_pulled_and_put_in_while_a_transfer_runs_and_the_transfer_goes_on()
    {
        await using var guest = await StartAsync(new NetSpec { Id = "eth0", Backend = Tap() });
        using var server = _network!.Start("busybox", "nc", "-l", "-p", "9000");
        var received = server.StandardOutput.BaseStream;
        await guest.TellAsync(async () =>
        {
            var shell = guest.Shell;
            await UpAsync(shell);
            await shell.RunAsync("dd if=/dev/urandom of=/tmp/bulk bs=1M count=8 2>/dev/null; cd /sys/class/net/eth0");
            await shell.RunAsync("until nc 10.9.0.1 9000 </tmp/bulk; do :; done & :");
            var bytes = new byte[8 << 20];
            await received.ReadExactlyAsync(bytes.AsMemory(0, 100_000)); // it runs
            await guest.Vm.UpdateDeviceAsync("net0", new NetUpdate(Plugged: false));
            await shell.RunAsync("while [ $(cat carrier) = 1 ]; do usleep 20000; done");
            await guest.Vm.UpdateDeviceAsync("net0", new NetUpdate(Plugged: true));
            await shell.RunAsync("while [ $(cat carrier) = 0 ]; do usleep 20000; done");
            await received.ReadExactlyAsync(bytes.AsMemory(100_000)).AsTask().WaitAsync(Shell.CommandDeadline);
            Assert.Equal($"{FileServer.Sha256(bytes)}  /tmp/bulk", await shell.RunAsync("sha256sum /tmp/bulk"));
            await OffAsync(guest);
        });
    }

    [SkippableFact]
    public async Task Address_and_size_are_the_drivers_and_the_counters_agree_at_both_ends()
    {
        await using var guest = await StartAsync(
            new NetSpec { Id = "eth0", Backend = Tap(), Mac = new MacAddress(0x06_00_AC_10_00_02), Mtu = 1400, SpoofCheck = true });
        await guest.TellAsync(async () =>
        {
            var shell = guest.Shell;
            await UpAsync(shell);
            Assert.Equal("06:00:ac:10:00:02 1400", await shell.RunAsync("cd /sys/class/net/eth0 && echo $(cat address mtu)"));
            // The largest size is the device's: no driver makes it more, and what is sent by it arrives in one piece.
            Assert.Equal("1400", await shell.RunAsync("ip link set eth0 mtu 1500 2>/dev/null; cat mtu"));
            Assert.Contains("1 packets received", await shell.RunAsync("ping -c 1 -s 1372 10.9.0.1"), StringComparison.Ordinal);

            // Another address, through the control queue: with the check of sources, nothing sent from it passes before the device knows it.
            await shell.RunAsync("ip link set eth0 down && ip link set eth0 address 02:00:00:00:00:77 && ip link set eth0 up");
            await shell.RunAsync("until ping -c 1 -W 1 10.9.0.1; do :; done");
            Assert.Contains("02:00:00:00:00:77", _network!.Ip("neigh show 10.9.0.2"), StringComparison.Ordinal);
            var device = await InspectAsync(guest);
            Assert.StartsWith("02:00:00:00:00:77", device["type"], StringComparison.Ordinal);

            // Nothing more is sent: both ends and the device have counted the same packets.
            await shell.RunAsync("echo 1 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6; ip neigh add 10.9.0.1 lladdr "
                + _network.Exec("cat", "/sys/class/net/t0/address").Trim() + " dev eth0 nud permanent 2>/dev/null; ping -c 20 -i 0.02 10.9.0.1");
            var (sent, received) = (await CountAsync(shell, "tx_packets"), await CountAsync(shell, "rx_packets"));
            device = await InspectAsync(guest);
            Assert.Equal(sent, Counter(device["type"], "Sent"));
            Assert.Equal(received, Counter(device["type"], "Received"));
            Assert.Equal(sent, Counter(device["type"], "packets-from-guest"));
            Assert.Equal(await CountAsync(shell, "tx_bytes"), Counter(device["type"], "SentBytes"));
            using var host = JsonDocument.Parse(_network.Ip("-s -j link show t0"));
            var stats = host.RootElement[0].GetProperty("stats64");
            Assert.Equal(sent, stats.GetProperty("rx").GetProperty("packets").GetInt64());
            Assert.Equal(Counter(device["type"], "packets-to-guest"), stats.GetProperty("tx").GetProperty("packets").GetInt64());
            await OffAsync(guest);
        });
    }

    internal static async Task UpAsync(Shell shell)
    {
        await shell.LogInAsync();
        await shell.RunAsync("ip addr add 10.9.0.2/24 dev eth0 && ip link set eth0 up && until ping -c 1 -W 1 10.9.0.1; do :; done");
    }

    internal static async Task OffAsync(RunningGuest guest)
    {
        guest.Shell.Type("poweroff -f");
        Assert.Equal(StopReason.Poweroff, (await guest.EndAsync(Shell.CommandDeadline)).Reason);
    }

    private NetBackend.Own Tap(int pairs = 1)
    {
        var network = _network = PrivateNetwork.Create();
        network.Ip("tuntap add dev t0 mode tap" + (pairs > 1 ? " multi_queue" : ""));
        // The kernel's own packets would come at moments of their own.
        network.Exec("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/t0/disable_ipv6 || true");
        network.Ip("addr add 10.9.0.1/24 dev t0");
        network.Ip("link set t0 up");
        return new NetBackend.Own(() => network.Open("t0", pairs));
    }

    private async Task<RunningGuest> StartAsync(NetSpec net, int vcpus = 1, params DiskSpec[] disks)
    {
        var image = await GuestImage.PrepareAsync(new GuestCache(), GuestImageOptions.WithDisks);
        return await RunningGuest.StartAsync(RunningGuest.Spec(image, vcpus) with { Nets = [net], Disks = disks }, _output);
    }

    private static async Task<long> CountAsync(Shell shell, string name) =>
        long.Parse(await shell.RunAsync($"cat /sys/class/net/eth0/statistics/{name}"), CultureInfo.InvariantCulture);

    private static async Task<IReadOnlyDictionary<string, string>> InspectAsync(RunningGuest guest)
    {
        // On a busy machine a unit may not answer in the time that an inspection waits.
        using var late = new CancellationTokenSource(Shell.CommandDeadline);
        while (true)
        {
            if (Find(await guest.Vm.InspectAsync()) is { } found && found.Values.ContainsKey("type")) return found.Values;
            late.Token.ThrowIfCancellationRequested();
        }

        static InspectNode? Find(InspectNode node) =>
            node.Name == "net0" ? node : (node.Children ?? []).Select(Find).FirstOrDefault(static found => found is not null);
    }

    private static long Counter(string text, string name) =>
        long.Parse(Regex.Match(text, $@"\b{name} (\d+)", RegexOptions.None, TimeSpan.FromSeconds(5)).Groups[1].Value, CultureInfo.InvariantCulture);

    private static long Taken(string queue) => Counter(queue, "taken");
}
