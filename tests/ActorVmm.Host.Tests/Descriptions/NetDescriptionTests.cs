using System.Net;
using ActorVmm.Actors;
using ActorVmm.Backends.UserNet;
using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Net;

namespace ActorVmm.Host.Tests.Descriptions;

/// <summary>Network interfaces in both dialects.</summary>
public sealed class NetDescriptionTests : IDisposable
{
    private const string Kernel = """ "boot-source": { "kernel_image_path": "vmlinuz" }, "drives": [] """;

    private readonly TemporaryDirectory _here = new();

    public void Dispose() => _here.Dispose();

    [Fact]
    public void Firecrackers_interfaces_are_taps_with_address_mtu_and_limits()
    {
        var nets = _here.Json($$"""
            { {{Kernel}}, "network-interfaces": [
              { "iface_id": "eth0", "host_dev_name": "tap0", "guest_mac": "06:00:AC:10:00:02", "mtu": 1400,
                "rx_rate_limiter": { "bandwidth": { "size": 1000, "refill_time": 100 } },
                "tx_rate_limiter": { "ops": { "size": 5, "refill_time": 10, "one_time_burst": 7 } } },
              { "iface_id": "eth1", "host_dev_name": "tap1", "guest_mac": null, "mtu": null, "rx_rate_limiter": null } ] }
            """).ToSpec().Nets;
        Assert.Equal(
        [
            new NetSpec
            {
                Id = "eth0", Backend = new NetBackend.Tap("tap0"), Mac = new MacAddress(0x0600_AC10_0002), Mtu = 1400,
                ReceiveLimits = new RateLimiterSpec(new TokenBucketSpec(1000, 0, 100), default),
                TransmitLimits = new RateLimiterSpec(default, new TokenBucketSpec(5, 7, 10)),
            },
            new NetSpec { Id = "eth1", Backend = new NetBackend.Tap("tap1") },
        ], nets);
    }

    [Fact]
    public void Of_two_interfaces_with_one_id_the_later_counts()
    {
        var nets = _here.Json($$"""
            { {{Kernel}}, "network-interfaces": [
              { "iface_id": "a", "host_dev_name": "tap0", "guest_mac": "06:00:AC:10:00:02" },
              { "iface_id": "a", "host_dev_name": "tap1", "guest_mac": "06:00:AC:10:00:02" } ] }
            """).ToSpec().Nets;
        Assert.Equal(new NetBackend.Tap("tap1"), Assert.Single(nets).Backend);
    }

    [Theory]
    [InlineData("\"host_dev_name\": \"a/b\"", "network-interfaces[0].host_dev_name")]
    [InlineData("\"host_dev_name\": \"1234567890123456\"", "1 to 15 bytes")]
    [InlineData("\"host_dev_name\": \"t\", \"guest_mac\": \"01:00:AC:10:00:02\"", "of one station")]
    public void Firecrackers_bad_values_are_named(string keys, string expected) => Assert.Contains(expected,
        _here.JsonErrors($$"""{ {{Kernel}}, "network-interfaces": [{ "iface_id": "e", {{keys}} }] }"""), StringComparison.Ordinal);

    [Fact]
    public void Every_key_of_an_own_interface_is_read()
    {
        var nets = _here.Hocon("""
            kernel.path = vmlinuz
            net = [
              { id = up, tap = tap7, mac = "06:00:ac:10:00:02", mtu = 9000, pairs = 4, queue-size = 512, spoof-check = true
                without = [mrg-rxbuf, guest-tso4]
                rx-rate-limiter { bandwidth { size = 10, refill-ms = 20 } }, tx-rate-limiter { ops { size = 1, refill-ms = 2, burst = 3 } } }
              { user { network = 192.168.7.0, dns = "9.9.9.9:5353", restrict = true, forwards = ["tcp:8080-80", "udp:0.0.0.0:53-192.168.7.9:53"] } }
              { user {} }
              { user { dns = none, restrict = true } }
            ]
            """).ToSpec().Nets;
        Assert.Equal(new NetSpec
        {
            Id = "up", Backend = new NetBackend.Tap("tap7"), Mac = new MacAddress(0x0600_AC10_0002), Mtu = 9000, Pairs = 4, QueueSize = 512,
            SpoofCheck = true, Features = ~(NetFeatures.MergeBuffers | NetFeatures.GuestTso4),
            ReceiveLimits = new RateLimiterSpec(new TokenBucketSpec(10, 0, 20), default),
            TransmitLimits = new RateLimiterSpec(default, new TokenBucketSpec(1, 3, 2)),
        }, nets[0]);
        var user = Assert.IsType<NetBackend.User>(nets[1].Backend).Settings;
        Assert.Equal((0xC0A8_0700u, true, IPEndPoint.Parse("9.9.9.9:5353")), (user.Network, user.Restrict, user.NameServer));
        Assert.Equal(["tcp:127.0.0.1:8080-80", "udp:0.0.0.0:53-192.168.7.9:53"], user.Forwards.Select(static forward => forward.ToString()));
        Assert.Equal(("net2", new NetBackend.User(new UserNetSettings())), (nets[2].Id, nets[2].Backend));
        Assert.Equal([true, true, true, false], nets.Select(static net => net.Backend.HasOutside));
    }

    [Theory]
    [InlineData("{}", "is connected to nothing")]
    [InlineData("{ tap = t, user {} }", "may not be given together with tap")]
    [InlineData("{ tap = \"a b\" }", "net[0].tap = a b")]
    [InlineData("{ user {}, pairs = 2 }", "a user-mode network has one pair")]
    [InlineData("{ tap = t, pairs = 17 }", "from 1 to 16")]
    [InlineData("{ tap = t, queue-size = 100 }", "a power of 2 from 4 to 1024")]
    [InlineData("{ tap = t, mtu = 67 }", "from 68 to 65535")]
    [InlineData("{ tap = t, mac = \"6:0:ac:10:0:2\" }", "allowed is a MAC address")]
    [InlineData("{ tap = t, without = [speed] }", "allowed are csum, guest-csum")]
    [InlineData("{ tap = t, speed = 1 }", "net[0].speed")]
    [InlineData("{ user { network = 8.8.8.0 } }", "a private /24")]
    [InlineData("{ user { network = 10.0.2.1 } }", "a private /24")]
    [InlineData("{ user { dns = one.one } }", "an IPv4 address, ADDRESS:PORT, or none")]
    [InlineData("{ user { forwards = [\"tcp:80\"] } }", "net[0].user.forwards")]
    [InlineData("{ id = a, tap = t }, { id = a, tap = u }", "is the name of another interface already")]
    [InlineData("{ tap = t, mac = \"06:00:ac:10:00:02\" }, { tap = u, mac = \"06:00:AC:10:00:02\" }", "is used by another interface already")]
    public void Bad_values_are_refused_with_what_is_allowed(string nets, string expected) =>
        Assert.Contains(expected, _here.HoconErrors($"kernel.path = vmlinuz\nnet = [{nets}]"), StringComparison.Ordinal);

    [Fact]
    public void An_address_that_was_not_given_is_local_and_differs_between_VMs_and_devices()
    {
        var one = MacAddress.Derive("web-1", "net0");
        Assert.Equal(one, MacAddress.Derive("web-1", "net0"));
        Assert.Equal(4, new HashSet<MacAddress>
        {
            one, MacAddress.Derive("web-1", "net1"), MacAddress.Derive("web-2", "net0"), MacAddress.Derive("web-1n", "et0"),
        }.Count);
        Assert.StartsWith("02:ac:", one.ToString(), StringComparison.Ordinal);
    }
}
