using System.Runtime.InteropServices;

namespace ActorVmm.Hypervisor.Soft.Tests.Native;

/// <summary>The system calls of the native runner, in kernel spelling.</summary>
internal static unsafe partial class Libc
{
    public const int PROT_NONE = 0, PROT_READ = 1, PROT_WRITE = 2, PROT_EXEC = 4;
    public const int MAP_SHARED = 1, MAP_ANONYMOUS = 0x20, MAP_FIXED_NOREPLACE = 0x100000;
    public const int WALL = 0x4000_0000;
    public const int EINTR = 4;

    [LibraryImport("libc", EntryPoint = "mmap", SetLastError = true)]
    public static partial nint Mmap(nint address, nuint length, int protection, int flags, int fd, long offset);

    [LibraryImport("libc", EntryPoint = "mprotect", SetLastError = true)]
    public static partial int Mprotect(nint address, nuint length, int protection);

    [LibraryImport("libc", EntryPoint = "wait4", SetLastError = true)]
    public static partial int Wait4(int pid, out int status, int options, nint usage);
}
