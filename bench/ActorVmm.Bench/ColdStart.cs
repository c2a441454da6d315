using System.Globalization;
using System.Text.Json;
using ActorVmm.Host.Guests;
using ActorVmm.Testing.Guests;

namespace ActorVmm.Bench;

/// <summary>
/// Two costs of a VM that are not the guest's: the time from the start of <c>actorvmm run</c> to the first guest instruction, and the
/// memory of the process beyond guest RAM. The guest of the first is an ELF that prints one byte at once and resets: nothing needs tracing.
/// </summary>
internal static class ColdStart
{
    private const long Ram = 512L << 20;

    /// <summary>Arguments: rounds (9).</summary>
    public static int Run(string[] args) =>
        RunAsync(args.Length > 0 ? int.Parse(args[0], CultureInfo.InvariantCulture) : 9).GetAwaiter().GetResult();

    private static async Task<int> RunAsync(int rounds)
    {
        GuestProcess.Build();
        var directory = Directory.CreateTempSubdirectory("actorvmm-bench-");
        try
        {
            var tiny = Path.Combine(directory.FullName, "tiny");
            await File.WriteAllBytesAsync(tiny, TinyKernel());
            var description = Path.Combine(directory.FullName, "tiny.json");
            await File.WriteAllTextAsync(description, JsonSerializer.Serialize(new Dictionary<string, object>(StringComparer.Ordinal)
            {
                ["boot-source"] = new Dictionary<string, string>(StringComparer.Ordinal) { ["kernel_image_path"] = tiny },
                ["drives"] = Array.Empty<object>(),
                ["machine-config"] = new Dictionary<string, int>(StringComparer.Ordinal) { ["vcpu_count"] = 1, ["mem_size_mib"] = 128 },
            }));

            var first = new double[rounds];
            var end = new double[rounds];
            for (var round = 0; round < rounds; round++)
            {
                using var process = GuestProcess.StartActorVmm(["run", description, "--hypervisor", "soft"]);
                first[round] = 1000 * await process.ExpectAsync("!");
                end[round] = 1000 * await process.EndAsync();
            }
            Console.WriteLine($"cold start to the first guest instruction: median {BootVersusTcg.Median(first):F0} ms, " +
                $"best {first.Min():F0} ms; " +
                $"to the end of the process after a reset: median {BootVersusTcg.Median(end):F0} ms ({rounds} rounds)");

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

    /// <summary>An ELF64 of one segment that prints '!' on the serial port and resets through the keyboard controller.</summary>
    private static byte[] TinyKernel()
    {
        // mov dx, 0x3f8; mov al, '!'; out dx, al; mov al, 0xfe; out 0x64, al; hlt
        byte[] code = [0x66, 0xBA, 0xF8, 0x03, 0xB0, (byte)'!', 0xEE, 0xB0, 0xFE, 0xE6, 0x64, 0xF4];
        return TinyElf.Of(code);
    }
}
