using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Queue;

namespace ActorVmm.Testing.Virtio;

/// <summary>
/// The smallest device type that does something: copies a request's readable bytes into its writable ones, at once or when the test plays
/// the backend. Its configuration space is eight bytes that the driver may write, and its state is one byte of it.
/// </summary>
/// <param name="queueSizes">One queue for each.</param>
public sealed class EchoDevice(params IReadOnlyList<ushort> queueSizes) : IVirtioDevice
{
    private readonly byte[] _config = new byte[8];

    public uint DeviceId => 0x42;
    public ulong Features { get; init; } = 1UL << 3;
    public IReadOnlyList<ushort> QueueSizes { get; } = queueSizes;

    /// <summary>Requests wait in <see cref="Held"/> until the test completes them.</summary>
    public bool Hold { get; set; }

    /// <summary>Requests taken and not completed, in their order.</summary>
    public List<RequestId> Held { get; } = [];

    /// <summary>What was executed, for counting: (readable bytes as text, attempt).</summary>
    public List<(string Text, int Attempt)>? Executed { get; set; }

    public IVirtioPort? Port { get; private set; }
    public ulong Negotiated { get; private set; }
    public int Activations { get; private set; }
    public int Resets { get; private set; }
    public List<int> QueueResets { get; } = [];
    public Func<ulong, bool> Accepts { get; init; } = static _ => true;
    public Action? BeforeTake { get; set; }

    /// <summary>The backend completes this one alone; null for all.</summary>
    public RequestId? Chosen { get; set; }

    public int StateSize => 1;
    public bool AcceptsFeatures(ulong features) => Accepts(features);

    public void ReadConfig(int offset, Span<byte> into)
    {
        for (var i = 0; i < into.Length && offset + i < _config.Length; i++) into[i] = _config[offset + i];
    }

    public void WriteConfig(int offset, ReadOnlySpan<byte> from)
    {
        for (var i = 0; i < from.Length && offset + i < _config.Length; i++) _config[offset + i] = from[i];
        Port?.StateChanged();
    }

    public void Activate(ulong features, IVirtioPort port)
    {
        Activations++;
        Negotiated = features;
        Port = port;
    }

    public void Reset()
    {
        Resets++;
        Held.Clear();
        Array.Clear(_config);
    }

    public void OnQueueReset(int index)
    {
        QueueResets.Add(index);
        Held.RemoveAll(held => held.Queue == index);
    }

    public void OnNotify(int index)
    {
        BeforeTake?.Invoke();
        var queue = Port!.Queue(index);
        while (queue.TryTake(out var chain))
        {
            if (Hold) Held.Add(chain.Id);
            else Execute(queue, chain);
        }
    }

    public void OnBackend()
    {
        RequestId[] done = Chosen is { } chosen ? [chosen] : [.. Held];
        Chosen = null;
        foreach (var held in done) Finish(held);
    }

    /// <summary>Completes one request that was held. False where it is gone.</summary>
    public bool Finish(RequestId id)
    {
        Held.Remove(id);
        var queue = Port!.Queue(id.Queue);
        if (!queue.TryFind(id, out var chain)) return false;
        Execute(queue, chain);
        return true;
    }

    public void SaveState(Span<byte> into) => into[0] = _config[0];

    public bool RestoreState(ReadOnlySpan<byte> from)
    {
        _config[0] = from[0];
        return true;
    }

    private void Execute(VirtQueue queue, DescriptorChain chain)
    {
        var count = (int)Math.Min(Math.Min(chain.ReadableLength, chain.WritableLength), 4096);
        Span<byte> bytes = stackalloc byte[count];
        chain.TryRead(0, bytes);
        chain.TryWrite(0, bytes);
        Executed?.Add((System.Text.Encoding.ASCII.GetString(bytes), chain.Attempts));
        queue.Complete(chain, (uint)count);
    }
}
