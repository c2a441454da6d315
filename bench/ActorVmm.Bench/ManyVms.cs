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

    /// <summary>Arguments: tiny VMs (1000), VMs of the stock kernel (8), QEMU (qemu-system-x86_64; - for none).</summary>
    public static int Run(string[] args) => RunAsync(
        args.Length > 0 ? int.Parse(args[0], CultureInfo.InvariantCulture) : 1000,
        args.Length > 1 ? int.Parse(args[1], CultureInfo.InvariantCulture) : 8,
        args.Length > 2 ? args[2] : "qemu-system-x86_64").GetAwaiter().GetResult();

    private static async Task<int> RunAsync(int tiny, int stock, string qemu)
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
                await RunTinyAsync(fleet, kernel, Math.Min(tiny, 50)); // what is made once is made
                var before = Resources.Of();
                var began = Stopwatch.GetTimestamp();
                await RunTinyAsync(fleet, kernel, tiny);
                var seconds = Stopwatch.GetElapsedTime(began).TotalSeconds;
                var after = await Resources.AtRestAsync(before);
                Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                    $"{tiny} tiny VMs created, run and removed in {seconds:F1} s: {tiny / seconds:F1} per second, "
                    + $"{tiny / seconds / Environment.ProcessorCount:F1} per second and core; left behind: "
                    + $"{after.Descriptors - before.Descriptors} descriptors, {after.Threads - before.Threads} threads, {(after.Resident - before.Resident) >> 10} KiB"));
                await HoldTinyAsync(fleet, kernel, Math.Min(tiny, 200));
                if (stock > 0) await HoldStockAsync(fleet, stock, directory.FullName);
            }

            await system.Terminate();
            if (stock > 0 && qemu != "-") await MeasureQemuAsync(qemu);
            return 0;
        }
        finally
        {
            directory.Delete(recursive: true);
        }
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

    private static async Task HoldStockAsync(VmFleet fleet, int count, string directory)
    {
        var image = await GuestImage.PrepareAsync(new GuestCache());
        var before = Resources.Of();
        var began = Stopwatch.GetTimestamp();
        for (var i = 0; i < count; i++)
        {
            var hub = new ConsoleHub(ringBytes: 64 << 10);
            var spec = new VmSpec
            {
                Name = $"stock-{i}", MemoryMib = StockMib,
                Kernel = new KernelSpec { Path = image.KernelPath, InitrdPath = image.InitramfsPath,
                    CommandLine = "console=ttyS0,115200n8r reboot=k panic=-1 8250.nr_uarts=1 pci=off" },
            };
            await fleet.DefineAsync(new VmDefinition(spec, static () => new SoftHypervisor(), new VmConsole(hub, hub)));
            await fleet.StartAsync(spec.Name);
            await SeenAsync(hub, GuestImage.Greeting);
            await SeenAsync(hub, "# ");
        }

        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{count} stock VMs of {StockMib} MiB booted to their prompts, one after the other, in {Stopwatch.GetElapsedTime(began).TotalSeconds:F1} s"));
        Report($"{count} stock VMs at their prompts", fleet, before, count);
        foreach (var vm in fleet.All) await fleet.RemoveAsync(vm.Name, force: true);
    }

    private static async Task MeasureQemuAsync(string qemu)
    {
        var image = await GuestImage.PrepareAsync(new GuestCache());
        using var process = GuestProcess.Start(qemu, QemuMicrovm.Arguments(image.KernelPath, image.InitramfsPath, StockMib));
        await process.ExpectAsync(GuestImage.Greeting);
        await process.ExpectAsync("# ");
        var (total, guest) = process.Resident((long)StockMib << 20);
        Console.WriteLine($"one qemu -M microvm -accel tcg process at its prompt: {total >> 20} MiB resident, {guest >> 20} MiB of it guest RAM, "
            + $"{(total - guest) >> 20} MiB beyond");
    }

    private static void Report(string what, VmFleet fleet, Resources before, int count)
    {
        GC.Collect();
        GC.WaitForPendingFinalizers();
        GC.Collect();
        var now = Resources.Of();
        var guest = fleet.All.Sum(vm => (long)vm.Readings.ResidentBytes);
        var beyond = now.Resident - before.Resident - guest;
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{what}: {beyond / 1048576.0 / count:F2} MiB per VM beyond guest RAM ({guest / 1048576.0 / count:F1} MiB of guest RAM each), "
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

    /// <summary>What this process holds.</summary>
    private sealed record Resources(int Descriptors, int Threads, long Resident)
    {
        public static Resources Of() => new(
            Directory.GetFiles("/proc/self/fd").Length, Directory.GetDirectories("/proc/self/task").Length,
            long.Parse(File.ReadAllText("/proc/self/statm").Split(' ')[1], CultureInfo.InvariantCulture) * Environment.SystemPageSize);

        /// <summary>What is on its way out may take a moment: waits until no more is held than before, or gives up.</summary>
        public static async Task<Resources> AtRestAsync(Resources before)
        {
            var until = Stopwatch.StartNew();
            while (true)
            {
                GC.Collect();
                GC.WaitForPendingFinalizers();
                var now = Of();
                if ((now.Descriptors <= before.Descriptors && now.Threads <= before.Threads)
                    || until.Elapsed > TimeSpan.FromSeconds(20)) return now;
                await Task.Delay(100);
            }
        }
    }
}
