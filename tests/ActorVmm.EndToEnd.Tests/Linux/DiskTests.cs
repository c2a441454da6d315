using ActorVmm.Actors;
using ActorVmm.Actors.Host.Vm.Devices.Virtio;
using ActorVmm.Backends.Disks;
using ActorVmm.Devices.Virtio;
using ActorVmm.EndToEnd.Tests.Harness;
using ActorVmm.Host.Guests;
using ActorVmm.Hypervisor;
using ActorVmm.Testing;
using ActorVmm.Testing.Guests;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.EndToEnd.Tests.Linux;

/// <summary>Linux's virtio_blk against the block device, on images that are looked at from the host afterwards.</summary>
[Collection(LinuxGuests.Name)]
public sealed class DiskTests : IDisposable
{
    private static readonly TimeSpan FioDeadline = TimeSpan.FromMinutes(Nightly.Wanted ? 60 : 5);
    private readonly GuestFiles _files;
    private readonly ITestOutputHelper _output;
    private readonly string _here;

    public DiskTests(GuestFiles files, ITestOutputHelper output)
    {
        (_files, _output) = (files, output);
        _here = Directory.CreateTempSubdirectory("actorvmm-disk-").FullName;
    }

    public void Dispose() => Directory.Delete(_here, recursive: true);

    [SkippableFact]
    public async Task Fio_reads_back_what_it_wrote_on_a_raw_disk_and_on_ext4()
    {
        var size = Nightly.Wanted ? "256M" : "8M";
        var raw = DiskImages.Raw(_here, "raw.img", Nightly.Wanted ? 512 : 32);
        var ext4 = DiskImages.Ext4(_here, "data.ext4", Nightly.Wanted ? 512 : 64);
        await using var guest = await StartAsync(vcpus: 2,
            new DiskSpec { Id = "raw", Path = raw, Engine = IoEngine.Async, Writeback = true, Queues = 2 },
            new DiskSpec { Id = "data", Path = ext4, Writeback = true },
            new DiskSpec { Id = "tools", Path = DiskImages.Tools(_here), ReadOnly = true });
        await guest.TellAsync(async () =>
        {
            var shell = guest.Shell;
            await shell.LogInAsync();
            await shell.RunAsync("mkdir /tools && mount -t ext4 -o ro /dev/vdc /tools && mount -t tmpfs tmpfs /tools/tmp");
            await shell.RunAsync("mount -t ext4 /dev/vdb /tools/mnt && mount -o bind /dev /tools/dev && mount -t proc proc /tools/proc");
            const string job = "chroot /tools /usr/bin/fio --name=mix --rw=randrw --bs=4k --ioengine=libaio --direct=1 --fsync=64 "
                + "--verify=crc32c --verify_fatal=1 --verify_backlog=512 --verify_state_save=0 --minimal";
            Assert.Equal("0", await FioAsync(shell, $"{job} --filename=/dev/vda --iodepth=32 --size={size}"));
            Assert.Equal("0", await FioAsync(shell, $"{job} --directory=/mnt --iodepth=32 --size={size}"));
            Assert.Equal(Nightly.Wanted ? "268435456" : "8388608", await shell.RunAsync("stat -c %s /tools/mnt/mix.0.0"));
            await shell.RunAsync("umount /tools/mnt");
            shell.Type("poweroff -f");
            Assert.Equal(StopReason.Poweroff, (await guest.EndAsync(Shell.CommandDeadline)).Reason);
        });
        await guest.DisposeAsync(); // closes the images
        DiskImages.Check(ext4);
        Assert.Contains(File.ReadAllBytes(raw), value => value != 0);
    }

