using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using ActorVmm.Actors;
using ActorVmm.Actors.Host.Vm;
using ActorVmm.Actors.Host.Vm.Devices.Virtio;
using ActorVmm.Devices.Virtio;
using ActorVmm.Host.Fleet;
using ActorVmm.Host.Firecracker;
using ActorVmm.Host.Tests.Fleet;
using ActorVmm.Hypervisor.Soft;
using ActorVmm.Testing.Guests;

namespace ActorVmm.Host.Tests.Firecracker;

/// <summary>What PATCH asks of a drive or an interface arrives at its device.</summary>
public sealed class UpdateTests : IDisposable
{
    private static readonly TokenBucketSpec s_bucket = new(1000, 5, 20);

    private readonly TemporaryDirectory _here = new();

    public void Dispose() => _here.Dispose();

    [Fact]
    public async Task A_change_names_the_device_by_its_place_and_leaves_out_what_the_body_leaves_out()
    {
        var disk = _here.Write("disk", "");
        var vm = new FakeMicrovm { State = MicrovmState.Running };
        using var metrics = new FirecrackerMetrics(TimeProvider.System);
        var api = new FirecrackerApi(vm, metrics, _here.Path);
        const string Bucket = """{"size":1000,"one_time_burst":5,"refill_time":20}""";
        foreach (var (path, body) in ((string, string)[])
            [
                ("/drives/b", """{"drive_id":"b","path_on_host":"disk"}"""),
                ("/drives/a", $$$"""{"drive_id":"a","rate_limiter":{"bandwidth":{{{Bucket}}},"ops":null}}"""),
                ("/drives/a", """{"drive_id":"a","rate_limiter":{"ops":{"size":0,"refill_time":0}}}"""),
                ("/network-interfaces/a", $$$"""{"iface_id":"a","tx_rate_limiter":{"ops":{{{Bucket}}}}}"""),
            ])
            Assert.Equal(204, (await api.HandleAsync(new MicroRequest("PATCH", path, Encoding.UTF8.GetBytes(body)))).Status);

        Assert.Equal(
        [
            ("blk1", new DiskUpdate(disk)),
            ("blk0", new DiskUpdate(Limits: new RateLimiterChange(Bandwidth: s_bucket))),
            ("blk0", new DiskUpdate(Limits: new RateLimiterChange(Operations: TokenBucketSpec.Off))),
            ("net0", new NetUpdate(TransmitLimits: new RateLimiterChange(Operations: s_bucket))),
        ], vm.Updates);
    }

    [Fact]
    public async Task A_device_that_refuses_is_told_in_the_words_of_its_kind()
    {
        _here.Write("disk", "");
        var vm = new FakeMicrovm { State = MicrovmState.Running, DeviceRefusal = new InvalidOperationException("blk0: it is locked") };
        using var metrics = new FirecrackerMetrics(TimeProvider.System);
        var api = new FirecrackerApi(vm, metrics, _here.Path);
        var drive = await api.HandleAsync(new("PATCH", "/drives/a", """{"drive_id":"a","path_on_host":"disk"}"""u8.ToArray()));
        var net = await api.HandleAsync(new("PATCH", "/network-interfaces/a", """{"iface_id":"a"}"""u8.ToArray()));
        const string Words = "Unable to patch the block device: blk0: it is locked Please verify the request arguments.";
        Assert.Equal((400, $$"""{"fault_message":"{{Words}}"}"""), (drive.Status, drive.Body));
        Assert.Equal((400, """{"fault_message":"Unable to update the net device: blk0: it is locked"}"""), (net.Status, net.Body));
    }

    [Fact]
    public void A_change_of_one_bucket_leaves_the_other()
    {
        var present = new RateLimiterSpec(s_bucket, s_bucket with { Size = 2 });
        Assert.Equal(present, new RateLimiterChange().ApplyTo(present));
        Assert.Equal(present with { Bandwidth = TokenBucketSpec.Off },
            new RateLimiterChange(Bandwidth: TokenBucketSpec.Off).ApplyTo(present));
        Assert.Equal(present with { Operations = s_bucket }, new RateLimiterChange(Operations: s_bucket).ApplyTo(present));
        RateLimiterChange whole = RateLimiterSpec.Off;
        Assert.Equal(RateLimiterSpec.Off, whole.ApplyTo(present));
    }

    [Fact]
    public async Task A_hosted_vm_is_changed_over_its_socket_once_it_runs()
    {
        var fake = new FakeVmHost();
        await using var host = new HostFixture(fake);
        var disk = host.Here.Write("disk", new string('x', 512));
        await host.StartAsync($$"""
            host.firecracker-sockets = "{{host.Here.Path}}/fc"
            vms { a { kernel.path = vmlinuz, memory.size-mib = 16, hypervisor = soft, start = manual, stop.deadline = 50ms
                      block = [{ path = disk }], net = [{ user {} }] } }
            """);
        var socket = Path.Combine(host.Here.Path, "fc/a.sock");
        const string Body = """{"drive_id":"disk0","path_on_host":"../disk"}""";
        Assert.Contains("not supported before starting the microVM", await PatchAsync(socket, "/drives/disk0", Body),
            StringComparison.Ordinal);
        Assert.Empty(fake.Updates);

        Assert.Equal(0, (await host.CommandAsync("start a")).Status);
        Assert.StartsWith("HTTP/1.1 204", await PatchAsync(socket, "/drives/disk0", Body), StringComparison.Ordinal);
        Assert.StartsWith("HTTP/1.1 204", await PatchAsync(socket, "/network-interfaces/net0",
            """{"iface_id":"net0","rx_rate_limiter":{"bandwidth":{"size":1000,"one_time_burst":5,"refill_time":20}}}"""),
            StringComparison.Ordinal);
        Assert.Equal(
        [
            ("a", "blk0", new DiskUpdate(disk)),
            ("a", "net0", new NetUpdate(ReceiveLimits: new RateLimiterChange(Bandwidth: s_bucket))),
        ], fake.Updates);
    }

