using System.Globalization;
using ActorVmm.Actors;
using ActorVmm.Backends.UserNet;
using ActorVmm.Devices.Faults;
using ActorVmm.EndToEnd.Tests.Harness;
using ActorVmm.Host.Guests;
using ActorVmm.Testing;
using ActorVmm.Testing.Guests;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.EndToEnd.Tests.Linux;

/// <summary>What one crash per second costs: fio and downloads in one guest, with and without, turn by turn.</summary>
[Collection(LinuxGuests.Name)]
public sealed class CrashThroughputTests(ITestOutputHelper output)
{
    private const int Pairs = 7;
    private const int FioSeconds = 4;
    private const int Length = 4_000_000;
    private const int Downloads = 8;

    [SkippableFact]
    public async Task At_one_crash_per_second_fio_and_downloads_keep_at_least_95_percent_of_their_rate()
    {
        Skip.IfNot(Nightly.Wanted, Nightly.Reason);
        await using var server = new FileServer();
        var folder = Directory.CreateTempSubdirectory("actorvmm-rate-").FullName;
        try
        {
            var image = await GuestImage.PrepareAsync(new GuestCache(), GuestImageOptions.WithDisks with
            {
                Modules = [.. GuestImageOptions.WithDisks.Modules, "ext4"],
            });
            var spec = RunningGuest.Spec(image, more: "reboot=k actorvmm.net=dhcp") with
            {
                Disks =
                [
                    new DiskSpec { Id = "data", Path = DiskImages.Raw(folder, "data.img", 64), Writeback = true },
                    new DiskSpec { Id = "tools", Path = DiskImages.Tools(folder), ReadOnly = true },
                ],
                Nets = [new NetSpec { Id = "eth0", Backend = new NetBackend.User(new UserNetSettings()) }],
            };
            await using var guest = await RunningGuest.StartAsync(spec, output, settings: "akka.loglevel = OFF\nactorvmm.supervision.max-retries = 1000");
            await guest.TellAsync(() => MeasureAsync(guest, server.Port));
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private async Task MeasureAsync(RunningGuest guest, int port)
    {
        var shell = guest.Shell;
        await shell.LogInAsync();
        await shell.RunAsync("mkdir /tools && mount -t ext4 -o ro /dev/vdb /tools && mount -t tmpfs tmpfs /tools/tmp "
            + "&& mount -o bind /dev /tools/dev && mount -t proc proc /tools/proc");
        // Everything once, so that all code is translated.
        await FioAsync(shell);
        await DownloadAsync(shell, port);
        var rates = new Dictionary<string, List<(double With, double Without)>>(StringComparer.Ordinal) { ["fio"] = [], ["http"] = [] };
        var before = Restarts(guest);
        for (var pair = 0; pair < Pairs; pair++)
        {
            var one = new Dictionary<(string, bool), double>();
            foreach (var crashing in pair % 2 == 0 ? (bool[])[true, false] : [false, true])
            {
                one[("fio", crashing)] = await DuringAsync(guest, crashing ? "blk0" : null, pair, () => FioAsync(shell));
                one[("http", crashing)] = await DuringAsync(guest, crashing ? "net0" : null, pair, () => DownloadAsync(shell, port));
            }

            foreach (var (name, list) in rates) list.Add((one[(name, true)], one[(name, false)]));
        }

        output.WriteLine($"{Restarts(guest) - before} restarts, {Pairs} pairs");
        foreach (var (name, pairs) in rates)
        {
            var ratio = Median(pairs.Select(pair => pair.With / pair.Without));
            output.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{name}: {Median(pairs.Select(pair => pair.Without)):F0} without, {Median(pairs.Select(pair => pair.With)):F0} with one crash per second; "
                + $"median of the ratios {ratio:F3} ({string.Join(' ', pairs.Select(pair => (pair.With / pair.Without).ToString("F3", CultureInfo.InvariantCulture)))})"));
            Assert.True(ratio >= 0.95, $"{name} keeps {ratio:P1}");
        }
    }

    /// <summary>Crashes a device once in each second of the guest's time, at a place that changes, while something is measured.</summary>
    private static async Task<double> DuringAsync(RunningGuest guest, string? device, int turn, Func<Task<double>> measure)
    {
        if (device is not null)
        {
            await guest.Vm.InjectAsync(new FaultRule
            {
                Kind = FaultKind.ActorCrash, Name = FormattableString.Invariant($"{device}-{turn}"), Device = device,
                Point = FaultPoints.All[(2 * turn) % FaultPoints.All.Count], SpareRetry = true, From = guest.Vm.Readings.ClockNanoseconds,
                Until = guest.Vm.Readings.ClockNanoseconds + (FioSeconds * 1_000_000_000UL), Period = 1_000_000_000, Times = FioSeconds,
            });
        }

        return await measure();
    }

    /// <returns>4k requests per second, read and written.</returns>
    private static async Task<double> FioAsync(Shell shell)
    {
        var line = await shell.RunAsync("chroot /tools /usr/bin/fio --name=r --filename=/dev/vda --size=64m --rw=randrw --bs=4k --iodepth=16 --ioengine=libaio "
            + $"--direct=1 --time_based --runtime={FioSeconds} --norandommap --minimal | tail -n 1");
        var fields = line.Split(';');
        return double.Parse(fields[7], CultureInfo.InvariantCulture) + double.Parse(fields[48], CultureInfo.InvariantCulture);
    }

    /// <returns>Bytes per second, by the guest's clock.</returns>
    private static async Task<double> DownloadAsync(Shell shell, int port)
    {
        var answer = await shell.RunAsync("b=$(cut -d' ' -f1 /proc/uptime); "
            + $"for i in $(seq {Downloads}); do wget -q -O - http://10.0.2.2:{port}/{Length} | wc -c; done | sort -u; echo $b $(cut -d' ' -f1 /proc/uptime)");
        var lines = answer.Split('\n');
        Assert.Equal([$"{Length}"], lines[..^1]);
        var times = lines[^1].Split(' ').Select(time => double.Parse(time, CultureInfo.InvariantCulture)).ToArray();
        return Downloads * (double)Length / (times[1] - times[0]);
    }

    private static long Restarts(RunningGuest guest) => guest.Vm.Readings.Devices.Sum(device => device.Restarts);

    private static double Median(IEnumerable<double> values)
    {
        var sorted = values.Order().ToArray();
        return sorted[sorted.Length / 2];
    }
}
