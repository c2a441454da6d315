using System.Diagnostics;
using ActorVmm.EndToEnd.Tests.Harness;
using ActorVmm.Host.Experiments;
using ActorVmm.Host.Guests;
using ActorVmm.Testing;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.EndToEnd.Tests.Linux;

/// <summary>Runs that repeat exactly, with disks, a network, entropy, crashes and a clock that is not to be trusted.</summary>
[Collection(LinuxGuests.Name)]
public sealed class ReplayTests(ITestOutputHelper output)
{
    // What could differ is printed: times, counts of interrupts, random bytes, what a file system makes of itself.
    private const string Everything = """
        name = everything
        network = inside
        disks = [ { name = raw, size-mib = 16 }, { name = files, size-mib = 32, format = ext4 } ]
        safety {
          script = [
            "dd if=/dev/hwrng bs=64 count=8 2>/dev/null | md5sum; cat /proc/uptime; date"
            "dd if=/dev/urandom of=/tmp/x bs=64k count=8 2>/dev/null; dd if=/tmp/x of=/dev/vda bs=4k conv=fsync 2>/dev/null; dd if=/dev/vda bs=4k count=128 iflag=direct 2>/dev/null | md5sum; md5sum </tmp/x"
            "mkdir -p /mnt; mount -t ext4 /dev/vdb /mnt && cp -r /bin/busybox /modules /mnt; sync; ls -la --full-time /mnt; umount /mnt; dmesg | tail -n 20"
            "for i in 1 2 3 4 5 6 7 8; do ping -c 2 -s 1400 -W 1 10.0.2.2; done; ping -c 1 -W 1 9.9.9.9; wget -T 2 http://10.0.2.2/; nslookup a.b 10.0.2.3"
            "udhcpc -i eth0 -s /dhcp.script -n -q -t 9 -T 1; cat /proc/net/arp /proc/net/dev; ip addr show eth0"
            "dd if=/dev/hwrng bs=64 count=8 2>/dev/null | md5sum; cat /proc/uptime /proc/interrupts /proc/stat; date"
            "poweroff -f"
          ]
          faults {
            rules = [
              { kind = actor-crash, name = crash-blk, device = blk0, probability = 0.02, spare-retry = true }
              { kind = actor-crash, name = crash-blk-late, device = blk1, point = index-published, every = 4, spare-retry = true }
              { kind = actor-crash, name = crash-serial, device = serial0, point = stored, probability = 0.002, spare-retry = true }
              { kind = actor-crash, name = crash-rng, device = rng0, point = request-taken, every = 2, spare-retry = true }
              { kind = block-latency, name = late, device = blk0, probability = 0.2, delay = 3ms }
              { kind = block-volatile-cache, name = cache, device = blk1, probability = 0.5 }
              { kind = irq-late, name = irq, device = blk1, probability = 0.1, delay = 1ms }
              { kind = irq-spurious, name = spurious, gsi = 10, period = 50ms, probability = 0.3 }
              { kind = entropy-starvation, name = dry, device = rng0, nth = 2, for = 20ms }
              { kind = clock-jump, name = jump, after-console = "Welcome", from = 20ms, delay = 700ms }
              { kind = clock-drift, name = drift, after-console = "Welcome", from = 30ms, for = 50ms, factor = 1.5 }
              { kind = actor-slow, name = slow, device = blk1, every = 20, delay = 2ms }
              { kind = actor-crash, name = crash-net, device = net0, after-console = "Welcome", probability = 0.05, spare-retry = true }
              { kind = net-loss, name = lost, device = net0, after-console = "Welcome", probability = 0.1 }
              { kind = net-duplicate, name = twice, device = net0, after-console = "Welcome", probability = 0.2 }
              { kind = net-reorder, name = swapped, device = net0, after-console = "Welcome", probability = 0.1 }
              { kind = net-delay, name = delayed, device = net0, after-console = "Welcome", probability = 0.2, delay = 20ms }
              { kind = net-corruption, name = corrupt, device = net0, after-console = "Welcome", probability = 0.1 }
              { kind = net-link-flap, name = flap, device = net0, after-console = "Welcome", from = 300ms, for = 30ms }
              { kind = vcpu-pause, name = pause, from = 1s, for = 30ms }
            ]
          }
        }
        properties = [ { name = ends, is = always, exit = poweroff } ]
        limit = 30m
        """;

