using System.Buffers.Binary;
using ActorVmm.Actors;
using ActorVmm.Actors.Host.Vm.Devices.Virtio;
using ActorVmm.Backends.Disks;
using ActorVmm.EndToEnd.Tests.Harness;
using ActorVmm.Host.Guests;
using ActorVmm.Hypervisor;
using ActorVmm.Hypervisor.Soft;
using ActorVmm.Testing.Guests;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.EndToEnd.Tests.Linux;

/// <summary>What may lie behind a disk: images larger than 4 GiB, block devices, a host that is full, partitions; as Linux sees it.</summary>
[Collection(LinuxGuests.Name)]
public sealed class DiskKindTests : IDisposable
{
    private readonly ITestOutputHelper _output;
    private readonly string _here;

    public DiskKindTests(ITestOutputHelper output)
    {
        _output = output;
        _here = Directory.CreateTempSubdirectory("actorvmm-kind-").FullName;
    }

    public void Dispose() => Directory.Delete(_here, recursive: true);

    [SkippableFact]
    public async Task A_large_image_a_block_device_and_a_full_host()
    {
        using var full = TinyFileSystem.Mount(mib: 4);
        var backing = DiskImages.Raw(_here, "backing.img", 8);
        using var loop = LoopDevice.Of(backing);
        var large = DiskImages.Raw(_here, "large.img", 5 << 10); // 5 GiB of holes
        var image = await GuestImage.PrepareAsync(new GuestCache(), GuestImageOptions.WithDisks);
        var spec = RunningGuest.Spec(image) with
        {
            Disks =
            [
                new DiskSpec { Id = "large", Path = large, Writeback = true, Engine = IoEngine.Async },
                new DiskSpec { Id = "loop", Path = loop.Path, Writeback = true, Direct = true },
                new DiskSpec { Id = "full", Path = DiskImages.Raw(full.Path, "full.img", 64), Writeback = true },
            ],
        };
        await using var guest = await RunningGuest.StartAsync(spec, _output);
        await guest.TellAsync(async () =>
        {
            var shell = guest.Shell;
            await shell.LogInAsync();

            // Beyond 2 and 4 GiB, and back to the host what is not needed any more.
            foreach (var at in (int[])[2047, 2048, 4095, 5119])
                await shell.RunAsync($"yes mib-{at} | dd of=/dev/vda bs=1M seek={at} count=1 iflag=fullblock conv=fsync 2>/dev/null");
            foreach (var at in (int[])[2047, 2048, 4095, 5119])
                Assert.Equal($"mib-{at}\n", System.Text.Encoding.ASCII.GetString(Read(large, (long)at << 20, 9)));
            var allocated = Allocated(large);
            Assert.InRange(allocated, 4 << 20, 5 << 20);
            await shell.RunAsync($"blkdiscard -o {4095L << 20} -l 1048576 /dev/vda");
            Assert.InRange(Allocated(large), allocated - (1 << 20) - (64 << 10), allocated - (1 << 20) + (64 << 10));

            // A block device of the host, which grows while the guest runs.
            await shell.RunAsync("yes block | dd of=/dev/vdb bs=64k count=16 iflag=fullblock conv=fsync 2>/dev/null");
            Assert.Equal("block\n"u8, Read(backing, 0, 6));
            using (var file = File.OpenWrite(backing)) file.SetLength(16 << 20);
            loop.Resize();
            await guest.Vm.UpdateDeviceAsync("blk1", new DiskUpdate(loop.Path));
            Assert.Equal("grown", await shell.RunAsync("until [ $(cat /sys/block/vdb/size) = 32768 ]; do :; done; echo grown"));
            await shell.RunAsync("yes more | dd of=/dev/vdb bs=1M seek=15 count=1 iflag=fullblock conv=fsync 2>/dev/null");
            Assert.Equal("more\n"u8, Read(backing, 15 << 20, 5));

            // The host's file system is full: an error for the guest, no more. What it gives back is room again.
            Assert.Equal("failed", await shell.RunAsync("dd if=/dev/zero of=/dev/vdc bs=1M count=16 conv=fsync 2>/dev/null || echo failed"));
            await shell.RunAsync("blkdiscard /dev/vdc");
            await shell.RunAsync("yes again | dd of=/dev/vdc bs=1M count=2 iflag=fullblock conv=fsync 2>/dev/null");
            Assert.Equal("again\n"u8, Read(spec.Disks[2].Path, 0, 6));

            // No other VM may have one of these disks meanwhile.
            foreach (var disk in spec.Disks)
            {
                await using var host = VmHost.Create();
                var console = new GuestConsole();
                var refused = await Assert.ThrowsAsync<HypervisorException>(() => host.StartAsync(
                    RunningGuest.Spec(image) with { Name = "other", Disks = [disk with { ReadOnly = true }] },
                    new SoftHypervisor(), new VmConsole(console, console)));
                Assert.Contains("another VM", refused.Message, StringComparison.Ordinal);
            }
            shell.Type("poweroff -f");
            Assert.Equal(StopReason.Poweroff, (await guest.EndAsync(Shell.CommandDeadline)).Reason);
        });
    }

