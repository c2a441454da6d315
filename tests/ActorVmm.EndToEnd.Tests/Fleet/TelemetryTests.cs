using System.Collections.Concurrent;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.RegularExpressions;
using ActorVmm.EndToEnd.Tests.Harness;
using ActorVmm.Host.Guests;
using ActorVmm.Testing.Guests;
using Xunit;

namespace ActorVmm.EndToEnd.Tests.Fleet;

/// <summary>A host with a Linux guest that works: what Prometheus scrapes, and what a collector is sent; then its end by SIGTERM.</summary>
[Collection(LinuxGuests.Name)]
public sealed class TelemetryTests(GuestFiles files)
{
    private const string Protobuf = "application/x-protobuf";

    [Fact]
    public async Task A_working_guest_is_seen_in_metrics_and_traces_and_ends_by_its_keys_at_SIGTERM()
    {
        using var collector = new Collector();
        var image = await GuestImage.PrepareAsync(new GuestCache(), GuestImageOptions.WithDisks);
        DiskImages.Raw(files.Directory, "telemetry.img", 16);
        var tiny = Path.Combine(files.Directory, "telemetry.elf");
        await File.WriteAllBytesAsync(tiny, HaltingKernel.Elf());
        await using var host = HostProcess.Start($$"""
            vms {
              linux {
                kernel { path = "{{image.KernelPath}}", initrd = "{{image.InitramfsPath}}", cmdline = "{{RunningGuest.CommandLine}} reboot=k" }
                memory.size-mib = 128, hypervisor = soft, vcpus.count = 1
                block = [{ path = "{{files.Directory}}/telemetry.img", id = data }], net = [{ user { restrict = true } }]
                stop { method = ctrl-alt-del, deadline = 1h }
              }
              deaf { kernel.path = "{{tiny}}", memory.size-mib = 2, hypervisor = soft, order = 200, stop { method = power-button, deadline = 300ms } }
            }
            host.stop-deadline = 2h
            """, new Dictionary<string, string>(StringComparer.Ordinal)
        {
            ["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.Address, ["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf",
            ["OTEL_METRIC_EXPORT_INTERVAL"] = "500", ["OTEL_BSP_SCHEDULE_DELAY"] = "200",
        });
        await host.UntilAsync("running", 2);
        using var http = host.Http();
        await UntilPrintedAsync(http, "/root # ");
        await TypeAsync(host, "for i in 1 2 3; do dd if=/dev/vda of=/dev/null bs=4k count=2000 iflag=direct; dd if=/dev/zero of=/dev/vda bs=64k count=16; done; sync; echo do''ne\n");
        await UntilPrintedAsync(http, "done\r\n/root # ");

        var text = await http.GetStringAsync("/metrics");
        foreach (var (series, least) in ((string, double)[])
            [
                ("""actorvmm_exits_total{vm="linux",device="serial0",space="port",direction="write"}""", 1000),
                ("""actorvmm_exits_total{vm="linux",device="blk0",space="mmio",direction="write"}""", 100),
                ("""actorvmm_vcpu_exits_total{vm="linux",vcpu="0"}""", 10_000), ("""actorvmm_vcpu_time_seconds_total{vm="linux",vcpu="0"}""", 0.1),
                ("""actorvmm_vcpu_instructions_total{vm="linux",vcpu="0"}""", 1e6),
                ("""actorvmm_virtio_requests_total{vm="linux",device="blk0",queue="0"}""", 6000),
                ("""actorvmm_virtio_bytes_total{vm="linux",device="blk0",queue="0",direction="to-guest"}""", 3 * 2000 * 4096),
                ("""actorvmm_disk_operations_total{vm="linux",device="blk0",operation="read"}""", 6000),
                ("""actorvmm_disk_bytes_total{vm="linux",device="blk0",operation="read"}""", 3 * 2000 * 4096),
                ("""actorvmm_disk_bytes_total{vm="linux",device="blk0",operation="write"}""", 1 << 20),
                ("""actorvmm_exit_duration_seconds_count{vm="linux",device="serial0",kind="PortWrite"}""", 1),
                ("""actorvmm_request_duration_seconds_count{vm="linux",device="blk0",queue="0"}""", 5),
                ("""actorvmm_request_duration_seconds_bucket{vm="linux",device="blk0",queue="0",le="+Inf"}""", 5),
                ("""actorvmm_vm_memory_resident_bytes{vm="linux"}""", 1 << 20), ("""actorvmm_device_restarts_total{vm="linux",device="blk0"}""", 0),
                ("""actorvmm_device_mailbox{vm="linux",device="blk0"}""", 0), ("""actorvmm_vm_restarts_total{vm="linux"}""", 0),
                ("""actorvmm_net_packets_total{vm="linux",device="net0",direction="sent"}""", 0),
            ])
            Assert.True(Value(text, series) >= least, $"{series} {Value(text, series)}, expected {least}");

        // The same over OTLP, and a request's span below the exit that rang for it.
        await HostProcess.EventuallyAsync(() => Task.FromResult(collector.HasSeen("/v1/metrics", "actorvmm.exits", "actorvmm.exit.duration",
            "actorvmm.request.duration", "actorvmm.disk.bytes", "actorvmm.vcpu.time", "serial0", "linux") && collector.HasSeen("/v1/traces", "exit", "request", "blk0")),
            () => "the collector is sent metrics and traces; it was sent " + collector.Summary);

        // Both are asked by their keys: Linux answers, and the other one loses its power when its deadline is over.
        var followed = FollowAsync(await http.GetStreamAsync("/events?follow=true"));
        host.Signal("TERM");
        Assert.Equal(0, await host.EndAsync());
        var events = await followed;
        foreach (var expected in (string[])[
            """deaf"[^\n]*"stopping"[^\n]*at the latest in 0.3 s""", """deaf"[^\n]*"stopping"[^\n]*the deadline is over: power cut""",
            """linux"[^\n]*"stopping"[^\n]*at the latest in 3600 s"""])
            Assert.True(Regex.IsMatch(events, expected), $"{expected} in\n{events}");
        Assert.DoesNotMatch("""linux"[^\n]*power cut""", events); // an hour has not passed: it has ended by itself
    }

    private static async Task<string> FollowAsync(Stream stream)
    {
        var text = new StringBuilder();
        using var reader = new StreamReader(stream);
        try
        {
            while (await reader.ReadLineAsync() is { } line) text.Append(line).Append('\n');
        }
        catch (Exception over) when (over is IOException or HttpRequestException) { /* the host has gone */ }

        return text.ToString();
    }

    private static double Value(string text, string series) =>
        Regex.Match(text, "^" + Regex.Escape(series) + " (.*)$", RegexOptions.Multiline) is { Success: true } match
            ? double.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture)
            : double.NaN;

