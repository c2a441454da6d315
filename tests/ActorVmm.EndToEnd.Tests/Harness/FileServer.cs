using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;

namespace ActorVmm.EndToEnd.Tests.Harness;

/// <summary>
/// The smallest web server: every GET gets the same bytes, of a length that the path names (<c>/1000000</c>); every PUT is hashed, and the
/// answer is the hash.
/// </summary>
public sealed class FileServer : IAsyncDisposable
{
    private readonly TcpListener _listener;
    private readonly CancellationTokenSource _ended = new();
    private readonly Task _serving;

    public FileServer(IPAddress? address = null, int port = 0)
    {
        _listener = new TcpListener(address ?? IPAddress.Loopback, port);
        _listener.Start();
        _serving = ServeAsync();
    }

    public int Port => ((IPEndPoint)_listener.LocalEndpoint).Port;

    /// <summary>The bytes, as far as a test wants them.</summary>
    public static byte[] Content(int length)
    {
        var bytes = new byte[length];
        new Random(42).NextBytes(bytes);
        return bytes;
    }

    /// <summary>As <c>sha256sum</c> prints it.</summary>
    public static string Sha256(ReadOnlySpan<byte> bytes) => Convert.ToHexStringLower(SHA256.HashData(bytes));

    public async ValueTask DisposeAsync()
    {
        await _ended.CancelAsync();
        _listener.Dispose();
        await _serving;
        _ended.Dispose();
    }

    private async Task ServeAsync()
    {
        try
        {
            while (true) _ = AnswerAsync(await _listener.AcceptTcpClientAsync(_ended.Token));
        }
        catch (Exception ended) when (ended is OperationCanceledException or SocketException or ObjectDisposedException) { }
    }

    private async Task AnswerAsync(TcpClient client)
    {
        using (client)
        {
            try
            {
                var stream = client.GetStream();
                var head = new List<byte>();
                var one = new byte[1];
                while (!(head.Count >= 4 && head[^4] == 13 && head[^3] == 10 && head[^2] == 13 && head[^1] == 10))
                {
                    if (await stream.ReadAsync(one, _ended.Token) == 0) return;
                    head.Add(one[0]);
                }
                var path = Encoding.ASCII.GetString([.. head]).Split(' ')[1];
                var content = Content(int.Parse(path.AsSpan(1)));
                await stream.WriteAsync(Encoding.ASCII.GetBytes(
                    $"HTTP/1.0 200 OK\r\nContent-Length: {content.Length}\r\nConnection: close\r\n\r\n"), _ended.Token);
                await stream.WriteAsync(content, _ended.Token);
            }
            catch (Exception gone) when (gone is IOException or OperationCanceledException or SocketException) { }
        }
    }
}
