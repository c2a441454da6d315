using System.Text.RegularExpressions;
using ActorVmm.Actors;
using ActorVmm.EndToEnd.Tests.Harness;
using ActorVmm.Host.Guests;
using ActorVmm.Testing;
using ActorVmm.Testing.Guests;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.EndToEnd.Tests.Linux;

/// <summary>Debian on its own disk, built by the program's code. Building takes minutes on a slow machine: nightly.</summary>
[Collection(LinuxGuests.Name)]
public sealed class DebianDiskTests : IDisposable
{
    private static readonly TimeSpan SystemdDeadline = TimeSpan.FromMinutes(20);
    private static readonly TimeSpan DownloadDeadline = TimeSpan.FromMinutes(20);
    private readonly ITestOutputHelper _output;
    private readonly string _here;

    public DebianDiskTests(ITestOutputHelper output)
    {
        _output = output;
        _here = Directory.CreateTempSubdirectory("actorvmm-debian-").FullName;
    }

    public void Dispose() => Directory.Delete(_here, recursive: true);

    [SkippableFact]
    public async Task Debian_starts_from_its_disk_and_keeps_what_is_written()
    {
        var spec = await SpecAsync(new RootImageOptions());
        for (var boot = 1; boot <= 2; boot++)
        {
            await using var guest = await RunningGuest.StartAsync(spec, _output);
            await guest.TellAsync(async () =>
            {
                await guest.Shell.LogInAsync();
                Assert.Equal("/dev/vda", await guest.Shell.RunAsync("findmnt -n -o SOURCE /"));
                Assert.Matches(@"^fio-\d", await guest.Shell.RunAsync("fio --version", Shell.BootDeadline));
                Assert.Matches("iperf 3", await guest.Shell.RunAsync("iperf3 --version | head -n 1", Shell.BootDeadline));
                Assert.Matches("^curl ", await guest.Shell.RunAsync("curl --version | head -n 1", Shell.BootDeadline));
                Assert.Equal(boot == 1 ? "" : "kept", await guest.Shell.RunAsync("cat /root/file 2>/dev/null; true"));
                await guest.Shell.RunAsync("echo kept > /root/file");
                guest.Shell.Type(boot == 1 ? "reboot" : "poweroff");
                Assert.Equal(0, (await guest.EndAsync(Shell.BootDeadline)).ExitCode);
            });
        }
        DiskImages.Check(spec.Disks[0].Path);
    }

    [SkippableFact]
    public async Task The_demo_on_a_disk_with_a_network_pings_downloads_and_keeps_a_file()
    {
        const int length = 100_000_000;
        var disk = (await SpecAsync(new RootImageOptions())).Disks[0].Path;
        await using var server = new FileServer();
        for (var boot = 1; boot <= 2; boot++)
        {
            await using var program = ActorVmmProcess.Start("demo", "--disk", disk, "--net");
            var shell = program.Shell;
            await shell.LogInAsync();
            Assert.Equal("/dev/vda", await shell.RunAsync("findmnt -n -o SOURCE /"));
            Assert.Matches("^virtio_rng", await shell.RunAsync("cat /sys/class/misc/hw_random/rng_current"));
            Assert.Contains(" 0% packet loss", await shell.RunAsync("ping -c 3 10.0.2.2"), StringComparison.Ordinal);
            if (boot == 1)
            {
                Assert.Equal(FileServer.Sha256(FileServer.Content(length)) + "  /root/file", await shell.RunAsync(
                    $"curl -s -o /root/file http://10.0.2.2:{server.Port}/{length} && sha256sum /root/file", DownloadDeadline));
            }
            else
            {
                Assert.Equal(FileServer.Sha256(FileServer.Content(length)) + "  /root/file",
                    await shell.RunAsync("sha256sum /root/file", DownloadDeadline));
            }
            shell.Type("poweroff");
            Assert.Equal((0, "stopped: poweroff"), await program.EndAsync(Shell.BootDeadline));
        }
        DiskImages.Check(disk);
    }

    [SkippableFact]
    public async Task Debian_with_systemd_reaches_a_login_prompt_and_powers_off()
    {
        var spec = await SpecAsync(new RootImageOptions { Systemd = true });
        await using var guest = await RunningGuest.StartAsync(spec, _output);
        await guest.TellAsync(async () =>
        {
            var console = guest.Console.Transcript;
            await console.ExpectAsync("actorvmm login: ", SystemdDeadline);
            guest.Shell.Type("root");
            await console.ExpectAsync(new Regex(@"root@actorvmm:~# ", RegexOptions.None, TimeSpan.FromSeconds(5)), SystemdDeadline);
            guest.Shell.Type("systemctl is-system-running --wait; findmnt -n -o SOURCE /; poweroff");
            await console.ExpectAsync("/dev/vda", SystemdDeadline);
            Assert.Equal(0, (await guest.EndAsync(SystemdDeadline)).ExitCode);
        });
        DiskImages.Check(spec.Disks[0].Path);
    }

    private async Task<VmSpec> SpecAsync(RootImageOptions options)
    {
        Skip.IfNot(Nightly.Wanted, Nightly.Reason);
        Skip.IfNot(Environment.IsPrivilegedProcess, "debootstrap needs root");
        Skip.IfNot(DiskImages.Tool("debootstrap"), "debootstrap is not installed");
        var cache = new GuestCache();
        var image = await GuestImage.PrepareAsync(cache, GuestImageOptions.WithDisks);
        var root = await RootImage.PrepareAsync(cache, options);
        var disk = Path.Combine(_here, "root.ext4");
        await root.CopyToAsync(disk);
        return RunningGuest.Spec(image, memoryMib: 512) with
        {
            Disks = [new DiskSpec { Id = "rootfs", Path = disk, IsRoot = true, Writeback = true }],
        };
    }
}
