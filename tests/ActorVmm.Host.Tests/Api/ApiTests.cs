using System.Net;
using System.Net.Http.Headers;
using System.Net.Sockets;
using System.Net.WebSockets;
using System.Text;
using System.Text.Json;
using ActorVmm.Host.Tests.Fleet;
using ActorVmm.Testing;

namespace ActorVmm.Host.Tests.Api;

/// <summary>The API as programs see it.</summary>
public sealed class ApiTests
{
    private const string One = "vms { a { kernel.path = vmlinuz, memory.size-mib = 16, hypervisor = soft, stop.deadline = 50ms } }";

    private static string Vm(string name, string directory) =>
        $$$"""{"name":"{{{name}}}","kernel":{"path":"{{{directory}}}/vmlinuz"},"memory":{"size-mib":16},"hypervisor":"soft","restart":{"policy":"never"},"stop":{"deadline":"50ms"}}""";

    [Fact]
    public async Task Every_error_has_the_one_shape()
    {
        await using var host = await new HostFixture().StartAsync(One);
        using var http = host.Http();
        foreach (var (method, path, body, status, code) in ((string, string, string?, int, string)[])
            [
                ("GET", "/nix", null, 404, "not-found"), ("GET", "/vms/nix", null, 404, "not-found"),
                    ("PUT", "/vms", "{}", 405, "method-not-allowed"),
                ("POST", "/vms/nix/start", null, 404, "not-found"), ("POST", "/vms/a/resume", null, 200, ""),
                    ("POST", "/vms/a/frobnicate", null, 404, "not-found"),
                ("POST", "/vms", null, 400, "bad-request"), ("POST", "/vms", "{", 400, "bad-description"),
                    ("POST", "/vms", "[]", 400, "bad-description"),
                ("POST", "/vms", """{"name":"b"}""", 400, "bad-description"),
                    ("POST", "/vms", """{"name":"../b","kernel":{"path":"x"}}""", 400, "bad-description"),
                ("POST", "/vms", Vm("a", host.Here.Path), 409, "conflict"), ("POST", "/vms", new string('x', 300_000), 413, "too-large"),
                ("DELETE", "/vms/a", null, 409, "conflict"), ("DELETE", "/vms/a?force=perhaps", null, 400, "bad-request"),
                ("GET", "/vms/a/console", null, 400, "bad-request"), ("GET", "/inspect", null, 400, "bad-request"),
                    ("GET", "/inspect?path=", null, 400, "bad-request"),
                ("GET", "/events?after=x", null, 400, "bad-request"), ("POST", "/vms/a/stop?deadline=9", null, 400, "bad-request"),
                ("POST", "/vms/a/link/net0", null, 400, "bad-request"), ("POST", "/vms/a/link/net0?state=on", null, 400, "bad-request"),
                    ("POST", "/vms/a/link/net0?state=up", null, 404, "not-found"),
                    ("POST", "/vms/nix/link/net0?state=up", null, 404, "not-found"),
                    ("GET", "/vms/a/link/net0", null, 405, "method-not-allowed"),
                ("GET", "/vms/a/logs?tail=1&lines=1", null, 400, "bad-request"), ("GET", "/vms/a/logs?lines=-1", null, 400, "bad-request"),
                    ("POST", "/vms?directory=here", "{}", 400, "bad-request"),
            ])
        {
            using var request = new HttpRequestMessage(new HttpMethod(method),
                path) { Content = body is null ? null : new StringContent(body) };
            // Refused by its length alone: a client that sends on regardless may find the connection closed before the answer.
            request.Headers.ExpectContinue = status == 413;
            using var answer = await http.SendAsync(request);
            var text = await answer.Content.ReadAsStringAsync();
            Assert.True(status == (int)answer.StatusCode, $"{method} {path}: {(int)answer.StatusCode} {text}");
            if (status < 400) continue;
            using var error = JsonDocument.Parse(text);
            Assert.Equal(code, error.RootElement.GetProperty("error").GetProperty("code").GetString());
            Assert.NotEmpty(error.RootElement.GetProperty("error").GetProperty("message").GetString()!);
        }
    }

