using System.Net;

namespace ActorVmm.Backends.UserNet;

/// <summary>Where the guest's packets go in the world: what a process of the host may reach, and no more.</summary>
internal sealed class Routes(UserNetSettings settings)
{
    private readonly IPEndPoint? _nameServer = settings.Resolves ? settings.NameServer ?? FromResolver() : null;

    /// <summary>Whether DNS queries have a place to go.</summary>
    public bool HasNameServer => _nameServer is not null;

    /// <summary>The host's name for an address and port of the guest's; null where the guest may not go there.</summary>
    public IPEndPoint? Resolve(uint address, ushort port)
    {
        if (address == settings.Dns) return port == 53 ? _nameServer : null;
        if (settings.Restrict || port == 0) return null;
        if (address == settings.Gateway) return new IPEndPoint(IPAddress.Loopback, port);
        // Nobody else is inside; "this network", loopback, groups and broadcast are not the guest's to name (RFC 1122 §3.2.1.3).
        if (settings.IsInside(address) || address >> 24 is 0 or 127 or >= 224) return null;
        return new IPEndPoint(SocketAddresses.ToAddress(address), port);
    }

    private static IPEndPoint? FromResolver()
    {
        try
        {
            foreach (var line in File.ReadLines("/etc/resolv.conf").Take(1000))
            {
                var words = line.Split((char[])[' ', '\t'], StringSplitOptions.RemoveEmptyEntries);
                if (words is ["nameserver", var address, ..] && IPAddress.TryParse(address, out var server)
                    && server.AddressFamily == System.Net.Sockets.AddressFamily.InterNetwork)
                    return new IPEndPoint(server, 53);
            }
        }
        catch (Exception unreadable) when (unreadable is IOException or UnauthorizedAccessException)
        {
            // A host without a resolver: the guest's queries get an answer that says so.
        }
        return null;
    }
}
