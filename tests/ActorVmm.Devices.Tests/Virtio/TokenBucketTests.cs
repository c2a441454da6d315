using ActorVmm.Devices.Virtio;
using CsCheck;
using Xunit;

namespace ActorVmm.Devices.Tests.Virtio;

public sealed class TokenBucketTests
{
    private const ulong Millisecond = 1_000_000;

    [Fact]
    public void A_full_bucket_gives_its_size_and_then_waits_for_the_refill()
    {
        var spec = new TokenBucketSpec(Size: 1000, OneTimeBurst: 0, RefillMilliseconds: 100);
        var bucket = TokenBucket.Full(spec, now: 0);
        Assert.True(bucket.TryTake(spec, 1000, 0, out bucket));
        Assert.False(bucket.TryTake(spec, 1, 0, out _));
        Assert.Equal(50 * Millisecond, bucket.ReadyAt(spec, 500));
        Assert.False(bucket.TryTake(spec, 500, (50 * Millisecond) - 1, out _));
        Assert.True(bucket.TryTake(spec, 500, 50 * Millisecond, out bucket));
        Assert.Equal(0UL, bucket.Budget);
    }

    [Fact]
    public void The_burst_goes_first_and_never_comes_back()
    {
        var spec = new TokenBucketSpec(10, 5, 10);
        var bucket = TokenBucket.Full(spec, 0);
        Assert.True(bucket.TryTake(spec, 4, 0, out bucket));
        Assert.Equal((10UL, 1UL), (bucket.Budget, bucket.Burst));
        Assert.True(bucket.TryTake(spec, 1, 0, out bucket));
        Assert.Equal((10UL, 0UL), (bucket.Budget, bucket.Burst));
        Assert.True(bucket.TryTake(spec, 10, 0, out bucket));
        Assert.True(bucket.TryTake(spec, 0, 60_000 * Millisecond, out bucket));
        Assert.True(bucket.TryTake(spec, 10, 60_000 * Millisecond, out bucket));
        Assert.Equal((0UL, 0UL), (bucket.Budget, bucket.Burst));
    }

    [Fact]
    public void A_request_larger_than_the_bucket_goes_and_is_paid_off_afterwards()
    {
        var spec = new TokenBucketSpec(1000, 0, 1000);
        var bucket = TokenBucket.Full(spec, 0);
        Assert.True(bucket.TryTake(spec, 3000, 0, out bucket));
        Assert.False(bucket.TryTake(spec, 1, (2000 * Millisecond) - 1, out _));
        Assert.Equal(2001 * Millisecond, bucket.ReadyAt(spec, 1));
        Assert.True(bucket.TryTake(spec, 1, 2001 * Millisecond, out _));
    }

    [Theory]
    [InlineData(0UL, 100UL)]
    [InlineData(100UL, 0UL)]
    public void A_bucket_of_no_size_or_of_no_refill_time_limits_nothing(ulong size, ulong refill)
    {
        var limiter = new RateLimiter(new(new(size, 0, refill), default), 0);
        for (var i = 0; i < 10; i++) Assert.True(limiter.TryTake(ulong.MaxValue, 0));
        Assert.Null(limiter.Deadline);
    }

    [Fact]
    public void A_limiter_takes_from_both_buckets_or_from_none()
    {
        var limiter = new RateLimiter(new(new(1000, 0, 1000), new(2, 0, 1000)), 0);
        Assert.True(limiter.TryTake(600, 0));
        var before = limiter.State;
        Assert.False(limiter.TryTake(600, 0));
        Assert.Equal(before, limiter.State);
        Assert.Equal(200 * Millisecond, limiter.Deadline);
        Assert.True(limiter.TryTake(600, 200 * Millisecond));
        Assert.Null(limiter.Deadline);
        Assert.False(limiter.TryTake(1, 300 * Millisecond));
        Assert.Equal(500 * Millisecond, limiter.Deadline); // the operations are what is missing
        Assert.Equal(2, limiter.Throttled);
    }

    [Fact]
    public void New_limits_begin_full_and_those_that_stay_go_on()
    {
        var limiter = new RateLimiter(new(new(1000, 0, 1000), new(2, 0, 1000)), 0);
        Assert.True(limiter.TryTake(1000, 0, 2));
        limiter.Change(limiter.Spec with { Bandwidth = new(500, 0, 10) }, 0);
        Assert.Equal(500UL, limiter.State.Bandwidth.Budget);
        Assert.Equal(0UL, limiter.State.Operations.Budget);
    }

    [Fact]
    public void A_bucket_never_gives_more_than_burst_and_size_and_rate_allow() =>
        Gen.Select(Gen.ULong[1, 1_000_000], Gen.ULong[0, 1_000_000], Gen.ULong[1, 10_000],
                Gen.Select(Gen.ULong[0, 2_000_000], Gen.ULong[0, 50_000_000]).Array[1, 100])
            .Sample((size, burst, refill, steps) =>
            {
                var spec = new TokenBucketSpec(size, burst, refill);
                var bucket = TokenBucket.Full(spec, 0);
                ulong now = 0;
                UInt128 taken = 0;
                ulong overdraft = 0; // the last oversized request may run ahead of the rate by what the bucket lacked
                foreach (var (tokens, wait) in steps)
                {
                    now += wait;
                    if (!bucket.TryTake(spec, tokens, now, out bucket))
                    {
                        var at = bucket.ReadyAt(spec, tokens);
                        Assert.True(at > now);
                        Assert.False(bucket.TryTake(spec, tokens, at - 1, out _));
                        Assert.True(bucket.TryTake(spec, tokens, at, out bucket));
                        now = at;
                    }
                    taken += tokens;
                    if (tokens > size) overdraft = tokens;
                    var allowed = (UInt128)size + burst + overdraft + ((UInt128)now * size / (refill * Millisecond)) + 1;
                    Assert.True(taken <= allowed, $"{taken} taken, {allowed} allowed");
                }
            });

    [Fact]
    public void No_values_overflow() =>
        Gen.Select(Gen.ULong, Gen.ULong, Gen.ULong, Gen.ULong, Gen.ULong, Gen.ULong).Sample((size, burst, refill, tokens, now, later) =>
        {
            var spec = new TokenBucketSpec(size, burst, refill);
            var bucket = TokenBucket.Full(spec, now);
            var total = bucket.TryTake(spec, tokens, now, out var after);
            Assert.True(total || tokens <= size);
            if (later > now) after.TryTake(spec, tokens, later, out after);
            Assert.True(after.Budget <= size && after.Burst <= burst);
            _ = after.ReadyAt(spec, tokens);
        });
}
