using System.Text;
using ActorVmm.Devices;

namespace ActorVmm.Testing.Devices;

/// <summary>Keeps what a device sent.</summary>
public sealed class RecordingSink : IByteSink
{
    readonly List<byte> _bytes = [];

    public IReadOnlyList<byte> Bytes => _bytes;

    public string Text => Encoding.Latin1.GetString([.. _bytes]);

    public void Write(ReadOnlySpan<byte> bytes) => _bytes.AddRange(bytes);
}