    /// <summary>
    /// What Kestrel refuses before there is a request has a status line and no body; from the first request that can be read on, errors have
    /// the one shape.
    /// </summary>
    [Fact]
    public async Task What_is_no_http_is_refused_by_its_status_and_the_connection_closed()
    {
        await using var host = await new HostFixture().StartAsync("");
        foreach (var (said, status, shaped) in ((string, int, bool)[])
            [
                ("NONSENSE\r\n\r\n", 400, false), ("GET / HTTP/9.9\r\n\r\n", 505, false), ("GET /vms HTTP/1.1\r\n\r\n", 400, false),
                ("GET /vms HTTP/1.1\r\nHost: a b\r\n\r\n", 400, false),
                ($"GET /vms HTTP/1.1\r\nHost: h\r\nX: {new string('x', 20_000)}\r\n\r\n", 431, false),
                ("POST /vms HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", 400, true),
                ("POST /vms HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n", 413, true),
            ])
        {
            using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(host.Socket));
            using var stream = new NetworkStream(socket);
            await stream.WriteAsync(Encoding.ASCII.GetBytes(said));
            using var reader = new StreamReader(stream, Encoding.ASCII);
            var text = await reader.ReadToEndAsync().WaitAsync(HostFixture.Patience); // the connection is closed behind it
            Assert.StartsWith($"HTTP/1.1 {status} ", text, StringComparison.Ordinal);
            Assert.Contains(shaped ? "{\"error\":{\"code\":" : "Content-Length: 0\r\n", text, StringComparison.Ordinal);
        }

