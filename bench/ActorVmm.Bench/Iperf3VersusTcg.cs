using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using ActorVmm.Host.Guests;

namespace ActorVmm.Bench;

/// <summary>
/// iperf3 between the guest and the host's kernel, over a tap in a network namespace: the soft hypervisor against QEMU TCG (microvm,
/// virtio-mmio), same kernel, initramfs and disk. Loopback inside the guest is the no-op baseline: the same program and TCP, and no device.
/// Takes root.
/// </summary>
internal static class Iperf3VersusTcg
{
    private const string Namespace = "avmm-bench";
    private static readonly (string Name, string Options)[] s_runs =
    [
        // Loopback first: by then both have translated what they run.
        ("loopback", "-c 127.0.0.1"), ("guest sends", "-c 10.9.0.1"), ("guest receives", "-c 10.9.0.1 -R"),
    ];

    /// <summary>Arguments: rounds (3), seconds per run (3), path of qemu-system-x86_64.</summary>
    public static int Run(string[] args) => RunAsync(args).GetAwaiter().GetResult();

    private static async Task<int> RunAsync(string[] args)
    {
        var rounds = args.Length > 0 ? int.Parse(args[0], CultureInfo.InvariantCulture) : 3;
        var seconds = args.Length > 1 ? int.Parse(args[1], CultureInfo.InvariantCulture) : 3;
        var qemu = args.Length > 2 ? args[2] : "qemu-system-x86_64";
        GuestProcess.Build();
        var image = await GuestImage.PrepareAsync(new GuestCache(), GuestImageOptions.WithDisks);
        var root = await RootImage.PrepareAsync(new GuestCache());
        var directory = Directory.CreateTempSubdirectory("actorvmm-bench-");
        var servers = new List<Process>();
        try
        {
            Ip($"netns add {Namespace}");
            foreach (var tap in (ReadOnlySpan<string>)["tap0", "tap1"]) Ip($"-n {Namespace} tuntap add dev {tap} mode tap vnet_hdr");
            servers.Add(Process.Start(new ProcessStartInfo("ip", $"netns exec {Namespace} iperf3 -s") { RedirectStandardOutput = true })!);
            var description = Path.Combine(directory.FullName, "vm.conf");
            const string line = "console=ttyS0,115200n8r panic=-1 reboot=t 8250.nr_uarts=1 i8042.noaux i8042.nomux i8042.dumbkbd pci=off";
            await File.WriteAllTextAsync(description, $$"""
                kernel { path = "{{image.KernelPath}}", initrd = "{{image.InitramfsPath}}", cmdline = "{{line}}" }
                hypervisor = soft
                memory.size-mib = 512
                block = [{ path = "{{root.Path}}", read-only = true }]
                net = [{ tap = tap0 }]
                """);
            var theirs = QemuMicrovm.Arguments(image.KernelPath, image.InitramfsPath, memoryMib: 512,
                devices: [.. QemuMicrovm.Disk("d", root.Path, readOnly: true), .. QemuMicrovm.Tap("n", "tap1")]);
            var rates = new Dictionary<string, (List<double> Ours, List<double> Theirs)>(StringComparer.Ordinal);
            for (var round = 0; round < rounds; round++)
            {
                for (var turn = 0; turn < 2; turn++)
                {
                    var ours = (turn + round) % 2 == 0;
                    Use(ours ? "tap0" : "tap1", ours ? "tap1" : "tap0");
                    using var guest = ours
                        ? GuestProcess.StartActorVmm(["run", description], Namespace) : GuestProcess.Start("ip", ["netns", "exec", Namespace, qemu, .. theirs]);
                    foreach (var (name, rate) in await MeasureAsync(guest, seconds))
                    {
                        if (!rates.TryGetValue(name, out var both)) rates[name] = both = ([], []);
                        (ours ? both.Ours : both.Theirs).Add(rate);
                        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"  {(ours ? "ours" : "qemu")}  {name,-15} {rate,9:F1} Mbit/s"));
                    }
                }
            }
            Print(rates, rounds);
            return 0;
        }
        finally
        {
            foreach (var server in servers)
            {
                server.Kill(entireProcessTree: true);
                await server.WaitForExitAsync();
                server.Dispose();
            }
            Ip($"netns del {Namespace}");
            directory.Delete(recursive: true);
        }
    }

    /// <returns>Megabits per second that arrived.</returns>
    private static async Task<List<(string Name, double Rate)>> MeasureAsync(GuestProcess guest, int seconds)
    {
        await guest.ExpectAsync(GuestImage.Greeting);
        await guest.ExpectAsync("# ");
        guest.Type("mkdir -p /t; mount -t ext4 -o ro /dev/vda /t && mount -t tmpfs tmpfs /t/tmp && mount -o bind /dev /t/dev; "
            + "ip link set lo up; ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up; chroot /t iperf3 -s -D >/dev/null; "
            + "until ping -c 1 -W 1 10.9.0.1 >/dev/null; do :; done; echo REA''DY\n");
        await guest.ExpectAsync("READY");
        List<(string, double)> rates = [];
        foreach (var (name, options) in s_runs)
        {
            guest.Type($"chroot /t iperf3 {options} -t {seconds} -O 1 -J >/tmp/out; echo JS''ON; cat /tmp/out; echo NO''SJ\n");
            await guest.ExpectAsync("JSON");
            using var json = JsonDocument.Parse(await guest.ReadUntilAsync("NOSJ"));
            rates.Add((name, json.RootElement.GetProperty("end").GetProperty("sum_received").GetProperty("bits_per_second").GetDouble() / 1e6));
        }
        guest.Type("reboot -f\n");
        await guest.EndAsync();
        return rates;
    }

    private static void Print(Dictionary<string, (List<double> Ours, List<double> Theirs)> rates, int rounds)
    {
        Console.WriteLine($"Mbit/s, medians of {rounds} interleaved rounds; us per MB beyond loopback; ratio > 1: ours is faster");
        double Cost(double rate) => 8e6 / rate;
        var (mineBase, otherBase) = (Sampling.Median([.. rates["loopback"].Ours]), Sampling.Median([.. rates["loopback"].Theirs]));
        foreach (var (name, _) in s_runs)
        {
            var (mine, other) = (Sampling.Median([.. rates[name].Ours]), Sampling.Median([.. rates[name].Theirs]));
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"  {name,-15} ours {mine,9:F1}  qemu {other,9:F1}  ratio {mine / other,5:F2}   beyond loopback: ours "
                + $"{Cost(mine) - Cost(mineBase),8:F0}  qemu {Cost(other) - Cost(otherBase),8:F0} us/MB"));
        }
    }

    // One tap at a time has the address, and the other is down.
    private static void Use(string tap, string other)
    {
        Ip($"-n {Namespace} addr flush dev {other}");
        Ip($"-n {Namespace} link set {other} down");
        Ip($"-n {Namespace} addr replace 10.9.0.1/24 dev {tap}");
        Ip($"-n {Namespace} link set {tap} up");
    }

    private static void Ip(string arguments)
    {
        using var process = Process.Start("ip", arguments);
        process.WaitForExit();
        if (process.ExitCode != 0) throw new InvalidOperationException($"ip {arguments}: status {process.ExitCode}");
    }
}
