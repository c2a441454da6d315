namespace ActorVmm.Actors;

/// <summary>A disk (virtio-blk).</summary>
public sealed record DiskSpec
{
    /// <summary>The user's name for it.</summary>
    public required string Id { get; init; }
}
