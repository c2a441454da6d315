using ActorVmm.Memory;

namespace ActorVmm.Devices.Virtio.Net;

/// <summary>What may be left undone in packets that cross the port, one direction at a time. The values are the kernel's TUN_F_*.</summary>
[Flags]
public enum PacketOffloads : byte
{
    None = 0,

    /// <summary>Checksums of TCP and UDP may be partial (<see cref="PacketFlags.NeedsChecksum"/>).</summary>
    Checksum = 1,

    /// <summary>TCP over IPv4 may come uncut, up to 64 KiB.</summary>
    Tcp4 = 2,

    /// <summary>TCP over IPv6 may come uncut.</summary>
    Tcp6 = 4,

    /// <summary>Uncut TCP may carry congestion marks.</summary>
    TcpEcn = 8,

    /// <summary>UDP may come uncut.</summary>
    Udp = 16,
}

/// <summary>What became of a packet.</summary>
public enum PacketSent : byte
{
    /// <summary>It is out.</summary>
    Done,

    /// <summary>It was dropped, as a network does: link down, no room, refused by the backend. Counted there; nothing to be done.</summary>
    Dropped,
}

/// <summary>
/// The outside of a network device: a tap, a user-mode network, or a wrapper that injects faults. Packets begin with a
/// <see cref="PacketHeader"/> and lie in guest memory, in pieces, where the port reads and writes them without a copy in between. Never
/// waits, and whatever happens outside is a drop and a count, never an exception.
/// </summary>
public interface IPacketPort : IDisposable
{
    /// <summary>How many pairs of queues it can serve at once; 1 or more.</summary>
    int MaxPairs { get; }

    /// <summary>What packets sent through the port may leave undone.</summary>
    PacketOffloads SendOffloads { get; }

    /// <summary>What packets received could leave undone, where the driver takes it.</summary>
    PacketOffloads ReceiveOffloads { get; }

    /// <summary>Whether the cable is in, on the outside.</summary>
    bool LinkUp { get; }

    /// <summary>
    /// The driver is ready (or gone): it takes packets with <paramref name="receive"/> left undone and no more, on the first
    /// <paramref name="pairs"/> pairs.
    /// </summary>
    void Configure(PacketOffloads receive, int pairs);

    /// <summary>
    /// Sends one packet: header and frame, cut into <paramref name="packet"/>'s pieces anywhere. The pieces are not used after the call.
    /// </summary>
    /// <param name="pair">The transmit queue it came from.</param>
    /// <param name="packet">Its pieces, at most <see cref="PacketLimits.MaxSegments"/>.</param>
    PacketSent Send(int pair, ReadOnlySpan<HostSegment> packet);

    /// <summary>Packets that were sent on this pair, and wait in the port for their time, go out now where that has come.</summary>
    void Release(int pair) { }

    /// <summary>
    /// Takes one packet, header first, into the pieces. A packet that does not fit is lost, so give at least
    /// <see cref="PacketLimits.MaxPacket"/> bytes.
    /// </summary>
    /// <param name="pair">The receive queue it is for.</param>
    /// <param name="into">Pieces to be written.</param>
    /// <returns>Bytes written, header included; 0 where nothing waits.</returns>
    int Receive(int pair, ReadOnlySpan<HostSegment> into);

    /// <summary>
    /// Names who is told that packets may wait, or the link may have changed: from any thread, also spuriously; never from inside
    /// a call to the port. One listener; a later one takes its place.
    /// </summary>
    void OnReady(Action ready);

    /// <summary>Counters by name, for inspection. Any thread.</summary>
    IEnumerable<KeyValuePair<string, long>> Counters { get; }
}

/// <summary>Sizes that both sides of a packet port agree on.</summary>
public static class PacketLimits
{
    /// <summary>The largest packet: header, Ethernet header, VLAN tag, 64 KiB of IP (virtio 1.2 §5.1.6.3.1: 65550, and the header).</summary>
    public const int MaxPacket = PacketHeader.Length + 65550;

    /// <summary>Pieces in one packet; the kernel's IOV_MAX.</summary>
    public const int MaxSegments = 1024;

    /// <summary>Header and Ethernet header: no packet is shorter.</summary>
    public const int MinPacket = PacketHeader.Length + 14;
}
