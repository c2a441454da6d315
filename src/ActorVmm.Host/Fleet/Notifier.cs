using System.Globalization;
using System.Net.Sockets;
using System.Text;

namespace ActorVmm.Host.Fleet;

/// <summary>
/// Tells the service manager how the daemon is (sd_notify(3)): datagrams to the socket that <c>NOTIFY_SOCKET</c> names. Without one, and
/// where nobody listens, nothing happens.
/// </summary>
internal sealed class Notifier : IDisposable
{
    private readonly Socket? _socket;

    /// <param name="path">The socket's path, or its abstract name after <c>@</c>; null for none.</param>
    public Notifier(string? path)
    {
        if (string.IsNullOrEmpty(path)) return;
        try
        {
            _socket = new Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
            _socket.Connect(new UnixDomainSocketEndPoint(path[0] == '@' ? "\0" + path[1..] : path));
        }
        catch (SocketException)
        {
            _socket?.Dispose();
            _socket = null;
        }
    }

    /// <summary>What this process's environment says.</summary>
    public static Notifier OfProcess() => new(Environment.GetEnvironmentVariable("NOTIFY_SOCKET"));

    /// <summary>How often the service manager wants to hear, halved; null where it does not (sd_watchdog_enabled(3)).</summary>
    public static TimeSpan? WatchdogPeriod(string? microseconds, string? pid, int ownPid)
    {
        if (!long.TryParse(microseconds, NumberStyles.None, CultureInfo.InvariantCulture, out var value) || value <= 0) return null;
        if (pid is not null && !string.Equals(pid, ownPid.ToString(CultureInfo.InvariantCulture), StringComparison.Ordinal)) return null;
        return TimeSpan.FromMicroseconds(value) / 2;
    }

    public void Ready(string status) => Send($"READY=1\nSTATUS={status}");
    public void Status(string status) => Send($"STATUS={status}\nEXTEND_TIMEOUT_USEC=30000000");
    public void Reloading(long monotonicMicroseconds) =>
        Send(string.Create(CultureInfo.InvariantCulture, $"RELOADING=1\nMONOTONIC_USEC={monotonicMicroseconds}"));
    public void Stopping() => Send("STOPPING=1");
    public void Watchdog() => Send("WATCHDOG=1");

    private void Send(string text)
    {
        try { _socket?.Send(Encoding.UTF8.GetBytes(text)); }
        catch (Exception gone) when (gone is SocketException or ObjectDisposedException) { /* nobody listens any more */ }
    }

    public void Dispose() => _socket?.Dispose();
}
