using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Mmio;
using ActorVmm.Devices.Virtio.Queue;
using ActorVmm.Devices.Virtio.Rng;
using ActorVmm.Memory;
using ActorVmm.Testing.Devices;
using ActorVmm.Testing.Virtio;
using Xunit;

namespace ActorVmm.Devices.Tests.Virtio.Rng;

public sealed class EntropyDeviceTests : IDisposable
{
    private readonly ManualClock _clock = new();
    private readonly SeededEntropy _source = new(seed: 42, "rng0");
    private RateLimiterSpec _limits;
    private VirtioRig<EntropyDevice>? _rig;

    private VirtioRig<EntropyDevice> Rig => _rig ??= new(() => new EntropyDevice(_source, _clock, _limits));

    public void Dispose()
    {
        _rig?.Dispose();
        _source.Dispose();
    }

    [Fact]
    public void A_buffer_is_filled_with_the_stream_and_the_next_one_goes_on_from_there()
    {
        Rig.Driver.Start();
        var first = Ask(100);
        var second = Ask(28);
        var stream = new byte[128];
        _source.Fill(0, stream);
        Assert.Equal(stream, first.Concat(second));
        Assert.Equal(128UL, Rig.Device.Given);
    }

    [Fact]
    public void Seed_and_name_choose_the_stream_and_any_cut_of_it_is_the_same()
    {
        using var same = new SeededEntropy(42, "rng0");
        using var otherSeed = new SeededEntropy(43, "rng0");
        using var otherName = new SeededEntropy(42, "rng1");
        var whole = new byte[5000];
        _source.Fill(0, whole);
        foreach (var (at, count) in ((int, int)[])[(0, 5000), (1, 4999), (15, 2), (16, 16), (1023, 3), (17, 2048)])
        {
            var cut = new byte[count];
            same.Fill((ulong)at, cut);
            Assert.Equal(whole.AsSpan(at, count).ToArray(), cut);
        }

        foreach (var other in (SeededEntropy[])[otherSeed, otherName])
        {
            var bytes = new byte[32];
            other.Fill(0, bytes);
            Assert.NotEqual(whole[..32], bytes);
        }

        // Ones and zeroes in equal parts, and no byte value missing.
        Assert.InRange(whole.Sum(static value => int.PopCount(value)), 19_500, 20_500);
        Assert.Equal(256, whole.Distinct().Count());
    }

    [Fact]
    public void A_large_request_is_filled_in_part()
    {
        Rig.Driver.Start();
        var buffers = Enumerable.Range(0, 3).Select(_ => Rig.Driver.Writable(40_000)).ToArray();
        Rig.Driver.Rings[0].Add(buffers);
        Rig.Driver.Kick(0);
        Assert.Equal((uint)EntropyDevice.MaxBytes, Assert.Single(Rig.Driver.Rings[0].Collect()).Written);
        Assert.Contains(Rig.Driver.Bytes(buffers[1])[..25_000], value => value != 0);
        Assert.DoesNotContain(Rig.Driver.Bytes(buffers[1])[(EntropyDevice.MaxBytes - 40_000)..], value => value != 0);
        Assert.DoesNotContain(Rig.Driver.Bytes(buffers[2]), value => value != 0);
    }

    [Fact]
    public void Readable_buffers_are_left_alone_and_a_request_without_room_gets_nothing()
    {
        Rig.Driver.Start();
        var readable = Rig.Driver.Readable("unchanged"u8);
        Rig.Driver.Rings[0].Add(readable);
        Rig.Driver.Rings[0].Add(readable, Rig.Driver.Writable(4));
        Rig.Driver.Kick(0);
        Assert.Equal([0u, 4u], Rig.Driver.Rings[0].Collect().Select(used => used.Written));
        Assert.Equal("unchanged"u8.ToArray(), Rig.Driver.Bytes(readable));
    }

