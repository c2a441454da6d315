using System.Buffers.Binary;
using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Mmio;
using ActorVmm.Devices.Virtio.Net;
using ActorVmm.Memory;
using ActorVmm.Testing;
using ActorVmm.Testing.Virtio;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.Devices.Tests.Virtio.Net;

/// <summary>
/// Packets and rings made at random. One target keeps to the rules and compares what arrives with what was sent; the other writes whatever it
/// likes into the rings. A failure prints the seed.
/// </summary>
public sealed class NetFuzzTests(ITestOutputHelper output)
{
    private const ulong RingStart = 0x1_0000, RingStep = 0x4000, BufferStart = 0x4_0000;

    [Fact]
    public void Packets_arrive_whole_and_in_order_both_ways_whatever_the_buffers()
    {
        var rounds = Nightly.Count(300, 30_000);
        var start = Seed();
        for (long round = 0; round < rounds; round++)
        {
            var seed = start + round;
            var random = new Random((int)seed);
            var merge = random.Next(2) == 0;
            using var rig = new NetRig().Start((merge ? NetFeatures.MergeBuffers : 0) | NetFeatures.GuestChecksum | NetFeatures.GuestTso4, size: 64);
            var posted = new Dictionary<uint, GuestBuffer[]>();
            for (var i = 0; i < 20; i++)
            {
                SendSome(rig, random, $"seed {seed}");
                ReceiveSome(rig, random, merge, posted, $"seed {seed}");
            }
            Assert.True(rig.Rig.LastFailure is null, $"seed {seed}: {rig.Rig.LastFailure}");
        }
    }

    [Fact]
    public void Nothing_that_a_driver_writes_makes_the_device_fail()
    {
        var executions = Nightly.Count(200_000, 10_000_000);
        var seed = Seed();
        var random = new Random((int)seed);
        using var rig = new NetRig(new NetOptions { Mac = NetRig.Mac, Pairs = 2, QueueSize = 16, SpoofCheck = true },
            new ScriptedPackets { MaxPairs = 2, Forget = true });
        var frame = NetRig.Frame(60_000);
        var before = GC.GetAllocatedBytesForCurrentThread();
        for (long done = 0; done < executions; done++)
        {
            if (done % 64 == 0 || rig.Driver.Status.HasFlag(DeviceStatus.NeedsReset)) Restart(rig, random);
            Garble(rig, random);
            if (random.Next(4) == 0 && rig.Packets.Waiting() < 8)
                rig.Packets.Arrive(frame.AsSpan(0, random.Next(8) == 0 ? random.Next(14, 60_000) : random.Next(14, 1500)), pair: random.Next(2));
            rig.Driver.Ring(random.Next(6));
            if (random.Next(4) == 0) rig.Rig.Backend();
            if (random.Next(32) == 0) rig.Control.SetPlugged(random.Next(2) == 0);
            if (random.Next(16) == 0) rig.Rig.Write((ulong)random.Next(0x140), 1 << random.Next(4), (ulong)random.NextInt64());
            Assert.True(rig.Rig.LastFailure is null, $"seed {seed}, execution {done}: {rig.Rig.LastFailure}");
        }
        Assert.True((GC.GetAllocatedBytesForCurrentThread() - before) / executions < 16384);
        output.WriteLine($"seed {seed}: {rig.Control.Counters}");
        foreach (var counter in (NetCounter[])[NetCounter.Sent, NetCounter.Received, NetCounter.SentBadLength, NetCounter.SentBadHeader,
            NetCounter.SentSpoofed, NetCounter.BadBuffers, NetCounter.Commands, NetCounter.BadCommands])
            Assert.True(rig[counter] > 0, $"the fuzzer reaches no {counter}");
    }

    private long Seed()
    {
        var seed = Environment.GetEnvironmentVariable("ACTORVMM_SEED") is { Length: > 0 } given
            ? long.Parse(given, System.Globalization.CultureInfo.InvariantCulture) : Nightly.Wanted ? Environment.ProcessId : 20260702;
        output.WriteLine($"seed {seed} (ACTORVMM_SEED repeats it)");
        return seed;
    }

    private static void SendSome(NetRig rig, Random random, string what)
    {
        var frames = Enumerable.Range(0, random.Next(1, 5)).Select(_ => NetRig.Frame(random.Next(14, random.Next(4) == 0 ? 9000 : 300))).ToArray();
        rig.Packets.Sent.Clear();
        foreach (var frame in frames)
        {
            var packet = NetRig.Packet(frame);
            var cuts = Enumerable.Range(0, random.Next(4)).Select(_ => random.Next(1, packet.Length)).Distinct().Order().ToArray();
            rig.Send(packet, cuts);
        }
        Assert.Equal(frames.Length, rig.Tx.Collect().Count);
        Assert.True(frames.Zip(rig.Packets.Sent).All(static pair => pair.Second.Bytes.AsSpan(12).SequenceEqual(pair.First)), what);
        Assert.Equal(frames.Length, rig.Packets.Sent.Count);
    }

