using ActorVmm.Actors;
using ActorVmm.Backends.Disks;
using ActorVmm.Devices.Virtio;

namespace ActorVmm.Host.Tests.Descriptions;

public sealed class DiskDescriptionTests : IDisposable
{
    private const string Boot = """ "boot-source": { "kernel_image_path": "vmlinuz" } """;
    private readonly TemporaryDirectory _here = new();

    public DiskDescriptionTests()
    {
        foreach (var name in (string[])["a.img", "b.img", "c.img"]) _here.Write(name, "");
    }

    public void Dispose() => _here.Dispose();

    [Fact]
    public void Every_key_of_a_drive_is_read_and_the_root_comes_first()
    {
        var disks = _here.Json($$"""
            { {{Boot}}, "drives": [
              { "drive_id": "data", "is_root_device": false, "path_on_host": "a.img" },
              { "drive_id": "root", "is_root_device": true, "path_on_host": "b.img", "partuuid": "0eaa91a0-01", "is_read_only": true,
                "cache_type": "Writeback", "io_engine": "Async",
                "rate_limiter": { "bandwidth": { "size": 100, "refill_time": 10, "one_time_burst": 7 }, "ops": null } } ] }
            """).ToSpec().Disks;
        Assert.Equal(
            [
                new DiskSpec
                {
                    Id = "root", Path = At("b.img"), IsRoot = true, PartUuid = "0eaa91a0-01", ReadOnly = true, Writeback = true,
                    Engine = IoEngine.Async, Limits = new(new TokenBucketSpec(100, 7, 10), default),
                },
                new DiskSpec { Id = "data", Path = At("a.img") },
            ], disks);
    }

    [Fact]
    public void Of_two_drives_with_one_id_the_later_counts() =>
        Assert.Equal(At("b.img"), Assert.Single(_here.Json($$"""
            { {{Boot}}, "drives": [ { "drive_id": "d", "is_root_device": true, "path_on_host": "a.img" },
                                    { "drive_id": "d", "is_root_device": true, "path_on_host": "b.img" } ] }
            """).ToSpec().Disks).Path);

    [Fact]
    public void A_drive_whose_file_is_missing_is_named() =>
        Assert.Contains("cannot be opened: no such file", _here.JsonErrors(
            $$"""{ {{Boot}}, "drives": [{ "drive_id": "d", "is_root_device": true, "path_on_host": "none.img" }] }"""), StringComparison.Ordinal);

    [Fact]
    public void Every_key_of_a_block_device_is_read()
    {
        var disks = _here.Hocon("""
            kernel.path = vmlinuz
            block = [
              { path = a.img }
              { path = b.img, id = second, root = true, partuuid = x-1, read-only = true, cache = unsafe, engine = async, direct = true,
                queues = 4, queue-size = 1024, rate-limiter { ops { size = 5, refill-ms = 1, burst = 2 } } }
            ]
            """).ToSpec().Disks;
        Assert.Equal(new DiskSpec { Id = "disk0", Path = At("a.img"), Writeback = true }, disks[0]);
        Assert.Equal(new DiskSpec
        {
            Id = "second", Path = At("b.img"), IsRoot = true, PartUuid = "x-1", ReadOnly = true, Engine = IoEngine.Async, Direct = true,
            Queues = 4, QueueSize = 1024, Limits = new(default, new TokenBucketSpec(5, 2, 1)),
        }, disks[1]);
    }

    [Theory]
    [InlineData("{}", "block[0].path: missing")]
    [InlineData("{ path = a.img, id = \"a b\" }", "allowed are 1 to 64 letters")]
    [InlineData("{ path = a.img, id = x }, { path = b.img, id = x }", "is the name of another disk already")]
    [InlineData("{ path = a.img, root = true }, { path = b.img, root = true }", "another disk is the root already")]
    [InlineData("{ path = a.img, queue-size = 100 }", "allowed is a power of 2")]
    [InlineData("{ path = a.img, queues = 17 }", "block[0].queues = 17")]
    [InlineData("{ path = a.img, cache = none }", "one of writeback, unsafe")]
    [InlineData("{ path = a.img, partuuid = \"a b\" }", "allowed is a partition's UUID")]
    [InlineData("{ path = a.img, partuuid = 0eaa91a0-01 }", "block[0].partuuid = 0eaa91a0-01: names the partition that the root is on")]
    [InlineData("{ path = a.img, partuuid = x-1, root = false }", "allowed with root = true only")]
    [InlineData("{ path = a.img, size = 5 }", "block[0].size")]
    public void The_rules_of_block_devices_are_checked(string disks, string expected) =>
        Assert.Contains(expected, _here.HoconErrors($"kernel.path = vmlinuz\nblock = [{disks}]"), StringComparison.Ordinal);

    [Theory]
    [InlineData(18, 0, false, "block = ", "18 virtio devices are asked for; allowed are 17")]
    [InlineData(10, 8, false, "net = ", "18 virtio devices are asked for; allowed are 17")]
    [InlineData(10, 7, true, "entropy = ", "18 virtio devices are asked for; allowed are 17")]
    public void More_devices_than_interrupt_inputs_are_refused(int disks, int nets, bool entropy, string key, string expected)
    {
        string Native(int count) => $$"""
            kernel.path = vmlinuz
            block = [ {{string.Join(", ", Enumerable.Repeat("{ path = a.img }", count))}} ]
            net = [ {{string.Join(", ", Enumerable.Repeat("{ user {} }", nets))}} ]
            {{(entropy ? "entropy {}" : "")}}
            """;
        var errors = _here.HoconErrors(Native(disks));
        Assert.Contains($": {key}", errors, StringComparison.Ordinal);
        Assert.Contains(expected, errors, StringComparison.Ordinal);
        Assert.Equal(17 - nets - (entropy ? 1 : 0), _here.Hocon(Native(disks - 1)).ToSpec().Disks.Count);

        string Firecracker(int count) => $$"""
            { {{Boot}}, "drives": [ {{string.Join(", ", Enumerable.Range(0, count).Select(
                i => $$"""{ "drive_id": "d{{i}}", "is_root_device": false, "path_on_host": "a.img", "is_read_only": true }"""))}} ],
              "network-interfaces": [ {{string.Join(", ", Enumerable.Range(0, nets).Select(
                i => $$"""{ "iface_id": "n{{i}}", "host_dev_name": "tap{{i}}" }"""))}} ] {{(entropy ? ", \"entropy\": {}" : "")}} }
            """;
        errors = _here.JsonErrors(Firecracker(disks));
        Assert.Contains($": {key.Replace("block", "drives", StringComparison.Ordinal).Replace("net", "network-interfaces", StringComparison.Ordinal)}",
            errors, StringComparison.Ordinal);
        Assert.Contains(expected, errors, StringComparison.Ordinal);
        Assert.Equal(17 - nets - (entropy ? 1 : 0), _here.Json(Firecracker(disks - 1)).ToSpec().Disks.Count);
    }

    private string At(string name) => Path.Combine(_here.Path, name);
}
