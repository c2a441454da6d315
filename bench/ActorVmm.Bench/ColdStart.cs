using System.Globalization;
using System.Text.Json;
using ActorVmm.Host.Guests;
using ActorVmm.Testing.Guests;

namespace ActorVmm.Bench;

/// <summary>
/// Two costs of a VM that are not the guest's: the time from the start of <c>actorvmm run</c> to the first guest instruction, beside QEMU's
/// microvm, and the memory of the process beyond guest RAM. The guest of the first is an ELF that prints one byte at once: nothing needs
/// tracing. What comes before its first instruction is taken apart by commands that stop on the way.
/// </summary>
internal static class ColdStart
{
    private const long Ram = 512L << 20;

    /// <summary>Arguments: rounds (9), path of qemu-system-x86_64 (- for none), path of the native program (none).</summary>
    public static int Run(string[] args) => RunAsync(
        args.Length > 0 ? int.Parse(args[0], CultureInfo.InvariantCulture) : 9,
        args.Length > 1 ? args[1] : "qemu-system-x86_64",
        args.Length > 2 ? args[2] : null).GetAwaiter().GetResult();

    private static async Task<int> RunAsync(int rounds, string qemu, string? native)
    {
        GuestProcess.Build();
        var directory = Directory.CreateTempSubdirectory("actorvmm-bench-");
        try
        {
            await MeasureStartAsync(rounds, qemu, native, directory.FullName);
            var image = await GuestImage.PrepareAsync(new GuestCache());
            var stock = BootVersusTcg.Describe(image, directory.FullName);
            using var linux = GuestProcess.StartActorVmm(["run", stock, "--hypervisor", "soft"]);
            await linux.ExpectAsync(GuestImage.Greeting);
            await linux.ExpectAsync("# ");
            var (total, guest) = linux.Resident(Ram);
            Console.WriteLine($"at the shell's prompt: {total >> 20} MiB resident, {guest >> 20} MiB of it touched guest RAM, " +
                $"{(total - guest) >> 20} MiB beyond");
            linux.Type("reboot -f\n");
            await linux.EndAsync();
            return 0;
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    private static async Task MeasureStartAsync(int rounds, string qemu, string? native, string directory)
    {
        var tiny = Path.Combine(directory, "tiny");
        await File.WriteAllBytesAsync(tiny, TinyKernel());
        var peer = Path.Combine(directory, "tiny-pvh");
        await File.WriteAllBytesAsync(peer, HaltingKernel.PvhElf());
        var description = Path.Combine(directory, "tiny.json");
        await File.WriteAllTextAsync(description, JsonSerializer.Serialize(new Dictionary<string, object>(StringComparer.Ordinal)
        {
            ["boot-source"] = new Dictionary<string, string>(StringComparer.Ordinal) { ["kernel_image_path"] = tiny },
            ["drives"] = Array.Empty<object>(),
            ["machine-config"] = new Dictionary<string, int>(StringComparer.Ordinal) { ["vcpu_count"] = 1, ["mem_size_mib"] = 128 },
        }));
        string[] run = ["run", description, "--hypervisor", "soft"];
        List<(string Name, Func<Task<double>> Measure)> ways =
        [
            ("actorvmm --version: launcher, runtime, command line", () => EndOf(GuestProcess.StartActorVmm(["--version"]))),
            ("actorvmm check: and the description", () => EndOf(GuestProcess.StartActorVmm(["check", description]))),
            ("actorvmm run: and actors, machine, first instruction", () => FirstOf(GuestProcess.StartActorVmm(run))),
        ];
        if (native != null) ways.Add(("native program, run: first instruction", () => FirstOf(GuestProcess.Start(native, run))));
        if (qemu != "-")
        {
            ways.Add(("qemu -M microvm: first instruction", () => FirstOf(GuestProcess.Start(qemu,
            [
                "-M", "microvm", "-accel", "tcg", "-cpu", "qemu64", "-m", "128", "-nodefaults", "-no-user-config", "-display", "none",
                "-serial", "stdio", "-no-reboot", "-kernel", peer,
            ]))));
        }

        var times = ways.Select(_ => new double[rounds]).ToArray();
        for (var round = -1; round < rounds; round++) // the first one fills the page cache
        {
            for (var i = 0; i < ways.Count; i++)
            {
                var at = (i + round + 1) % ways.Count;
                var time = 1000 * await ways[at].Measure();
                if (round >= 0) times[at][round] = time;
            }
        }

        for (var i = 0; i < ways.Count; i++)
        {
            var ratio = BootVersusTcg.Median([.. times[i].Zip(times[^1], static (ours, theirs) => ours / theirs)]);
            Console.WriteLine($"{ways[i].Name,-54} median {BootVersusTcg.Median(times[i]),5:F0} ms  best {times[i].Min(),5:F0} ms" +
                (qemu == "-" ? "" : $"  against qemu {ratio:F2}"));
        }
    }

    private static async Task<double> FirstOf(GuestProcess process)
    {
        using (process) return await process.ExpectAsync("!");
    }

    private static async Task<double> EndOf(GuestProcess process)
    {
        using (process) return await process.EndAsync();
    }

    /// <summary>An ELF64 of one segment that prints '!' on the serial port and resets through the keyboard controller.</summary>
    private static byte[] TinyKernel()
    {
        // mov dx, 0x3f8; mov al, '!'; out dx, al; mov al, 0xfe; out 0x64, al; hlt
        byte[] code = [0x66, 0xBA, 0xF8, 0x03, 0xB0, (byte)'!', 0xEE, 0xB0, 0xFE, 0xE6, 0x64, 0xF4];
        return TinyElf.Of(code);
    }
}
