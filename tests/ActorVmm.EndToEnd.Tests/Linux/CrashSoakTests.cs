using System.Globalization;
using System.Text.RegularExpressions;
using ActorVmm.EndToEnd.Tests.Harness;
using ActorVmm.Host.Experiments;
using ActorVmm.Host.Faults;
using ActorVmm.Hypervisor.Soft;
using ActorVmm.Testing;
using ActorVmm.Testing.Guests;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.EndToEnd.Tests.Linux;

/// <summary>Devices crash at every place, again and again, under a real guest that checks what it does; and the ready experiments.</summary>
[Collection(LinuxGuests.Name)]
public sealed partial class CrashSoakTests(ITestOutputHelper output)
{
    [Fact]
    public async Task Thirty_crashes_of_disk_network_and_console_go_unnoticed()
    {
        var lines = new List<string>();
        var options = new CrashLoopOptions { Crashes = 30, Limit = TimeSpan.FromSeconds(100) };
        var report = await new CrashLoop(options) { Line = lines.Add }.RunAsync(new SoftHypervisor(), CancellationToken.None);
        output.WriteLine($"{report}");
        foreach (var (device, pause) in report.Pauses) output.WriteLine($"{device}: {pause}");
        lines.TakeLast(40).ToList().ForEach(output.WriteLine);

        Assert.True(report.IsClean, $"{report}");
        Assert.InRange(report.Crashes, 30, int.MaxValue);
        Assert.InRange(report.Restarts, 30, int.MaxValue);
        // Each was away, and said so: a run in which a device never crashed proves nothing of it.
        Assert.Equal(["blk0", "net0", "serial0"], report.Pauses.Select(pause => pause.Device).Order(StringComparer.Ordinal));
        Assert.Contains(lines, line => line.EndsWith("kernel 0 complaints", StringComparison.Ordinal));
    }