    private static readonly string[] s_mustFire =
        ["crash-blk", "crash-blk-late", "crash-serial", "crash-rng", "late", "cache", "irq", "spurious", "dry", "jump", "drift", "slow",
        "pause", "crash-net", "lost", "twice", "swapped", "delayed", "corrupt", "flap"];

    /// <summary>What is the matter while the replays run; without the nightly run only the first, with five instead of 25.</summary>
    public enum Beside { Nothing, BusyThreads, BusyProcesses }

    [SkippableTheory]
    [InlineData(Beside.Nothing)]
    [InlineData(Beside.BusyThreads)]
    [InlineData(Beside.BusyProcesses)]
    public async Task A_run_with_disks_a_network_entropy_crashes_and_faults_of_the_clock_repeats_to_the_last_byte(Beside beside)
    {
        Skip.If(!Nightly.Wanted && beside != Beside.Nothing, Nightly.Reason);
        await WithFirstRunAsync(async (experiment, image, folder, place, first) =>
        {
            using var threads = new Load(beside == Beside.BusyThreads ? 2 : 0);
            using var processes = new LoadOfProcesses(beside == Beside.BusyProcesses ? 2 : 0);
            var replays = (int)Nightly.Count(always: 5, nightly: 25);
            var same = 0;
            await Parallel.ForAsync(0, replays, new ParallelOptions { MaxDegreeOfParallelism = 2 }, async (number, cancel) =>
            {
                var again = Path.Combine(folder, $"again{number}");
                var result = await ExperimentRun.RunAsync(experiment, seed: 5, image, again, cancel);
                if (result.Fingerprint != first.Fingerprint) Compare(place, again);
                Assert.Equal(first.Safety.Instructions, result.Safety.Instructions);
                await AssertSameAsync(experiment, place, again, cancel);
                Assert.Equal(first.Fingerprint, result.Fingerprint);
                Interlocked.Increment(ref same);
                Directory.Delete(again, recursive: true);
            });
            output.WriteLine($"{same} of {replays} replays are the same");
            Assert.Equal(replays, same);

            var other = await ExperimentRun.RunAsync(experiment, seed: 6, image, Path.Combine(folder, "other"), CancellationToken.None);
            Assert.NotEqual(first.Fingerprint, other.Fingerprint); // and another seed is another run
        });
    }

    /// <summary>The program is built anew from its sources, in the other configuration, and replays what this build has run.</summary>
    [SkippableFact]
    public async Task Another_build_of_the_program_repeats_the_run_to_the_last_byte()
    {
        Skip.IfNot(Nightly.Wanted, Nightly.Reason);
        await WithFirstRunAsync(async (experiment, _, folder, place, first) =>
        {
            var built = Path.Combine(folder, "build");
            // Another configuration, and not deterministic: a build whose every assembly is another one.
            var configuration = AppContext.BaseDirectory.Contains("/Release/", StringComparison.Ordinal) ? "Debug" : "Release";
            var (code, said) = await RunAsync("publish", Path.Combine(Root(AppContext.BaseDirectory), "src", "ActorVmm.Host"), "-c", configuration,
                "--artifacts-path", built, "-o", Path.Combine(built, "program"), "-p:Deterministic=false", "-p:RunAnalyzers=false", "-v", "q",
                "-nologo", "--disable-build-servers");
            Assert.True(code == 0, said);

            var replays = 25;
            var same = 0;
            await Parallel.ForAsync(0, replays, new ParallelOptions { MaxDegreeOfParallelism = 2 }, async (number, cancel) =>
            {
                var again = Path.Combine(folder, $"again{number}");
                var (differs, words) = await RunAsync(Path.Combine(built, "program", "actorvmm.dll"), "experiment", "replay", place, "--output", again);
                Assert.True(differs == Host.ExitCodes.Success, words);
                Assert.Contains("another build than that run's", words, StringComparison.Ordinal);
                Assert.Contains($"the same run: console, trace and {first.Safety.Instructions} instructions", words, StringComparison.Ordinal);
                await AssertSameAsync(experiment, place, again, cancel);
                Interlocked.Increment(ref same);
                Directory.Delete(again, recursive: true);
            });
            output.WriteLine($"{same} of {replays} replays by a {configuration} build are the same");
            Assert.Equal(replays, same);
        });
    }

