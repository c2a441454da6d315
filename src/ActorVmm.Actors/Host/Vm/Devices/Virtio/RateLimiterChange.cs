using ActorVmm.Devices.Virtio;

namespace ActorVmm.Actors.Host.Vm.Devices.Virtio;

/// <summary>A change of one direction's limits, bucket by bucket.</summary>
/// <param name="Bandwidth">The new bucket of bytes, which begins full; <see cref="TokenBucketSpec.Off"/> ends it, null leaves it.</param>
/// <param name="Operations">The same for requests or packets.</param>
public sealed record RateLimiterChange(TokenBucketSpec? Bandwidth = null, TokenBucketSpec? Operations = null)
{
    /// <summary>Both buckets anew.</summary>
    public static implicit operator RateLimiterChange(RateLimiterSpec whole) => ToRateLimiterChange(whole);

    /// <summary>Both buckets anew.</summary>
    public static RateLimiterChange ToRateLimiterChange(RateLimiterSpec whole) => new(whole.Bandwidth, whole.Operations);

    /// <summary>The limits after the change.</summary>
    public RateLimiterSpec ApplyTo(RateLimiterSpec present) =>
        new(Bandwidth ?? present.Bandwidth, Operations ?? present.Operations);
}
