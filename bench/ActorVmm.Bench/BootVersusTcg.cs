using System.Globalization;
using System.Text.Json;
using ActorVmm.Boot.Kernel;
using ActorVmm.Host.Guests;

namespace ActorVmm.Bench;

/// <summary>
/// The software CPU against QEMU's TCG: the same kernel and initramfs, one vCPU, from the start of the process to the shell's prompt to the
/// end of the process after <c>reboot -f</c>. The two take turns, so that a busy host slows both; medians count.
/// </summary>
internal static class BootVersusTcg
{
    private const int MemoryMib = 512;
    private const string CommandLine =
        "console=ttyS0,115200n8r reboot=k panic=-1 8250.nr_uarts=1 i8042.noaux i8042.nomux i8042.dumbkbd pci=off";

    /// <summary>Arguments: rounds (5), path of qemu-system-x86_64.</summary>
    public static int Run(string[] args) => RunAsync(args).GetAwaiter().GetResult();

    private static async Task<int> RunAsync(string[] args)
    {
        GuestProcess.Build();
        var rounds = args.Length > 0 ? int.Parse(args[0], CultureInfo.InvariantCulture) : 5;
        var qemu = args.Length > 1 ? args[1] : "qemu-system-x86_64";
        var directory = Directory.CreateTempSubdirectory("actorvmm-bench-");
        try
        {
            var image = await GuestImage.PrepareAsync(new GuestCache());
            var description = Describe(image, directory.FullName);
            var machines = QemuMachines(image, Extract(image, directory.FullName));
            var machine = await FastestAsync(qemu, machines);

            var soft = new double[rounds];
            var tcg = new double[rounds];
            Console.WriteLine($"{"round",5} {"soft",17} {"tcg",17} {"ratio",6}   seconds to prompt / to end");
            for (var round = 0; round < rounds; round++)
            {
                (double Prompt, double End) ours = default, theirs = default;
                for (var turn = 0; turn < 2; turn++)
                {
                    if ((turn + round) % 2 == 0)
                        ours = await MeasureAsync(() => GuestProcess.StartActorVmm(["run", description, "--hypervisor", "soft"]));
                    else
                        theirs = await MeasureAsync(() => GuestProcess.Start(qemu, machine));
                }
                (soft[round], tcg[round]) = (ours.End, theirs.End);
                Console.WriteLine(
                    $"{round + 1,5} {ours.Prompt,8:F2} {ours.End,8:F2} {theirs.Prompt,8:F2} {theirs.End,8:F2} " +
                    $"{ours.End / theirs.End,6:F2}");
            }
            var ratio = Median([.. soft.Zip(tcg, (ours, theirs) => ours / theirs)]);
            Console.WriteLine($"median: soft {Median(soft):F2} s, tcg {Median(tcg):F2} s, ratio of a round {ratio:F2} (target <= 3)");
            return 0;
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    private static async Task<(double Prompt, double End)> MeasureAsync(Func<GuestProcess> start)
    {
        using var guest = start();
        await guest.ExpectAsync(GuestImage.Greeting);
        var prompt = await guest.ExpectAsync("# ");
        guest.Type("reboot -f\n");
        return (prompt, await guest.EndAsync());
    }

    // The plain ways to start this kernel in QEMU, each tried once; the fastest is the peer.
    private static async Task<string[]> FastestAsync(string qemu, (string Name, string[] Arguments)[] machines)
    {
        string[] best = [];
        var (bestName, bestTime) = ("", double.MaxValue);
        foreach (var (name, arguments) in machines)
        {
            var (_, end) = await MeasureAsync(() => GuestProcess.Start(qemu, arguments));
            Console.WriteLine($"qemu {name}: {end:F2} s");
            if (end < bestTime) (best, bestName, bestTime) = (arguments, name, end);
        }
        Console.WriteLine($"peer: {qemu} {string.Join(' ', best[..^2])} ({bestName})");
        return best;
    }

    internal static (string Name, string[] Arguments)[] QemuMachines(GuestImage image, string vmlinux)
    {
        string[] Arguments(string machine, string kernel) =>
        [
            "-accel", "tcg,thread=single", "-machine", machine, "-cpu", "qemu64", "-smp", "1", "-m", $"{MemoryMib}", "-nodefaults",
            "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
            "-kernel", kernel, "-initrd", image.InitramfsPath, "-append", CommandLine,
        ];
        return
        [
            ("pc, bzImage", Arguments("pc", image.KernelPath)),
            ("pc, ELF by PVH", Arguments("pc", vmlinux)),
        ];
    }

    internal static string Describe(GuestImage image, string directory)
    {
        var path = Path.Combine(directory, "vm.json");
        File.WriteAllText(path, JsonSerializer.Serialize(new Dictionary<string, object>(StringComparer.Ordinal)
        {
            ["boot-source"] = new Dictionary<string, string>(StringComparer.Ordinal)
            {
                ["kernel_image_path"] = image.KernelPath, ["initrd_path"] = image.InitramfsPath, ["boot_args"] = CommandLine,
            },
            ["drives"] = Array.Empty<object>(),
            ["machine-config"] = new Dictionary<string, int>(StringComparer.Ordinal) { ["vcpu_count"] = 1, ["mem_size_mib"] = MemoryMib },
        }));
        return path;
    }

    internal static string Extract(GuestImage image, string directory)
    {
        using var source = ImageSource.Open(image.KernelPath, "kernel");
        var path = Path.Combine(directory, "vmlinux");
        File.WriteAllBytes(path, Payload.Unpack(source, BzImage.Parse(source), MemoryMib << 20));
        return path;
    }

    internal static double Median(double[] values)
    {
        var sorted = values.Order().ToArray();
        return (sorted[(sorted.Length - 1) / 2] + sorted[sorted.Length / 2]) / 2;
    }
}
