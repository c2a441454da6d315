using System.Diagnostics;
using System.Globalization;
using ActorVmm.Host.Guests;

namespace ActorVmm.Bench;

/// <summary>
/// Work inside the guest: the same commands of the stock guest's busybox on the software CPU and on QEMU's TCG, each timed from the line
/// typed to the prompt that follows. Both guests run one after the other in each round; medians count.
/// </summary>
internal static class GuestVersusTcg
{
    private static readonly (string Name, string Command)[] Work =
    [
        ("dd", "dd if=/dev/zero of=/f bs=1M count=24 2>/dev/null"),
        ("sha256sum", "sha256sum /f >/dev/null"),
        ("md5sum", "md5sum /f >/dev/null"),
        ("sha512sum", "sha512sum /f >/dev/null"),
        ("gzip", "cat /bin/busybox /bin/busybox /bin/busybox >/g; gzip -c /g >/g.gz"),
        ("gunzip", "gunzip -c /g.gz >/dev/null"),
        ("shell loop", "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done"),
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
            var image = await GuestImage.PrepareAsync(new GuestCache());
            var description = BootVersusTcg.Describe(image, directory.FullName);
            var machine = BootVersusTcg.QemuMachines(image, BootVersusTcg.Extract(image, directory.FullName))[^1].Arguments;
            var soft = Work.Select(_ => new double[rounds]).ToArray();
            var tcg = Work.Select(_ => new double[rounds]).ToArray();
            for (var round = 0; round < rounds; round++)
            {
                for (var turn = 0; turn < 2; turn++)
                {
                    var ours = (turn + round) % 2 == 0;
                    using var guest = ours
                        ? GuestProcess.StartActorVmm(["run", description, "--hypervisor", "soft"])
                        : GuestProcess.Start(qemu, machine);
                    await MeasureAsync(guest, ours ? soft : tcg, round);
                }
            }
            Console.WriteLine($"{"",-12} {"soft",8} {"tcg",8} {"tcg/soft",9}   medians of {rounds} rounds, seconds; above 1 is faster than TCG");
            var product = 1.0;
            for (var n = 0; n < Work.Length; n++)
            {
                var speed = 1 / Sampling.MedianRatio(soft[n], tcg[n]);
                product *= speed;
                Console.WriteLine($"{Work[n].Name,-12} {Sampling.Median(soft[n]),8:F2} {Sampling.Median(tcg[n]),8:F2} {speed,9:F2}");
            }
            Console.WriteLine($"geometric mean {Math.Pow(product, 1.0 / Work.Length):F2}");
            return 0;
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    private static async Task MeasureAsync(GuestProcess guest, double[][] seconds, int round)
    {
        await guest.ExpectAsync(GuestImage.Greeting);
        await guest.ExpectAsync("# ");
        for (var n = 0; n < Work.Length; n++)
        {
            var started = Stopwatch.GetTimestamp();
            guest.Type(Work[n].Command + "\n");
            await guest.ExpectAsync("# ");
            seconds[n][round] = Stopwatch.GetElapsedTime(started).TotalSeconds;
        }
        guest.Type("reboot -f\n");
        await guest.EndAsync();
    }
}