    [SkippableFact]
    public async Task The_kernel_sees_each_disk_as_it_was_described()
    {
        var plain = DiskImages.Raw(_here, "plain.img", 16);
        var limited = DiskImages.Raw(_here, "limited.img", 8);
        var bucket = new TokenBucketSpec(Size: 512 << 10, OneTimeBurst: 0, RefillMilliseconds: 1000);
        await using var guest = await StartAsync(vcpus: 2,
            new DiskSpec { Id = "plain-disk", Path = plain, Writeback = true, Queues = 2, Engine = IoEngine.Async, Direct = true },
            new DiskSpec { Id = "limited", Path = limited, Limits = new RateLimiterSpec(bucket, default) },
            new DiskSpec { Id = "fixed", Path = DiskImages.Raw(_here, "fixed.img", 4), ReadOnly = true });
        await guest.TellAsync(async () =>
        {
            var shell = guest.Shell;
            await shell.LogInAsync();
            Assert.Equal("32768 16384 8192", await shell.RunAsync("cd /sys/block; echo $(cat vda/size vdb/size vdc/size)"));
            Assert.Equal("plain-disk limited fixed", await shell.RunAsync("echo $(cat vda/serial) $(cat vdb/serial) $(cat vdc/serial)"));
            Assert.Equal("0 0 1", await shell.RunAsync("echo $(cat vda/ro vdb/ro vdc/ro)"));
            Assert.Equal("write back, write through", await shell.RunAsync("echo $(cat vda/queue/write_cache), $(cat vdb/queue/write_cache)"));
            Assert.Equal("2 1", await shell.RunAsync("echo $(ls vda/mq | wc -l) $(ls vdb/mq | wc -l)"));
            Assert.Equal("512 4096 254", await shell.RunAsync("cd vdb/queue; echo $(cat logical_block_size physical_block_size max_segments)"));
            Assert.NotEqual("0", await shell.RunAsync("cat /sys/block/vda/queue/discard_max_bytes"));

            // Written data arrives, and what is discarded reads as zeroes from a sparse file.
            await shell.RunAsync("yes actor | dd of=/dev/vda bs=1M count=4 iflag=fullblock conv=fsync 2>/dev/null");
            Assert.Equal("actor"u8, File.ReadAllBytes(plain).AsSpan(0, 5));
            Assert.Equal("0", await shell.RunAsync("blkdiscard -o 1048576 -l 1048576 /dev/vda; echo $?"));
            Assert.Equal("zeroes", await shell.RunAsync(
                "dd if=/dev/vda bs=1M skip=1 count=1 2>/dev/null | cmp -n 1048576 - /dev/zero && echo zeroes"));
            Assert.NotEqual("0", await shell.RunAsync("dd if=/dev/zero of=/dev/vdc bs=512 count=1 2>/dev/null; echo $?"));

            // 1.5 MiB at half a MiB each second, of which the first half MiB is free.
            var seconds = await shell.RunAsync(
                "S=$(cut -d. -f1 /proc/uptime); dd if=/dev/vdb of=/dev/null bs=64k count=24 iflag=direct 2>/dev/null; "
                + "E=$(cut -d. -f1 /proc/uptime); echo $((E - S))", TimeSpan.FromMinutes(3));
            Assert.InRange(int.Parse(seconds, System.Globalization.CultureInfo.InvariantCulture), 1, 1000);

            // While it runs: another size, no limits; a file that is not there is refused, and the old one stays.
            using (var file = File.OpenWrite(limited)) file.SetLength(16 << 20);
            await guest.Vm.UpdateDeviceAsync("blk1", new DiskUpdate(limited, RateLimiterSpec.Off));
            Assert.Equal("grown", await shell.RunAsync("until [ $(cat /sys/block/vdb/size) = 32768 ]; do :; done; echo grown"));
            await shell.RunAsync("dd if=/dev/vdb of=/dev/null bs=64k iflag=direct 2>/dev/null");
            await Assert.ThrowsAsync<InvalidOperationException>(
                () => guest.Vm.UpdateDeviceAsync("blk0", new DiskUpdate(Path.Combine(_here, "none.img"))));

            // The driver goes and comes back.
            await shell.RunAsync("cd /sys/bus/virtio/drivers/virtio_blk; echo virtio0 > unbind; [ ! -e /dev/vda ] && echo virtio0 > bind");
            Assert.Equal("actor", await shell.RunAsync("head -c 5 /dev/vda"));
        });
    }

    [SkippableFact]
    public async Task What_is_written_to_the_root_disk_survives_a_reboot()
    {
        const string init = """
            #!/bin/busybox sh
            /bin/busybox --install -s /bin
            export PATH=/bin HOME=/root
            echo "Welcome to ActorVmm: root disk"
            cd /root
            setsid cttyhack sh
            poweroff -f
            """;
        var image = await GuestImage.PrepareAsync(new GuestCache(), GuestImageOptions.WithDisks);
        var root = DiskImages.Root(_here, "root.ext4", image.Guest.BusyboxPath, init);
        var spec = RunningGuest.Spec(image) with { Disks = [new DiskSpec { Id = "root", Path = root, IsRoot = true, Writeback = true }] };
        for (var boot = 1; boot <= 2; boot++)
        {
            await using var guest = await RunningGuest.StartAsync(spec, _output);
            var expected = boot == 1 ? "" : "written in the first life";
            await guest.TellAsync(async () =>
            {
                await guest.Shell.LogInAsync();
                Assert.Contains("root=/dev/vda rw", await guest.Shell.RunAsync("cat /proc/cmdline"), StringComparison.Ordinal);
                Assert.Equal(expected, await guest.Shell.RunAsync("cat file 2>/dev/null; true"));
                await guest.Shell.RunAsync("echo written in the first life > file; sync");
                guest.Shell.Type("reboot -f");
                Assert.Equal(StopReason.ResetI8042, (await guest.EndAsync(Shell.CommandDeadline)).Reason);
            });
        }
        DiskImages.Check(root, replay: true);
        Assert.Equal("written in the first life\n"u8.ToArray(), DiskImages.Read(root, "/root/file"));
    }

