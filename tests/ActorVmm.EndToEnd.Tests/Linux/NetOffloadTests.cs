using System.Globalization;
using ActorVmm.Actors;
using ActorVmm.Devices.Virtio.Net;
using ActorVmm.EndToEnd.Tests.Harness;
using ActorVmm.Host.Guests;
using ActorVmm.Testing;
using ActorVmm.Testing.Native;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.EndToEnd.Tests.Linux;

/// <summary>
/// Bulk transfers of Linux's own driver with the combinations of offloads that the specification allows: always a choice in which each pair
/// of features meets in all of its ways, all of them in the nightly run.
/// </summary>
[Collection(LinuxGuests.Name)]
public sealed class NetOffloadTests(GuestFiles files, ITestOutputHelper output)
{
    /// <summary>Network interfaces per guest; a machine has 17 virtio devices.</summary>
    private const int PerGuest = 15;
    private const int Slices = 5;

    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(120);

    private static readonly ulong[] s_features =
    [
        NetFeatures.Checksum, NetFeatures.HostTso4, NetFeatures.HostTso6, NetFeatures.HostEcn, NetFeatures.HostUfo,
        NetFeatures.GuestChecksum, NetFeatures.GuestTso4, NetFeatures.GuestTso6, NetFeatures.GuestEcn, NetFeatures.GuestUfo,
        NetFeatures.MergeBuffers,
    ];

    [SkippableFact]
    public async Task Bulk_transfers_arrive_whole_with_each_two_offloads_together_and_apart()
    {
        var chosen = Pairwise();
        Assert.InRange(chosen.Count, 4, PerGuest);
        await CarryAsync(chosen, bytes: 1_000_000);
    }

    /// <summary>
    /// Linux adds buffers when half of such a queue is gone. Until then there may be fewer than a packet of 64 KiB needs, and as long as such
    /// a packet waits for more there are none.
    /// </summary>
    [SkippableFact]
    public async Task Bulk_transfers_do_not_stand_still_where_a_queue_is_smaller_than_a_packet()
    {
        const ulong Large = NetFeatures.Checksum | NetFeatures.GuestChecksum | NetFeatures.GuestTso4 | NetFeatures.MergeBuffers;
        await CarryAsync([Large, Large, Large], bytes: 300_000, queueSize: 32);
    }

    [SkippableTheory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    public async Task Bulk_transfers_arrive_whole_with_every_combination_of_offloads(int slice)
    {
        Skip.IfNot(Nightly.Wanted, Nightly.Reason);
        var all = All();
        Assert.Equal(450, all.Count);
        foreach (var guest in all.Where((_, i) => i % Slices == slice).Chunk(PerGuest)) await CarryAsync(guest, bytes: 300_000);
    }

    private async Task CarryAsync(IReadOnlyList<ulong> combinations, int bytes, int queueSize = 64)
    {
        using var network = PrivateNetwork.Create();
        var nets = new List<NetSpec>();
        var others = s_features.Aggregate(0UL, static (sum, bit) => sum | bit);
        for (var i = 0; i < combinations.Count; i++)
        {
            var name = string.Create(CultureInfo.InvariantCulture, $"t{i}");
            network.AddTap(name);
            network.Ip($"addr add 10.9.{i}.1/24 dev {name}");
            // Small queues: where buffers are not merged, Linux gives each 64 KiB.
            nets.Add(new NetSpec
            {
                Id = name, Backend = new NetBackend.Own(() => network.Open(name)), QueueSize = queueSize, Features = ~others | combinations[i],
            });
        }
        var content = FileServer.Content(bytes);
        var sum = FileServer.Sha256(content);
        var directory = Directory.CreateDirectory(Path.Combine(files.Directory, "bulk")).FullName;
        await File.WriteAllBytesAsync(Path.Combine(directory, "bulk"), content);
        var busybox = files.Image.Guest.BusyboxPath;
        using var server = network.Start(busybox, "httpd", "-f", "-p", "8000", "-h", directory);
        try
        {
            var image = await GuestImage.PrepareAsync(new GuestCache(), NetUserTests.WithNet);
            await using var guest = await RunningGuest.StartAsync(RunningGuest.Spec(image, memoryMib: 512) with { Nets = nets }, output);
            await guest.TellAsync(async () =>
            {
                var shell = guest.Shell;
                await shell.LogInAsync();
                for (var i = 0; i < combinations.Count; i++)
                {
                    await shell.RunAsync($"ip addr add 10.9.{i}.2/24 dev eth{i} && ip link set eth{i} up");
                    var what = $"features 0x{combinations[i]:x}";
                    Assert.Equal((what, $"0x{combinations[i]:x}"), (what, await NegotiatedAsync(shell, i, others)));
                    Assert.Equal((what, $"{sum}  -"),
                        (what, await shell.RunAsync($"wget -q -O - http://10.9.{i}.1:8000/bulk | tee /tmp/bulk | sha256sum")));
                    using var received = network.Start(busybox, "nc", "-l", "-p", "9000");
                    var uploaded = HashAsync(received.StandardOutput.BaseStream);
                    await shell.RunAsync($"until nc 10.9.{i}.1 9000 </tmp/bulk; do :; done");
                    Assert.Equal((what, sum), (what, await uploaded.WaitAsync(Patience)));
                    await shell.RunAsync($"ip link set eth{i} down");
                }
                var dropped = (await guest.Vm.InspectAsync()).ToString().Split('\n').Where(static line => line.Contains(nameof(NetCounter.ReceivedNoRoom),
                    StringComparison.Ordinal));
                output.WriteLine($"packets for which a driver had no buffers: {string.Join("; ", dropped)}");
                await NetGuestTests.OffAsync(guest);
            });
        }
        finally
        {
            server.Kill();
        }
    }

    /// <summary>What Linux took of the features in question: a line of ones and zeroes, lowest first.</summary>
    private static async Task<string> NegotiatedAsync(Shell shell, int index, ulong others)
    {
        var bits = await shell.RunAsync($"cat /sys/class/net/eth{index}/device/features");
        return $"0x{bits.Select(static (bit, i) => bit == '1' ? 1UL << i : 0).Aggregate(0UL, static (sum, bit) => sum | bit) & others:x}";
    }

    /// <summary>Few combinations in which any two features are seen in each of the ways in which they can be together.</summary>
    private static List<ulong> Pairwise()
    {
        var all = All();
        var missing = new HashSet<(int, int, int)>();
        foreach (var one in all) missing.UnionWith(Meetings(one));
        var chosen = new List<ulong>();
        while (missing.Count > 0)
        {
            var best = all.MaxBy(one => Meetings(one).Count(missing.Contains));
            missing.ExceptWith(Meetings(best));
            chosen.Add(best);
        }
        return chosen;
    }

    private static IEnumerable<(int, int, int)> Meetings(ulong features)
    {
        for (var i = 0; i < s_features.Length; i++)
            for (var j = i + 1; j < s_features.Length; j++)
                yield return (i, j, ((features & s_features[i]) != 0 ? 1 : 0) + ((features & s_features[j]) != 0 ? 2 : 0));
    }

    private static List<ulong> All() =>
        [.. Enumerable.Range(0, 1 << s_features.Length)
            .Select(static choice => s_features.Where((_, i) => (choice >> i & 1) != 0).Aggregate(0UL, static (sum, bit) => sum | bit))
            .Where(NetFeatures.AreConsistent)];

    private static async Task<string> HashAsync(Stream stream)
    {
        using var bytes = new MemoryStream();
        await stream.CopyToAsync(bytes);
        return FileServer.Sha256(bytes.ToArray());
    }
}
