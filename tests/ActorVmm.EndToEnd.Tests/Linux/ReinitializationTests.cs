using System.Security.Cryptography;
using System.Text;
using ActorVmm.Actors;
using ActorVmm.Backends.Disks;
using ActorVmm.Backends.UserNet;
using ActorVmm.EndToEnd.Tests.Harness;
using ActorVmm.Host.Guests;
using ActorVmm.Testing.Guests;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.EndToEnd.Tests.Linux;

/// <summary>Devices that are set up again while the machine runs: by their drivers, which let go and come back, and by another kernel.</summary>
[Collection(LinuxGuests.Name)]
public sealed class ReinitializationTests : IDisposable
{
    private const int Written = 512 << 10;
    private const string Marker = "actorvmm.kernel=second";

    /// <summary>Reads the disk all the time, until it goes away or somebody says so. A disk's name is free when its last reader is gone.</summary>
    private const string ReadOn = "(while [ ! -e /tmp/enough ] && dd if=/dev/vda of=/dev/null bs=4k iflag=direct; do :; done >/dev/null 2>&1) &";

    private readonly ITestOutputHelper _output;
    private readonly string _here;

    public ReinitializationTests(ITestOutputHelper output)
    {
        _output = output;
        _here = Directory.CreateTempSubdirectory("actorvmm-again-").FullName;
    }

    public void Dispose() => Directory.Delete(_here, recursive: true);

    [SkippableFact]
    public async Task Disk_network_and_entropy_work_after_rebinding_and_after_kexec()
    {
        const string more = "reboot=k actorvmm.net=dhcp";
        var image = await GuestImage.PrepareAsync(new GuestCache(), GuestImageOptions.WithDisks);
        var next = Directory.CreateDirectory(Path.Combine(_here, "next")).FullName;
        File.Copy(image.KernelPath, Path.Combine(next, "kernel"));
        File.Copy(image.InitramfsPath, Path.Combine(next, "initramfs"));
        var kexec = Path.Combine(next, "kexec");
        await File.WriteAllBytesAsync(kexec, Kexec($"{RunningGuest.CommandLine} {more} {Marker}"));
        File.SetUnixFileMode(kexec, (UnixFileMode)0b111_101_101);
        var spec = RunningGuest.Spec(image, more: more) with
        {
            Disks =
            [
                new DiskSpec { Id = "data", Path = DiskImages.Raw(_here, "data.img", 8), Engine = IoEngine.Async, Writeback = true },
                new DiskSpec { Id = "next", Path = DiskImages.Ext4(_here, "next.ext4", 48, next), ReadOnly = true },
            ],
            Nets = [new NetSpec { Id = "eth0", Backend = new NetBackend.User(new UserNetSettings()) }],
            Entropy = [new EntropySpec()],
        };
        await using var guest = await RunningGuest.StartAsync(spec, _output);
        await guest.TellAsync(async () =>
        {
            var shell = guest.Shell;
            await shell.LogInAsync();
            await WorksAsync(shell, "first");

            // Each driver lets go of its devices in the middle of what they do, and takes them again.
            foreach (var driver in (string[])["virtio/drivers/virtio_blk", "virtio/drivers/virtio_net", "virtio/drivers/virtio_rng"])
                await RebindAsync(shell, driver, "virtio*", "first");
            await WorksAsync(shell, "rebound");

            // The transport's own driver as well: it finds the devices by their registers anew.
            await RebindAsync(shell, "platform/drivers/virtio-mmio", "LNRO*", "rebound");
            await WorksAsync(shell, "found");

            // Another kernel starts in this machine, and meets the devices as the first has left them, with queues and requests.
            await shell.RunAsync("mkdir -p /mnt && mount -t ext4 -o ro /dev/vdb /mnt && cp /mnt/kexec /bin/kexec");
            shell.Type($"{ReadOn} kexec 3< /mnt/kernel 4< /mnt/initramfs; echo kexec ended with $?");
            await shell.LogInAsync();
            Assert.Contains(Marker, await shell.RunAsync("cat /proc/cmdline"), StringComparison.Ordinal);
            Assert.Equal("found", await shell.RunAsync("head -n 1 /dev/vda"));
            await WorksAsync(shell, "second");
            shell.Type("poweroff -f");
            Assert.Equal(StopReason.Poweroff, (await guest.EndAsync(Shell.CommandDeadline)).Reason);
        });
        await guest.DisposeAsync();
        Assert.StartsWith("second\n", Encoding.ASCII.GetString(await File.ReadAllBytesAsync(spec.Disks[0].Path)), StringComparison.Ordinal);
    }

