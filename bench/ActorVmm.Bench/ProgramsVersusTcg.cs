using System.Diagnostics;
using System.Globalization;
using ActorVmm.Host.Guests;
using ActorVmm.Testing.Guests;

namespace ActorVmm.Bench;

/// <summary>
/// Programs of the host's Debian inside the guest: on the software CPU and on QEMU's TCG, each timed from the line typed to the prompt that
/// follows. They come on a disk with the libraries they need; what the host has not got is left out, and the table says so.
/// </summary>
internal static class ProgramsVersusTcg
{
    private const int MemoryMib = 512;

    // Fixed work each, so that time is the measure; the numbers keep a round within a minute.
    private static readonly (string Name, string Program, string Command)[] Work =
    [
        ("openssl sha256", "/usr/bin/openssl", "openssl dgst -sha256 /tmp/f"),
        ("openssl sha256, integer", "/usr/bin/openssl", "openssl dgst -sha256 /tmp/f"),
        ("gzip", "/usr/bin/gzip", "gzip -c /usr/bin/openssl"),
        ("xz", "/usr/bin/xz", "xz -1 -c /usr/bin/openssl"),
        ("python3", "/usr/bin/python3", "python3 -S -c 'print(sum(i*i%7 for i in range(300000)))'"),
        ("python3, start", "/usr/bin/python3", "python3 -c pass"),
        ("sysbench cpu", "/usr/bin/sysbench", "sysbench cpu --cpu-max-prime=2000 --events=1000 --time=0 run"),
        ("stress-ng cpu, all", "/usr/bin/stress-ng", "stress-ng --cpu 1 --cpu-method all --cpu-ops 200 --temp-path /tmp"),
    ];

    /// <summary>Arguments: rounds (3), path of qemu-system-x86_64.</summary>
    public static int Run(string[] args) => RunAsync(args).GetAwaiter().GetResult();