    private static void ReceiveSome(NetRig rig, Random random, bool merge, Dictionary<uint, GuestBuffer[]> posted, string what)
    {
        var frames = Enumerable.Range(0, random.Next(1, 4)).Select(_ => NetRig.Frame(random.Next(14, random.Next(4) == 0 ? 9000 : 300))).ToArray();
        foreach (var frame in frames) rig.Packets.Arrive(frame);
        var got = new List<byte[]>();
        for (var turn = 0; got.Count < frames.Length && turn < 100; turn++)
        {
            while (rig.Rx.FreeCount > 20)
            {
                GuestBuffer[] buffers = [.. Enumerable.Range(0, random.Next(1, 4)).Select(_ =>
                    rig.Driver.Writable((uint)random.Next(merge ? 12 : 3100, merge ? 1200 : 3200)))];
                if (merge is false) buffers = [.. buffers, rig.Driver.Writable(9000)];
                posted[(uint)rig.Rx.Add(buffers)] = buffers;
            }
            rig.Rx.Publish();
            rig.Driver.Ring(0);
            rig.Backend();
            var left = 0;
            var packet = new List<byte>();
            while (rig.Rx.TryCollect(out var used))
            {
                var bytes = posted[used.Head].SelectMany(rig.Driver.Bytes).Take((int)used.Written).ToArray();
                Assert.Equal(used.Written, (uint)bytes.Length);
                if (left == 0) left = BinaryPrimitives.ReadUInt16LittleEndian(bytes.AsSpan(10));
                packet.AddRange(bytes);
                if (--left > 0) continue;
                got.Add([.. packet.Skip(12)]);
                packet.Clear();
            }
            Assert.True(left == 0, what);
        }
        Assert.True(got.Count == frames.Length && got.Zip(frames).All(static pair => pair.First.AsSpan().SequenceEqual(pair.Second)), what);
    }

    private static void Restart(NetRig rig, Random random)
    {
        var driver = rig.Driver;
        driver.Negotiate(random.Next(2) == 0 ? ulong.MaxValue : NetFeatures.Consistent((ulong)random.NextInt64()));
        for (var queue = 0; queue < 5; queue++)
        {
            var ring = new GuestRing(driver.Memory, new GuestAddress(RingStart + (ulong)queue * RingStep), 16, eventIndex: true, indirect: true);
            driver.SetUpQueue(queue, ring);
        }
        driver.AddStatus(DeviceStatus.DriverOk);
    }

    /// <summary>Writes random descriptors into one of the rings, most of them half sensible, and random headers where they point to.</summary>
    private static void Garble(NetRig rig, Random random)
    {
        var memory = rig.Rig.Memory;
        var queue = random.Next(5);
        var ring = RingStart + (ulong)queue * RingStep;
        var first = random.Next(16);
        var length = random.Next(1, 6);
        for (var i = 0; i < length; i++)
        {
            var index = (first + i) % 16;
            var address = random.Next(48) == 0 ? (ulong)random.NextInt64() : BufferStart + (ulong)random.Next(0x1_0000);
            var size = random.Next(48) == 0 ? (uint)random.Next() : (uint)random.Next(1, 1600);
            var last = i == length - 1;
            var writes = queue == 4 ? last : queue % 2 == 0 && random.Next(8) != 0;
            var flags = random.Next(48) == 0 ? random.Next(8) : (last ? 0 : 1) | (writes ? 2 : 0);
            var next = random.Next(48) == 0 ? random.Next(65536) : (index + 1) % 16;
            memory.TryWrite(new GuestAddress(ring + (ulong)(16 * index)), address);
            memory.TryWrite(new GuestAddress(ring + (ulong)(16 * index) + 8), size | ((ulong)flags << 32) | ((ulong)next << 48));
            if (i == 0) Head(memory, new GuestAddress(address), random, queue == 4);
        }
        var available = new GuestAddress(ring + 256);
        memory.TryRead(available + 2, out ushort at);
        memory.TryWrite(available + (ulong)(4 + 2 * (at % 16)), (ushort)(random.Next(48) == 0 ? random.Next(65536) : first));
        memory.TryWrite(available + 2, (ushort)(at + (random.Next(64) == 0 ? random.Next(65536) : 1)));
    }

    private static void Head(GuestMemory memory, GuestAddress at, Random random, bool command)
    {
        Span<byte> head = stackalloc byte[40];
        random.NextBytes(head);
        if (command)
        {
            (head[0], head[1], head[2]) = ((byte)random.Next(7), (byte)random.Next(3), (byte)random.Next(3));
            if (random.Next(2) == 0) head[3..8].Clear();
        }
        else
        {
            if (random.Next(3) != 0) head[..12].Clear();
            if (random.Next(3) != 0) NetRig.Mac.CopyTo(head[18..]);
        }
        memory.TryWrite(at, head);
    }
}
