using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Mmio;
using ActorVmm.Devices.Virtio.Queue;
using ActorVmm.Devices.Virtio.Rng;
using ActorVmm.Memory;
using ActorVmm.Testing;
using ActorVmm.Testing.Devices;
using ActorVmm.Testing.Virtio;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.Devices.Tests.Virtio.Rng;

/// <summary>
/// The entropy device under drivers made at random: one that keeps the rules gets the stream, byte for byte, and one that does not gets
/// nothing out of it but a broken queue. <c>ACTORVMM_SEED</c> repeats a run.
/// </summary>
public sealed class EntropyFuzzTests(ITestOutputHelper output)
{
    private const ushort Entries = 16;
    private const ulong RingAt = 0x1_0000;
    private const ulong BuffersAt = 0x2_0000;
    private const ulong BuffersEnd = 0x8_0000;
    private const ulong Canary = 0xC_0000;

    /// <summary>The property: whatever the requests' sizes and cuts, the limits, the restarts and the resets, the bytes given are the stream.</summary>
    [Fact]
    public void Requests_of_any_shape_get_the_stream_in_order()
    {
        var requests = Nightly.Count(20_000, 1_000_000);
        var random = new Random((int)Seed());
        var clock = new ManualClock();
        using var source = new SeededEntropy(7, "rng0");
        var limits = new RateLimiterSpec(new TokenBucketSpec(5000, 3000, 10), new TokenBucketSpec(20, 0, 10));
        using var rig = new VirtioRig<EntropyDevice>(() => new EntropyDevice(source, clock, limits), memoryMib: 1);
        var ring = new GuestRing(rig.Memory, new GuestAddress(RingAt), Entries, eventIndex: true, indirect: true);
        ulong position = 0;
        var made = 0;
        var pending = new Queue<GuestBuffer[]>();
        var expected = new byte[3 * 2000];
        for (long n = 0; n < requests; n++)
        {
            if (n % 500 == 0)
            {
                pending.Clear(); // a reset answers nothing, and takes nothing from the stream
                if (n > 0 && random.Next(2) == 0) rig.Restart(); // nor does one that is the first thing a fresh instance hears of
                Start(rig, random, ring, out ring);
            }

            if (ring.FreeCount >= 3)
            {
                var request = Request(random, made++);
                ring.Add(request);
                pending.Enqueue(request);
            }

            if (ring.Publish()) rig.Driver.Ring(0);
            if (random.Next(3) == 0 && rig.Mmio.Deadline is { } due)
            {
                clock.Nanoseconds = Math.Max(clock.Nanoseconds, due);
                rig.Mmio.Advance(due);
                Assert.True(rig.Mmio.Deadline is not { } next || next > clock.Nanoseconds, $"request {n}: due again at once");
            }

            if (random.Next(50) == 0) rig.Restart();
            while (ring.TryCollect(out var used))
            {
                var request = pending.Dequeue();
                var stream = expected.AsSpan(0, request.Sum(static buffer => (int)buffer.Length));
                source.Fill(position, stream);
                Assert.Equal((uint)stream.Length, used.Written);
                Assert.True(request.SelectMany(rig.Driver.Bytes).SequenceEqual(stream.ToArray()), $"request {n}");
                position += used.Written;
            }
        }

        output.WriteLine($"{requests} requests, {position} bytes");
        Assert.Equal(position, rig.Device.Given);
        Assert.InRange(position, (ulong)requests, ulong.MaxValue);
    }