    private static Task UntilPrintedAsync(HttpClient http, string text) => HostProcess.EventuallyAsync(
        async () => (await http.GetStringAsync("/vms/linux/logs")).Contains(text, StringComparison.Ordinal), () => $"\"{text}\" on the console");

    private static async Task TypeAsync(HostProcess host, string keys)
    {
        using var client = new ActorVmm.Host.Client.HostClient(host.Socket);
        using var socket = await client.ConsoleAsync("linux", replay: 0, CancellationToken.None);
        await socket.SendAsync(Encoding.ASCII.GetBytes(keys), System.Net.WebSockets.WebSocketMessageType.Binary, endOfMessage: true,
            CancellationToken.None);
        await socket.CloseOutputAsync(System.Net.WebSockets.WebSocketCloseStatus.NormalClosure, "", CancellationToken.None);
    }

    /// <summary>An OpenTelemetry collector as far as it takes what it is sent.</summary>
    private sealed class Collector : IDisposable
    {
        private readonly HttpListener _listener = new();
        private readonly ConcurrentDictionary<string, MemoryStream> _bodies = new(StringComparer.Ordinal);

        public Collector()
        {
            using var probe = new TcpListener(IPAddress.Loopback, 0);
            probe.Start();
            Address = $"http://127.0.0.1:{((IPEndPoint)probe.LocalEndpoint).Port}";
            probe.Stop();
            _listener.Prefixes.Add(Address + "/");
            _listener.Start();
            _ = ServeAsync();
        }

        public string Address { get; }

        public string Summary => string.Join(", ", _bodies.Select(body => $"{body.Key}: {body.Value.Length} bytes"));

        public bool HasSeen(string path, params string[] words)
        {
            if (!_bodies.TryGetValue(path, out var body)) return false;
            byte[] bytes;
            lock (body) bytes = body.ToArray();
            return words.All(word => bytes.AsSpan().IndexOf(Encoding.UTF8.GetBytes(word)) >= 0);
        }

        public void Dispose() => _listener.Close();

        private async Task ServeAsync()
        {
            try
            {
                while (true)
                {
                    var context = await _listener.GetContextAsync();
                    Assert.Equal(Protobuf, context.Request.ContentType);
                    var body = _bodies.GetOrAdd(context.Request.Url!.AbsolutePath, _ => new MemoryStream());
                    using var one = new MemoryStream();
                    await context.Request.InputStream.CopyToAsync(one);
                    lock (body) one.WriteTo(body);
                    context.Response.ContentType = Protobuf;
                    context.Response.Close();
                }
            }
            catch (Exception over) when (over is HttpListenerException or ObjectDisposedException or InvalidOperationException) { /* the test is over */ }
        }
    }
}