    /// <summary>A driver lets go of all its devices and takes them again; the address is asked for again where the network was one of them.</summary>
    private static async Task RebindAsync(Shell shell, string driver, string devices, string content)
    {
        await shell.RunAsync($"{ReadOn} cd /sys/bus/{driver} && bound=$(ls -d {devices}) && for device in $bound; do echo $device > unbind; done");
        Assert.Equal("", await shell.RunAsync($"ls -d {devices} 2>/dev/null; true"));
        await shell.RunAsync("touch /tmp/enough; wait; rm /tmp/enough; for device in $bound; do echo $device > bind || break; done; cd /");
        Assert.Equal(content, await shell.RunAsync("head -n 1 /dev/vda"));
        if (await shell.RunAsync("cat /sys/class/net/eth0/operstate") is "down")
            await shell.RunAsync("ip link set eth0 up && udhcpc -i eth0 -s /dhcp.script -n -q -t 20 -T 1 -A 0");
    }

    private static async Task WorksAsync(Shell shell, string word)
    {
        await shell.RunAsync($"yes {word} | dd of=/dev/vda bs=64k count=8 iflag=fullblock conv=fsync 2>/dev/null; echo 3 > /proc/sys/vm/drop_caches");
        var written = string.Concat(Enumerable.Repeat($"{word}\n", 1 + (Written / (word.Length + 1))))[..Written];
        Assert.Equal($"{Convert.ToHexStringLower(SHA256.HashData(Encoding.ASCII.GetBytes(written)))}  -",
            await shell.RunAsync($"head -c {Written} /dev/vda | sha256sum"));
        Assert.Contains("1 packets received", await shell.RunAsync("ping -c 1 -W 30 10.0.2.2"), StringComparison.Ordinal);
        Assert.Equal("256", await shell.RunAsync("dd if=/dev/hwrng bs=64 count=4 2>/dev/null | wc -c"));
    }

    /// <summary>
    /// A program that loads the kernel on descriptor 3 and the initramfs on 4, and starts them: kexec_file_load(2), then reboot(2). It ends
    /// with the error where it cannot.
    /// </summary>
    private static byte[] Kexec(string commandLine)
    {
        byte[] line = [.. Encoding.ASCII.GetBytes(commandLine), 0];
        const int length = 72;
        byte[] code =
        [
            0xB8, 0x40, 0x01, 0x00, 0x00, // mov eax, 320: kexec_file_load
            0xBF, 0x03, 0x00, 0x00, 0x00, // mov edi, 3
            0xBE, 0x04, 0x00, 0x00, 0x00, // mov esi, 4
            0xBA, .. BitConverter.GetBytes(line.Length), // mov edx, length of the line
            0x49, 0xBA, .. BitConverter.GetBytes(0x10_0000L + length), // mov r10, the line
            0x45, 0x31, 0xC0, // xor r8d, r8d
            0x0F, 0x05, // syscall
            0x85, 0xC0, // test eax, eax
            0x75, 0x16, // jnz failed
            0xB8, 0xA9, 0x00, 0x00, 0x00, // mov eax, 169: reboot
            0xBF, 0xAD, 0xDE, 0xE1, 0xFE, // mov edi, its two magic numbers
            0xBE, 0x69, 0x19, 0x12, 0x28,
            0xBA, 0x43, 0x45, 0x58, 0x45, // mov edx, LINUX_REBOOT_CMD_KEXEC
            0x0F, 0x05,
            0x89, 0xC7, // failed: mov edi, eax
            0xF7, 0xDF, // neg edi
            0xB8, 0x3C, 0x00, 0x00, 0x00, // mov eax, 60: exit
            0x0F, 0x05,
        ];
        Array.Resize(ref code, length);
        return TinyElf.Of([.. code, .. line]);
    }
}