    [SkippableFact]
    public async Task Nothing_flushed_is_lost_when_the_program_is_killed()
    {
        var image = await GuestImage.PrepareAsync(new GuestCache(), GuestImageOptions.WithDisks);
        var disk = DiskImages.Ext4(_here, "data.ext4", 64);
        var description = Path.Combine(_here, "vm.conf");
        File.WriteAllText(description, $$"""
            kernel { path = "{{image.KernelPath}}", initrd = "{{image.InitramfsPath}}", cmdline = "{{RunningGuest.CommandLine}} reboot=k" }
            hypervisor = soft
            block = [{ path = "{{disk}}", engine = async }]
            """);
        const int wanted = 12;
        int flushed;
        await using (var program = ActorVmmProcess.Start("run", description))
        {
            await program.Shell.LogInAsync();
            await program.Shell.RunAsync("mount -t ext4 /dev/vda /mnt 2>/dev/null || { mkdir -p /mnt && mount -t ext4 /dev/vda /mnt; }");
            // A line on the console for each file whose data and name were flushed; then the program is gone in the middle of the next.
            program.Shell.Type("i=1; while :; do seq $i $((i + 5000)) > /mnt/f$i; fsync /mnt/f$i; sync; echo FLU''SHED-$i-; i=$((i + 1)); done");
            await program.Transcript.ExpectAsync($"FLUSHED-{wanted}-", Shell.BootDeadline);
        } // killed, by SIGKILL
        DiskImages.Check(disk, replay: true);
        for (flushed = 1; flushed <= wanted; flushed++)
        {
            var expected = string.Concat(Enumerable.Range(flushed, 5001).Select(n => $"{n}\n"));
            Assert.Equal(expected, System.Text.Encoding.ASCII.GetString(DiskImages.Read(disk, $"/f{flushed}")));
        }
    }

    [SkippableFact]
    public async Task Under_virtual_time_two_runs_with_a_disk_are_the_same()
    {
        var master = DiskImages.Raw(_here, "master.img", 8);
        List<(byte[] Console, ulong Retired, byte[] Disk)> runs = [];
        for (var run = 0; run < 2; run++)
        {
            var disk = Path.Combine(_here, $"run{run}.img");
            File.Copy(master, disk);
            var image = await GuestImage.PrepareAsync(new GuestCache(), GuestImageOptions.WithDisks);
            const string script = "dd if=/dev/urandom of=/dev/vda bs=64k count=16 conv=fsync 2>/dev/null\nsha256sum /dev/vda\n"
                + "cat /proc/interrupts /sys/block/vda/stat /proc/uptime\nreboot -f\n";
            var bucket = new TokenBucketSpec(256 << 10, 0, 10);
            var spec = RunningGuest.Spec(image) with
            {
                Clock = ClockMode.Virtual, Seed = 11,
                Disks = [new DiskSpec { Id = "d", Path = disk, Engine = IoEngine.Async, Writeback = true, Limits = new(bucket, default) }],
            };
            var console = new GuestConsole(script, releaseOn: GuestImage.Greeting);
            await using var guest = await RunningGuest.StartAsync(spec, _output, console);
            VmOutcome? outcome = null;
            await guest.TellAsync(async () => outcome = await guest.EndAsync(Shell.BootDeadline));
            await guest.DisposeAsync();
            runs.Add((console.Transcript.Bytes, outcome!.RetiredInstructions, File.ReadAllBytes(disk)));
        }
        Assert.Equal(runs[0].Console, runs[1].Console);
        Assert.Equal(runs[0].Retired, runs[1].Retired);
        Assert.Equal(runs[0].Disk, runs[1].Disk);
        Assert.Contains(runs[0].Disk, value => value != 0);
    }

    private static async Task<string> FioAsync(Shell shell, string command) =>
        (await shell.RunAsync($"{command} | tail -n 1 | cut -d';' -f5", FioDeadline)).Trim(); // field 5 of the terse output: error

    private async Task<RunningGuest> StartAsync(int vcpus, params IReadOnlyList<DiskSpec> disks)
    {
        var image = await GuestImage.PrepareAsync(new GuestCache(), GuestImageOptions.WithDisks);
        return await RunningGuest.StartAsync(RunningGuest.Spec(image, vcpus) with { Disks = disks }, _output);
    }
}
