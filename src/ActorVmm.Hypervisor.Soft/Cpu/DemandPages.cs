using System.Runtime.InteropServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// A large table or arena of zeroes that takes memory only where it was written, and gives it back on demand: an anonymous mapping of its
/// own, because an allocator neither clears without touching every page nor returns pages to the host.
/// </summary>
internal sealed unsafe partial class DemandPages : IDisposable
{
    private const int ProtReadWrite = 3, MapPrivateAnonymousNoReserve = 0x02 | 0x20 | 0x4000;
    private const int DontNeed = 4;

    private readonly nuint _size;

    /// <summary>Maps <paramref name="bytes"/> of zeroes.</summary>
    /// <exception cref="InvalidOperationException">The host refuses the mapping.</exception>
    public DemandPages(ulong bytes)
    {
        _size = (nuint)bytes;
        // SAFETY: a fresh anonymous mapping chosen by the kernel; it lives until Dispose.
        Start = MMap(null, _size, ProtReadWrite, MapPrivateAnonymousNoReserve, -1, 0);
        if ((nint)Start == -1)
            throw new InvalidOperationException($"cannot map {bytes >> 10} KiB: {Marshal.GetLastPInvokeErrorMessage()}");
    }

    /// <summary>The first byte; page-aligned.</summary>
    public byte* Start { get; }

    /// <summary>Back to zeroes, and the host's pages back to the host.</summary>
    public void Forget()
    {
        // SAFETY: the whole of this private anonymous mapping, which nobody reads meanwhile; it is zeroes afterwards (madvise(2)).
        if (MAdvise(Start, _size, DontNeed) != 0) NativeMemory.Clear(Start, _size);
    }

    public void Dispose() => _ = MUnmap(Start, _size);

    [LibraryImport("libc", EntryPoint = "mmap", SetLastError = true)]
    private static partial byte* MMap(void* address, nuint length, int protection, int flags, int file, nint offset);

    [LibraryImport("libc", EntryPoint = "munmap", SetLastError = true)]
    private static partial int MUnmap(void* address, nuint length);

    [LibraryImport("libc", EntryPoint = "madvise", SetLastError = true)]
    private static partial int MAdvise(void* address, nuint length, int advice);
}
