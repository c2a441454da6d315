using System.Net.Sockets;
using System.Text;
using ActorVmm.Host.Fleet;

namespace ActorVmm.Host.Firecracker;

/// <summary>
/// The server behind a Firecracker-compatible socket: at most ten connections, requests one after the other, every fault in the one shape.
/// It has no thread of its own.
/// </summary>
internal sealed class MicroServer : IAsyncDisposable
{
    /// <summary>Connections at the same time (micro-http's MAX_CONNECTIONS).</summary>
    public const int MaxConnections = 10;

    private const int MaxLingerBytes = 1 << 20;
    private static readonly TimeSpan s_linger = TimeSpan.FromSeconds(1);

    private static readonly byte[] s_full = Encoding.ASCII.GetBytes(
        "HTTP/1.1 503 \r\nServer: Firecracker API\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n"
        + "{ \"error\": \"Too many open connections\" }");

    private static readonly byte[] s_continue = "HTTP/1.1 100 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n"u8.ToArray();

    private readonly Socket _listener;
    private readonly string _path;
    private readonly Func<MicroRequest, Task<MicroReply>> _handle;
    private readonly int _maxPayload;
    private readonly CancellationTokenSource _over = new();
    private readonly SemaphoreSlim _one = new(1, 1);
    private readonly Task _accepting;
    private readonly HashSet<Task> _connections = [];
    private readonly HashSet<Task> _refused = [];
    private readonly Lock _gate = new();

    private MicroServer(Socket listener, string path, Func<MicroRequest, Task<MicroReply>> handle, int maxPayload)
    {
        (_listener, _path, _handle, _maxPayload) = (listener, path, handle, maxPayload);
        _accepting = AcceptAsync();
    }

    /// <summary>Listens on a new socket of mode 0600; one that is left over is replaced.</summary>
    /// <param name="path">Where.</param>
    /// <param name="handle">Answers one request; requests come one after the other.</param>
    /// <param name="maxPayload">The longest body, in bytes.</param>
    /// <exception cref="IOException">The path cannot be used, or somebody listens there; the message says which.</exception>
    public static MicroServer Listen(string path, Func<MicroRequest, Task<MicroReply>> handle, int maxPayload)
    {
        var end = EndPoint(path);
        SocketFile.MakeWay(path);
        var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            listener.Bind(end);
            PrivateFiles.Restrict(path); // nobody is served before Listen
            listener.Listen(MaxConnections);
            return new MicroServer(listener, path, handle, maxPayload);
        }
        catch (Exception cannot) when (cannot is SocketException or UnauthorizedAccessException)
        {
            listener.Dispose();
            throw new IOException($"{path}: cannot be made: {cannot.Message}", cannot);
        }
    }

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        await _over.CancelAsync().ConfigureAwait(false);
        _listener.Dispose();
        await _accepting.ConfigureAwait(false);
        Task[] open;
        lock (_gate) open = [.. _connections, .. _refused];
        await Task.WhenAll(open).ConfigureAwait(false);
        File.Delete(_path);
        _over.Dispose();
        _one.Dispose();
    }

    private static UnixDomainSocketEndPoint EndPoint(string path)
    {
        try
        {
            return new UnixDomainSocketEndPoint(path);
        }
        catch (ArgumentException bad)
        {
            throw new IOException($"{path}: no path of a socket: {bad.Message}", bad);
        }
    }

    private async Task AcceptAsync()
    {
        while (true)
        {
            Socket socket;
            try
            {
                socket = await _listener.AcceptAsync(_over.Token).ConfigureAwait(false);
            }
            catch (Exception over) when (over is OperationCanceledException or ObjectDisposedException)
            {
                return;
            }
            catch (SocketException)
            {
                if (_over.IsCancellationRequested) return;
                continue; // that client is gone, or the process is short of descriptors for the moment
            }

            var isFull = false;
            lock (_gate) isFull = _connections.Count >= MaxConnections;
            Keep(isFull ? _refused : _connections, isFull ? RefuseAsync(socket) : ServeAsync(socket));
        }
    }

    /// <summary>Remembers a task while it runs.</summary>
    private void Keep(HashSet<Task> among, Task task)
    {
        lock (_gate) among.Add(task);
        _ = task.ContinueWith(done =>
        {
            lock (_gate) among.Remove(done);
        }, CancellationToken.None, TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default);
    }

    private async Task RefuseAsync(Socket socket)
    {
        await Task.Yield();
        using (socket)
        {
            bool isFlood;
            lock (_gate) isFlood = _refused.Count > MaxConnections;
            try
            {
                await SendAsync(socket, s_full).ConfigureAwait(false);
                if (!isFlood) await LingerAsync(socket).ConfigureAwait(false);
            }
            catch (Exception gone) when (gone is SocketException or OperationCanceledException) { /* as good as refused */ }
        }
    }

    /// <summary>
    /// Says that nothing more comes, and reads what the client still sends: a socket that is closed with bytes unread resets the connection,
    /// and the client may lose the answer or fail on it. Bounded in time and bytes.
    /// </summary>
    private async Task LingerAsync(Socket socket)
    {
        socket.Shutdown(SocketShutdown.Send);
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(_over.Token);
        patience.CancelAfter(s_linger);
        var buffer = new byte[4096];
        for (var left = MaxLingerBytes; left > 0;)
        {
            var got = await socket.ReceiveAsync(buffer, patience.Token).ConfigureAwait(false);
            if (got == 0) return;
            left -= got;
        }
    }

    private async Task ServeAsync(Socket socket)
    {
        await Task.Yield();
        using (socket)
        {
            try
            {
                await ServeRequestsAsync(socket).ConfigureAwait(false);
            }
            catch (Exception gone) when (
                gone is SocketException or OperationCanceledException or ObjectDisposedException) { /* the client */ }
        }
    }

    private async Task ServeRequestsAsync(Socket socket)
    {
        var parser = new MicroHttpParser(_maxPayload);
        var buffer = new byte[4096];
        var told = false;
        while (true)
        {
            var got = await socket.ReceiveAsync(buffer, _over.Token).ConfigureAwait(false);
            if (got == 0) return;
            parser.Add(buffer.AsSpan(0, got));
            while (true)
            {
                MicroRequest? request;
                try
                {
                    request = parser.TryTake();
                }
                catch (MicroHttpException bad)
                {
                    await SendAsync(socket, FirecrackerApi.Fault(bad.Message).ToBytes()).ConfigureAwait(false);
                    await LingerAsync(socket).ConfigureAwait(false);
                    return;
                }

                if (request is null) break;
                told = false;
                await SendAsync(socket, (await HandleAsync(request).ConfigureAwait(false)).ToBytes()).ConfigureAwait(false);
            }

            if (!parser.ExpectsContinue || told) continue;
            told = true;
            await SendAsync(socket, s_continue).ConfigureAwait(false);
        }
    }

    // Two at the same time wait for each other: none is refused for coming second.
    private async Task<MicroReply> HandleAsync(MicroRequest request)
    {
        await _one.WaitAsync(_over.Token).ConfigureAwait(false);
        try
        {
            return await _handle(request).ConfigureAwait(false);
        }
        finally
        {
            _one.Release();
        }
    }

    private async Task SendAsync(Socket socket, byte[] bytes)
    {
        for (var sent = 0; sent < bytes.Length;)
            sent += await socket.SendAsync(bytes.AsMemory(sent), _over.Token).ConfigureAwait(false);
    }
}
