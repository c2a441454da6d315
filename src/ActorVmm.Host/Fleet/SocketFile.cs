using System.Globalization;
using System.Net.Sockets;
using System.Text;
using Mono.Unix.Native;

namespace ActorVmm.Host.Fleet;

/// <summary>Where a unix socket is to be.</summary>
internal static class SocketFile
{
    /// <summary>The longest path of a socket, in bytes (unix(7): sun_path has 108, the last one is zero).</summary>
    public const int MaxPath = 107;

    /// <summary>True for a path that <c>sockaddr_un</c> holds.</summary>
    public static bool IsShortEnough(string path) => Encoding.UTF8.GetByteCount(path) <= MaxPath;

    /// <summary>What is wrong with a path that is not.</summary>
    public static string TooLong(string path) => string.Create(CultureInfo.InvariantCulture,
        $"the whole path has {Encoding.UTF8.GetByteCount(path)} bytes; allowed are {MaxPath} for a socket");

    /// <summary>
    /// Makes room for a socket. Only a socket that nobody listens on, which a crash has left behind, is deleted; what else has this name
    /// is somebody's file.
    /// </summary>
    /// <exception cref="IOException">The name is taken; the message says by what, and what to do.</exception>
    public static void MakeWay(string path)
    {
        // lstat: a link is no socket, wherever it leads. A connect alone would not tell: a regular file refuses it as a dead socket does.
        if (Syscall.lstat(path, out var status) != 0) return; // bind says what is wrong, if anything is
        if ((status.st_mode & FilePermissions.S_IFMT) != FilePermissions.S_IFSOCK)
            throw new IOException($"{path} exists and is no socket: name another path for the socket, or move that file away");
        // Without blocking: a live one whose queue is full says EAGAIN.
        using var probe = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { Blocking = false };
        try
        {
            probe.Connect(new UnixDomainSocketEndPoint(path));
        }
        catch (SocketException refused) when (refused.SocketErrorCode == SocketError.ConnectionRefused)
        {
            File.Delete(path);
            return;
        }
        catch (SocketException unclear) when (unclear.SocketErrorCode is not (SocketError.WouldBlock or SocketError.TryAgain))
        {
            throw new IOException($"{path} is a socket that cannot be tried ({unclear.Message}): name another, or remove it", unclear);
        }

        throw new IOException($"{path}: another process listens on this socket already; name another path, or stop that process");
    }
}
