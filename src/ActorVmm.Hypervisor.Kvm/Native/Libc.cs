using System.Runtime.InteropServices;

namespace ActorVmm.Hypervisor.Kvm.Native;

/// <summary>The system calls that the base library and Mono.Posix lack. None suppresses the GC transition: KVM_RUN may stay for
/// hours.</summary>
internal static unsafe partial class Libc
{
    public const int EINTR = 4, EAGAIN = 11, ENOMEM = 12, EACCES = 13, EFAULT = 14, EBUSY = 16, EEXIST = 17, ENODEV = 19, EINVAL = 22,
        EMFILE = 24, ENFILE = 23, ENOSPC = 28, ENOENT = 2, EPERM = 1, ENXIO = 6, ENOTTY = 25, E2BIG = 7, EIO = 5;

    public const int EventFdNonBlocking = 0x800, EventFdCloseOnExec = 0x80000;

    [LibraryImport("libc", EntryPoint = "ioctl", SetLastError = true)]
    public static partial int Ioctl(KvmFile file, nuint request, void* argument);

    [LibraryImport("libc", EntryPoint = "ioctl", SetLastError = true)]
    public static partial int Ioctl(KvmFile file, nuint request, nuint argument);

    /// <summary>
    /// KVM_RUN, some hundred thousand times a second: no handle to count and no error number to keep for a call that succeeds. Read it with
    /// <see cref="Marshal.GetLastSystemError"/>, before anything else.
    /// </summary>
    [LibraryImport("libc", EntryPoint = "ioctl")]
    public static partial int IoctlBare(int fd, nuint request, nuint argument);

    [LibraryImport("libc", EntryPoint = "close", SetLastError = true)]
    public static partial int Close(nint fd);

    [LibraryImport("libc", EntryPoint = "eventfd", SetLastError = true)]
    public static partial int EventFd(uint initial, int flags);

    [LibraryImport("libc", EntryPoint = "read", SetLastError = true)]
    public static partial nint Read(KvmFile file, void* into, nuint count);

    [LibraryImport("libc", EntryPoint = "write", SetLastError = true)]
    public static partial nint Write(KvmFile file, void* from, nuint count);

    /// <summary>Returns the error number itself.</summary>
    [LibraryImport("libc", EntryPoint = "pthread_sigmask")]
    public static partial int PthreadSigmask(int how, ulong* set, ulong* old);

    [LibraryImport("libc", EntryPoint = "sigtimedwait", SetLastError = true)]
    public static partial int SigTimedWait(ulong* set, void* info, long* timeout);

    [LibraryImport("libc", EntryPoint = "tgkill", SetLastError = true)]
    public static partial int TgKill(int process, int thread, int signal);

    [LibraryImport("libc", EntryPoint = "gettid")]
    public static partial int GetTid();

    public const ulong SA_RESTART = 0x1000_0000, SA_ONSTACK = 0x0800_0000;

    [LibraryImport("libc", EntryPoint = "sigaction", SetLastError = true)]
    public static partial int SigAction(int signal, void* action, void* old);

    [LibraryImport("libc", EntryPoint = "signal", SetLastError = true)]
    public static partial nint Signal(int signal, nint disposition);
}