    private static async Task<int> RunAsync(string[] args)
    {
        GuestProcess.Build();
        var rounds = args.Length > 0 ? int.Parse(args[0], CultureInfo.InvariantCulture) : 3;
        var qemu = args.Length > 1 ? args[1] : "qemu-system-x86_64";
        var directory = Directory.CreateTempSubdirectory("actorvmm-bench-");
        try
        {
            var work = Work.Where(one => File.Exists(one.Program)).ToArray();
            foreach (var one in Work.Except(work)) Console.WriteLine($"{one.Name}: {one.Program} is not installed on the host, left out");
            var image = await GuestImage.PrepareAsync(new GuestCache(), GuestImageOptions.WithDisks with
            {
                Modules = [.. GuestImageOptions.WithDisks.Modules, "virtio_pci"],
            });
            var disk = Disk(directory.FullName, work.Select(one => one.Program).Distinct(StringComparer.Ordinal));
            var description = Path.Combine(directory.FullName, "vm.conf");
            const string line = "console=ttyS0,115200n8r panic=-1 reboot=t 8250.nr_uarts=1 i8042.noaux i8042.nomux i8042.dumbkbd";
            await File.WriteAllTextAsync(description, $$"""
                kernel { path = "{{image.KernelPath}}", initrd = "{{image.InitramfsPath}}", cmdline = "{{line}} pci=off" }
                hypervisor = soft
                memory.size-mib = {{MemoryMib}}
                block = [{ path = "{{disk}}", read-only = true }]
                """);
            string[] theirs =
            [
                "-accel", "tcg,thread=single", "-M", "pc", "-cpu", "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt", "-smp", "1", "-m", $"{MemoryMib}",
                "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
                "-drive", $"id=d,file={disk},format=raw,if=none,readonly=on", "-device", "virtio-blk-pci,drive=d,disable-legacy=on",
                "-kernel", image.KernelPath, "-initrd", image.InitramfsPath, "-append", line,
            ];
            var soft = new double[work.Length + 1, rounds];
            var tcg = new double[work.Length + 1, rounds];
            for (var round = 0; round < rounds; round++)
            {
                for (var turn = 0; turn < 2; turn++)
                {
                    var ours = (turn + round) % 2 == 0;
                    using var guest = ours ? GuestProcess.StartActorVmm(["run", description]) : GuestProcess.Start(qemu, theirs);
                    await MeasureAsync(guest, work, ours ? soft : tcg, round);
                }
            }
            Print([.. work.Select(one => one.Name), "dd from the disk"], soft, tcg, rounds);
            return 0;
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    private static string Disk(string directory, IEnumerable<string> programs)
    {
        var root = Path.Combine(directory, "programs");
        foreach (var name in (string[])["dev", "proc", "tmp"]) Directory.CreateDirectory(Path.Combine(root, name));
        foreach (var program in programs)
        {
            // "libz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x...)", and the loader by its path alone.
            var libraries = DiskImages.Run("ldd", [program]).Split('\n')
                .Select(line => line.Trim().Split(" => ").Last().Split(" (")[0])
                .Where(path => path.StartsWith('/') && File.Exists(path));
            foreach (var file in (string[])[program, .. libraries])
            {
                Directory.CreateDirectory(Path.GetDirectoryName(root + file)!);
                File.Copy(file, root + file, overwrite: true); // what a link leads to
            }
            if (Path.GetFileName(program) == "python3") CopyLibrary("/usr/lib/" + Path.GetFileName(File.ResolveLinkTarget(program, true)!.Name), root);
        }
        return DiskImages.Ext4(directory, "programs.ext4", 256, root);
    }

    /// <summary>The modules that Python needs to start, without what was compiled or tested.</summary>
    private static void CopyLibrary(string library, string root)
    {
        foreach (var file in Directory.EnumerateFiles(library, "*.py", SearchOption.AllDirectories))
        {
            if (file.Contains("/test/", StringComparison.Ordinal) || file.Contains("/dist-packages/", StringComparison.Ordinal)) continue;
            Directory.CreateDirectory(Path.GetDirectoryName(root + file)!);
            File.Copy(file, root + file, overwrite: true);
        }
    }

    private static async Task MeasureAsync(GuestProcess guest, (string Name, string Program, string Command)[] work, double[,] seconds, int round)
    {
        await guest.ExpectAsync(GuestImage.Greeting);
        await guest.ExpectAsync("# ");
        await TimeAsync(guest, "mkdir -p /tools; mount -t ext4 -o ro /dev/vda /tools; mount -t tmpfs tmpfs /tools/tmp; mount -o bind /dev /tools/dev");
        await TimeAsync(guest, "mount -t proc proc /tools/proc; dd if=/dev/zero of=/tools/tmp/f bs=1M count=16 2>/dev/null");
        for (var n = 0; n < work.Length; n++)
            seconds[n, round] = await TimeAsync(guest, $"{(work[n].Name.EndsWith("integer", StringComparison.Ordinal) ? "OPENSSL_ia32cap=0x0 " : "")}"
                + $"PYTHONHASHSEED=0 chroot /tools /usr/bin/{work[n].Command} >/dev/null 2>&1"); // hashes wait for no entropy
        seconds[work.Length, round] = await TimeAsync(guest, "dd if=/dev/vda of=/dev/null bs=64k count=512 2>/dev/null");
        guest.Type("reboot -f\n");
        await guest.EndAsync();
    }

    private static async Task<double> TimeAsync(GuestProcess guest, string line)
    {
        var started = Stopwatch.GetTimestamp();
        guest.Type(line + "; echo DO''NE $?\n");
        await guest.ExpectAsync("DONE ");
        var status = (await guest.ReadUntilAsync("\n")).Trim();
        await guest.ExpectAsync("# ");
        if (status != "0") throw new InvalidOperationException($"in the guest, with status {status}: {line}");
        return Stopwatch.GetElapsedTime(started).TotalSeconds;
    }

    private static void Print(string[] names, double[,] soft, double[,] tcg, int rounds)
    {
        Console.WriteLine($"{"",-26} {"soft",8} {"tcg",8} {"tcg/soft",9}   medians of {rounds} rounds, seconds; above 1 is faster than TCG");
        var product = 1.0;
        for (var n = 0; n < names.Length; n++)
        {
            var (mine, theirs) = (Row(soft, n, rounds), Row(tcg, n, rounds));
            var speed = 1 / Sampling.MedianRatio(mine, theirs);
            product *= speed;
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{names[n],-26} {Sampling.Median(mine),8:F2} {Sampling.Median(theirs),8:F2} {speed,9:F2}"));
        }
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"geometric mean {Math.Pow(product, 1.0 / names.Length):F2}"));
    }

    private static double[] Row(double[,] values, int row, int rounds) => [.. Enumerable.Range(0, rounds).Select(round => values[row, round])];
}
