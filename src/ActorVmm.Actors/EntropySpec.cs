using ActorVmm.Devices.Virtio;

namespace ActorVmm.Actors;

/// <summary>An entropy device (virtio-rng).</summary>
public sealed record EntropySpec
{
    /// <summary>Bytes and requests per time; off for no limit.</summary>
    public RateLimiterSpec Limits { get; init; }
}
