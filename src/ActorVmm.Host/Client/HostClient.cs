using System.Net.Http.Headers;
using System.Net.Sockets;
using System.Net.WebSockets;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using ActorVmm.Host.Api;

namespace ActorVmm.Host.Client;

/// <summary>The command line's way to a host: HTTP over its unix socket.</summary>
internal sealed class HostClient : IDisposable
{
    /// <summary>Names another socket.</summary>
    public const string Variable = "ACTORVMM_SOCKET";

    private readonly string _socket;
    private readonly HttpMessageInvoker _http;

    public HostClient(string? socket)
    {
        _socket = socket ?? DefaultSocket;
        _http = new HttpMessageInvoker(new SocketsHttpHandler
        {
            ConnectCallback = (_, cancel) => ConnectAsync(cancel), UseProxy = false, UseCookies = false, AllowAutoRedirect = false,
        });
    }

    /// <summary>What <see cref="Variable"/> names, else the user's own: in the runtime directory, or for root in <c>/run</c>.</summary>
    public static string DefaultSocket
    {
        get
        {
            if (Environment.GetEnvironmentVariable(Variable) is { Length: > 0 } named) return named;
            if (Environment.GetEnvironmentVariable("XDG_RUNTIME_DIR") is { Length: > 0 } runtime) return Path.Combine(runtime,
                "actorvmm/host.sock");
            return Mono.Unix.Native.Syscall.geteuid() == 0
                ? "/run/actorvmm/host.sock"
                : Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".actorvmm/host.sock");
        }
    }

    /// <summary>A call whose answer is an object.</summary>
    /// <exception cref="HostClientException">There is no host, or it refused; the message is for people.</exception>
    public async Task<T> CallAsync<T>(HttpMethod method, string path, JsonTypeInfo<T> type, HttpContent? body = null,
        CancellationToken cancel = default)
    {
        using var answer = await SendAsync(method, path, body, cancel).ConfigureAwait(false);
        var stream = await answer.Content.ReadAsStreamAsync(cancel).ConfigureAwait(false);
        await using var _ = stream.ConfigureAwait(false);
        return (await JsonSerializer.DeserializeAsync(stream, type, cancel).ConfigureAwait(false))!;
    }

    /// <summary>A call whose answer is text.</summary>
    public async Task<string> TextAsync(HttpMethod method, string path, HttpContent? body = null, CancellationToken cancel = default)
    {
        using var answer = await SendAsync(method, path, body, cancel).ConfigureAwait(false);
        return await answer.Content.ReadAsStringAsync(cancel).ConfigureAwait(false);
    }

    /// <summary>A call whose answer comes in pieces.</summary>
    public async Task StreamAsync(string path, Func<ReadOnlyMemory<byte>, Task> take, CancellationToken cancel)
    {
        using var answer = await SendAsync(HttpMethod.Get, path, body: null, cancel).ConfigureAwait(false);
        var stream = await answer.Content.ReadAsStreamAsync(cancel).ConfigureAwait(false);
        await using var _ = stream.ConfigureAwait(false);
        var buffer = new byte[16 << 10];
        int got;
        while ((got = await stream.ReadAsync(buffer, cancel).ConfigureAwait(false)) > 0) await take(buffer.AsMemory(0, got))
            .ConfigureAwait(false);
    }

    /// <summary>A VM's console.</summary>
    public async Task<ClientWebSocket> ConsoleAsync(string name, long? replay, CancellationToken cancel)
    {
        var socket = new ClientWebSocket();
        try
        {
            var query = replay is { } bytes ? string.Create(System.Globalization.CultureInfo.InvariantCulture, $"?replay={bytes}") : "";
            await socket.ConnectAsync(new Uri($"ws://host/vms/{Uri.EscapeDataString(name)}/console{query}"), _http,
                cancel).ConfigureAwait(false);
            return socket;
        }
        catch (WebSocketException refused)
        {
            socket.Dispose();
            // The handshake hides the host's words: the VM's own page has them.
            await TextAsync(HttpMethod.Get, $"/vms/{Uri.EscapeDataString(name)}", cancel: cancel).ConfigureAwait(false);
            throw new HostClientException(ExitCodes.Failure, refused.Message, refused);
        }
    }

    public void Dispose() => _http.Dispose();

    private async Task<HttpResponseMessage> SendAsync(HttpMethod method, string path, HttpContent? body, CancellationToken cancel)
    {
        using var request = new HttpRequestMessage(method, new Uri("http://host" + path)) { Content = body };
        request.Headers.Accept.Add(new MediaTypeWithQualityHeaderValue("*/*"));
        HttpResponseMessage answer;
        try
        {
            answer = await _http.SendAsync(request, cancel).ConfigureAwait(false);
        }
        catch (HttpRequestException unreachable)
        {
            throw new HostClientException(ExitCodes.Failure,
                $"no host answers on {_socket}: start one with \"actorvmm host --config FILE\", or name its socket with --socket or {Variable}",
                unreachable);
        }

        if (answer.IsSuccessStatusCode) return answer;
        using (answer)
        {
            var text = await answer.Content.ReadAsStringAsync(cancel).ConfigureAwait(false);
            throw new HostClientException((int)answer.StatusCode is 400 ? ExitCodes.BadDescription : ExitCodes.Failure, MessageOf(text));
        }
    }

    private static string MessageOf(string text)
    {
        try
        {
            var error = JsonSerializer.Deserialize(text, ApiJson.Default.ErrorView)!.Error;
            return error.Details is { Count: > 1 } details ? string.Join('\n', details) : error.Message;
        }
        catch (Exception odd) when (odd is JsonException or NullReferenceException)
        {
            return text;
        }
    }

    private async ValueTask<Stream> ConnectAsync(CancellationToken cancel)
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(_socket), cancel).ConfigureAwait(false);
            return new NetworkStream(socket, ownsSocket: true);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }
}

/// <summary>A command that did not work, with its exit code.</summary>
internal sealed class HostClientException : Exception
{
    public HostClientException(int exitCode, string message, Exception? inner = null) : base(message, inner) => ExitCode = exitCode;
    public HostClientException(string message) : this(ExitCodes.Failure, message) { }
    public HostClientException(string message, Exception inner) : this(ExitCodes.Failure, message, inner) { }
    public HostClientException() { }

    public int ExitCode { get; } = ExitCodes.Failure;
}
