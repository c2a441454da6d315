using System.Runtime.InteropServices;
using ActorVmm.Memory;
using Microsoft.Win32.SafeHandles;

namespace ActorVmm.Backends.Disks;

/// <summary>The system calls of disks, in the kernel's spelling (x86-64 and arm64 Linux).</summary>
internal static unsafe partial class DiskLibc
{
    public const int O_RDONLY = 0, O_RDWR = 2, O_CLOEXEC = 0x80000;

    /// <summary>0x4000 on x86-64, 0x10000 on arm64.</summary>
    public static readonly int O_DIRECT = RuntimeInformation.ProcessArchitecture == Architecture.Arm64 ? 0x10000 : 0x4000;

    public const int EINTR = 4, EIO = 5, EAGAIN = 11, EACCES = 13, EINVAL = 22, ENOSPC = 28, ENOSYS = 38, EOPNOTSUPP = 95, EDQUOT = 122;

    public const int FALLOC_FL_KEEP_SIZE = 1, FALLOC_FL_PUNCH_HOLE = 2, FALLOC_FL_ZERO_RANGE = 16;
    public const int RWF_DSYNC = 2;
    public const int RWF_NOWAIT = 8;
    public const int SEEK_END = 2;
    public const int F_OFD_SETLK = 37;
    public const short F_RDLCK = 0, F_WRLCK = 1;
    public const ulong BLKSSZGET = 0x1268, BLKROGET = 0x125e;

    private const int AtEmptyPath = 0x1000;
    private const uint StatxDioalign = 0x2000;

    /// <summary><c>struct flock</c> of 64-bit Linux.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct FileLock
    {
        public short Type;
        public short Whence;
        public long Start;
        public long Length;
        public int Pid;
    }

    [LibraryImport("libc", EntryPoint = "open", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    public static partial SafeFileHandle Open(string path, int flags, int mode);

    [LibraryImport("libc", EntryPoint = "preadv", SetLastError = true)]
    public static partial nint PReadV(SafeFileHandle file, HostSegment* segments, int count, long offset);

    [LibraryImport("libc", EntryPoint = "preadv2", SetLastError = true)]
    public static partial nint PReadV2(SafeFileHandle file, HostSegment* segments, int count, long offset, int flags);

    [LibraryImport("libc", EntryPoint = "pwritev2", SetLastError = true)]
    public static partial nint PWriteV2(SafeFileHandle file, HostSegment* segments, int count, long offset, int flags);

    [LibraryImport("libc", EntryPoint = "pread", SetLastError = true)]
    public static partial nint PRead(SafeFileHandle file, void* into, nuint count, long offset);

    [LibraryImport("libc", EntryPoint = "pwrite", SetLastError = true)]
    public static partial nint PWrite(SafeFileHandle file, void* from, nuint count, long offset);

    [LibraryImport("libc", EntryPoint = "fdatasync", SetLastError = true)]
    public static partial int FDataSync(SafeFileHandle file);

    [LibraryImport("libc", EntryPoint = "fallocate", SetLastError = true)]
    public static partial int FAllocate(SafeFileHandle file, int mode, long offset, long length);

    [LibraryImport("libc", EntryPoint = "lseek", SetLastError = true)]
    public static partial long LSeek(SafeFileHandle file, long offset, int whence);

    [LibraryImport("libc", EntryPoint = "ioctl", SetLastError = true)]
    public static partial int IoCtl(SafeFileHandle file, ulong request, int* value);

    [LibraryImport("libc", EntryPoint = "fcntl", SetLastError = true)]
    public static partial int FCntl(SafeFileHandle file, int command, FileLock* description);

    [LibraryImport("libc", EntryPoint = "statx", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int StatX(SafeFileHandle directory, string path, int flags, uint mask, byte* into);

    /// <summary>What direct I/O wants of memory and of offsets, in bytes (statx(2), Linux 6.1); null where the kernel does not say.</summary>
    public static (int Memory, int Offset)? DirectAlignment(SafeFileHandle file)
    {
        // struct statx: 256 bytes; stx_mask at 0, stx_dio_mem_align at 0x98, stx_dio_offset_align at 0x9c.
        var into = stackalloc byte[256];
        // SAFETY: the kernel writes at most the 256 bytes of struct statx.
        if (StatX(file, "", AtEmptyPath, StatxDioalign, into) != 0 || (*(uint*)into & StatxDioalign) == 0) return null;
        var (memory, offset) = (*(int*)(into + 0x98), *(int*)(into + 0x9c));
        return memory > 0 && offset > 0 ? (memory, offset) : null;
    }
}
