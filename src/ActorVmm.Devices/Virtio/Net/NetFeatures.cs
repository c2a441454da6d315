namespace ActorVmm.Devices.Virtio.Net;

/// <summary>Feature bits of the network device (virtio 1.2 §5.1.3).</summary>
public static class NetFeatures
{
    /// <summary>Packets sent may have partial checksums.</summary>
    public const ulong Checksum = 1UL << 0;

    /// <summary>Packets received may have partial checksums.</summary>
    public const ulong GuestChecksum = 1UL << 1;

    /// <summary>The driver changes what it takes uncut while it runs.</summary>
    public const ulong ControlGuestOffloads = 1UL << 2;

    /// <summary>The device names the largest IP packet.</summary>
    public const ulong Mtu = 1UL << 3;

    /// <summary>The device names its address.</summary>
    public const ulong Mac = 1UL << 5;

    public const ulong GuestTso4 = 1UL << 7, GuestTso6 = 1UL << 8, GuestEcn = 1UL << 9, GuestUfo = 1UL << 10;
    public const ulong HostTso4 = 1UL << 11, HostTso6 = 1UL << 12, HostEcn = 1UL << 13, HostUfo = 1UL << 14;

    /// <summary>One packet received may fill several buffers.</summary>
    public const ulong MergeBuffers = 1UL << 15;

    /// <summary>The device tells whether the cable is in.</summary>
    public const ulong Status = 1UL << 16;

    /// <summary>There is a control queue.</summary>
    public const ulong ControlQueue = 1UL << 17;

    /// <summary>The driver says which packets it wants.</summary>
    public const ulong ControlReceive = 1UL << 18;

    /// <summary>The same, with more modes.</summary>
    public const ulong ControlReceiveExtra = 1UL << 20;

    /// <summary>There are several pairs of queues.</summary>
    public const ulong MultiQueue = 1UL << 22;

    /// <summary>The driver sets the device's address.</summary>
    public const ulong ControlMac = 1UL << 23;

    /// <summary>Features with the one that they cannot do without (§5.1.3.1).</summary>
    private static readonly (ulong Feature, ulong Needs)[] s_needs =
    [
        (GuestTso4, GuestChecksum), (GuestTso6, GuestChecksum), (GuestUfo, GuestChecksum),
        (HostTso4, Checksum), (HostTso6, Checksum), (HostUfo, Checksum),
        (ControlReceive, ControlQueue), (ControlReceiveExtra, ControlReceive), (MultiQueue, ControlQueue), (ControlMac, ControlQueue),
        (ControlGuestOffloads, ControlQueue),
    ];

    /// <summary>True where every feature has what it needs (§5.1.3.1).</summary>
    public static bool AreConsistent(ulong features)
    {
        foreach (var (feature, needs) in s_needs)
            if ((features & feature) != 0 && (features & needs) == 0) return false;
        return ((features & GuestEcn) == 0 || (features & (GuestTso4 | GuestTso6)) != 0)
            && ((features & HostEcn) == 0 || (features & (HostTso4 | HostTso6)) != 0);
    }

    /// <summary>The features without those that lack what they need.</summary>
    public static ulong Consistent(ulong features)
    {
        // Two rounds: what is dropped in the first may be what another needs.
        for (var round = 0; round < 2; round++)
        {
            foreach (var (feature, needs) in s_needs)
                if ((features & needs) == 0) features &= ~feature;
            if ((features & (GuestTso4 | GuestTso6)) == 0) features &= ~GuestEcn;
            if ((features & (HostTso4 | HostTso6)) == 0) features &= ~HostEcn;
        }
        return features;
    }

    /// <summary>What the driver takes undone in packets that it receives.</summary>
    public static PacketOffloads Receive(ulong features) =>
        (Has(features, GuestChecksum) ? PacketOffloads.Checksum : 0) | (Has(features, GuestTso4) ? PacketOffloads.Tcp4 : 0)
        | (Has(features, GuestTso6) ? PacketOffloads.Tcp6 : 0) | (Has(features, GuestEcn) ? PacketOffloads.TcpEcn : 0)
        | (Has(features, GuestUfo) ? PacketOffloads.Udp : 0);

    /// <summary>What the driver may leave undone in packets that it sends.</summary>
    public static PacketOffloads Send(ulong features) =>
        (Has(features, Checksum) ? PacketOffloads.Checksum : 0) | (Has(features, HostTso4) ? PacketOffloads.Tcp4 : 0)
        | (Has(features, HostTso6) ? PacketOffloads.Tcp6 : 0) | (Has(features, HostEcn) ? PacketOffloads.TcpEcn : 0)
        | (Has(features, HostUfo) ? PacketOffloads.Udp : 0);

    /// <summary>The feature bits of what a packet port can do.</summary>
    internal static ulong Of(PacketOffloads send, PacketOffloads receive)
    {
        ulong features = 0;
        if ((send & PacketOffloads.Checksum) != 0) features |= Checksum;
        if ((send & PacketOffloads.Tcp4) != 0) features |= HostTso4;
        if ((send & PacketOffloads.Tcp6) != 0) features |= HostTso6;
        if ((send & PacketOffloads.TcpEcn) != 0) features |= HostEcn;
        if ((send & PacketOffloads.Udp) != 0) features |= HostUfo;
        if ((receive & PacketOffloads.Checksum) != 0) features |= GuestChecksum;
        if ((receive & PacketOffloads.Tcp4) != 0) features |= GuestTso4;
        if ((receive & PacketOffloads.Tcp6) != 0) features |= GuestTso6;
        if ((receive & PacketOffloads.TcpEcn) != 0) features |= GuestEcn;
        if ((receive & PacketOffloads.Udp) != 0) features |= GuestUfo;
        return features;
    }

    private static bool Has(ulong features, ulong bit) => (features & bit) != 0;
}
