using System.Globalization;
using ActorVmm.Host.Guests;
using ActorVmm.Testing.Guests;

namespace ActorVmm.Bench;

/// <summary>
/// fio in the guest: the soft hypervisor against QEMU TCG, same kernel, initramfs, images and jobs. The CPU's share is taken out by the
/// same job on null_blk, a disk that does nothing: what a request costs beyond that is the device's and the monitor's.
/// </summary>
/// <remarks>
/// Both guests live through all rounds and take turns job by job, so that a busy host slows both; the other one is idle meanwhile. Rounds of
/// several runs count together where a file for them is named, so that a run can be a short one.
/// </remarks>
internal static class FioVersusTcg
{
    private const int MemoryMib = 512;
    private const int DiskMib = 128;
    private const string Host = "console=ttyS0,115200n8r panic=-1 reboot=t 8250.nr_uarts=1 i8042.noaux i8042.nomux i8042.dumbkbd pci=off";

    private static readonly (string Name, string Options, bool Write)[] s_jobs =
    [
        ("4k random read", "--rw=randread --bs=4k --iodepth=32", false),
        ("4k random write", "--rw=randwrite --bs=4k --iodepth=32", true),
        ("1m sequential read", "--rw=read --bs=1m --iodepth=4", false),
        ("1m sequential write", "--rw=write --bs=1m --iodepth=4", true),
    ];

    /// <summary>Arguments: rounds (3), seconds per job (2), path of qemu-system-x86_64, our io engine (sync, async), file of rounds.</summary>
    public static int Run(string[] args) => RunAsync(args).GetAwaiter().GetResult();

    private static async Task<int> RunAsync(string[] args)
    {
        var rounds = args.Length > 0 ? int.Parse(args[0], CultureInfo.InvariantCulture) : 3;
        var seconds = args.Length > 1 ? int.Parse(args[1], CultureInfo.InvariantCulture) : 2;
        var qemu = args.Length > 2 ? args[2] : "qemu-system-x86_64";
        var engine = args.Length > 3 ? args[3] : "sync";
        var kept = args.Length > 4 ? args[4] : null;
        GuestProcess.Build();
        var directory = Directory.CreateTempSubdirectory("actorvmm-bench-");
        try
        {
            var image = await GuestImage.PrepareAsync(new GuestCache(), GuestImageOptions.WithDisks with
            {
                Modules = [.. GuestImageOptions.WithDisks.Modules, "null_blk"],
            });
            var tools = DiskImages.Tools(directory.FullName);
            string[] disks = [.. ((string[])["ours.img", "theirs.img"]).Select(name => DiskImages.Raw(directory.FullName, name, DiskMib))];
            foreach (var disk in disks) await File.WriteAllBytesAsync(disk, new byte[DiskMib << 20]); // in the page cache, without holes
            var description = Path.Combine(directory.FullName, "vm.conf");
            await File.WriteAllTextAsync(description, $$"""
                kernel { path = "{{image.KernelPath}}", initrd = "{{image.InitramfsPath}}", cmdline = "{{Host}}" }
                hypervisor = soft
                memory.size-mib = {{MemoryMib}}
                block = [{ path = "{{disks[0]}}", engine = {{engine}} }, { path = "{{tools}}", read-only = true }]
                """);
            var theirs = QemuMicrovm.Arguments(image.KernelPath, image.InitramfsPath, MemoryMib,
                devices: [.. QemuMicrovm.Disk("d", disks[1]), .. QemuMicrovm.Disk("t", tools, readOnly: true)]);
            using var our = GuestProcess.StartActorVmm(["run", description]);
            using var their = GuestProcess.Start(qemu, theirs);
            foreach (var guest in (GuestProcess[])[our, their]) await PrepareAsync(guest);
            var results = Load(kept);
            for (var round = 0; round < rounds; round++) await RoundAsync(our, their, seconds, round, results);
            if (kept is not null) await File.WriteAllLinesAsync(kept, results.Select(Line));
            Print(results);
            foreach (var guest in (GuestProcess[])[our, their])
            {
                guest.Type("reboot -f\n");
                await guest.EndAsync();
            }
            return 0;
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    /// <summary>To where fio runs; the disk is the one that can be written, whatever its name.</summary>
    private static async Task PrepareAsync(GuestProcess guest)
    {
        await guest.ExpectAsync(GuestImage.Greeting);
        await guest.ExpectAsync("# ");
        guest.Type("for d in vda vdb; do [ $(cat /sys/block/$d/ro) = 1 ] && T=$d || D=$d; done; mkdir -p /tools; "
            + "mount -t ext4 -o ro /dev/$T /tools && mount -o bind /dev /tools/dev && mount -t proc proc /tools/proc "
            + "&& mount -t tmpfs tmpfs /tools/tmp; echo REA''DY\n");
        await guest.ExpectAsync("READY");
    }

    private static async Task RoundAsync(
        GuestProcess our, GuestProcess their, int seconds, int round, Dictionary<string, (List<double> Ours, List<double> Theirs)> results)
    {
        foreach (var (name, options, write) in s_jobs)
        {
            foreach (var (place, device) in ((string, string)[])[("", "$D"), (" null", "nullb0")])
            {
                for (var turn = 0; turn < 2; turn++)
                {
                    var ours = (turn + round) % 2 == 0;
                    var rate = await MeasureAsync(ours ? our : their, options, device, write, seconds);
                    Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"  {(ours ? "ours" : "qemu")}  {name + place,-26} {rate,10:F0} /s"));
                    if (!results.TryGetValue(name + place, out var both)) results[name + place] = both = ([], []);
                    (ours ? both.Ours : both.Theirs).Add(rate);
                }
            }
        }
    }

