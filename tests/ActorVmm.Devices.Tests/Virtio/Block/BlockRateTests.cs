using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Block;
using Xunit;

namespace ActorVmm.Devices.Tests.Virtio.Block;

public sealed class BlockRateTests
{
    private const ulong Millisecond = 1_000_000;

    [Fact]
    public void Requests_over_the_rate_wait_for_the_devices_own_deadline()
    {
        using var rig = Limited(new TokenBucketSpec(2, 0, 100));
        for (var i = 0; i < 5; i++) rig.Guest.AddIn(BlockRequestType.In, (ulong)i, 512);
        rig.Driver.Kick(0);
        Assert.Equal(2, rig.Driver.Rings[0].Collect().Count);
        Assert.Equal(50 * Millisecond, rig.Virtio.Mmio.Deadline);
        rig.Driver.Ring(0); // asking again changes nothing
        Assert.Empty(rig.Driver.Rings[0].Collect());
        rig.Clock.RunTo(50 * Millisecond, rig.Virtio.Mmio);
        Assert.Single(rig.Driver.Rings[0].Collect());
        Assert.True(rig.Virtio.Line.Asserted);
        rig.Clock.RunTo(200 * Millisecond, rig.Virtio.Mmio);
        Assert.Equal(2, rig.Driver.Rings[0].Collect().Count);
        Assert.Null(rig.Virtio.Mmio.Deadline);
        Assert.Equal(3, rig.Counters.Throttled);
    }

    [Fact]
    public void Data_counts_as_bytes_and_flushes_do_not()
    {
        using var rig = Limited(default, new TokenBucketSpec(1024, 0, 1000));
        rig.Guest.AddOut(BlockRequestType.Out, 0, new byte[1024]);
        for (var i = 0; i < 10; i++) rig.Guest.AddOut(BlockRequestType.Flush, 0, []);
        rig.Guest.AddOut(BlockRequestType.Out, 0, new byte[512]);
        rig.Driver.Kick(0);
        Assert.Equal(11, rig.Driver.Rings[0].Collect().Count);
        Assert.Equal(500 * Millisecond, rig.Virtio.Mmio.Deadline);
    }

    [Fact]
    public void A_restarted_device_has_no_more_tokens_than_the_failed_one()
    {
        using var rig = Limited(new TokenBucketSpec(2, 0, 100));
        for (var i = 0; i < 3; i++) rig.Guest.AddIn(BlockRequestType.In, 0, 512);
        rig.Driver.Kick(0);
        Assert.Equal(2, rig.Driver.Rings[0].Collect().Count);
        rig.Virtio.Restart();
        rig.Driver.Ring(0);
        Assert.Empty(rig.Driver.Rings[0].Collect());
        rig.Clock.RunTo(50 * Millisecond, rig.Virtio.Mmio);
        Assert.Single(rig.Driver.Rings[0].Collect());
    }

    [Fact]
    public void New_limits_let_waiting_requests_go()
    {
        using var rig = Limited(new TokenBucketSpec(1, 0, 100_000));
        for (var i = 0; i < 8; i++) rig.Guest.AddIn(BlockRequestType.In, 0, 512);
        rig.Driver.Kick(0);
        Assert.Single(rig.Driver.Rings[0].Collect());
        rig.Virtio.Device.RateLimit = RateLimiterSpec.Off;
        rig.Virtio.Backend(); // publishes
        Assert.Equal(7, rig.Driver.Rings[0].Collect().Count);
    }

    [Fact]
    public void Every_queue_gets_its_turn()
    {
        using var rig = Limited(new TokenBucketSpec(1, 0, 10), queues: 2);
        for (var i = 0; i < 10; i++)
        {
            rig.Guest.AddIn(BlockRequestType.In, 0, 512, queue: 0);
            rig.Guest.AddIn(BlockRequestType.In, 0, 512, queue: 1);
        }
        rig.Driver.Kick(0);
        rig.Driver.Kick(1);
        rig.Clock.RunTo(100 * Millisecond, rig.Virtio.Mmio);
        Assert.InRange(rig.Driver.Rings[0].Collect().Count, 5, 6);
        Assert.InRange(rig.Driver.Rings[1].Collect().Count, 5, 6);
    }

    [Fact]
    public void A_saved_state_with_too_many_tokens_is_refused()
    {
        using var rig = Limited(new TokenBucketSpec(1, 0, 10));
        var state = new byte[rig.Virtio.Device.StateSize];
        rig.Virtio.Device.SaveState(state);
        Assert.True(rig.Virtio.Device.RestoreState(state));
        state[4 * 8] = 2;
        Assert.False(rig.Virtio.Device.RestoreState(state));
        Assert.False(rig.Virtio.Device.RestoreState(state.AsSpan(1)));
    }

    private static BlockRig Limited(TokenBucketSpec operations, TokenBucketSpec bandwidth = default, int queues = 1) =>
        new BlockRig(settings: new BlockSettings { RateLimit = new(bandwidth, operations), Queues = queues }).Started();
}
