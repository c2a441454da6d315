using System.Buffers.Binary;
using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Block;
using ActorVmm.Devices.Virtio.Mmio;
using ActorVmm.Memory;
using ActorVmm.Testing;
using ActorVmm.Testing.Virtio;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.Devices.Tests.Virtio.Block;

/// <summary>
/// Requests made at random. One target keeps to descriptors that are sound and compares with a model; the other writes whatever it likes
/// into the rings. A failure prints the seed.
/// </summary>
public sealed class BlockFuzzTests(ITestOutputHelper output)
{
    private const int Sectors = 64;
    private const int PerRound = 64;
    private static readonly uint[] Types = [0, 0, 1, 1, 4, 8, 11, 13, 7];

    [Fact]
    public void Sound_chains_do_what_a_model_says()
    {
        var executions = Nightly.Count(200_000, 10_000_000);
        var start = Seed();
        var heap = new HeapWatch(executions);
        for (long done = 0; done < executions; done += PerRound)
        {
            Model(start + (done / PerRound));
            heap.At(done);
        }
        output.WriteLine($"{executions} executions, {heap.Growth} bytes kept");
        Assert.InRange(heap.Growth, long.MinValue, HeapWatch.Bound);
    }

    [Fact]
    public void Nothing_that_a_driver_writes_makes_the_device_fail()
    {
        var executions = Nightly.Count(200_000, 10_000_000);
        var seed = Seed();
        var random = new Random((int)seed);
        using var rig = new BlockRig(new ScriptedDisk(Sectors), new BlockSettings { QueueSize = 16, Queues = 2 });
        var page = new byte[4096];
        var heap = new HeapWatch(executions);
        for (long done = 0; done < executions; done++)
        {
            if (done % 64 == 0 || rig.Driver.Status.HasFlag(DeviceStatus.NeedsReset)) Restart(rig, random);
            Garble(rig, random, page);
            rig.Driver.Ring(random.Next(3));
            if (random.Next(4) == 0) rig.Virtio.Backend();
            if (random.Next(16) == 0) rig.Virtio.Write((ulong)random.Next(0x140), 1 << random.Next(4), (ulong)random.NextInt64());
            Assert.True(rig.Virtio.LastFailure is null, $"seed {seed}, execution {done}: {rig.Virtio.LastFailure}");
            heap.At(done);
        }
        output.WriteLine($"{executions} executions: {rig.Counters.Reads} reads, {rig.Counters.Writes} writes, {rig.Counters.Malformed} refused, "
            + $"{heap.Growth} bytes kept");
        Assert.InRange(heap.Growth, long.MinValue, HeapWatch.Bound);
        foreach (var reached in (ReadOnlySpan<long>)[rig.Counters.Reads, rig.Counters.Writes, rig.Counters.Malformed])
            Assert.InRange(reached, executions / 100, executions); // it is no test where next to nothing is sound, or everything
    }

    private long Seed()
    {
        var seed = Environment.GetEnvironmentVariable("ACTORVMM_SEED") is { Length: > 0 } given
            ? long.Parse(given, System.Globalization.CultureInfo.InvariantCulture) : Nightly.Wanted ? new Random().NextInt64() : 20260701;
        output.WriteLine($"seed {seed} (ACTORVMM_SEED repeats it)");
        return seed;
    }

    private void Model(long seed)
    {
        var random = new Random((int)seed);
        using var rig = new BlockRig(new ScriptedDisk(Sectors) { Hold = random.Next(2) == 0 }).Started();
        var model = new byte[Sectors * 512];
        for (var i = 0; i < PerRound; i++)
        {
            var type = (BlockRequestType)Types[random.Next(Types.Length)];
            var sector = (ulong)random.Next(Sectors + 4);
            var (data, room, expected) = Request(random, type, sector, model, out var read);
            byte[] request = [.. BlockDriver.Header(type, sector), .. data];
            List<GuestBuffer> parts = [.. Cut(random, request.Length).Select(cut => rig.Driver.Readable(request.AsSpan(cut)))];
            GuestBuffer[] answer = [.. Cut(random, room + 1).Select(cut => rig.Driver.Writable((uint)(cut.End.Value - cut.Start.Value)))];
            rig.Driver.Rings[0].Add([.. parts, .. answer]);
            rig.Driver.Kick(0);
            while (rig.Disk.Held.Count > 0)
            {
                rig.Disk.Finish(rig.Disk.Held[random.Next(rig.Disk.Held.Count)]);
                rig.Virtio.Backend();
            }
            var what = $"seed {seed}, request {i}: {type} of sector {sector}, {data.Length} and {room} bytes";
            Assert.True(rig.Driver.Rings[0].TryCollect(out _), what);
            byte[] bytes = [.. answer.SelectMany(rig.Driver.Bytes)];
            Assert.True(expected == (BlockStatus)bytes[^1], what);
            if (expected == BlockStatus.Ok && read is not null) Assert.True(read.AsSpan().SequenceEqual(bytes.AsSpan(0, read.Length)), what);
        }
        // What was discarded may hold anything; the model has taken that over.
        Assert.True(model.AsSpan().SequenceEqual(rig.Disk.Content), $"seed {seed}");
    }