    /// <returns>Requests per second.</returns>
    private static async Task<double> MeasureAsync(GuestProcess guest, string options, string device, bool write, int seconds)
    {
        guest.Type($"chroot /tools /usr/bin/fio --name=j --filename=/dev/{device} --ioengine=libaio --direct=1 --size={DiskMib}m "
            + $"--runtime={seconds} --time_based --ramp_time=1 --randrepeat=1 --norandommap --minimal {options} "
            + $"| tail -n 1 | cut -d';' -f{(write ? 49 : 8)} | sed 's/^/RA''TE=/; s/$/=/'\n");
        await guest.ExpectAsync("RATE=");
        return double.Parse(await guest.ReadUntilAsync("="), CultureInfo.InvariantCulture);
    }

    private static Dictionary<string, (List<double> Ours, List<double> Theirs)> Load(string? file)
    {
        var results = new Dictionary<string, (List<double>, List<double>)>(StringComparer.Ordinal);
        if (file is null || !File.Exists(file)) return results;
        foreach (var line in File.ReadLines(file))
        {
            var parts = line.Split(';');
            results[parts[0]] = (Rates(parts[1]), Rates(parts[2]));
        }
        return results;

        static List<double> Rates(string text) => [.. text.Split(' ').Select(rate => double.Parse(rate, CultureInfo.InvariantCulture))];
    }

    private static string Line(KeyValuePair<string, (List<double> Ours, List<double> Theirs)> result)
    {
        static string Rates(List<double> rates) => string.Join(' ', rates.Select(rate => rate.ToString(CultureInfo.InvariantCulture)));
        return $"{result.Key};{Rates(result.Value.Ours)};{Rates(result.Value.Theirs)}";
    }

    private static void Print(Dictionary<string, (List<double> Ours, List<double> Theirs)> results)
    {
        Console.WriteLine($"requests per second, medians of {results.First().Value.Ours.Count} interleaved rounds; us beyond null_blk; ratio > 1: ours is faster");
        foreach (var (name, _, _) in s_jobs)
        {
            var (ours, theirs) = results[name];
            var (oursNull, theirsNull) = results[name + " null"];
            var (mine, other) = (Sampling.Median([.. ours]), Sampling.Median([.. theirs]));
            var (mineNull, otherNull) = (Sampling.Median([.. oursNull]), Sampling.Median([.. theirsNull]));
            var (mineCost, otherCost) = (1e6 / mine - (1e6 / mineNull), 1e6 / other - (1e6 / otherNull));
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"  {name,-20} ours {mine,8:F0}  qemu {other,8:F0}  ratio {mine / other,5:F2}   null_blk: {mineNull,8:F0} {otherNull,8:F0}"
                + $"   beyond null_blk: ours {mineCost,7:F1}  qemu {otherCost,7:F1} us  ratio {otherCost / mineCost,5:F2}"));
        }
    }
}
