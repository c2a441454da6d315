using System.Runtime.InteropServices;
using System.Text;
using ActorVmm.Backends.Native;
using Microsoft.Win32.SafeHandles;

namespace ActorVmm.Backends.Taps;

/// <summary>
/// The thread that waits for a tap: packets (edge-triggered, so that what the guest has no room for wakes nobody), changes of the interface's
/// state (the kernel's link messages), and the end.
/// </summary>
internal sealed unsafe class TapWatcher : IDisposable
{
    private const int NetlinkFamily = 16, InternetFamily = 2, RawType = 3, DatagramType = 2, NonBlockingCloseOnExec = 0x80800;
    private const ulong WakeKey = ulong.MaxValue, LinkKey = ulong.MaxValue - 1;
    private const int RetryMilliseconds = 1000;

    private readonly byte[] _name;
    private readonly TapPort _port;
    private readonly SafeFileHandle _epoll, _wake, _links, _socket;
    private readonly Thread _thread;
    private volatile bool _stopping;
    private volatile bool _lost;

    /// <exception cref="TapException">The host is out of descriptors.</exception>
    public TapWatcher(string name, TapPort port)
    {
        _name = Encoding.UTF8.GetBytes(name);
        _port = port;
        _epoll = Owned(Libc.EpollCreate(Libc.EpollCloseOnExec), "epoll");
        _wake = Owned(Libc.EventFd(0, Libc.EventFdNonBlocking | Libc.EventFdCloseOnExec), "eventfd");
        _socket = Owned(Libc.Socket(InternetFamily, DatagramType | NonBlockingCloseOnExec, 0), "socket");
        _links = Owned(Libc.Socket(NetlinkFamily, RawType | NonBlockingCloseOnExec, 0), "netlink socket");
        // struct sockaddr_nl: family, padding, port (the kernel's choice), groups (RTMGRP_LINK).
        var address = stackalloc uint[3] { NetlinkFamily, 0, 1 };
        // SAFETY: twelve bytes of a local.
        if (Libc.Bind(_links, address, 12) < 0) throw Failure("netlink socket");
        Add(_wake, WakeKey, Libc.EpollIn);
        Add(_links, LinkKey, Libc.EpollIn);
        _thread = new Thread(Run, 256 << 10) { IsBackground = true, Name = $"tap {name}" };
    }

    public void Start() => _thread.Start();

    /// <summary>Waits for these queues too; closing them ends it.</summary>
    public void Watch(TapHandles handles)
    {
        for (var i = 0; i < handles.Count; i++) Add(handles[i], (ulong)i, Libc.EpollIn | Libc.EpollEdge);
    }

    /// <summary>Whether the interface is there and up.</summary>
    public bool IsUp() => Tun.TryGetFlags(_socket, _name, out var flags) && (flags & Tun.IffUp) != 0;

    /// <summary>Puts the interface up.</summary>
    public void BringUp() => Tun.TryBringUp(_socket, _name);

    /// <summary>The interface is gone: look for it from time to time.</summary>
    public void Wake()
    {
        _lost = true;
        Signal();
    }

    public void Dispose()
    {
        _stopping = true;
        Signal();
        if (_thread.IsAlive && _thread != Thread.CurrentThread) _thread.Join();
        _links.Dispose();
        _socket.Dispose();
        _wake.Dispose();
        _epoll.Dispose();
    }

    private void Run()
    {
        const int Most = 16;
        var ready = stackalloc Libc.EpollEvent[Most];
        while (!_stopping)
        {
            // SAFETY: the kernel writes at most Most events into the local.
            var count = Libc.EpollWait(_epoll, ready, Most, _lost ? RetryMilliseconds : -1);
            if (_stopping) return;
            if (count == 0)
            {
                _port.OnState(false);
                if (_port.TryReopen()) _lost = false;
                continue;
            }
            var packets = false;
            for (var i = 0; i < count; i++)
            {
                switch (ready[i].Data)
                {
                    case WakeKey: Drain(_wake); break;
                    case LinkKey: Drain(_links); _port.OnState(IsUp()); break;
                    default: packets = true; break;
                }
            }
            if (packets) _port.OnPackets();
        }
    }

    private static void Drain(SafeFileHandle file)
    {
        var bytes = stackalloc byte[4096];
        // SAFETY: at most as many bytes as the local has. What they say does not matter: the state is asked for.
        for (var i = 0; i < 64 && Libc.Read(file, bytes, 4096) > 0; i++) { }
    }

    private void Signal()
    {
        ulong one = 1;
        // SAFETY: eight bytes of a local.
        _ = Libc.Write(_wake, &one, sizeof(ulong));
    }

    private void Add(SafeFileHandle file, ulong key, uint events)
    {
        var wanted = new Libc.EpollEvent { Events = events, Data = key };
        // SAFETY: the kernel reads the local.
        if (Libc.EpollCtl(_epoll, Libc.EpollCtlAdd, file, &wanted) < 0) throw Failure("epoll");
    }

    private static SafeFileHandle Owned(int fd, string what) => fd >= 0 ? new SafeFileHandle(fd, ownsHandle: true) : throw Failure(what);

    private static TapException Failure(string what) => new($"{what}: {Marshal.GetLastPInvokeErrorMessage()}");
}
