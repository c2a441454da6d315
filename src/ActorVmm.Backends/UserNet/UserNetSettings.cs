using System.Net;
using ActorVmm.Devices.Virtio.Net;

namespace ActorVmm.Backends.UserNet;

/// <summary>
/// A user-mode network as it is asked for. The address plan is one /24: <c>.2</c> is the gateway, which is also the host's loopback, <c>.3</c>
/// the name server, <c>.15</c> the address that DHCP hands out.
/// </summary>
public sealed record UserNetSettings
{
    /// <summary>Limits of <see cref="Mtu"/>.</summary>
    public const int MinMtu = 576, MaxMtu = 65521;

    /// <summary>Length of a lease, in seconds: a day.</summary>
    internal const uint LeaseSeconds = 86400;

    /// <summary>The network's first address, in host byte order; the lowest byte is 0. Default 10.0.2.0.</summary>
    public uint Network { get; init; } = 0x0A00_0200;

    /// <summary>Largest IP packet, in bytes: 576 to 65521. Default 1500.</summary>
    public int Mtu { get; init; } = 1500;

    /// <summary>True: the guest reaches nothing but the gateway's own services and the forwarded ports' peers.</summary>
    public bool Restrict { get; init; }

    /// <summary>False: DNS queries go nowhere, and are answered with a failure at once. With <see cref="Restrict"/> and no forwarded ports
    /// nothing of the network is then outside, and its answers depend on the guest's packets alone.</summary>
    public bool Resolves { get; init; } = true;

    /// <summary>Where DNS queries go; null: the first name server of <c>/etc/resolv.conf</c>, or none.</summary>
    public IPEndPoint? NameServer { get; init; }

    /// <summary>Ports of the host that lead into the guest.</summary>
    public IReadOnlyList<PortForward> Forwards { get; init; } = [];

    /// <summary>TCP connections at once; further ones are refused.</summary>
    public int MaxTcpFlows { get; init; } = 256;

    /// <summary>UDP and ping conversations at once; a further one takes the place of the one that was silent for longest.</summary>
    public int MaxUdpFlows { get; init; } = 128;

    /// <summary>Bytes of buffers of all TCP connections. Connections beyond it work, with small windows.</summary>
    public int BufferBudget { get; init; } = 32 << 20;

    /// <summary>Why an address cannot be the network's; null where it can: a private /24 (RFC 1918).</summary>
    public static string? NetworkFault(IPAddress address)
    {
        ArgumentNullException.ThrowIfNull(address);
        var value = NetworkOf(address);
        if ((value & 0xff) != 0) return "the lowest byte must be 0";
        return value >> 24 == 10 || value >> 20 == 0xac1 || value >> 16 == 0xc0a8 ? null : "is not private";
    }

    /// <summary>An IPv4 address as <see cref="Network"/> wants it.</summary>
    public static uint NetworkOf(IPAddress address) => SocketAddresses.ToUInt32(address);

    internal uint Mask => 0xffff_ff00;
    internal uint Gateway => Network | 2;
    internal uint Dns => Network | 3;
    internal uint Guest => Network | 15;

    /// <summary>The gateway's Ethernet address (locally administered).</summary>
    internal static readonly MacAddress GatewayMac = new(0x5255_0A00_0202);

    internal bool IsInside(uint address) => (address & Mask) == Network;
}