    [Fact]
    public void Requests_over_the_rate_wait_until_their_time_in_order()
    {
        _limits = new RateLimiterSpec(new TokenBucketSpec(Size: 100, OneTimeBurst: 0, RefillMilliseconds: 10), TokenBucketSpec.Off);
        Rig.Driver.Start();
        var (first, second, third) = (Rig.Driver.Writable(60), Rig.Driver.Writable(60), Rig.Driver.Writable(20));
        foreach (var buffer in (GuestBuffer[])[first, second, third]) Rig.Driver.Rings[0].Add(buffer);
        Rig.Driver.Kick(0);
        Assert.Single(Rig.Driver.Rings[0].Collect());
        var deadline = Rig.Mmio.Deadline;
        Assert.Equal(2_000_000UL, deadline); // 20 tokens are missing: a fifth of 10 ms
        _clock.Nanoseconds = deadline!.Value - 1;
        Rig.Mmio.Advance(_clock.Nanoseconds);
        Assert.Empty(Rig.Driver.Rings[0].Collect());
        _clock.Nanoseconds = deadline.Value;
        Rig.Mmio.Advance(_clock.Nanoseconds);
        Assert.Equal([60u], Rig.Driver.Rings[0].Collect().Select(used => used.Written));
        _clock.Nanoseconds = Rig.Mmio.Deadline!.Value;
        Rig.Mmio.Advance(_clock.Nanoseconds);
        Assert.Equal([20u], Rig.Driver.Rings[0].Collect().Select(used => used.Written));
        Assert.Null(Rig.Mmio.Deadline);
        Assert.Equal(2, Rig.Device.Throttled);
    }

    [Fact]
    public void A_restart_neither_repeats_nor_skips_bytes_and_keeps_the_limit()
    {
        _limits = new RateLimiterSpec(new TokenBucketSpec(1000, 0, 1_000_000), TokenBucketSpec.Off);
        Rig.Driver.Start();
        var stream = new byte[96];
        _source.Fill(0, stream);
        var before = Ask(32);
        Rig.Restart();
        var after = Ask(32);
        Rig.Driver.Start(); // the driver is unbound and bound again
        Rig.Restart();
        Assert.Equal(stream, before.Concat(after).Concat(Ask(32)));
        Rig.Driver.Rings[0].Add(Rig.Driver.Writable(1000 - 96 + 1));
        Rig.Driver.Kick(0);
        Assert.Empty(Rig.Driver.Rings[0].Collect());
    }

    [Fact]
    public void A_request_that_waits_in_a_queue_that_is_then_broken_leaves_no_deadline()
    {
        _limits = new RateLimiterSpec(new TokenBucketSpec(Size: 100, OneTimeBurst: 0, RefillMilliseconds: 10), TokenBucketSpec.Off);
        Rig.Driver.Start();
        var ring = Rig.Driver.Rings[0];
        ring.Add(Rig.Driver.Writable(100));
        var waiting = ring.Add(Rig.Driver.Writable(100));
        Rig.Driver.Kick(0);
        Assert.Equal(10_000_000UL, Rig.Mmio.Deadline);
        ring.SetDescriptor(waiting, new GuestAddress(1UL << 40), 100, GuestRing.Write, 0);
        _clock.Nanoseconds = 10_000_000;
        Rig.Mmio.Advance(_clock.Nanoseconds);
        Assert.Equal(QueueFault.BufferOutsideRam, Rig.Mmio.Queue(0).Fault);
        Assert.Null(Rig.Mmio.Deadline); // else the machine's alarm would ring for it for ever
    }

    [Fact]
    public void It_has_no_configuration_and_one_queue()
    {
        Assert.Equal(4u, Rig.Driver.Read(MmioRegister.DeviceId));
        Assert.Equal(0UL, Rig.Read(0x100, 8));
        Rig.Driver.Start();
        Assert.Single(Rig.Driver.Rings);
        Assert.Equal(256, Rig.Driver.Rings[0].Size);
    }

    private byte[] Ask(uint count)
    {
        var buffer = Rig.Driver.Writable(count);
        Rig.Driver.Rings[0].Add(buffer);
        Rig.Driver.Kick(0);
        Assert.Equal(count, Assert.Single(Rig.Driver.Rings[0].Collect()).Written);
        return Rig.Driver.Bytes(buffer);
    }
}
