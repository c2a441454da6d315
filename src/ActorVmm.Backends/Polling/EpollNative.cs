using System.Runtime.InteropServices;

namespace ActorVmm.Backends.Polling;

/// <summary>epoll(7) and eventfd(2). Each returns -1 with the error number kept.</summary>
internal static unsafe partial class EpollNative
{
    /// <summary>EINTR.</summary>
    public const int Interrupted = 4;

    private const int CloseOnExec = 0x80000;
    private const int NonBlocking = 0x800;
    private const int ControlAdd = 1;
    private const int ControlRemove = 2;
    private const uint Readable = 1;
    private const uint EdgeTriggered = 1u << 31;

    /// <summary>struct epoll_event, packed on x86-64.</summary>
    [StructLayout(LayoutKind.Sequential, Pack = 4)]
    private struct EpollEvent
    {
        public uint Events;
        public ulong Data;
    }

    public static int Create() => EpollCreate(CloseOnExec);

    /// <summary>A counter to wake the loop with.</summary>
    public static int CreateEvent() => EventFd(0, CloseOnExec | NonBlocking);

    /// <summary>Watches a descriptor for input, edge-triggered.</summary>
    public static int Add(int epoll, int descriptor, ulong id)
    {
        var wanted = new EpollEvent { Events = Readable | EdgeTriggered, Data = id };
        // SAFETY: the kernel reads one structure of ours during the call.
        return EpollControl(epoll, ControlAdd, descriptor, &wanted);
    }

    public static void Remove(int epoll, int descriptor)
    {
        EpollEvent ignored = default; // kernels before 2.6.9 wanted a pointer
        // SAFETY: as above. A descriptor that was closed has removed itself, which is no error to anybody.
        _ = EpollControl(epoll, ControlRemove, descriptor, &ignored);
    }

    /// <summary>Blocks until something happens; the ids of what did.</summary>
    public static int Wait(int epoll, Span<ulong> ids)
    {
        var events = stackalloc EpollEvent[ids.Length];
        // SAFETY: room for as many events as are asked for.
        var count = EpollWait(epoll, events, ids.Length, -1);
        for (var i = 0; i < count; i++) ids[i] = events[i].Data;
        return count;
    }

    /// <summary>Adds one to an event counter.</summary>
    public static void Ring(int descriptor)
    {
        ulong one = 1;
        // SAFETY: eight bytes of a local. A counter that is full has rung already.
        _ = Write(descriptor, &one, sizeof(ulong));
    }

    [LibraryImport("libc", EntryPoint = "close", SetLastError = true)]
    public static partial int Close(int descriptor);

    [LibraryImport("libc", EntryPoint = "epoll_create1", SetLastError = true)]
    private static partial int EpollCreate(int flags);

    [LibraryImport("libc", EntryPoint = "epoll_ctl", SetLastError = true)]
    private static partial int EpollControl(int epoll, int operation, int descriptor, EpollEvent* wanted);

    [LibraryImport("libc", EntryPoint = "epoll_wait", SetLastError = true)]
    private static partial int EpollWait(int epoll, EpollEvent* events, int count, int milliseconds);

    [LibraryImport("libc", EntryPoint = "eventfd", SetLastError = true)]
    private static partial int EventFd(uint initial, int flags);

    [LibraryImport("libc", EntryPoint = "write", SetLastError = true)]
    private static partial nint Write(int descriptor, void* from, nuint count);
}
