using System.Globalization;
using System.Text.Json;
using ActorVmm.Boot.Kernel;
using ActorVmm.Host.Guests;

namespace ActorVmm.Bench;

/// <summary>
/// The software CPU against QEMU's TCG: the same kernel and initramfs, from the start of the process to the shell's prompt to the end of the
/// process after <c>reboot -f</c>. The two take turns, so that a busy host slows both; medians count. By host time with one vCPU; under
/// virtual time against <c>-icount shift=0,sleep=off</c>, where our guest's input is all there from the start; or with two vCPUs.
/// </summary>
internal static class BootVersusTcg
{
    private const int MemoryMib = 512;
    private const string CommandLine =
        "console=ttyS0,115200n8r reboot=k panic=-1 8250.nr_uarts=1 i8042.noaux i8042.nomux i8042.dumbkbd pci=off";

    private enum Mode
    {
        Host,
        Virtual,
        Smp,
    }

    /// <summary>Arguments: rounds (5), path of qemu-system-x86_64, host (default), virtual or smp.</summary>
    public static int Run(string[] args) => RunAsync(args).GetAwaiter().GetResult();

    private static async Task<int> RunAsync(string[] args)
    {
        GuestProcess.Build();
        var rounds = args.Length > 0 ? int.Parse(args[0], CultureInfo.InvariantCulture) : 5;
        var qemu = args.Length > 1 ? args[1] : "qemu-system-x86_64";
        var mode = args.Length > 2 ? Enum.Parse<Mode>(args[2], ignoreCase: true) : Mode.Host;
        var directory = Directory.CreateTempSubdirectory("actorvmm-bench-");
        try
        {
            var image = await GuestImage.PrepareAsync(new GuestCache());
            var description = Describe(image, directory.FullName, vcpus: mode == Mode.Smp ? 2 : 1);
            var machines = QemuMachines(image, Extract(image, directory.FullName));
            if (mode != Mode.Host) machines = [.. machines.Select(machine => (machine.Name, Changed(machine.Arguments, mode)))];
            var machine = await FastestAsync(qemu, machines);
            string[] run = ["run", description, "--hypervisor", "soft", "--clock", mode == Mode.Virtual ? "virtual" : "host"];

            var soft = new double[rounds];
            var tcg = new double[rounds];
            Console.WriteLine($"{"round",5} {"soft",17} {"tcg",17} {"ratio",6}   seconds to prompt / to end");
            for (var round = 0; round < rounds; round++)
            {
                (double Prompt, double End) ours = default, theirs = default;
                for (var turn = 0; turn < 2; turn++)
                {
                    if ((turn + round) % 2 == 0)
                        ours = await MeasureAsync(() => GuestProcess.StartActorVmm(run), ahead: mode == Mode.Virtual);
                    else
                        theirs = await MeasureAsync(() => GuestProcess.Start(qemu, machine));
                }
                (soft[round], tcg[round]) = (ours.End, theirs.End);
                Console.WriteLine(
                    $"{round + 1,5} {ours.Prompt,8:F2} {ours.End,8:F2} {theirs.Prompt,8:F2} {theirs.End,8:F2} " +
                    $"{ours.End / theirs.End,6:F2}");
            }
            var ratio = Median([.. soft.Zip(tcg, (ours, theirs) => ours / theirs)]);
            Console.WriteLine($"median: soft {Median(soft):F2} s, tcg {Median(tcg):F2} s, ratio of a round {ratio:F2} (target <= {(mode == Mode.Smp ? 1.1 : 1.0):F1})");
            return 0;
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    private static string[] Changed(string[] arguments, Mode mode)
    {
        var changed = arguments.ToArray();
        changed[Array.IndexOf(changed, "-accel") + 1] = mode == Mode.Smp ? "tcg,thread=multi" : "tcg,thread=single";
        if (mode != Mode.Smp) return ["-icount", "shift=0,sleep=off", .. changed];
        changed[Array.IndexOf(changed, "-smp") + 1] = "2";
        return changed;
    }

    private static async Task<(double Prompt, double End)> MeasureAsync(Func<GuestProcess> start, bool ahead = false)
    {
        using var guest = start();
        if (ahead) guest.TypeAll("reboot -f\n");
        await guest.ExpectAsync(GuestImage.Greeting);
        var prompt = await guest.ExpectAsync("# ");
        if (!ahead) guest.Type("reboot -f\n");
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

    internal static string Describe(GuestImage image, string directory, int vcpus = 1)
    {
        var path = Path.Combine(directory, "vm.json");
        File.WriteAllText(path, JsonSerializer.Serialize(new Dictionary<string, object>(StringComparer.Ordinal)
        {
            ["boot-source"] = new Dictionary<string, string>(StringComparer.Ordinal)
            {
                ["kernel_image_path"] = image.KernelPath, ["initrd_path"] = image.InitramfsPath, ["boot_args"] = CommandLine,
            },
            ["drives"] = Array.Empty<object>(),
            ["machine-config"] = new Dictionary<string, int>(StringComparer.Ordinal) { ["vcpu_count"] = vcpus, ["mem_size_mib"] = MemoryMib },
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
