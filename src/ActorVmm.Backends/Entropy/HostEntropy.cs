using System.Security.Cryptography;
using ActorVmm.Devices.Virtio.Rng;

namespace ActorVmm.Backends.Entropy;

/// <summary>The host's cryptographic random source; it has no positions.</summary>
public sealed class HostEntropy : IEntropySource
{
    public static readonly HostEntropy Instance = new();

    /// <inheritdoc/>
    public void Fill(ulong position, Span<byte> into) => RandomNumberGenerator.Fill(into);
}
