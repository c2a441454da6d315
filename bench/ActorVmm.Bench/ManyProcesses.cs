using System.Diagnostics;
using System.Globalization;
using ActorVmm.Host.Guests;
using ActorVmm.Testing.Guests;

namespace ActorVmm.Bench;

/// <summary>The peer of <see cref="ManyVms"/>: one QEMU process per VM, <c>-M microvm</c> on TCG.</summary>
internal static class ManyProcesses
{
    /// <summary>Processes that print a byte and halt: the rate of starting and ending them, and what each holds.</summary>
    public static async Task MeasureTinyAsync(string qemu, string directory, int runs, int held)
    {
        var kernel = Path.Combine(directory, "tiny-pvh");
        await File.WriteAllBytesAsync(kernel, HaltingKernel.PvhElf());
        string[] arguments =
        [
            "-M", "microvm", "-accel", "tcg", "-cpu", "max", "-m", "2", "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio",
            "-no-reboot", "-kernel", kernel,
        ];
        var next = 0;
        var began = Stopwatch.GetTimestamp();
        await Task.WhenAll(Enumerable.Range(0, 2).Select(_ => Task.Run(async () =>
        {
            while (Interlocked.Increment(ref next) <= runs)
            {
                using var process = GuestProcess.Start(qemu, arguments);
                await process.ExpectAsync("!");
            }
        })));
        var seconds = Stopwatch.GetElapsedTime(began).TotalSeconds;
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{runs} qemu -M microvm processes of the same guest in {seconds:F1} s: {runs / seconds:F1} per second, "
            + $"{runs / seconds / Environment.ProcessorCount:F1} per second and core"));
        await HoldAsync(qemu, arguments, 2, held, process => process.ExpectAsync("!"), "tiny");
    }

    /// <summary>Processes at the prompt of the stock guest.</summary>
    public static async Task MeasureStockAsync(string qemu, int mib, int count)
    {
        var image = await GuestImage.PrepareAsync(new GuestCache());
        var arguments = QemuMicrovm.Arguments(image.KernelPath, image.InitramfsPath, mib);
        await HoldAsync(qemu, arguments, mib, count, async process =>
        {
            await process.ExpectAsync(GuestImage.Greeting);
            return await process.ExpectAsync("# ");
        }, "stock");
    }

    private static async Task HoldAsync(
        string qemu, string[] arguments, int mib, int count, Func<GuestProcess, Task<double>> ready, string what)
    {
        List<GuestProcess> processes = [];
        try
        {
            for (var i = 0; i < count; i++)
            {
                processes.Add(GuestProcess.Start(qemu, arguments));
                await ready(processes[^1]);
            }

            var proportional = processes.Sum(process => GuestProcess.Proportional(process.Id));
            var guest = processes.Sum(process => process.Resident((long)mib << 20).Guest);
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{count} {what} qemu -M microvm -accel tcg processes: {(proportional - guest) / 1048576.0 / count:F2} MiB each beyond guest RAM "
                + $"({guest / 1048576.0 / count:F1} MiB of guest RAM each)"));
        }
        finally
        {
            foreach (var process in processes) process.Dispose();
        }
    }
}
