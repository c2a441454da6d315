using ActorVmm.Devices.Virtio.Net;
using ActorVmm.Memory;

namespace ActorVmm.Testing.Virtio;

/// <summary>The outside of a network device in the hands of a test: what was sent is kept, what waits is given.</summary>
public sealed class ScriptedPackets : IPacketPort
{
    private readonly Dictionary<int, Queue<byte[]>> _waiting = [];
    private Action _ready = static () => { };

    /// <summary>Packets sent: queue pair and bytes, header first.</summary>
    public List<(int Pair, byte[] Bytes)> Sent { get; } = [];

    /// <summary>Each call of <see cref="Configure"/>.</summary>
    public List<(PacketOffloads Receive, int Pairs)> Configured { get; } = [];

    public int MaxPairs { get; init; } = 1;
    public PacketOffloads SendOffloads { get; init; } = (PacketOffloads)31;
    public PacketOffloads ReceiveOffloads { get; init; } = (PacketOffloads)31;
    public bool LinkUp { get; set; } = true;

    /// <summary>What becomes of the next packets.</summary>
    public PacketSent Answer { get; set; }

    /// <summary>Sent packets are counted and not kept.</summary>
    public bool Forget { get; set; }

    /// <summary>Packets sent.</summary>
    public long SentCount { get; private set; }

    /// <summary>Room in the buffers of the last <see cref="Receive"/>.</summary>
    public int LastRoom { get; private set; }

    /// <summary>Called before a packet is sent.</summary>
    public Action? BeforeSend { get; set; }

    public IEnumerable<KeyValuePair<string, long>> Counters => [new("sent", SentCount)];

    /// <summary>Puts a packet on the wire; the header is all zeroes where none is given.</summary>
    public void Arrive(ReadOnlySpan<byte> frame, PacketHeader header = default, int pair = 0)
    {
        var packet = new byte[PacketHeader.Length + frame.Length];
        header.Write(packet);
        frame.CopyTo(packet.AsSpan(PacketHeader.Length));
        if (!_waiting.TryGetValue(pair, out var queue)) _waiting.Add(pair, queue = new Queue<byte[]>());
        queue.Enqueue(packet);
    }

    /// <summary>Packets that wait.</summary>
    public int Waiting(int pair = 0) => _waiting.TryGetValue(pair, out var queue) ? queue.Count : 0;

    public void Configure(PacketOffloads receive, int pairs) => Configured.Add((receive, pairs));

    public PacketSent Send(int pair, ReadOnlySpan<HostSegment> packet)
    {
        BeforeSend?.Invoke();
        SentCount++;
        if (!Forget)
        {
            var bytes = new List<byte>();
            foreach (var segment in packet) bytes.AddRange(segment.Bytes);
            Sent.Add((pair, [.. bytes]));
        }
        return Answer;
    }

    public int Receive(int pair, ReadOnlySpan<HostSegment> into)
    {
        LastRoom = 0;
        foreach (var segment in into) LastRoom += segment.Length;
        if (!_waiting.TryGetValue(pair, out var queue) || !queue.TryDequeue(out var packet)) return 0;
        var at = 0;
        foreach (var segment in into)
        {
            var part = Math.Min(segment.Length, packet.Length - at);
            packet.AsSpan(at, part).CopyTo(segment.Bytes);
            at += part;
        }
        return at;
    }

    public void OnReady(Action ready) => _ready = ready;

    /// <summary>Says that packets wait, as a tap's poller does.</summary>
    public void Ring() => _ready();

    public void Dispose() { }
}
