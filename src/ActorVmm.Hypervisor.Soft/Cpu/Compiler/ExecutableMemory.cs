using System.Runtime.InteropServices;

namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>
/// Memory for machine code, mapped twice from one anonymous file: writable at one address, executable at another, so that no page is both.
/// The code in it is position-independent within the mapping; <see cref="Delta"/> leads from the writable to the executable address.
/// </summary>
internal sealed unsafe partial class ExecutableMemory : IDisposable
{
    private const int ProtRead = 1, ProtWrite = 2, ProtExec = 4, MapShared = 1;
    private const uint CloseOnExec = 1;

    /// <summary>Punches a hole into the file behind a shared mapping (madvise(2)).</summary>
    private const int Remove = 9;

    private readonly nuint _size;

    private ExecutableMemory(byte* write, byte* run, nuint size)
    {
        Write = write;
        Run = run;
        _size = size;
    }

    /// <summary>The writable mapping.</summary>
    public byte* Write { get; }

    /// <summary>The executable mapping of the same bytes.</summary>
    public byte* Run { get; }

    /// <summary>Executable minus writable address.</summary>
    public long Delta => Run - Write;

    /// <summary>Bytes of the mapping.</summary>
    public ulong Size => _size;

    /// <summary>Maps <paramref name="size"/> bytes for a host's processor; null with the reason where the host does not offer it.</summary>
    public static ExecutableMemory? TryCreate(Architecture host, nuint size, out string? refusal)
    {
        refusal = Unsupported(host);
        if (refusal != null) return null;
        var file = MemfdCreate("actorvmm-code", CloseOnExec);
        if (file < 0) return Refused("memfd_create", out refusal);
        try
        {
            if (Ftruncate(file, (nint)size) != 0) return Refused("ftruncate", out refusal);
            // SAFETY: two fresh shared mappings of the whole file; they live until Dispose, which unmaps both.
            var write = Mmap(null, size, ProtRead | ProtWrite, MapShared, file, 0);
            if ((nint)write == -1) return Refused("mmap", out refusal);
            var run = Mmap(null, size, ProtRead | ProtExec, MapShared, file, 0);
            if ((nint)run != -1) return new ExecutableMemory(write, run, size);
            var result = Refused("mmap of executable memory", out refusal);
            _ = Munmap(write, size);
            return result;
        }
        finally
        {
            _ = Close(file);
        }
    }

    /// <summary>Gives the host back whole pages from <paramref name="first"/> (an address of <see cref="Write"/>) on: they are zeroes
    /// then.</summary>
    public void Forget(byte* first)
    {
        var start = (byte*)(((nint)first + 0xFFF) & ~0xFFF);
        var end = Write + _size;
        // SAFETY: whole pages at the end of the shared mapping, which hold no code that will run again. Where it fails, they keep memory.
        if (start < end) _ = MAdvise(start, (nuint)(end - start), Remove);
    }

    /// <summary>
    /// Lets a waiting garbage collection in. The collector cannot stop a thread inside machine code that it does not know, only between two
    /// calls of it, and may miss that moment often: the way back from a native function is where a thread always looks.
    /// </summary>
    public static void GiveWayToCollector() => _ = PageSize();

    private static string? Unsupported(Architecture host)
    {
        if (host != Architecture.X64) return $"the host is {host}, not x64";
        return OperatingSystem.IsLinux() ? null : "executable memory is only asked for on Linux";
    }

    private static ExecutableMemory? Refused(string call, out string? refusal)
    {
        refusal = $"{call} was refused (error {Marshal.GetLastPInvokeError()})";
        return null;
    }

    public void Dispose()
    {
        _ = Munmap(Write, _size);
        _ = Munmap(Run, _size);
    }

    [LibraryImport("libc", EntryPoint = "memfd_create", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int MemfdCreate(string name, uint flags);

    [LibraryImport("libc", EntryPoint = "ftruncate", SetLastError = true)]
    private static partial int Ftruncate(int file, nint length);

    [LibraryImport("libc", EntryPoint = "mmap", SetLastError = true)]
    private static partial byte* Mmap(void* address, nuint length, int protection, int flags, int file, nint offset);

    [LibraryImport("libc", EntryPoint = "munmap", SetLastError = true)]
    private static partial int Munmap(void* address, nuint length);

    [LibraryImport("libc", EntryPoint = "madvise", SetLastError = true)]
    private static partial int MAdvise(void* address, nuint length, int advice);

    [LibraryImport("libc", EntryPoint = "getpagesize")]
    private static partial int PageSize();

    [LibraryImport("libc", EntryPoint = "close")]
    private static partial int Close(int file);
}