    /// <summary>Draws a request's data and tells what must come of it; the model is changed.</summary>
    private static (byte[] Data, int Room, BlockStatus Expected) Request(
        Random random, BlockRequestType type, ulong sector, byte[] model, out byte[]? read)
    {
        read = null;
        var count = random.Next(1, 9);
        var fits = sector + (ulong)count <= Sectors;
        switch (type)
        {
            case BlockRequestType.In:
                var odd = random.Next(20) == 0 ? 1 : 0;
                if (fits && odd == 0) read = model[((int)sector * 512)..(((int)sector + count) * 512)];
                return ([], (count * 512) + odd, fits && odd == 0 ? BlockStatus.Ok : BlockStatus.IoError);
            case BlockRequestType.Out:
                var data = new byte[count * 512];
                random.NextBytes(data);
                if (fits) data.CopyTo(model, (int)sector * 512);
                return (data, 0, fits ? BlockStatus.Ok : BlockStatus.IoError);
            case BlockRequestType.Flush: return ([], 0, BlockStatus.Ok);
            case BlockRequestType.GetId: return ([], 20, BlockStatus.Ok);
            case BlockRequestType.Discard or BlockRequestType.WriteZeroes:
                var ranges = new (ulong Sector, uint Sectors, uint Flags)[random.Next(1, 4)];
                for (var i = 0; i < ranges.Length; i++) ranges[i] = ((ulong)random.Next(Sectors + 2), (uint)random.Next(1, 9), 0);
                var good = Array.TrueForAll(ranges, range => range.Sector + range.Sectors <= Sectors);
                if (good)
                    foreach (var range in ranges)
                        model.AsSpan((int)range.Sector * 512, (int)range.Sectors * 512).Fill(type == BlockRequestType.Discard ? (byte)0xD1 : (byte)0);
                return (BlockDriver.Ranges(ranges), 0, good ? BlockStatus.Ok : BlockStatus.IoError);
            default: return ([], 0, BlockStatus.Unsupported);
        }
    }

    /// <summary>Cuts a run of bytes into a few pieces.</summary>
    private static List<Range> Cut(Random random, int length)
    {
        var cuts = new List<Range>();
        var at = 0;
        while (at < length)
        {
            var end = cuts.Count == 7 ? length : Math.Min(length, at + random.Next(1, length + 1));
            cuts.Add(at..end);
            at = end;
        }
        return cuts;
    }

    private static void Restart(BlockRig rig, Random random)
    {
        var driver = rig.Driver;
        driver.Negotiate(random.Next(2) == 0 ? BlockRig.AllFeatures & ~(1UL << 35) : VirtioFeatures.Version1);
        // The same two rings each time, at fixed places.
        for (var queue = 0; queue < 2; queue++)
        {
            var ring = new GuestRing(driver.Memory, new GuestAddress(0x1_0000 + (ulong)(queue * 0x4000)), 16, eventIndex: true, indirect: true);
            driver.SetUpQueue(queue, ring);
        }
        driver.AddStatus(DeviceStatus.DriverOk);
    }

    /// <summary>Writes random descriptors, most of them half sensible, and random headers where they point to.</summary>
    private static void Garble(BlockRig rig, Random random, byte[] page)
    {
        var memory = rig.Virtio.Memory;
        var ring = 0x1_0000UL + (ulong)(random.Next(2) * 0x4000);
        var first = random.Next(16);
        var length = random.Next(1, 6);
        var type = random.Next(4) == 0 ? random.Next(15) : random.Next(2);
        var reads = type is 0 or 8;
        for (var i = 0; i < length; i++)
        {
            var index = (first + i) % 16;
            var address = random.Next(24) == 0 ? (ulong)random.NextInt64() : 0x2_0000UL + (ulong)random.Next(0x1_0000);
            var size = random.Next(24) == 0 ? (uint)random.Next() : i == 0 ? 16u : i == length - 1 ? 1u : 512u * (uint)random.Next(1, 4);
            var last = i == length - 1;
            var flags = (random.Next(24) == 0 ? random.Next(8) : (last ? 2 : 1) | (i > 0 && random.Next(8) == 0 != reads ? 2 : 0));
            var next = random.Next(24) == 0 ? random.Next(65536) : (index + 1) % 16;
            memory.TryWrite(new GuestAddress(ring + (ulong)(16 * index)), address);
            memory.TryWrite(new GuestAddress(ring + (ulong)(16 * index) + 8), size | ((ulong)flags << 32) | ((ulong)next << 48));
            if (i == 0)
            {
                BinaryPrimitives.WriteUInt32LittleEndian(page, (uint)type);
                BinaryPrimitives.WriteUInt64LittleEndian(page.AsSpan(8), random.Next(8) == 0 ? (ulong)random.NextInt64() : (ulong)random.Next(70));
                memory.TryWrite(new GuestAddress(address), page.AsSpan(0, 16));
            }
        }
        var available = new GuestAddress(ring + 256);
        memory.TryRead(available + 2, out ushort index16);
        memory.TryWrite(available + (ulong)(4 + (2 * (index16 % 16))), (ushort)(random.Next(24) == 0 ? random.Next(65536) : first));
        memory.TryWrite(available + 2, (ushort)(index16 + (random.Next(32) == 0 ? random.Next(65536) : 1)));
    }
}
