using System.Diagnostics;
using System.Globalization;
using ActorVmm.Actors;
using ActorVmm.Actors.Fleet;
using ActorVmm.Host.Fleet;
using ActorVmm.Host.Guests;
using ActorVmm.Hypervisor.Soft;
using ActorVmm.Testing.Guests;

namespace ActorVmm.Bench;

/// <summary>
/// Many VMs in one process: how fast tiny ones are created, run and removed, what is left behind, and what a VM costs beyond its guest's
/// RAM,
/// beside one QEMU process per VM (<c>-M microvm</c>) with the same kernel.
/// </summary>
internal static class ManyVms
{
    private const int StockMib = 128;

    private const string StockLine = "console=ttyS0,115200n8r reboot=k panic=-1 8250.nr_uarts=1 pci=off";

    /// <summary>Arguments: tiny VMs (1000), counts of VMs of the stock kernel to measure at (1,8), QEMU (qemu-system-x86_64; - for none),
    /// QEMU processes (8).</summary>
    public static int Run(string[] args) => RunAsync(
        args.Length > 0 ? int.Parse(args[0], CultureInfo.InvariantCulture) : 1000,
        args.Length > 1 ? [.. args[1].Split(',').Select(count => int.Parse(count, CultureInfo.InvariantCulture))] : [1, 8],
        args.Length > 2 ? args[2] : "qemu-system-x86_64",
        args.Length > 3 ? int.Parse(args[3], CultureInfo.InvariantCulture) : 8).GetAwaiter().GetResult();

    private static async Task<int> RunAsync(int tiny, int[] stock, string qemu, int processes)
    {
        var directory = Directory.CreateTempSubdirectory("actorvmm-bench-");
        try
        {
            var kernel = Path.Combine(directory.FullName, "tiny");
            await File.WriteAllBytesAsync(kernel, HaltingKernel.Elf());
            var system = Akka.Actor.ActorSystem.Create("bench",
                Akka.Configuration.ConfigurationFactory.ParseString("akka.loggers = []\nakka.loglevel = OFF\n" + SilentLogger.Hocon));
            await using (var host = VmHost.Attach(system))
            {
                var fleet = new VmFleet(system, host, new FleetLimits(MaxVms: 10_000, MaxMemoryMib: 1 << 20));
                if (tiny > 0) await MeasureTinyAsync(fleet, kernel, tiny);
                if (stock[^1] > 0) await HoldStockAsync(fleet, stock);
            }

            await system.Terminate();
            if (qemu == "-") return 0;
            if (tiny > 0) await ManyProcesses.MeasureTinyAsync(qemu, directory.FullName, Math.Min(tiny, 4 * processes), processes);
            if (stock[^1] > 0) await ManyProcesses.MeasureStockAsync(qemu, StockMib, Math.Min(stock[^1], processes));
            return 0;
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    private static async Task MeasureTinyAsync(VmFleet fleet, string kernel, int tiny)
    {
        await RunTinyAsync(fleet, kernel, Math.Min(tiny, 50)); // what is made once is made
        var before = Resources.Of();
        var began = Stopwatch.GetTimestamp();
        await RunTinyAsync(fleet, kernel, tiny);
        var seconds = Stopwatch.GetElapsedTime(began).TotalSeconds;
        var after = await Resources.AtRestAsync(before);
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{tiny} tiny VMs created, run and removed in {seconds:F1} s: {tiny / seconds:F1} per second, "
            + $"{tiny / seconds / Environment.ProcessorCount:F1} per second and core; left behind: {after.Sockets - before.Sockets} sockets, "
            + $"{after.Descriptors - before.Descriptors} descriptors, {after.Threads - before.Threads} threads, {(after.Proportional - before.Proportional) >> 10} KiB"));
        await HoldTinyAsync(fleet, kernel, Math.Min(tiny, 200));
    }

    /// <summary>Two at a time, as a host starts them by default.</summary>
    private static async Task RunTinyAsync(VmFleet fleet, string kernel, int count)
    {
        var next = 0;
        await Task.WhenAll(Enumerable.Range(0, 2).Select(_ => Task.Run(async () =>
        {
            int number;
            while ((number = Interlocked.Increment(ref next)) <= count)
            {
                var (name, hub) = ($"tiny-{number}", new ConsoleHub(ringBytes: 4096));
                await fleet.DefineAsync(Tiny(name, kernel, hub));
                await fleet.StartAsync(name);
                await SeenAsync(hub, "!");
                await fleet.RemoveAsync(name, force: true);
            }
        })));
    }

    private static async Task HoldTinyAsync(VmFleet fleet, string kernel, int count)
    {
        var before = Resources.Of();
        for (var i = 0; i < count; i++)
        {
            var hub = new ConsoleHub(ringBytes: 4096);
            await fleet.DefineAsync(Tiny($"held-{i}", kernel, hub));
            await fleet.StartAsync($"held-{i}");
            await SeenAsync(hub, "!");
        }

        Report($"{count} tiny VMs of 2 MiB, halted", fleet, before, count);
        foreach (var vm in fleet.All) await fleet.RemoveAsync(vm.Name, force: true);
    }

