using System.Buffers.Text;
using System.Globalization;
using System.Text;

namespace ActorVmm.Host.Firecracker;

/// <summary>One request, whole.</summary>
/// <param name="Method">As it was written.</param>
/// <param name="Path">The absolute path, without a query.</param>
/// <param name="Body">Null where the request has none.</param>
internal sealed record MicroRequest(string Method, string Path, byte[]? Body);

/// <summary>One answer.</summary>
/// <param name="Status">200, 204, 400, ...</param>
/// <param name="Body">JSON, or null for none.</param>
/// <param name="Deprecated">The request used a deprecated field.</param>
internal sealed record MicroReply(int Status, string? Body = null, bool Deprecated = false)
{
    /// <summary>Done, nothing to say.</summary>
    public static MicroReply NoContent { get; } = new(204);

    /// <summary>The answer as it goes over the wire.</summary>
    public byte[] ToBytes()
    {
        var text = new StringBuilder().Append(CultureInfo.InvariantCulture,
            $"HTTP/1.1 {Status} \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n");
        if (Deprecated) text.Append("Deprecation: true\r\n");
        if (Body is not null)
            text.Append(CultureInfo.InvariantCulture,
                $"Content-Type: application/json\r\nContent-Length: {Encoding.UTF8.GetByteCount(Body)}\r\n");
        return Encoding.UTF8.GetBytes(text.Append("\r\n").Append(Body).ToString());
    }
}

/// <summary>A request that is none; the connection is closed after the answer.</summary>
internal sealed class MicroHttpException : Exception
{
    public MicroHttpException(string message) : base(message) { }
    public MicroHttpException(string message, Exception inner) : base(message, inner) { }
    public MicroHttpException() { }
}

/// <summary>
/// The HTTP/1.1 that Firecracker speaks on its API socket (request line, headers, a body of known length; nothing chunked). It is written
/// here, and not taken from a web server, because that socket has rules of its own (ten connections, its payload limit, its answers),
/// because
/// <c>run</c> must not start slower for it, and because a host has one such socket per VM.
/// </summary>
/// <param name="maxPayload">The longest body, in bytes.</param>
internal sealed class MicroHttpParser(int maxPayload)
{
    /// <summary>The longest request line with headers, in bytes.</summary>
    public const int MaxHead = 8 << 10;

    private readonly List<byte> _bytes = [];

    /// <summary>True where the request that is being read wants to be told to go on (RFC 9110 §10.1.1).</summary>
    public bool ExpectsContinue { get; private set; }

    /// <summary>Adds what was received.</summary>
    public void Add(ReadOnlySpan<byte> bytes) => _bytes.AddRange(bytes);

    /// <summary>The next whole request; null where more bytes are needed.</summary>
    /// <exception cref="MicroHttpException">It is not HTTP, or too long.</exception>
    public MicroRequest? TryTake()
    {
        var bytes = System.Runtime.InteropServices.CollectionsMarshal.AsSpan(_bytes);
        var end = bytes.IndexOf("\r\n\r\n"u8);
        if (end < 0)
        {
            if (bytes.Length > MaxHead) throw new MicroHttpException("The request line and its headers are longer than 8192 bytes.");
            return null;
        }

        if (end > MaxHead) throw new MicroHttpException("The request line and its headers are longer than 8192 bytes.");
        var head = bytes[..end];
        var lineEnd = head.IndexOf("\r\n"u8);
        var line = lineEnd < 0 ? head : head[..lineEnd];
        var (method, path) = RequestLine(line);
        var length = Headers(lineEnd < 0 ? default : head[(lineEnd + 2)..]);
        if (length > maxPayload)
            throw new MicroHttpException(string.Create(CultureInfo.InvariantCulture,
                $"Request payload with size {length} is larger than the limit of {maxPayload} allowed by server."));
        var whole = end + 4 + (int)(length ?? 0);
        if (bytes.Length < whole) return null;
        var body = length is > 0 ? bytes[(end + 4)..whole].ToArray() : null;
        _bytes.RemoveRange(0, whole);
        ExpectsContinue = false;
        return new MicroRequest(method, path, body);
    }

    private static (string Method, string Path) RequestLine(ReadOnlySpan<byte> line)
    {
        var first = line.IndexOf((byte)' ');
        var last = line.LastIndexOf((byte)' ');
        if (first <= 0 || last <= first) throw new MicroHttpException("Invalid request.");
        var version = line[(last + 1)..];
        if (!version.SequenceEqual("HTTP/1.1"u8) && !version.SequenceEqual("HTTP/1.0"u8))
            throw new MicroHttpException("Unsupported HTTP version.");
        foreach (var b in line)
            if (b is < 0x20 or >= 0x7F) throw new MicroHttpException("Invalid request.");
        var method = Encoding.ASCII.GetString(line[..first]);
        if (method is not ("GET" or "PUT" or "PATCH" or "DELETE")) throw new MicroHttpException("Invalid HTTP Method: Unsupported HTTP method.");
        var uri = Encoding.ASCII.GetString(line[(first + 1)..last]);
        if (uri.StartsWith("http://", StringComparison.Ordinal))
        {
            var slash = uri.IndexOf('/', 7);
            uri = slash < 0 ? "/" : uri[slash..];
        }

        if (!uri.StartsWith('/')) throw new MicroHttpException("Invalid URI.");
        var query = uri.IndexOf('?', StringComparison.Ordinal);
        return (method, query < 0 ? uri : uri[..query]);
    }

    private long? Headers(ReadOnlySpan<byte> headers)
    {
        long? length = null;
        while (headers.Length > 0)
        {
            var end = headers.IndexOf("\r\n"u8);
            var header = end < 0 ? headers : headers[..end];
            headers = end < 0 ? default : headers[(end + 2)..];
            var colon = header.IndexOf((byte)':');
            if (colon <= 0) throw new MicroHttpException("Invalid header.");
            var name = Encoding.ASCII.GetString(header[..colon]);
            var value = header[(colon + 1)..].Trim((byte)' ');
            if (name.Equals("Content-Length", StringComparison.OrdinalIgnoreCase))
            {
                if (length is not null || !Utf8Parser.TryParse(value, out uint number, out var used) || used != value.Length)
                    throw new MicroHttpException("Invalid content length.");
                length = number;
            }
            else if (name.Equals("Transfer-Encoding", StringComparison.OrdinalIgnoreCase) && !value.SequenceEqual("identity"u8))
            {
                throw new MicroHttpException("Unsupported transfer encoding.");
            }
            else if (name.Equals("Expect", StringComparison.OrdinalIgnoreCase))
            {
                if (!Encoding.ASCII.GetString(value).Equals("100-continue", StringComparison.OrdinalIgnoreCase))
                    throw new MicroHttpException("Unsupported expectation.");
                ExpectsContinue = true;
            }
        }

        return length;
    }
}