    [SkippableTheory]
    [InlineData(false, "0eaa91a0-01")]
    [InlineData(true, "6F1A2B3C-4D5E-4788-9aab-BCCDDEEFF001")]
    public async Task A_partition_is_the_root_by_its_uuid(bool gpt, string uuid)
    {
        const string init = "#!/bin/busybox sh\n/bin/busybox --install -s /bin\nexport PATH=/bin\n"
            + "echo \"Welcome to ActorVmm: a partition\"\ncd /root\nsetsid cttyhack sh\npoweroff -f\n";
        var image = await GuestImage.PrepareAsync(new GuestCache(), GuestImageOptions.WithDisks);
        var root = DiskImages.Root(_here, "root.ext4", image.Guest.BusyboxPath, init);
        var disk = Path.Combine(_here, "disk.img");
        var content = File.ReadAllBytes(root);
        using (var file = File.Create(disk))
        {
            file.Write(gpt ? Gpt(content.Length, Guid.Parse(uuid)) : Mbr(content.Length, 0x0EAA91A0));
            file.Position = 1 << 20;
            file.Write(content);
            file.SetLength(content.Length + (2 << 20));
        }
        // Beside it a disk without partitions, which comes first.
        var spec = RunningGuest.Spec(image) with
        {
            Disks =
            [
                new DiskSpec { Id = "plain", Path = DiskImages.Raw(_here, "plain.img", 4) },
                new DiskSpec { Id = "root", Path = disk, IsRoot = true, PartUuid = uuid, Writeback = true },
            ],
        };
        await using var guest = await RunningGuest.StartAsync(spec, _output);
        await guest.TellAsync(async () =>
        {
            await guest.Shell.LogInAsync();
            Assert.Contains($"root=PARTUUID={uuid} rw", await guest.Shell.RunAsync("cat /proc/cmdline"), StringComparison.Ordinal);
            Assert.Equal("/dev/vdb1", await guest.Shell.RunAsync("awk '$2 == \"/\" && $1 != \"rootfs\" { print $1 }' /proc/mounts"));
        });
    }

    private static byte[] Read(string path, long at, int count)
    {
        using var file = File.OpenHandle(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        var bytes = new byte[count];
        Assert.Equal(count, RandomAccess.Read(file, bytes, at));
        return bytes;
    }

    private static long Allocated(string path) =>
        long.Parse(DiskImages.Run("stat", ["-c", "%b", path]), System.Globalization.CultureInfo.InvariantCulture) * 512;

    /// <summary>A partition table of one partition, from 1 MiB on.</summary>
    private static byte[] Mbr(int bytes, uint signature)
    {
        var sector = new byte[512];
        BinaryPrimitives.WriteUInt32LittleEndian(sector.AsSpan(440), signature);
        sector[446 + 4] = 0x83; // Linux
        BinaryPrimitives.WriteUInt32LittleEndian(sector.AsSpan(446 + 8), 2048);
        BinaryPrimitives.WriteUInt32LittleEndian(sector.AsSpan(446 + 12), (uint)(bytes / 512));
        (sector[510], sector[511]) = (0x55, 0xAA);
        return sector;
    }

    /// <summary>The same as a GUID partition table (UEFI 2.10 §5.3), without the copy at the end, which Linux asks for only where this one is bad.</summary>
    private static byte[] Gpt(int bytes, Guid partition)
    {
        const int entries = 128, entrySize = 128;
        var last = (ulong)((bytes + (2 << 20)) / 512) - 1;
        var disk = new byte[1024 + (entries * entrySize)];
        Mbr(bytes, 0).CopyTo(disk, 0);
        disk[446 + 4] = 0xEE; // protective: all of the disk
        BinaryPrimitives.WriteUInt32LittleEndian(disk.AsSpan(446 + 8), 1);
        BinaryPrimitives.WriteUInt32LittleEndian(disk.AsSpan(446 + 12), (uint)last);
        var table = disk.AsSpan(1024);
        Guid.Parse("0FC63DAF-8483-4772-8E79-3D69D8477DE4").TryWriteBytes(table); // Linux file system data
        partition.TryWriteBytes(table[16..]);
        BinaryPrimitives.WriteUInt64LittleEndian(table[32..], 2048);
        BinaryPrimitives.WriteUInt64LittleEndian(table[40..], 2047 + (ulong)(bytes / 512));
        var header = disk.AsSpan(512, 92);
        "EFI PART"u8.CopyTo(header);
        BinaryPrimitives.WriteUInt32LittleEndian(header[8..], 0x10000);
        BinaryPrimitives.WriteUInt32LittleEndian(header[12..], 92);
        BinaryPrimitives.WriteUInt64LittleEndian(header[24..], 1);
        BinaryPrimitives.WriteUInt64LittleEndian(header[32..], last);
        BinaryPrimitives.WriteUInt64LittleEndian(header[40..], 34);
        BinaryPrimitives.WriteUInt64LittleEndian(header[48..], last - 33);
        Guid.Parse("11111111-2222-3333-4444-555555555555").TryWriteBytes(header[56..]);
        BinaryPrimitives.WriteUInt64LittleEndian(header[72..], 2);
        BinaryPrimitives.WriteUInt32LittleEndian(header[80..], entries);
        BinaryPrimitives.WriteUInt32LittleEndian(header[84..], entrySize);
        BinaryPrimitives.WriteUInt32LittleEndian(header[88..], Crc32(table));
        BinaryPrimitives.WriteUInt32LittleEndian(header[16..], Crc32(header));
        return disk;
    }

    private static uint Crc32(ReadOnlySpan<byte> bytes)
    {
        var crc = uint.MaxValue;
        foreach (var value in bytes)
        {
            crc ^= value;
            for (var bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (0xEDB8_8320 & (uint)-(int)(crc & 1));
        }
        return ~crc;
    }
}
