namespace ActorVmm.Actors;

/// <summary>A network interface (virtio-net).</summary>
public sealed record NetSpec
{
    /// <summary>The user's name for it.</summary>
    public required string Id { get; init; }
}
