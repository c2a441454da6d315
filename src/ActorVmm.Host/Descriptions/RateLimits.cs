using ActorVmm.Devices.Virtio;

namespace ActorVmm.Host.Descriptions;

/// <summary>Rate limits of a device, in both dialects.</summary>
internal static class RateLimits
{
    /// <summary>Firecracker's <c>rate_limiter</c>: two optional buckets with <c>size</c>, <c>refill_time</c> (ms),
    /// <c>one_time_burst</c>.</summary>
    public static RateLimiterSpec Firecracker(ObjectReader part, string key) => Read(part, key, static (limiter, name) =>
    {
        if (limiter.Object(name, Need.Nullable) is not { } bucket) return TokenBucketSpec.Off;
        var size = bucket.Integer("size", Need.Required, 0, ulong.MaxValue);
        var refill = bucket.Integer("refill_time", Need.Required, 0, ulong.MaxValue);
        var burst = bucket.Integer("one_time_burst", Need.Nullable, 0, ulong.MaxValue);
        return new TokenBucketSpec(size ?? 0, burst ?? 0, refill ?? 0); // unknown keys are allowed in a token bucket
    });

    /// <summary>The same in ActorVmm's own words: <c>size</c>, <c>refill-ms</c>, <c>burst</c>; unknown keys are refused.</summary>
    public static RateLimiterSpec Native(ObjectReader part, string key) => Read(part, key, static (limiter, name) =>
    {
        if (limiter.Object(name, Need.Nullable) is not { } bucket) return TokenBucketSpec.Off;
        var size = bucket.Integer("size", Need.Required, 0, ulong.MaxValue);
        var refill = bucket.Integer("refill-ms", Need.Required, 0, ulong.MaxValue);
        var burst = bucket.Integer("burst", Need.Nullable, 0, ulong.MaxValue);
        bucket.Finish();
        return new TokenBucketSpec(size ?? 0, burst ?? 0, refill ?? 0);
    });

    private static RateLimiterSpec Read(ObjectReader part, string key, Func<ObjectReader, string, TokenBucketSpec> bucket)
    {
        if (part.Object(key, Need.Nullable) is not { } limiter) return RateLimiterSpec.Off;
        var limits = new RateLimiterSpec(bucket(limiter, "bandwidth"), bucket(limiter, "ops"));
        limiter.Finish();
        return limits;
    }
}
