using System.Globalization;
using System.Net;
using System.Net.Sockets;
using ActorVmm.Actors;
using ActorVmm.Backends.Taps;
using ActorVmm.Backends.UserNet;
using ActorVmm.Devices.Virtio.Net;

namespace ActorVmm.Host.Descriptions;

/// <summary>Network interfaces in both dialects: Firecracker's <c>network-interfaces</c>, and ActorVmm's <c>net</c>.</summary>
internal static class NetDescriptions
{
    private const string MacForm = "allowed is a MAC address of one station, such as 06:00:AC:10:00:02";

    /// <summary>Features that <c>without</c> names; each takes along what needs it.</summary>
    private static readonly (string Name, ulong Feature)[] s_features =
    [
        ("csum", NetFeatures.Checksum), ("guest-csum", NetFeatures.GuestChecksum),
        ("host-tso4", NetFeatures.HostTso4), ("host-tso6", NetFeatures.HostTso6), ("host-ecn", NetFeatures.HostEcn),
        ("host-ufo", NetFeatures.HostUfo), ("guest-tso4", NetFeatures.GuestTso4), ("guest-tso6", NetFeatures.GuestTso6),
        ("guest-ecn", NetFeatures.GuestEcn), ("guest-ufo", NetFeatures.GuestUfo), ("mrg-rxbuf", NetFeatures.MergeBuffers),
        ("status", NetFeatures.Status), ("ctrl-vq", NetFeatures.ControlQueue),
    ];

    /// <summary>Firecracker's array; of two interfaces with the same id the later counts.</summary>
    public static IReadOnlyList<NetSpec> Firecracker(ObjectReader file)
    {
        var nets = new List<NetSpec>();
        foreach (var net in file.Objects("network-interfaces", Need.Optional))
        {
            var id = net.String("iface_id", Need.Required) ?? "";
            var tap = net.String("host_dev_name", Need.Required, "the name of a tap device") ?? "";
            if (tap.Length > 0 && TapSettings.NameFault(tap) is { } fault)
                net.Reject("host_dev_name", fault);
            var others = nets.Where(other => !string.Equals(other.Id, id, StringComparison.Ordinal));
            var spec = new NetSpec
            {
                Id = id, Backend = new NetBackend.Tap(tap), Mac = Mac(net, "guest_mac", others),
                Mtu = (int?)net.Integer("mtu", Need.Nullable, NetOptions.MinMtu, NetOptions.MaxMtu),
                ReceiveLimits = RateLimits.Firecracker(net, "rx_rate_limiter"),
                TransmitLimits = RateLimits.Firecracker(net, "tx_rate_limiter"),
            };
            net.Finish();
            if (nets.FindIndex(other => string.Equals(other.Id, id, StringComparison.Ordinal)) is var same and >= 0) nets[same] = spec;
            else nets.Add(spec);
        }
        if (nets.Count == 0) return [];
        return nets;
    }

    /// <summary>ActorVmm's own array <c>net</c>, in the guest's order (<c>eth0</c>, <c>eth1</c>, ...).</summary>
    public static IReadOnlyList<NetSpec> Native(ObjectReader vm)
    {
        var nets = new List<NetSpec>();
        foreach (var net in vm.Objects("net", Need.Nullable))
        {
            var id = net.String("id", Need.Nullable) ?? string.Create(CultureInfo.InvariantCulture, $"net{nets.Count}");
            if (!DescriptionChecks.IsName(id))
                net.Reject("id", "allowed are 1 to 64 letters, digits, '-' and '_'");
            else if (nets.Exists(other => string.Equals(other.Id, id, StringComparison.Ordinal)))
                net.Reject("id", "is the name of another interface already");
            var mac = Mac(net, "mac", nets);
            var mtu = (int?)net.Integer("mtu", Need.Nullable, NetOptions.MinMtu, NetOptions.MaxMtu);
            var pairs = (int)(net.Integer("pairs", Need.Nullable, 1, NetOptions.MaxPairs) ?? 1);
            var size = net.Integer("queue-size", Need.Nullable, 4, 1024, ", a power of 2") ?? 256;
            if (!ulong.IsPow2(size))
                net.Reject("queue-size", "allowed is a power of 2 from 4 to 1024");
            nets.Add(new NetSpec
            {
                Id = id, Backend = Backend(net, pairs, mtu), Mac = mac, Mtu = mtu, Pairs = pairs, QueueSize = (int)size,
                ReceiveLimits = RateLimits.Native(net, "rx-rate-limiter"), TransmitLimits = RateLimits.Native(net, "tx-rate-limiter"),
                SpoofCheck = net.Boolean("spoof-check", Need.Nullable) ?? false, Features = ~Without(net),
            });
            net.Finish();
        }
        if (nets.Count == 0) return [];
        return nets;
    }

