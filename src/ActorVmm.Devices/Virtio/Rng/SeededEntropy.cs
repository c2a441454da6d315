using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;

namespace ActorVmm.Devices.Virtio.Rng;

/// <summary>
/// Entropy that repeats: AES-256 in counter mode under a key made of the VM's seed and the consumer's name, so that every device has a
/// stream of its own. For virtual time only: whoever knows the seed knows the bytes.
/// </summary>
public sealed class SeededEntropy : IEntropySource, IDisposable
{
    private const int BlockSize = 16;
    private const int ChunkBlocks = 64;

    private readonly Aes _cipher = Aes.Create();
    private readonly byte[] _counters = new byte[ChunkBlocks * BlockSize];
    private readonly byte[] _stream = new byte[ChunkBlocks * BlockSize];

    /// <param name="seed">The VM's seed.</param>
    /// <param name="consumer">Whose stream it is, e.g. <c>rng0</c>.</param>
    public SeededEntropy(ulong seed, string consumer)
    {
        var text = Encoding.UTF8.GetBytes(consumer);
        var material = new byte[sizeof(ulong) + text.Length];
        BinaryPrimitives.WriteUInt64LittleEndian(material, seed);
        text.CopyTo(material, sizeof(ulong));
        _cipher.Key = SHA256.HashData(material);
    }

    /// <inheritdoc/>
    public void Fill(ulong position, Span<byte> into)
    {
        while (!into.IsEmpty)
        {
            var (block, skip) = (position / BlockSize, (int)(position % BlockSize));
            var blocks = Math.Min(ChunkBlocks, (skip + into.Length + BlockSize - 1) / BlockSize);
            for (var i = 0; i < blocks; i++)
                BinaryPrimitives.WriteUInt64LittleEndian(_counters.AsSpan(i * BlockSize), unchecked(block + (ulong)i));
            _ = _cipher.EncryptEcb(_counters.AsSpan(0, blocks * BlockSize), _stream, PaddingMode.None);
            var part = Math.Min(into.Length, blocks * BlockSize - skip);
            _stream.AsSpan(skip, part).CopyTo(into);
            into = into[part..];
            position = unchecked(position + (ulong)part);
        }
    }

    public void Dispose() => _cipher.Dispose();
}