    [Fact]
    public async Task A_hosted_vm_shows_what_its_host_has_described()
    {
        await using var host = new HostFixture();
        host.Here.Write("disk", new string('x', 512));
        var text = $$"""
            host.firecracker-sockets = "{{host.Here.Path}}/fc"
            vms { a { kernel.path = vmlinuz, memory.size-mib = 16, vcpus.count = 2, hypervisor = soft, start = manual
                      block = [{ path = disk }], net = [{ user {} }] } }
            """;
        await host.StartAsync(text);
        var socket = Path.Combine(host.Here.Path, "fc/a.sock");

        const string Machine = "\"vcpu_count\":2,\"mem_size_mib\":16";
        Assert.Contains(Machine, await TalkAsync(socket, "GET /machine-config HTTP/1.1\r\n\r\n"), StringComparison.Ordinal);
        var whole = await TalkAsync(socket, "GET /vm/config HTTP/1.1\r\n\r\n");
        foreach (var part in (string[])[Machine, "\"drive_id\":\"disk0\"", "\"iface_id\":\"net0\"", "vmlinuz\""])
            Assert.Contains(part, whole, StringComparison.Ordinal);

        host.Here.Write("fleet.conf", text.Replace("size-mib = 16", "size-mib = 17", StringComparison.Ordinal));
        Assert.Equal(0, (await host.CommandAsync("reload")).Status);
        Assert.Contains("\"mem_size_mib\":17", await TalkAsync(socket, "GET /machine-config HTTP/1.1\r\n\r\n"), StringComparison.Ordinal);
    }

    /// <summary>As <c>run --api-sock</c> has it, down to the devices of a VM on the software CPU.</summary>
    [Fact]
    public async Task A_drive_of_a_running_vm_changes_its_file_over_the_socket()
    {
        await File.WriteAllBytesAsync(Path.Combine(_here.Path, "kernel"), HaltingKernel.Elf());
        await File.WriteAllBytesAsync(Path.Combine(_here.Path, "small"), new byte[8 * 512]);
        var large = Path.Combine(_here.Path, "large");
        await File.WriteAllBytesAsync(large, new byte[24 * 512]);
        var spec = _here.Hocon(
            "kernel.path = kernel, memory.size-mib = 16, hypervisor = soft, block = [{ path = small }], net = [{ user {} }]").ToSpec();
        await using var host = VmHost.Create();
        var hub = new ConsoleHub(ringBytes: 4096);
        var handle = await host.StartAsync(spec, new SoftHypervisor(), new VmConsole(hub, hub)).WaitAsync(HostFixture.Patience);
        var socket = Path.Combine(_here.Path, "api.sock");
        await using (var session = new ApiSession(socket, "patched", spec, FirecrackerApi.MaxPayload))
        {
            session.Started(handle);
            Assert.Contains(" 8 sectors", await StateAsync(handle, "blk0"), StringComparison.Ordinal);
            Assert.StartsWith("HTTP/1.1 204", await PatchAsync(socket, "/drives/disk0",
                JsonSerializer.Serialize(new { drive_id = "disk0", path_on_host = large, rate_limiter = new { } })),
                StringComparison.Ordinal);
            Assert.Contains(" 24 sectors", await StateAsync(handle, "blk0"), StringComparison.Ordinal);
            Assert.StartsWith("HTTP/1.1 204", await PatchAsync(socket, "/network-interfaces/net0",
                """{"iface_id":"net0","tx_rate_limiter":{"ops":{"size":1,"refill_time":1}}}"""), StringComparison.Ordinal);

            Assert.Contains("link up", await StateAsync(handle, "net0"), StringComparison.Ordinal);
            await handle.UpdateDeviceAsync("net0", new NetUpdate(Plugged: false)).WaitAsync(HostFixture.Patience);
            Assert.Contains("link down", await StateAsync(handle, "net0"), StringComparison.Ordinal);

            handle.Stop();
            await handle.Completion.WaitAsync(HostFixture.Patience);
            Assert.Contains("has ended", await PatchAsync(socket, "/network-interfaces/net0", """{"iface_id":"net0"}"""),
                StringComparison.Ordinal);
        }
    }

    private static async Task<string> StateAsync(IVmHandle vm, string device)
    {
        var node = await vm.InspectAsync().WaitAsync(HostFixture.Patience);
        var found = Below(node).Single(unit => string.Equals(unit.Name, device, StringComparison.Ordinal));
        return string.Join('\n', found.Values.Values);

        static IEnumerable<InspectNode> Below(InspectNode node) => (node.Children ?? []).SelectMany(Below).Prepend(node);
    }

    private static Task<string> PatchAsync(string path, string endpoint, string body) =>
        TalkAsync(path, $"PATCH {endpoint} HTTP/1.1\r\nContent-Length: {body.Length}\r\n\r\n{body}");

    private static async Task<string> TalkAsync(string path, string request)
    {
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await socket.ConnectAsync(new UnixDomainSocketEndPoint(path)).WaitAsync(HostFixture.Patience);
        await socket.SendAsync(Encoding.ASCII.GetBytes(request));
        socket.Shutdown(SocketShutdown.Send);
        var answer = new StringBuilder();
        var buffer = new byte[4096];
        int got;
        while ((got = await socket.ReceiveAsync(buffer).WaitAsync(HostFixture.Patience)) > 0)
            answer.Append(Encoding.UTF8.GetString(buffer, 0, got));
        return answer.ToString();
    }
}