        using var http = host.Http();
        Assert.Equal("[]", await http.GetStringAsync("/vms"));
    }

    [Fact]
    public async Task A_vm_is_created_started_followed_and_removed_by_a_program()
    {
        await using var host = await new HostFixture().StartAsync("");
        using var http = host.Http();
        using var created = await http.PostAsync("/vms?start=true", new StringContent(Vm("b", host.Here.Path)));
        Assert.Equal((HttpStatusCode.Created, "/vms/b"), (created.StatusCode, created.Headers.Location?.ToString()));

        using var events = await http.GetStreamAsync("/events?follow=true");
        using var reader = new StreamReader(events);
        using var stopped = await http.PostAsync("/vms/b/stop", content: null);
        Assert.Equal(HttpStatusCode.OK, stopped.StatusCode);
        var kinds = new List<string>();
        while (!kinds.Contains("stopped"))
        {
            var line = await reader.ReadLineAsync().WaitAsync(HostFixture.Patience);
            if (line?.StartsWith("event: ", StringComparison.Ordinal) == true) kinds.Add(line[7..]);
        }

        Assert.Equal(["defined", "starting", "started", "stopping", "stopped"], kinds.Distinct()); // asked, and then cut
        using var removed = await http.DeleteAsync("/vms/b");
        Assert.Equal(HttpStatusCode.NoContent, removed.StatusCode);
    }

    [Fact]
    public async Task The_document_describes_every_path_and_the_page_needs_nothing_else()
    {
        await using var host = await new HostFixture().StartAsync("");
        using var http = host.Http();
        using var document = JsonDocument.Parse(await http.GetStringAsync("/openapi/v1.json"));
        var paths = document.RootElement.GetProperty("paths").EnumerateObject().Select(path => path.Name).ToArray();
        foreach (var path in (string[])["/vms", "/vms/{name}", "/vms/{name}/start", "/vms/{name}/pulse",
            "/vms/{name}/link/{device}", "/vms/{name}/logs", "/events",
            "/tree", "/metrics"])
            Assert.Contains(path, paths);
        var page = await http.GetStringAsync("/");
        Assert.Contains("/openapi/v1.json", page, StringComparison.Ordinal);
        Assert.DoesNotContain("https://", page, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Over_tcp_every_call_needs_the_token()
    {
        const string Token = "0123456789abcdef";
        await using var host = await new HostFixture().StartAsync(One, Token);
        using var http = new HttpClient { BaseAddress = new Uri($"http://127.0.0.1:{host.Port}"), Timeout = HostFixture.Patience };
        foreach (var header in (string?[])[null, "Bearer wrong", "Basic " + Token, Token])
        {
            using var request = new HttpRequestMessage(HttpMethod.Get, "/vms");
            if (header is not null) request.Headers.TryAddWithoutValidation("Authorization", header);
            using var refused = await http.SendAsync(request);
            Assert.Equal(HttpStatusCode.Unauthorized, refused.StatusCode);
            Assert.Contains("unauthorized", await refused.Content.ReadAsStringAsync(), StringComparison.Ordinal);
        }

        http.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", Token);
        Assert.Contains("\"name\":\"a\"", await http.GetStringAsync("/vms"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Several_viewers_see_the_same_console_and_each_may_type()
    {
        await using var host = await new HostFixture().StartAsync(One);
        using var http = host.Http();
        using var first = await ConnectAsync(host);
        using var second = await ConnectAsync(host);
        await first.SendAsync("x1"u8.ToArray(), WebSocketMessageType.Binary, endOfMessage: true, CancellationToken.None);
        await ReadToAsync(first, "x1");
        await second.SendAsync("y2"u8.ToArray(), WebSocketMessageType.Text, endOfMessage: true, CancellationToken.None);
        Assert.Equal("Welcome to ActorVmm\r\nREADY\r\nx1y2", await ReadToAsync(second, "y2"));
        await ReadToAsync(first, "y2");
        await first.CloseOutputAsync(WebSocketCloseStatus.NormalClosure, "", CancellationToken.None);
        Assert.Contains("running", await http.GetStringAsync("/vms/a"), StringComparison.Ordinal);
        using var removed = await http.DeleteAsync("/vms/a?force=true");
        var end = await second.ReceiveAsync(new byte[16], CancellationToken.None).WaitAsync(HostFixture.Patience);
        Assert.Equal((WebSocketMessageType.Close, "the VM has been removed"), (end.MessageType, second.CloseStatusDescription));
    }

    [Fact]
    public async Task Metrics_are_as_prometheus_reads_them_and_forget_what_is_removed()
    {
        await using var host = await new HostFixture().StartAsync(One);
        using var http = host.Http();
        var text = await http.GetStringAsync("/metrics");
        Assert.Contains("# TYPE actorvmm_vm_restarts_total counter\nactorvmm_vm_restarts_total{vm=\"a\"} 0\n", text,
            StringComparison.Ordinal);
        Assert.Contains("actorvmm_vm_state{vm=\"a\",state=\"running\"} 1\n", text, StringComparison.Ordinal);
        Assert.Contains("actorvmm_vms 1\n", text, StringComparison.Ordinal);
        Assert.Contains("dotnet_gc_collections_total{", text, StringComparison.Ordinal);
        foreach (var line in text.Split('\n', StringSplitOptions.RemoveEmptyEntries))
            Assert.Matches("""^(# (HELP|TYPE) [a-z_]+ .*|[a-z_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? [0-9.eE+-]+)$""", line);
        using var removed = await http.DeleteAsync("/vms/a?force=true");
        Assert.DoesNotContain("actorvmm_vm_state{", await http.GetStringAsync("/metrics"), StringComparison.Ordinal);
    }

    /// <summary>Everybody at the same time: nothing is refused because two came at once, and nothing is left behind.</summary>
    [Fact]
    public async Task Many_clients_at_the_same_time_are_all_served()
    {
        var (clients, calls) = Nightly.Wanted ? (1000, 500) : (200, 10);
        await using var host = await new HostFixture().StartAsync(
            "vms { v { count = 16, kernel.path = vmlinuz, memory.size-mib = 2, stop.deadline = 50ms, hypervisor = soft } }");
        using (var http = host.Http())
        {
            await http.GetStringAsync("/vms"); // what is made once is made
            var before = Descriptors();
            await Task.WhenAll(Enumerable.Range(0, clients).Select(async client =>
            {
                var random = new Random(client);
                for (var i = 0; i < calls; i++)
                {
                    var name = $"v-{random.Next(16)}";
                    using var answer = await (random.Next(5) switch
                    {
                        0 => http.GetAsync("/vms"),
                        1 => http.GetAsync($"/vms/{name}/logs"),
                        2 => http.PostAsync($"/vms/{name}/pause", content: null),
                        3 => http.PostAsync($"/vms/{name}/resume", content: null),
                        _ => http.GetAsync($"/vms/{name}"),
                    });
                    Assert.Equal(HttpStatusCode.OK, answer.StatusCode);
                }
            }));
            Assert.True(before > 0);
        }

        var atRest = 0;
        await host.EventuallyAsync(() => Task.FromResult((atRest = Descriptors()) < 400), "connections are closed again");
    }

    private static int Descriptors() => Directory.GetFiles("/proc/self/fd").Length;

    private static async Task<ClientWebSocket> ConnectAsync(HostFixture host)
    {
        using var client = new ActorVmm.Host.Client.HostClient(host.Socket);
        return await client.ConsoleAsync("a", replay: null, CancellationToken.None).WaitAsync(HostFixture.Patience);
    }

    private static async Task<string> ReadToAsync(ClientWebSocket socket, string end)
    {
        var text = new StringBuilder();
        var buffer = new byte[4096];
        while (!text.ToString().EndsWith(end, StringComparison.Ordinal))
        {
            var got = await socket.ReceiveAsync(buffer, CancellationToken.None).WaitAsync(HostFixture.Patience);
            text.Append(Encoding.Latin1.GetString(buffer, 0, got.Count));
        }

        return text.ToString();
    }
}
