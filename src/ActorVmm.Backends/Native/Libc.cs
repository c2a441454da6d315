using System.Runtime.InteropServices;
using ActorVmm.Memory;

namespace ActorVmm.Backends.Native;

/// <summary>System calls on descriptors that the base library does not have.</summary>
internal static unsafe partial class Libc
{
    public const int EPERM = 1, EIO = 5, EAGAIN = 11, EACCES = 13, EBUSY = 16, ENODEV = 19, EINVAL = 22, EBADFD = 77;
    [LibraryImport("libc", EntryPoint = "open", SetLastError = true)]
    private static partial int Open(byte* path, int flags);

    [LibraryImport("libc", EntryPoint = "ioctl", SetLastError = true)]
    public static partial int Ioctl(SafeHandle file, nuint request, void* argument);

    [LibraryImport("libc", EntryPoint = "readv", SetLastError = true)]
    public static partial nint ReadV(SafeHandle file, HostSegment* vector, int count);

    [LibraryImport("libc", EntryPoint = "writev", SetLastError = true)]
    public static partial nint WriteV(SafeHandle file, HostSegment* vector, int count);

    [LibraryImport("libc", EntryPoint = "read", SetLastError = true)]
    public static partial nint Read(SafeHandle file, void* into, nuint count);

    [LibraryImport("libc", EntryPoint = "socket", SetLastError = true)]
    public static partial int Socket(int family, int type, int protocol);

    [LibraryImport("libc", EntryPoint = "bind", SetLastError = true)]
    public static partial int Bind(SafeHandle socket, void* address, uint length);

    /// <summary>open(2) of a name that ends with a zero, as u8 literals do.</summary>
    public static int Open(ReadOnlySpan<byte> path, int flags)
    {
        // SAFETY: u8 literals are followed by a zero byte.
        fixed (byte* start = path) return Open(start, flags);
    }
}
