using System.Net.Sockets;
using System.Text;
using ActorVmm.Host.Firecracker;

namespace ActorVmm.Host.Tests.Firecracker;

/// <summary>The socket itself: what goes over the wire, limits, clients that misbehave.</summary>
public sealed class MicroServerTests : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(90);

    private readonly TemporaryDirectory _here = new();

    public void Dispose() => _here.Dispose();

    private string Path => System.IO.Path.Combine(_here.Path, "api.sock");

    private MicroServer Listen(int maxPayload = 100)
    {
        var api = new FirecrackerApi(new FakeMicrovm(), new FirecrackerMetrics(TimeProvider.System), _here.Path);
        return MicroServer.Listen(Path, api.HandleAsync, maxPayload);
    }

    private async Task<Socket> ConnectAsync()
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await socket.ConnectAsync(new UnixDomainSocketEndPoint(Path)).WaitAsync(s_patience);
        return socket;
    }

    /// <summary>Sends, and reads until <paramref name="end"/> or the end.</summary>
    private static async Task<string> TalkAsync(Socket socket, string text, string? end = null)
    {
        if (text.Length > 0) await socket.SendAsync(Encoding.ASCII.GetBytes(text)).WaitAsync(s_patience);
        var answer = new StringBuilder();
        var buffer = new byte[4096];
        while (end is null || !answer.ToString().Contains(end, StringComparison.Ordinal))
        {
            var got = await socket.ReceiveAsync(buffer).WaitAsync(s_patience);
            if (got == 0) break;
            answer.Append(Encoding.UTF8.GetString(buffer, 0, got));
        }

        return answer.ToString();
    }

    [Fact]
    public async Task Requests_on_one_connection_are_answered_in_order_however_they_are_cut()
    {
        await using var server = Listen();
        using var socket = await ConnectAsync();
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(Path));
        await socket.SendAsync("GET /ver"u8.ToArray());
        var answer = await TalkAsync(socket,
            "sion HTTP/1.1\r\nHost: x\r\n\r\nPUT /entropy HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}GET / HTTP/1.1\r\n\r\n",
                "app_name\":\"Firecracker\"}");

        Assert.Equal("HTTP/1.1 200 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\nContent-Type: application/json\r\nContent-Length: 32\r\n\r\n"
            + "{\"firecracker_version\":\"1.17.0\"}"
            + "HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n",
                answer[..answer.LastIndexOf("HTTP/1.1", StringComparison.Ordinal)]);
    }

    [Theory]
    [InlineData("POST / HTTP/1.1\r\n\r\n", "Invalid HTTP Method: Unsupported HTTP method.")]
    [InlineData("GET / HTTP/2.0\r\n\r\n", "Unsupported HTTP version.")]
    [InlineData("nonsense\r\n\r\n", "Invalid request.")]
    [InlineData("GET  HTTP/1.1\r\n\r\n", "Invalid URI.")]
    [InlineData("GET / HTTP/1.1\r\nno colon\r\n\r\n", "Invalid header.")]
    [InlineData("PUT /entropy HTTP/1.1\r\nContent-Length: x\r\n\r\n", "Invalid content length.")]
    [InlineData("PUT /entropy HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}", "Invalid content length.")]
    [InlineData("PUT /entropy HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "Unsupported transfer encoding.")]
    [InlineData("PUT /entropy HTTP/1.1\r\nContent-Length: 101\r\n\r\n",
        "Request payload with size 101 is larger than the limit of 100 allowed by server.")]
    public async Task What_is_no_request_is_told_so_and_the_connection_ends(string text, string fault)
    {
        await using var server = Listen();
        using var socket = await ConnectAsync();
        var answer = await TalkAsync(socket, text);
        Assert.StartsWith("HTTP/1.1 400 \r\n", answer, StringComparison.Ordinal);
        Assert.EndsWith($"\r\n\r\n{{\"fault_message\":\"{fault}\"}}", answer, StringComparison.Ordinal);
        using var next = await ConnectAsync(); // and nobody else is harmed
        Assert.Contains("200", await TalkAsync(next, "GET / HTTP/1.1\r\n\r\n", "\r\n\r\n"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_head_without_end_is_cut_off()
    {
        await using var server = Listen();
        using var socket = await ConnectAsync();
        Assert.Contains("longer than 8192 bytes", await TalkAsync(socket, "GET / HTTP/1.1\r\nA: " + new string('a', 9000)),
            StringComparison.Ordinal);
    }

    /// <summary>A socket closed with bytes unread is reset, and the client may fail before it has read why.</summary>
    [Fact]
    public async Task Who_sends_more_than_is_read_gets_the_answer_and_an_orderly_end()
    {
        await using var server = Listen();
        for (var i = 0; i < 50; i++)
        {
            using var socket = await ConnectAsync();
            var answer = await TalkAsync(socket, "PUT /entropy HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + new string('x', 100_000));
            Assert.EndsWith("is larger than the limit of 100 allowed by server.\"}", answer, StringComparison.Ordinal);
        }

        var full = new List<Socket>();
        for (var i = 0; i < MicroServer.MaxConnections; i++)
        {
            full.Add(await ConnectAsync());
            await TalkAsync(full[i], "GET / HTTP/1.1\r\n\r\n", "\r\n\r\n");
        }

        using (var more = await ConnectAsync())
            Assert.Contains("Too many open connections", await TalkAsync(more, "GET / HTTP/1.1\r\n\r\n"), StringComparison.Ordinal);
        full.ForEach(static socket => socket.Dispose());
    }

    [Fact]
    public async Task A_client_that_asks_first_is_told_to_go_on()
    {
        await using var server = Listen();
        using var socket = await ConnectAsync();
        Assert.StartsWith("HTTP/1.1 100 ",
            await TalkAsync(socket, "PUT /entropy HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n", "\r\n\r\n"),
                StringComparison.Ordinal);
        Assert.StartsWith("HTTP/1.1 204 ", await TalkAsync(socket, "{}", "\r\n\r\n"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_eleventh_connection_is_refused_and_a_place_that_becomes_free_is_given_again()
    {
        await using var server = Listen();
        var sockets = new List<Socket>();
        for (var i = 0; i < MicroServer.MaxConnections; i++)
        {
            sockets.Add(await ConnectAsync());
            await TalkAsync(sockets[i], "GET / HTTP/1.1\r\n\r\n", "\r\n\r\n");
        }

        using (var more = await ConnectAsync())
            Assert.Contains("Too many open connections", await TalkAsync(more, ""), StringComparison.Ordinal);
        sockets[0].Dispose();
        using var late = new CancellationTokenSource(s_patience);
        while (true)
        {
            late.Token.ThrowIfCancellationRequested();
            using var again = await ConnectAsync();
            try
            {
                if ((await TalkAsync(again, "GET / HTTP/1.1\r\n\r\n", "\r\n\r\n")).Contains("200", StringComparison.Ordinal)) break;
            }
            catch (SocketException) { /* refused before it could be asked */ }
        }

        sockets.ForEach(static socket => socket.Dispose());
    }

    [Fact]
    public async Task A_socket_that_is_left_over_is_replaced_one_that_is_in_use_is_not_and_none_is_left_behind()
    {
        using (var dead = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified))
            dead.Bind(new UnixDomainSocketEndPoint(Path));
        await using (var server = Listen())
            Assert.Contains("listens on this socket already", Assert.Throws<IOException>(() => Listen()).Message, StringComparison.Ordinal);
        Assert.False(File.Exists(Path));
    }

    [Fact]
    public void Random_bytes_are_a_request_more_to_come_or_refused()
    {
        var random = new Random(3);
        var pieces = (string[])["GET ", "PUT /drives/a", " HTTP/1.1", "\r\n", "\r\n\r\n", "Content-Length: ", "5", ":", "\0", "ä",
            "Expect: 100-continue", " "];
        for (var i = 0; i < 20_000; i++)
        {
            var parser = new MicroHttpParser(64);
            try
            {
                for (var n = random.Next(12); n >= 0; n--)
                {
                    parser.Add(Encoding.UTF8.GetBytes(pieces[random.Next(pieces.Length)]));
                    while (parser.TryTake() is { } request) Assert.True(request.Path.StartsWith('/'));
                }
            }
            catch (MicroHttpException refused)
            {
                Assert.NotEmpty(refused.Message);
            }
        }
    }
}
