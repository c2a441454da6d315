using ActorVmm.EndToEnd.Tests.Harness;
using ActorVmm.Host.Experiments;
using ActorVmm.Host.Faults;
using ActorVmm.Hypervisor.Soft;
using ActorVmm.Testing;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.EndToEnd.Tests.Linux;

/// <summary>Devices crash at every place, again and again, under a real guest that checks what it does; and runs that repeat exactly.</summary>
[Collection(LinuxGuests.Name)]
public sealed class CrashSoakTests(ITestOutputHelper output)
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
    public async Task A_guest_that_writes_compares_downloads_and_prints_does_not_notice_its_devices_crash()
    {
        Skip.IfNot(Nightly.Wanted, Nightly.Reason);
        var wanted = (int)Nightly.Count(always: 300, nightly: 10_000);
        await using var server = new FileServer();
        const int Length = 300_000;
        var options = new CrashLoopOptions
        {
            Crashes = wanted, Limit = TimeSpan.FromMinutes(Nightly.Wanted ? 180 : 5),
            Work = $"[ \"$(wget -q -O - http://10.0.2.2:{server.Port}/{Length} | sha256sum)\" = \"{FileServer.Sha256(FileServer.Content(Length))}  -\" ]",
        };
        var lines = new List<string>();
        var report = await new CrashLoop(options) { Line = lines.Add }.RunAsync(new SoftHypervisor(), CancellationToken.None);
        output.WriteLine($"{report}");
        if (!report.IsClean || report.Crashes < wanted) lines.TakeLast(60).ToList().ForEach(output.WriteLine);

        Assert.True(report.Crashes >= wanted, $"{report.Crashes} crashes of {wanted}");
        Assert.Equal(0, report.GuestErrors);
        Assert.True(report.IsClean, $"{report}");
        Assert.True(report.Restarts >= wanted, $"{report.Restarts} restarts");
    }

    [SkippableFact]
    public async Task A_run_with_disks_and_faults_repeats_to_the_last_byte()
    {
        var experiment = ExperimentReader.ReadFile(Path.Combine(Root(AppContext.BaseDirectory), "config", "experiments", "never-flushes.conf"));
        var image = await ExperimentRun.ImageAsync(CancellationToken.None);
        var folder = Directory.CreateTempSubdirectory("actorvmm-replay-").FullName;
        try
        {
            var first = await ExperimentRun.RunAsync(experiment, seed: 5, image, Path.Combine(folder, "0"), CancellationToken.None);
            Assert.Equal("poweroff", first.Safety.Exit);
            Assert.True(first.Safety.Firings["cache"] > 5);
            var (console, quiet) = ExperimentRun.Consoles(Path.Combine(folder, "0"));
            var verdicts = Judge.Of(experiment, [new RunEvidence(first, console, quiet)]);
            Assert.All(verdicts, verdict => Assert.True(verdict.Holds, verdict.Property.Name));

            for (var replay = 1; replay <= Nightly.Count(always: 2, nightly: 100); replay++)
            {
                var again = await ExperimentRun.RunAsync(experiment, seed: 5, image, Path.Combine(folder, "again"), CancellationToken.None);
                Assert.Equal(first.Fingerprint, again.Fingerprint);
                Assert.Equal((first.Safety.Instructions, first.Quiet!.Instructions), (again.Safety.Instructions, again.Quiet!.Instructions));
            }

            var other = await ExperimentRun.RunAsync(experiment, seed: 6, image, Path.Combine(folder, "other"), CancellationToken.None);
            Assert.NotEqual(first.Fingerprint, other.Fingerprint); // and another seed is another run
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