    [SkippableFact]
    public async Task Fio_and_downloads_do_not_notice_that_their_devices_crash_hundreds_of_times()
    {
        var wanted = (int)Nightly.Count(always: 300, nightly: 10_000);
        await using var server = new FileServer();
        var folder = Directory.CreateTempSubdirectory("actorvmm-soak-").FullName;
        try
        {
            var options = new CrashLoopOptions
            {
                Crashes = wanted, Period = TimeSpan.FromMilliseconds(30), Limit = TimeSpan.FromMinutes(Nightly.Wanted ? 120 : 4),
                Devices = ["blk0", "net0", "serial0", "rng0"], Tools = DiskImages.Tools(folder), Prepare = ToolsMounted,
                Work = new Dictionary<string, string>(StringComparer.Ordinal) { ["fio"] = Fio, ["http"] = Download(server, 300_000) },
            };
            await SoakAsync(options, wanted);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private const string ToolsMounted = "mkdir -p /tools && mount -t ext4 -o ro /dev/vdb /tools && mount -o bind /dev /tools/dev "
        + "&& mount -t proc proc /tools/proc && mount -t tmpfs tmpfs /tools/tmp";

    // Beside the place at the beginning of the disk that the loop itself writes; each block is read back and its checksum compared.
    private const string Fio = "chroot /tools /usr/bin/fio --name=soak --filename=/dev/vda --offset=4m --size=4m --rw=randrw --bs=4k --iodepth=16 "
        + "--ioengine=libaio --direct=1 --fsync=64 --verify=crc32c --verify_fatal=1 --verify_backlog=128 --verify_state_save=0 --minimal >/tmp/fio.log 2>&1";

    private static string Download(FileServer server, int length) =>
        $"[ \"$(wget -q -O - http://10.0.2.2:{server.Port}/{length} | sha256sum)\" = \"{FileServer.Sha256(FileServer.Content(length))}  -\" ]";

    private async Task SoakAsync(CrashLoopOptions options, int wanted)
    {
        var lines = new List<string>();
        var report = await new CrashLoop(options) { Line = lines.Add }.RunAsync(new SoftHypervisor(), CancellationToken.None);
        output.WriteLine(FormattableString.Invariant(
            $"{report.Crashes} crashes in {report.Lasted.TotalSeconds:F1} s: {report.Crashes / report.Lasted.TotalSeconds:F1} per second"));
        output.WriteLine($"{report.Restarts} restarts, {report.GuestErrors} errors seen by the guest, which ended by {report.Ended?.Text}");
        foreach (var (name, passes) in report.Loops) output.WriteLine($"  {name}: {passes} passes");
        foreach (var (device, pause) in report.Pauses) output.WriteLine($"  {device} was away: {pause}");
        if (!report.IsClean || report.Crashes < wanted) lines.TakeLast(80).ToList().ForEach(output.WriteLine);

        Assert.True(report.Crashes >= wanted, $"{report.Crashes} crashes of {wanted}");
        Assert.Equal(0, report.GuestErrors);
        Assert.True(report.IsClean, $"{report}");
        Assert.True(report.Restarts >= wanted, $"{report.Restarts} restarts");
        Assert.Equal(options.Devices.Order(StringComparer.Ordinal), report.Pauses.Select(pause => pause.Device).Order(StringComparer.Ordinal));
        foreach (var (device, pause) in report.Pauses)
        {
            var figures = Figures().Match(pause);
            double Milliseconds(int group) => double.Parse(figures.Groups[group].Value, CultureInfo.InvariantCulture);
            Assert.True(Milliseconds(1) <= 5 && Milliseconds(2) <= 50, $"{device} was away for {pause}; p50 <= 5 ms and p99 <= 50 ms are promised");
        }
    }

    [GeneratedRegex(@"^p50 ([0-9.]+) ms, p99 ([0-9.]+) ms", RegexOptions.None, matchTimeoutMilliseconds: 1000)]
    private static partial Regex Figures();

    [SkippableFact]
    public async Task What_was_never_flushed_is_lost_and_all_else_is_kept()
    {
        var experiment = ExperimentReader.ReadFile(Path.Combine(Root(AppContext.BaseDirectory), "config", "experiments", "never-flushes.conf"));
        var image = await ExperimentRun.ImageAsync(CancellationToken.None);
        var folder = Directory.CreateTempSubdirectory("actorvmm-flush-").FullName;
        try
        {
            var first = await ExperimentRun.RunAsync(experiment, seed: 5, image, Path.Combine(folder, "0"), CancellationToken.None);
            Assert.Equal("poweroff", first.Safety.Exit);
            Assert.True(first.Safety.Firings["cache"] > 5);
            var (console, quiet) = ExperimentRun.Consoles(Path.Combine(folder, "0"));
            var verdicts = Judge.Of(experiment, [new RunEvidence(first, console, quiet)]);
            Assert.All(verdicts, verdict => Assert.True(verdict.Holds, verdict.Property.Name));
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    [SkippableFact]
    public async Task Ext4_keeps_what_was_synced_where_the_host_is_killed_and_writes_are_torn()
    {
        Skip.IfNot(Nightly.Wanted, Nightly.Reason);
        Skip.IfNot(File.Exists("/usr/sbin/mke2fs") || File.Exists("/sbin/mke2fs"), "mke2fs (package e2fsprogs) is missing");
        var file = Path.Combine(Root(AppContext.BaseDirectory), "config", "experiments", "ext4-torn-writes.conf");
        var folder = Directory.CreateTempSubdirectory("actorvmm-ext4-").FullName;
        try
        {
            await using var text = new StringWriter();
            var code = await new ExperimentCommand(text, TextWriter.Null, terminal: false)
                .RunAsync(file, seeds: 20, firstSeed: 1, folder, json: false, CancellationToken.None);
            output.WriteLine(text.ToString());
            Assert.Equal(Host.ExitCodes.Success, code);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static string Root(string directory) =>
        File.Exists(Path.Combine(directory, "ActorVmm.sln")) ? directory : Root(Path.GetDirectoryName(directory)!);
}
