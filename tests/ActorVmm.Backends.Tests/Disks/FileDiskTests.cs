using ActorVmm.Backends.Disks;
using ActorVmm.Devices.Virtio.Block;
using ActorVmm.Testing.Guests;
using CsCheck;
using Xunit;

namespace ActorVmm.Backends.Tests.Disks;

public sealed class FileDiskTests
{
    public static TheoryData<IoEngine, bool> Engines => new()
    {
        { IoEngine.Sync, false }, { IoEngine.Sync, true }, { IoEngine.Async, false }, { IoEngine.Async, true },
    };

    [Theory]
    [MemberData(nameof(Engines))]
    public void Any_sequence_of_requests_leaves_what_a_model_says(IoEngine engine, bool direct)
    {
        const int sectors = 512;
        using var rig = new DiskRig(new DiskOptions { Engine = engine, Direct = direct, Writeback = true }, sectors * 512);
        var unit = rig.Disk.BlockSize / 512;
        var model = new byte[sectors * 512];
        var step = Gen.Select(Gen.Int[0, 5], Gen.Int[0, (sectors / unit) - 1], Gen.Int[1, 64], Gen.Byte, Gen.Double[0, 1].Array[0, 4]);
        step.Array[1, 20].Sample(steps =>
        {
            foreach (var (kind, block, length, value, cuts) in steps)
            {
                var first = block * unit;
                var count = Math.Min(Math.Max(length / unit, 1) * unit, sectors - first);
                var bytes = new byte[count * 512];
                int[] at = [.. cuts.Select(cut => (int)(cut * bytes.Length)).Order()];
                var sector = (ulong)first;
                var range = model.AsSpan(first * 512, count * 512);
                switch (kind)
                {
                    case 0 or 1:
                        for (var i = 0; i < bytes.Length; i++) bytes[i] = (byte)(value + i + (i >> 8));
                        Assert.Equal(DiskStatus.Ok, rig.Write(sector, bytes, at));
                        bytes.CopyTo(range);
                        break;
                    case 2:
                        Assert.Equal(DiskStatus.Ok, rig.Read(sector, bytes, at));
                        Assert.True(range.SequenceEqual(bytes));
                        break;
                    case 3:
                        Assert.Equal(DiskStatus.Ok, rig.Range(DiskOperation.WriteZeroes, sector, (ulong)count, value % 2 == 0));
                        range.Clear();
                        break;
                    case 4:
                        Assert.Equal(DiskStatus.Ok, rig.Range(DiskOperation.Discard, sector, (ulong)count));
                        Assert.Equal(DiskStatus.Ok, rig.Read(sector, bytes));
                        bytes.CopyTo(range); // zeroes or the old content: the host's choice
                        break;
                    default: Assert.Equal(DiskStatus.Ok, rig.Range(DiskOperation.Flush, 0, 0)); break;
                }
            }
            Assert.Equal(model, File.ReadAllBytes(rig.Path));
        }, iter: 60, threads: 1);
        Assert.Equal(0, rig.Disk.Failures);
    }

    [Fact]
    public void A_request_of_more_pieces_than_one_system_call_takes_is_whole()
    {
        using var rig = new DiskRig(new DiskOptions(), 1 << 20);
        var bytes = new byte[1 << 20];
        Random(bytes);
        int[] cuts = [.. Enumerable.Range(1, 2047).Select(i => i * 512)];
        Assert.Equal(DiskStatus.Ok, rig.Write(0, bytes, cuts));
        Assert.Equal(bytes, File.ReadAllBytes(rig.Path));
        var back = new byte[bytes.Length];
        Assert.Equal(DiskStatus.Ok, rig.Read(0, back, cuts));
        Assert.Equal(bytes, back);
    }

    [Fact]
    public void Bytes_after_the_last_whole_sector_are_left_out()
    {
        using var rig = new DiskRig(new DiskOptions(), (3 * 512) + 511);
        Assert.Equal(3UL, rig.Disk.Sectors);
    }

    [Theory]
    [InlineData(IoEngine.Sync)]
    [InlineData(IoEngine.Async)]
    public void A_file_that_has_shrunk_is_an_io_error_and_the_disk_lives_on(IoEngine engine)
    {
        using var rig = new DiskRig(new DiskOptions { Engine = engine }, 8 * 512);
        using (var file = File.OpenWrite(rig.Path)) file.SetLength(2 * 512);
        Assert.Equal(DiskStatus.IoError, rig.Read(1, new byte[1024], 100, 600));
        Assert.Equal((1, true), (rig.Disk.Failures, rig.Disk.LastError!.Contains("sector 1", StringComparison.Ordinal)));
        Assert.Equal(DiskStatus.Ok, rig.Read(0, new byte[1024]));
    }