    private async Task WithFirstRunAsync(Func<Experiment, GuestImage, string, string, RunResult, Task> replay)
    {
        Skip.IfNot(File.Exists("/usr/sbin/mke2fs") || File.Exists("/sbin/mke2fs"), "mke2fs (package e2fsprogs) is missing");
        var experiment = ExperimentReader.Read(Everything, "everything");
        var image = await ExperimentRun.ImageAsync(CancellationToken.None);
        var folder = Directory.CreateTempSubdirectory("actorvmm-replay-").FullName;
        try
        {
            var place = Path.Combine(folder, "first");
            var first = await ExperimentRun.RunAsync(experiment, seed: 5, image, place, CancellationToken.None);
            Assert.Equal("poweroff", first.Safety.Exit);
            foreach (var rule in s_mustFire) Assert.True(first.Safety.Firings.GetValueOrDefault(rule) > 0, $"{rule} has not fired");
            var console = ExperimentRun.Consoles(place).Safety;
            foreach (var line in (string[])["bytes from 10.0.2.2", "udhcpc: lease of 10.0.2.15"]) Assert.Contains(line, console, StringComparison.Ordinal);
            output.WriteLine($"{first.Safety.Instructions} instructions, {first.Safety.Firings.Values.Sum()} faults, {first.HostSeconds} s");
            await replay(experiment, image, folder, place, first);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static async Task AssertSameAsync(Experiment experiment, string left, string right, CancellationToken cancel)
    {
        foreach (var file in (string[])["safety-console.log", "safety-trace.jsonl", .. experiment.Disks.Select(disk => $"{disk.Name}.img")])
            Assert.True(await SameAsync(Path.Combine(left, file), Path.Combine(right, file), cancel), $"{file} differs");
    }

    /// <summary>Runs the <c>dotnet</c> that runs this; output and errors together.</summary>
    private static async Task<(int Code, string Said)> RunAsync(params string[] words)
    {
        var dotnet = Environment.GetEnvironmentVariable("DOTNET_HOST_PATH") is { Length: > 0 } path ? path : "dotnet";
        var start = new ProcessStartInfo(dotnet, words) { RedirectStandardOutput = true, RedirectStandardError = true, RedirectStandardInput = true };
        start.Environment["DOTNET_NOLOGO"] = "1";
        using var process = Process.Start(start)!;
        process.StandardInput.Close();
        var (said, errors) = (process.StandardOutput.ReadToEndAsync(), process.StandardError.ReadToEndAsync());
        await process.WaitForExitAsync();
        return (process.ExitCode, await said + await errors);
    }

    private static string Root(string directory) =>
        File.Exists(Path.Combine(directory, "ActorVmm.sln")) ? directory : Root(Path.GetDirectoryName(directory)!);

    private static async Task<bool> SameAsync(string left, string right, CancellationToken cancel)
    {
        var (one, other) = (await File.ReadAllBytesAsync(left, cancel), await File.ReadAllBytesAsync(right, cancel));
        return one.AsSpan().SequenceEqual(other);
    }

    private void Compare(string left, string right)
    {
        using var text = new StringWriter();
        new ExperimentCommand(text, text, terminal: false).DiffAsync(left, right).GetAwaiter().GetResult();
        output.WriteLine(text.ToString());
    }

    /// <summary>Threads that keep the machine busy.</summary>
    private sealed class Load : IDisposable
    {
        private readonly Thread[] _threads;
        private volatile bool _ended;

        public Load(int threads)
        {
            _threads = [.. Enumerable.Range(0, threads).Select(_ => new Thread(Compute) { IsBackground = true })];
            foreach (var thread in _threads) thread.Start();
        }

        public void Dispose()
        {
            _ended = true;
            foreach (var thread in _threads) thread.Join();
        }

        private void Compute()
        {
            var until = Stopwatch.GetTimestamp();
            while (!_ended) until ^= until << 1;
        }
    }

    /// <summary>Processes that keep the machine busy.</summary>
    private sealed class LoadOfProcesses(int count) : IDisposable
    {
        private readonly Process[] _processes =
            [.. Enumerable.Range(0, count).Select(static _ => Process.Start("/bin/sh", ["-c", "while :; do :; done"])!)];

        public void Dispose()
        {
            foreach (var process in _processes)
            {
                process.Kill();
                process.WaitForExit();
                process.Dispose();
            }
        }
    }
}
