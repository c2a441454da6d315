using System.Globalization;
using ActorVmm.Host.Guests;
using ActorVmm.Testing.Guests;

namespace ActorVmm.Bench;

/// <summary>
/// fio in the guest: the soft hypervisor against QEMU TCG, same kernel, initramfs, images and jobs. The CPU's share is taken out by the
/// same job on null_blk, a disk that does nothing: what a request costs beyond that is the device's and the monitor's.
/// </summary>
internal static class FioVersusTcg
{
    private const int MemoryMib = 512;
    private const int DiskMib = 256;

    private static readonly (string Name, string Options, bool Write, int Depth)[] Jobs =
    [
        ("4k random read", "--rw=randread --bs=4k --iodepth=32", false, 32),
        ("4k random write", "--rw=randwrite --bs=4k --iodepth=32", true, 32),
        ("1m sequential read", "--rw=read --bs=1m --iodepth=4", false, 4),
        ("1m sequential write", "--rw=write --bs=1m --iodepth=4", true, 4),
    ];

    /// <summary>Arguments: rounds (3), seconds per job (3), path of qemu-system-x86_64, our io engine (sync, async).</summary>
    public static int Run(string[] args) => RunAsync(args).GetAwaiter().GetResult();

    private static async Task<int> RunAsync(string[] args)
    {
        var rounds = args.Length > 0 ? int.Parse(args[0], CultureInfo.InvariantCulture) : 3;
        var seconds = args.Length > 1 ? int.Parse(args[1], CultureInfo.InvariantCulture) : 3;
        var qemu = args.Length > 2 ? args[2] : "qemu-system-x86_64";
        var engine = args.Length > 3 ? args[3] : "sync";
        GuestProcess.Build();
        var directory = Directory.CreateTempSubdirectory("actorvmm-bench-");
        try
        {
            var image = await GuestImage.PrepareAsync(new GuestCache(), GuestImageOptions.WithDisks with
            {
                Modules = [.. GuestImageOptions.WithDisks.Modules, "null_blk"],
            });
            var tools = DiskImages.Tools(directory.FullName);
            var disk = DiskImages.Raw(directory.FullName, "disk.img", DiskMib);
            File.WriteAllBytes(disk, new byte[DiskMib << 20]); // in the page cache, without holes
            var description = Path.Combine(directory.FullName, "vm.conf");
            const string line = "console=ttyS0,115200n8r panic=-1 reboot=t 8250.nr_uarts=1 i8042.noaux i8042.nomux i8042.dumbkbd";
            await File.WriteAllTextAsync(description, $$"""
                kernel { path = "{{image.KernelPath}}", initrd = "{{image.InitramfsPath}}", cmdline = "{{line}} pci=off" }
                hypervisor = soft
                memory.size-mib = {{MemoryMib}}
                block = [{ path = "{{disk}}", engine = {{engine}} }, { path = "{{tools}}", read-only = true }]
                """);
            var theirs = QemuMicrovm.Arguments(image.KernelPath, image.InitramfsPath, MemoryMib,
                devices: [.. QemuMicrovm.Disk("d", disk), .. QemuMicrovm.Disk("t", tools, readOnly: true)]);
            var results = new Dictionary<string, (List<double> Ours, List<double> Theirs)>(StringComparer.Ordinal);
            for (var round = 0; round < rounds; round++)
            {
                for (var turn = 0; turn < 2; turn++)
                {
                    var ours = (turn + round) % 2 == 0;
                    using var guest = ours ? GuestProcess.StartActorVmm(["run", description]) : GuestProcess.Start(qemu, theirs);
                    foreach (var (name, rate) in await MeasureAsync(guest, seconds, ours))
                    {
                        if (!results.TryGetValue(name, out var both)) results[name] = both = ([], []);
                        (ours ? both.Ours : both.Theirs).Add(rate);
                    }
                }
            }
            Print(results, rounds);
            return 0;
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    /// <returns>Requests per second of each job on the disk and on null_blk.</returns>
    private static async Task<List<(string Name, double Rate)>> MeasureAsync(GuestProcess guest, int seconds, bool ours)
    {
        await guest.ExpectAsync(GuestImage.Greeting);
        await guest.ExpectAsync("# ");
        // The disk is the one that can be written, whatever its name.
        guest.Type("for d in vda vdb; do [ $(cat /sys/block/$d/ro) = 1 ] && T=$d || D=$d; done; mkdir -p /tools; "
            + "mount -t ext4 -o ro /dev/$T /tools && mount -o bind /dev /tools/dev && mount -t proc proc /tools/proc "
            + "&& mount -t tmpfs tmpfs /tools/tmp; echo REA''DY\n");
        await guest.ExpectAsync("READY");
        List<(string, double)> rates = [];
        foreach (var (name, options, write, _) in Jobs)
        {
            foreach (var (place, device) in ((string, string)[])[("", "$D"), (" null", "nullb0")])
            {
                guest.Type($"chroot /tools /usr/bin/fio --name=j --filename=/dev/{device} --ioengine=libaio --direct=1 --size={DiskMib}m "
                    + $"--runtime={seconds} --time_based --ramp_time=1 --randrepeat=1 --norandommap --minimal {options} "
                    + $"| tail -n 1 | cut -d';' -f{(write ? 49 : 8)} | sed 's/^/RA''TE=/; s/$/=/'\n");
                await guest.ExpectAsync("RATE=");
                var text = await guest.ReadUntilAsync("=");
                var rate = double.Parse(text, CultureInfo.InvariantCulture);
                Console.WriteLine($"  {(ours ? "ours" : "qemu")}  {name + place,-26} {rate,10:F0} /s");
                rates.Add((name + place, rate));
            }
        }
        guest.Type("reboot -f\n");
        await guest.EndAsync();
        return rates;
    }

    private static void Print(Dictionary<string, (List<double> Ours, List<double> Theirs)> results, int rounds)
    {
        Console.WriteLine($"requests per second, medians of {rounds} interleaved rounds; us beyond null_blk; ratio > 1: ours is faster");
        foreach (var (name, _, _, _) in Jobs)
        {
            var (ours, theirs) = results[name];
            var (oursNull, theirsNull) = results[name + " null"];
            var (mine, other) = (Sampling.Median([.. ours]), Sampling.Median([.. theirs]));
            var mineCost = 1e6 / mine - (1e6 / Sampling.Median([.. oursNull]));
            var otherCost = 1e6 / other - (1e6 / Sampling.Median([.. theirsNull]));
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"  {name,-20} ours {mine,9:F0}  qemu {other,9:F0}  ratio {mine / other,5:F2}   beyond null_blk: ours {mineCost,8:F1}  "
                + $"qemu {otherCost,8:F1} us  ratio {otherCost / mineCost,5:F2}"));
        }
    }
}
