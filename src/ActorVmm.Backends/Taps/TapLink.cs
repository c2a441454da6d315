using System.Runtime.InteropServices;
using System.Text;
using ActorVmm.Backends.Native;
using Microsoft.Win32.SafeHandles;

namespace ActorVmm.Backends.Taps;

/// <summary>The state of a network interface of the host, and the kernel's word that it may have changed (rtnetlink(7), RTMGRP_LINK).</summary>
internal sealed unsafe class TapLink : IDisposable
{
    private const int NetlinkFamily = 16, InternetFamily = 2, RawType = 3, DatagramType = 2, NonBlockingCloseOnExec = 0x80800;
    private const uint LinkGroup = 1;

    private readonly byte[] _name;
    private readonly SafeFileHandle _messages, _socket;

    /// <exception cref="TapException">The host is out of descriptors.</exception>
    public TapLink(string name)
    {
        _name = Encoding.UTF8.GetBytes(name);
        _socket = Owned(Libc.Socket(InternetFamily, DatagramType | NonBlockingCloseOnExec, 0), "socket");
        _messages = Owned(Libc.Socket(NetlinkFamily, RawType | NonBlockingCloseOnExec, 0), "netlink socket");
        // struct sockaddr_nl: family and padding, port (the kernel's choice), groups.
        var address = stackalloc uint[3] { NetlinkFamily, 0, LinkGroup };
        // SAFETY: twelve bytes of a local.
        if (Libc.Bind(_messages, address, 12) < 0) throw Failure("netlink socket");
    }

    /// <summary>Readable when the state of some interface has changed.</summary>
    public int Descriptor => (int)_messages.DangerousGetHandle();

    /// <summary>Whether the interface is there and up.</summary>
    public bool IsUp => Tun.TryGetFlags(_socket, _name, out var flags) && (flags & Tun.IffUp) != 0;

    /// <summary>Puts the interface up.</summary>
    public void BringUp() => Tun.TryBringUp(_socket, _name);

    /// <summary>Forgets what the kernel said: the state itself is asked for.</summary>
    public void Drain()
    {
        var bytes = stackalloc byte[4096];
        // SAFETY: at most as many bytes as the local has.
        for (var i = 0; i < 64 && Libc.Read(_messages, bytes, 4096) > 0; i++) { }
    }

    public void Dispose()
    {
        _messages.Dispose();
        _socket.Dispose();
    }

    private static SafeFileHandle Owned(int fd, string what) => fd >= 0 ? new SafeFileHandle(fd, ownsHandle: true) : throw Failure(what);

    private static TapException Failure(string what) => new($"{what}: {Marshal.GetLastPInvokeErrorMessage()}");
}
