namespace ActorVmm.Devices.Virtio.Rng;

/// <summary>Where an entropy device's bytes come from.</summary>
public interface IEntropySource
{
    /// <summary>
    /// Fills <paramref name="into"/> with the bytes that stand at <paramref name="position"/> of the source: one that repeats gives the
    /// same bytes for the same position, and the host's source has no positions and gives fresh ones.
    /// </summary>
    void Fill(ulong position, Span<byte> into);

    /// <summary>Machine time in nanoseconds at which there are bytes again; null where there are some now.</summary>
    ulong? ReadyAt() => null;
}
