using System.Globalization;
using System.Net;

namespace ActorVmm.Backends.UserNet;

/// <summary>One port of the host that leads into the guest.</summary>
/// <param name="IsTcp">TCP, else UDP.</param>
/// <param name="HostAddress">Where the host listens; loopback unless said otherwise.</param>
/// <param name="HostPort">0: the system chooses one.</param>
/// <param name="GuestAddress">In host byte order; 0: the address that DHCP hands out.</param>
/// <param name="GuestPort">1 to 65535.</param>
public sealed record PortForward(bool IsTcp, IPAddress HostAddress, int HostPort, uint GuestAddress, int GuestPort)
{
    /// <summary>
    /// Reads <c>tcp:8080-80</c>, <c>udp:127.0.0.1:5353-53</c>, <c>tcp:0.0.0.0:8080-10.0.2.20:80</c>. Null with the reason where it is
    /// malformed.
    /// </summary>
    public static PortForward? Parse(string text, out string? fault)
    {
        ArgumentNullException.ThrowIfNull(text);
        fault = "allowed is tcp:[ADDRESS:]PORT-[ADDRESS:]PORT, or udp:..., such as tcp:127.0.0.1:8080-80";
        var protocol = text.IndexOf(':', StringComparison.Ordinal);
        if (protocol < 0 || text[..protocol] is not ("tcp" or "udp")) return null;
        var rest = text[(protocol + 1)..];
        var dash = rest.IndexOf('-', StringComparison.Ordinal);
        if (dash < 0 || !TryEnd(rest[..dash], 0, out var host, out var hostPort) || !TryEnd(rest[(dash + 1)..], 1, out var guest, out var guestPort))
            return null;
        fault = null;
        return new PortForward(text.StartsWith("tcp", StringComparison.Ordinal), host ?? IPAddress.Loopback, hostPort,
            guest is null ? 0 : SocketAddresses.ToUInt32(guest), guestPort);
    }

    /// <inheritdoc/>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture,
        $"{(IsTcp ? "tcp" : "udp")}:{HostAddress}:{HostPort}-{(GuestAddress == 0 ? "" : Wire.Ipv4.Text(GuestAddress) + ":")}{GuestPort}");

    private static bool TryEnd(string text, int least, out IPAddress? address, out int port)
    {
        address = null;
        var colon = text.LastIndexOf(':');
        if (colon >= 0)
        {
            // Four decimal parts: the short forms that IPAddress also reads are more often a mistake.
            if (!IPAddress.TryParse(text.AsSpan(0, colon), out address)
                || !string.Equals(address.ToString(), text[..colon], StringComparison.Ordinal)
                || address.AddressFamily != System.Net.Sockets.AddressFamily.InterNetwork)
            {
                port = 0;
                return false;
            }
        }
        return int.TryParse(text.AsSpan(colon + 1), NumberStyles.None, CultureInfo.InvariantCulture, out port)
            && port >= least && port <= 65535;
    }
}

/// <summary>IPv4 addresses as numbers in host byte order.</summary>
internal static class SocketAddresses
{
    public static uint ToUInt32(IPAddress address)
    {
        Span<byte> bytes = stackalloc byte[16];
        return address.TryWriteBytes(bytes, out var length) && length == 4
            ? System.Buffers.Binary.BinaryPrimitives.ReadUInt32BigEndian(bytes) : 0;
    }

    public static IPAddress ToAddress(uint value) =>
        new([(byte)(value >> 24), (byte)(value >> 16), (byte)(value >> 8), (byte)value]);
}