    [Fact]
    public void A_new_size_is_seen_and_announced()
    {
        using var rig = new DiskRig(new DiskOptions(), 8 * 512);
        var woken = 0;
        rig.Disk.Wake = () => woken++;
        rig.Disk.Resize();
        Assert.Equal(0, woken);
        using (var file = File.OpenWrite(rig.Path)) file.SetLength(16 * 512);
        rig.Disk.Resize();
        Assert.Equal((1, 16UL), (woken, rig.Disk.Sectors));
    }

    /// <summary>A file that nobody can flush: the kernel says EINVAL to fdatasync, and to nothing else that a disk does.</summary>
    private const string Unflushable = "/proc/sys/kernel/ostype";

    [Theory]
    [InlineData(IoEngine.Sync)]
    [InlineData(IoEngine.Async)]
    public void A_flush_is_the_hosts_own_whose_failure_the_guest_hears_of(IoEngine engine)
    {
        using var rig = new DiskRig(new DiskOptions { Engine = engine, ReadOnly = true, Writeback = true }, 0, Unflushable);
        Assert.Equal(DiskStatus.IoError, rig.Range(DiskOperation.Flush, 0, 0));
        Assert.Equal(1, rig.Disk.Failures);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_file_with_write_back_is_flushed_before_another_takes_its_place(bool writeback)
    {
        using var rig = new DiskRig(new DiskOptions { ReadOnly = true, Writeback = writeback }, 0, Unflushable);
        var other = DiskRig.NewFile(512);
        try
        {
            rig.Disk.ChangeTo(other);
            Assert.Equal(other, rig.Disk.Path);
            Assert.Equal(writeback ? 1 : 0, rig.Disk.Failures);
        }
        finally
        {
            File.Delete(other);
        }
    }

    [Fact]
    public void Another_file_takes_the_place_of_the_first()
    {
        using var rig = new DiskRig(new DiskOptions(), 8 * 512);
        var other = DiskRig.NewFile(4 * 512);
        try
        {
            rig.Disk.ChangeTo(rig.Path); // the same file: nothing but a look at its size
            rig.Disk.ChangeTo(other);
            Assert.Equal((4UL, other), (rig.Disk.Sectors, rig.Disk.Path));
            var bytes = new byte[512];
            Random(bytes);
            Assert.Equal(DiskStatus.Ok, rig.Write(3, bytes));
            Assert.Equal(bytes, File.ReadAllBytes(other)[1536..]);
            using var free = FileDisk.Open(rig.Path, new DiskOptions()); // the lock on the first is gone
            Assert.Throws<DiskException>(() => rig.Disk.ChangeTo(rig.Path));
            Assert.Equal(other, rig.Disk.Path);
        }
        finally
        {
            File.Delete(other);
        }
    }

    [Fact]
    public void One_image_has_one_writer_or_many_readers()
    {
        using var rig = new DiskRig(new DiskOptions(), 4096);
        foreach (var readOnly in (ReadOnlySpan<bool>)[false, true])
        {
            var refused = Assert.Throws<DiskException>(() => FileDisk.Open(rig.Path, new DiskOptions { ReadOnly = readOnly }));
            Assert.StartsWith($"{rig.Path}: another VM", refused.Message, StringComparison.Ordinal);
        }
        rig.Disk.Dispose();
        using var first = FileDisk.Open(rig.Path, new DiskOptions { ReadOnly = true });
        using var second = FileDisk.Open(rig.Path, new DiskOptions { ReadOnly = true });
        Assert.Throws<DiskException>(() => FileDisk.Open(rig.Path, new DiskOptions()));
    }

    [Fact]
    public void What_is_no_image_is_refused_by_name()
    {
        Assert.Contains("No such file", Assert.Throws<DiskException>(() => FileDisk.Open("/nowhere.img", new())).Message,
            StringComparison.Ordinal);
        Assert.Contains("allowed is a raw image", Assert.Throws<DiskException>(() => FileDisk.Open("/dev/null", new())).Message,
            StringComparison.Ordinal);
        Assert.Contains("/etc", Assert.Throws<DiskException>(() => FileDisk.Open("/etc", new() { ReadOnly = true })).Message,
            StringComparison.Ordinal);
    }

    [Fact]
    public void After_abandon_nothing_comes_back_and_the_disk_goes_on()
    {
        using var rig = new DiskRig(new DiskOptions { Engine = IoEngine.Async, Threads = 2, MostInline = 0 }, 1 << 20);
        var requests = Enumerable.Range(0, 64).Select(slot => new DiskRequest(slot)).ToArray();
        for (var round = 0; round < 50; round++)
        {
            foreach (var request in requests)
            {
                request.Set(DiskOperation.Read, (ulong)request.Slot);
                request.Add(rig.At((ulong)request.Slot * 4096, 4096));
                Assert.False(rig.Disk.Start(request));
            }
            rig.Disk.Abandon();
            Assert.False(rig.Disk.TryTakeCompleted(out _));
            // Nothing is under way: the memory stays as it is from now on.
            rig.At(0, 64 * 4096).Bytes.Fill(0x55);
            Assert.Equal(DiskStatus.Ok, rig.Read(2000, new byte[512]));
            Assert.Equal(-1, rig.At(4096, 63 * 4096).Bytes.IndexOfAnyExcept((byte)0x55));
        }
    }

    [Fact]
    public void What_the_page_cache_holds_is_read_at_once_and_the_rest_by_threads()
    {
        using var rig = new DiskRig(new DiskOptions { Engine = IoEngine.Async, MostInline = 8192 }, 1 << 20);
        var written = new byte[1 << 20];
        Random(written);
        File.WriteAllBytes(rig.Path, written); // which is where the page cache has it from
        foreach (var (bytes, atOnce) in ((int, bool)[])[(512, true), (8192, true), (8704, false)])
        {
            rig.Request.Set(DiskOperation.Read, 3);
            rig.Request.Add(rig.At(0, bytes));
            Assert.Equal(atOnce, rig.Disk.Start(rig.Request));
            if (!atOnce) rig.Finish();
            Assert.Equal(DiskStatus.Ok, rig.Request.Status);
            Assert.True(rig.At(0, bytes).Bytes.SequenceEqual(written.AsSpan(1536, bytes)));
        }
        using (var file = File.OpenWrite(rig.Path)) file.SetLength(4096);
        Assert.Equal(DiskStatus.IoError, rig.Read(7, new byte[1024])); // half of it is gone: not at once, and not at all
    }

    [Theory]
    [InlineData(DiskOperation.Read)]
    [InlineData(DiskOperation.Write)]
    public void A_synchronous_disk_does_what_is_large_beside_its_caller(DiskOperation operation)
    {
        using var rig = new DiskRig(new DiskOptions { MostInTurn = 8192, MostInline = 0 }, 1 << 20);
        var bytes = new byte[1 << 20];
        Random(bytes);
        foreach (var (count, atOnce) in ((int, bool)[])[(512, true), (8192, true), (8704, false), (1 << 19, false), (4096, true)])
        {
            var content = bytes.AsSpan(512 * 5, count);
            if (operation == DiskOperation.Read) File.WriteAllBytes(rig.Path, bytes);
            else content.CopyTo(rig.At(0, count).Bytes);
            rig.Request.Set(operation, 5);
            rig.Request.Add(rig.At(0, count));
            Assert.Equal(atOnce, rig.Disk.Start(rig.Request));
            Assert.Equal(DiskStatus.Ok, atOnce ? rig.Request.Status : rig.Finish());
            if (operation == DiskOperation.Read) Assert.True(rig.At(0, count).Bytes.SequenceEqual(content));
            else Assert.True(File.ReadAllBytes(rig.Path).AsSpan(512 * 5, count).SequenceEqual(content));
        }
        // A flush has no bytes: it is the caller's.
        rig.Request.Set(DiskOperation.Flush, 0);
        Assert.True(rig.Disk.Start(rig.Request));
    }

    [Fact]
    public void A_thread_of_the_disk_may_run_its_device_and_even_stop_the_disk()
    {
        var path = DiskRig.NewFile(1 << 20);
        try
        {
            using var memory = Memory.GuestMemory.Create(1 << 20);
            using var stopped = new ManualResetEventSlim();
            var disk = FileDisk.Open(path, new DiskOptions { Engine = IoEngine.Async, MostInline = 0 });
            disk.Wake = () =>
            {
                disk.Abandon(); // a device that fails, and takes up its work again
                disk.Dispose(); // and one that is stopped
                stopped.Set();
            };
            var request = new DiskRequest(0);
            request.Set(DiskOperation.Read, 0);
            memory.TryLocate(new Memory.GuestAddress(0), 4096, out var segment);
            request.Add(segment);
            Assert.False(disk.Start(request));
            Assert.True(stopped.Wait(TimeSpan.FromSeconds(90)));
        }
        finally
        {
            File.Delete(path);
        }
    }

    [SkippableFact]
    public void A_full_host_is_an_error_of_that_request_and_goes_when_there_is_room()
    {
        using var mount = TinyFileSystem.Mount(mib: 4);
        foreach (var engine in (ReadOnlySpan<IoEngine>)[IoEngine.Sync, IoEngine.Async])
        {
            var path = Path.Combine(mount.Path, "sparse.img");
            using (var file = File.Create(path)) file.SetLength(64 << 20); // more than there is
            using (var rig = new DiskRig(new DiskOptions { Engine = engine, Writeback = true }, 0, path))
            {
                var bytes = new byte[1 << 20];
                Random(bytes);
                var written = 0;
                while (rig.Write((ulong)written * 2048, bytes) == DiskStatus.Ok) written++;
                Assert.InRange(written, 1, 4);
                Assert.Equal(DiskStatus.NoSpace, rig.Request.Status);
                Assert.Contains("No space", rig.Disk.LastError!, StringComparison.Ordinal);
                // What was written before is there, and the disk lives on: a range given back makes room again.
                var back = new byte[bytes.Length];
                Assert.Equal(DiskStatus.Ok, rig.Read(0, back));
                Assert.Equal(bytes, back);
                Assert.Equal(DiskStatus.Ok, rig.Range(DiskOperation.Discard, 0, 2048));
                Assert.Equal(DiskStatus.Ok, rig.Write((ulong)written * 2048, bytes));
            }
            File.Delete(path);
        }
    }

    [Fact]
    public void A_discarded_range_is_given_back_to_the_host()
    {
        using var rig = new DiskRig(new DiskOptions(), 8 << 20);
        var bytes = new byte[8 << 20];
        Random(bytes);
        Assert.Equal(DiskStatus.Ok, rig.Write(0, bytes));
        var full = DiskRig.AllocatedBytes(rig.Path);
        Assert.InRange(full, 8 << 20, long.MaxValue);
        Assert.Equal(DiskStatus.Ok, rig.Range(DiskOperation.Discard, 2048, 8192)); // 4 MiB from 1 MiB on
        AssertNear(full - (4 << 20), rig.Path);
        Assert.Equal(8 << 20, new FileInfo(rig.Path).Length);
        Assert.Equal(DiskStatus.Ok, rig.Range(DiskOperation.WriteZeroes, 0, 2048, flag: true));
        AssertNear(full - (5 << 20), rig.Path);
        Assert.Equal(DiskStatus.Ok, rig.Range(DiskOperation.WriteZeroes, 0, 2048, flag: false));
        AssertNear(full - (4 << 20), rig.Path); // zeroes that the host must have room for
    }

    [Theory]
    [InlineData(IoEngine.Sync)]
    [InlineData(IoEngine.Async)]
    public void Images_of_more_than_4_gib_are_reached_everywhere(IoEngine engine)
    {
        const long size = (5L << 30) + 4096; // sparse
        using var rig = new DiskRig(new DiskOptions { Engine = engine }, size);
        Assert.Equal((ulong)size / 512, rig.Disk.Sectors);
        foreach (var at in (ReadOnlySpan<long>)[(2L << 30) - 4096, (2L << 30) - 512, 2L << 30, (4L << 30) - 512, 4L << 30, size - 4096])
        {
            var bytes = new byte[4096];
            new Random((int)(at >> 9)).NextBytes(bytes);
            Assert.Equal(DiskStatus.Ok, rig.Write((ulong)at / 512, bytes));
            using var file = File.OpenHandle(rig.Path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
            var seen = new byte[4096];
            Assert.Equal(4096, RandomAccess.Read(file, seen, at));
            Assert.Equal(bytes, seen);
        }
        Assert.Equal(DiskStatus.Ok, rig.Range(DiskOperation.Discard, 4UL << 21, 8));
        Assert.InRange(DiskRig.AllocatedBytes(rig.Path), 4096, 1 << 20);
    }

    [SkippableTheory]
    [InlineData(IoEngine.Sync, false)]
    [InlineData(IoEngine.Async, true)]
    public void A_block_device_is_a_disk(IoEngine engine, bool direct)
    {
        var path = DiskRig.NewFile(8 << 20);
        try
        {
            using var loop = LoopDevice.Of(path);
            using (var rig = new DiskRig(new DiskOptions { Engine = engine, Direct = direct, Writeback = true }, 0, loop.Path))
            {
                Assert.Equal(8UL << 11, rig.Disk.Sectors);
                var bytes = new byte[64 << 10];
                Random(bytes);
                Assert.Equal(DiskStatus.Ok, rig.Write(128, bytes));
                Assert.Equal(DiskStatus.Ok, rig.Range(DiskOperation.Flush, 0, 0));
                var back = new byte[bytes.Length];
                Assert.Equal(DiskStatus.Ok, rig.Read(128, back));
                Assert.Equal(bytes, back);
                Assert.True(bytes.AsSpan().SequenceEqual(File.ReadAllBytes(path).AsSpan(64 << 10, bytes.Length)));
                Assert.Equal(DiskStatus.Ok, rig.Range(DiskOperation.Discard, 128, 128));
                Assert.Equal(DiskStatus.Ok, rig.Read(128, back));
                Assert.Equal(new byte[bytes.Length], back);
                Assert.Throws<DiskException>(() => FileDisk.Open(loop.Path, new DiskOptions()));
            }
            using var fixedOne = LoopDevice.Of(path, readOnly: true);
            Assert.Contains("read-only", Assert.Throws<DiskException>(() => FileDisk.Open(fixedOne.Path, new DiskOptions())).Message,
                StringComparison.Ordinal);
            using var readers = FileDisk.Open(fixedOne.Path, new DiskOptions { ReadOnly = true });
            Assert.Equal(8UL << 11, readers.Sectors);
        }
        finally
        {
            File.Delete(path);
        }
    }

    [Fact]
    public void Many_requests_in_flight_all_come_back_once_whatever_the_order()
    {
        using var rig = new DiskRig(new DiskOptions { Engine = IoEngine.Async, Threads = 4 }, 64 * 4096);
        using var woken = new SemaphoreSlim(0);
        rig.Disk.Wake = () => woken.Release();
        var requests = Enumerable.Range(0, 64).Select(slot => new DiskRequest(slot)).ToArray();
        var seen = new int[64];
        var underWay = 0;
        for (var issued = 0; issued < 6400;)
        {
            while (underWay < 64 && issued < 6400)
            {
                var request = Array.Find(requests, r => seen[r.Slot] == 0)!;
                request.Set(DiskOperation.Write, (ulong)request.Slot * 8);
                var memory = rig.At((ulong)request.Slot * 4096, 4096);
                memory.Bytes.Fill((byte)issued);
                request.Add(memory);
                seen[request.Slot] = 1;
                (issued, underWay) = (issued + 1, underWay + 1);
                Assert.False(rig.Disk.Start(request));
            }
            Assert.True(woken.Wait(TimeSpan.FromSeconds(90)));
            while (rig.Disk.TryTakeCompleted(out var done))
            {
                Assert.Equal((1, DiskStatus.Ok), (seen[done.Slot], done.Status));
                seen[done.Slot] = 0;
                underWay--;
            }
        }
        while (underWay > 0)
        {
            if (rig.Disk.TryTakeCompleted(out _)) underWay--;
            else Assert.True(woken.Wait(TimeSpan.FromSeconds(90)));
        }
        var file = File.ReadAllBytes(rig.Path);
        for (var slot = 0; slot < 64; slot++) Assert.True(rig.At((ulong)slot * 4096, 4096).Bytes.SequenceEqual(file.AsSpan(slot * 4096, 4096)));
    }

    // A few blocks of the host's own may come or go with the pieces of the file.
    private static void AssertNear(long expected, string path) =>
        Assert.InRange(DiskRig.AllocatedBytes(path), expected - (64 << 10), expected + (64 << 10));

    private static void Random(Span<byte> bytes) => new Random(5).NextBytes(bytes);
}