    private static MacAddress? Mac(ObjectReader net, string key, IEnumerable<NetSpec> others)
    {
        if (net.String(key, Need.Nullable) is not { } text)
            return null;
        if (!MacAddress.TryParse(text, out var mac) || mac.IsGroup || mac.Value == 0)
            net.Reject(key, MacForm);
        else if (others.Any(other => other.Mac == mac))
            net.Reject(key, "is used by another interface already");
        return mac;
    }

    private static NetBackend Backend(ObjectReader net, int pairs, int? mtu)
    {
        var tap = net.String("tap", Need.Nullable, "the name of a tap interface");
        var user = net.Object("user", Need.Nullable);
        if (tap is not null && user is not null)
            net.Reject("user", "may not be given together with tap");
        if (tap is null && user is null)
            net.RejectWhole("is connected to nothing: give tap, or user for a network without privilege ({} is enough)");
        if (user is not null && pairs > 1)
            net.Reject("pairs", "a user-mode network has one pair");
        if (tap is null)
            return new NetBackend.User(user is null ? new UserNetSettings() : User(user, mtu));
        if (TapSettings.NameFault(tap) is { } fault)
            net.Reject("tap", fault);
        return new NetBackend.Tap(tap);
    }

    private static UserNetSettings User(ObjectReader user, int? mtu)
    {
        var settings = new UserNetSettings
        {
            Restrict = user.Boolean("restrict", Need.Nullable) ?? false, NameServer = NameServer(user, out var resolves), Resolves = resolves,
            Mtu = Math.Clamp(mtu ?? 1500, UserNetSettings.MinMtu, UserNetSettings.MaxMtu),
        };
        if (user.String("network", Need.Nullable, "the address of a /24, such as 10.0.2.0") is { } text)
        {
            if (!TryAddress(text, out var network) || UserNetSettings.NetworkFault(network) is not null)
                user.Reject("network", "allowed is the address of a private /24, such as 10.0.2.0 or 192.168.7.0");
            else
                settings = settings with { Network = UserNetSettings.NetworkOf(network) };
        }
        var forwards = new List<PortForward>();
        foreach (var node in user.Array("forwards", Need.Nullable))
        {
            string? fault = "allowed is an array of strings";
            if (node.Kind is NodeKind.String or NodeKind.Text && PortForward.Parse(node.Text, out fault) is { } forward) forwards.Add(forward);
            else user.Errors.Add(node, user.PathOf("forwards"), fault!);
        }
        user.Finish();
        return forwards.Count == 0 ? settings : settings with { Forwards = forwards };
    }

    private static IPEndPoint? NameServer(ObjectReader user, out bool resolves)
    {
        resolves = true;
        if (user.String("dns", Need.Nullable, "the address of a name server, such as 9.9.9.9, or none") is not { } text)
            return null;
        if (string.Equals(text, "none", StringComparison.Ordinal))
        {
            resolves = false;
            return null;
        }

        var colon = text.IndexOf(':', StringComparison.Ordinal);
        var port = 53;
        if (TryAddress(colon < 0 ? text : text[..colon], out var address)
            && (colon < 0 || (int.TryParse(text.AsSpan(colon + 1), NumberStyles.None, CultureInfo.InvariantCulture, out port) && port is > 0 and < 65536)))
            return new IPEndPoint(address, port);
        user.Reject("dns", "allowed is an IPv4 address, ADDRESS:PORT, or none");
        return null;
    }

    // Four decimal parts, no short forms.
    private static bool TryAddress(string text, out IPAddress address) =>
        IPAddress.TryParse(text, out address!) && address.AddressFamily == AddressFamily.InterNetwork
        && string.Equals(address.ToString(), text, StringComparison.Ordinal);

    private static ulong Without(ObjectReader net)
    {
        ulong without = 0;
        foreach (var node in net.Array("without", Need.Nullable))
        {
            var known = Array.Find(s_features, feature => string.Equals(feature.Name, node.Text, StringComparison.Ordinal));
            if (known.Name is null)
                net.Errors.Add(node, net.PathOf("without"), $"allowed are {string.Join(", ", s_features.Select(static feature => feature.Name))}");
            without |= known.Feature;
        }
        return without;
    }
}