    private static async Task HoldStockAsync(VmFleet fleet, int[] counts)
    {
        var image = await GuestImage.PrepareAsync(new GuestCache());
        var before = Resources.Of();
        var began = Stopwatch.GetTimestamp();
        for (var i = 0; i < counts[^1]; i++)
        {
            var hub = new ConsoleHub(ringBytes: 64 << 10);
            var spec = new VmSpec
            {
                Name = $"stock-{i}", MemoryMib = StockMib,
                Kernel = new KernelSpec { Path = image.KernelPath, InitrdPath = image.InitramfsPath, CommandLine = StockLine },
            };
            await fleet.DefineAsync(new VmDefinition(spec, static () => new SoftHypervisor(), new VmConsole(hub, hub)));
            await fleet.StartAsync(spec.Name);
            await SeenAsync(hub, GuestImage.Greeting);
            await SeenAsync(hub, "# ");
            if (!counts.Contains(i + 1)) continue;
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{i + 1} stock VMs of {StockMib} MiB booted to their prompts, one after the other, in {Stopwatch.GetElapsedTime(began).TotalSeconds:F1} s"));
            Report($"{i + 1} stock VMs, just at their prompts", fleet, before, i + 1);
            await SettleAsync();
            Report($"{i + 1} stock VMs, idle at their prompts", fleet, before, i + 1);
        }

        foreach (var vm in fleet.All) await fleet.RemoveAsync(vm.Name, force: true);
    }

    /// <summary>Waits until memory has stopped falling: longer than an idle vCPU keeps what it does not use.</summary>
    private static async Task SettleAsync()
    {
        for (var last = long.MaxValue; ;)
        {
            await Task.Delay(TimeSpan.FromSeconds(8));
            var now = Resources.Of().Proportional;
            if (now > last - (2 << 20)) return;
            last = now;
        }
    }

    private static void Collect()
    {
        GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
        GC.WaitForPendingFinalizers();
        GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
    }

    private static void Report(string what, VmFleet fleet, Resources before, int count)
    {
        var now = Resources.Of();
        var guest = fleet.All.Sum(vm => (long)vm.Readings.ResidentBytes);
        var beyond = now.Proportional - before.Proportional - guest;
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{what}: {beyond / 1048576.0 / count:F2} MiB per VM beyond guest RAM ({guest / 1048576.0 / count:F1} MiB of guest RAM each; the "
            + $"process without VMs {before.Proportional / 1048576.0:F0} MiB, its heap {GC.GetTotalMemory(false) / 1048576.0:F1} MiB), "
            + $"{(now.Threads - before.Threads) / (double)count:F1} threads, {(now.Descriptors - before.Descriptors) / (double)count:F1} descriptors"));
    }

    private static VmDefinition Tiny(string name, string kernel, ConsoleHub hub) => new(
        new VmSpec { Name = name, MemoryMib = 2, Kernel = new KernelSpec { Path = kernel, CommandLine = "" } },
            static () => new SoftHypervisor(), new VmConsole(hub, hub));

    private static async Task SeenAsync(ConsoleHub hub, string text)
    {
        var buffer = new byte[64 << 10];
        while (true)
        {
            var more = hub.Printed;
            long position = 0;
            var seen = new System.Text.StringBuilder();
            int got;
            while ((got = hub.Read(ref position, buffer, out _)) > 0) seen.Append(System.Text.Encoding.Latin1.GetString(buffer, 0, got));
            if (seen.ToString().Contains(text, StringComparison.Ordinal)) return;
            await more.WaitAsync(TimeSpan.FromMinutes(10));
        }
    }

    /// <summary>What this process holds: threads beside the runtime's own.</summary>
    private sealed record Resources(int Descriptors, int Sockets, int Threads, long Proportional)
    {
        public static Resources Of()
        {
            Collect();
            var descriptors = Directory.GetFiles("/proc/self/fd");
            var sockets = descriptors.Count(path => new FileInfo(path).LinkTarget?.StartsWith("socket:", StringComparison.Ordinal) == true);
            return new Resources(descriptors.Length, sockets, Directory.GetDirectories("/proc/self/task").Count(IsOurs),
                GuestProcess.Proportional(Environment.ProcessId));
        }

        // The runtime's pool has as many threads as it likes, and names them.
        private static bool IsOurs(string thread)
        {
            try { return !File.ReadAllText(Path.Combine(thread, "comm")).StartsWith(".NET ", StringComparison.Ordinal); }
            catch (IOException) { return false; } // gone in this moment
        }

        /// <summary>What is on its way out may take a moment: waits until no more is held than before, or gives up.</summary>
        public static async Task<Resources> AtRestAsync(Resources before)
        {
            var until = Stopwatch.StartNew();
            while (true)
            {
                var now = Of();
                if ((now.Descriptors <= before.Descriptors && now.Threads <= before.Threads)
                    || until.Elapsed > TimeSpan.FromSeconds(20)) return now;
                await Task.Delay(100);
            }
        }
    }
}