    [Fact]
    public void Nothing_that_a_driver_writes_makes_the_device_fail()
    {
        var executions = Nightly.Count(200_000, 10_000_000);
        var random = new Random((int)Seed());
        var clock = new ManualClock();
        var limits = new RateLimiterSpec(new TokenBucketSpec(100_000, 0, 10), new TokenBucketSpec(50, 0, 10));
        using var source = new SeededEntropy(7, "rng0");
        using var rig = new VirtioRig<EntropyDevice>(() => new EntropyDevice(source, clock, limits), memoryMib: 1);
        var ring = new GuestRing(rig.Memory, new GuestAddress(RingAt), Entries, eventIndex: true, indirect: true);
        rig.Memory.TrySliceForWrite(new GuestAddress(Canary), 4096, out var canary);
        canary.Fill(0xA5);
        var heap = new HeapWatch(executions);
        long broken = 0, waited = 0;
        for (long n = 0; n < executions; n++)
        {
            if (n % 64 == 0 || rig.Mmio.Queue(0).Fault != QueueFault.None)
            {
                if (n % 64 != 0) broken++;
                Start(rig, random, ring, out ring);
            }

            Garble(random, ring);
            rig.Driver.Ring(random.Next(16) == 0 ? random.Next(3) : 0);
            if (random.Next(64) == 0) rig.Write((ulong)random.Next(0x140), 1 << random.Next(4), (ulong)random.NextInt64());
            if (rig.Mmio.Deadline is { } due && random.Next(2) == 0)
            {
                waited++;
                clock.Nanoseconds = Math.Max(clock.Nanoseconds, due);
                rig.Mmio.Advance(clock.Nanoseconds);
                Assert.True(rig.Mmio.Deadline is not { } next || next > clock.Nanoseconds, $"execution {n}: due again at once");
            }

            if (random.Next(256) == 0) rig.Restart();
            Assert.True(rig.LastFailure is null, $"execution {n}: {rig.LastFailure}");
            heap.At(n);
        }

        output.WriteLine($"{executions} executions, {rig.Device.Given} bytes, {broken} queues broken, {waited} waits, {heap.Growth} bytes kept");
        rig.Memory.TrySlice(new GuestAddress(Canary), 4096, out var after);
        Assert.Equal(-1, after.IndexOfAnyExcept((byte)0xA5));
        Assert.InRange(heap.Growth, long.MinValue, HeapWatch.Bound);
        // It is no test where nothing is sound, or nothing is not.
        foreach (var reached in (ReadOnlySpan<long>)[broken, waited]) Assert.InRange(reached, executions / 1000, executions);
        Assert.True(rig.Device.Given > (ulong)executions);
    }

    private static void Start(VirtioRig<EntropyDevice> rig, Random random, GuestRing before, out GuestRing ring)
    {
        before.Clear();
        rig.Driver.Negotiate(VirtioFeatures.EventIndex | (random.Next(2) == 0 ? 0 : VirtioFeatures.IndirectDescriptors)
            | (random.Next(2) == 0 ? 0 : VirtioFeatures.InOrder));
        ring = new GuestRing(rig.Memory, new GuestAddress(RingAt), Entries, eventIndex: true,
            indirect: (rig.Driver.Features & VirtioFeatures.IndirectDescriptors) != 0);
        rig.Driver.SetUpQueue(0, ring);
        rig.Driver.AddStatus(DeviceStatus.DriverOk);
    }

    /// <summary>One to three writable buffers at a place of their own.</summary>
    private static GuestBuffer[] Request(Random random, int slot)
    {
        var at = BuffersAt + ((ulong)(slot % Entries) * 0x2000) + (ulong)random.Next(64);
        var buffers = new GuestBuffer[random.Next(1, 4)];
        for (var i = 0; i < buffers.Length; i++)
        {
            buffers[i] = new GuestBuffer(new GuestAddress(at), (uint)random.Next(1, 2000), Writable: true);
            at += buffers[i].Length + (ulong)random.Next(32);
        }

        return buffers;
    }

    /// <summary>A few descriptors, most of them half sensible, and one more of them available.</summary>
    private static void Garble(Random random, GuestRing ring)
    {
        for (var i = random.Next(4); i >= 0; i--)
        {
            var address = random.Next(24) == 0
                ? (ulong)random.NextInt64(long.MinValue, long.MaxValue) : BuffersAt + (ulong)random.NextInt64((long)(BuffersEnd - BuffersAt) / 2);
            var length = random.Next(24) == 0 ? (uint)random.Next() : (uint)random.Next(random.Next(16) == 0 ? 0x2_0000 : 256);
            var flags = random.Next(24) == 0 ? random.Next(65536) : random.Next(4) == 0 ? GuestRing.Write | GuestRing.Next : GuestRing.Write;
            ring.SetDescriptor(random.Next(Entries), new GuestAddress(address), length, (ushort)flags,
                (ushort)random.Next(random.Next(24) == 0 ? 65536 : Entries));
        }

        var index = ring.AvailableIndex;
        ring.SetAvailable(index, (ushort)random.Next(random.Next(24) == 0 ? 65536 : Entries));
        ring.SetUsedEvent((ushort)random.Next(65536));
        ring.SetAvailableIndex((ushort)(index + (random.Next(64) == 0 ? random.Next(65536) : 1)));
    }

    private long Seed()
    {
        var seed = Environment.GetEnvironmentVariable("ACTORVMM_SEED") is { Length: > 0 } given
            ? long.Parse(given, System.Globalization.CultureInfo.InvariantCulture) : Nightly.Wanted ? Environment.ProcessId : 20261123;
        output.WriteLine($"seed {seed} (ACTORVMM_SEED repeats it)");
        return seed;
    }
}
