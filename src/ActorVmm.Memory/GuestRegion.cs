using System.Runtime.InteropServices;

namespace ActorVmm.Memory;

/// <summary>One contiguous piece of guest RAM, an anonymous private mapping of the host.</summary>
public sealed unsafe partial class GuestRegion : IDisposable
{
    private const int ProtNone = 0, ProtReadWrite = 3;
    private const int MapPrivateAnonymousNoReserve = 0x02 | 0x20 | 0x4000;

    private const ulong PageSize = 4096;

    private const int MadviseDontNeed = 4;

    /// <summary>From here on huge pages are asked for: a guest that runs an operating system, which uses most of what it touches.</summary>
    private const ulong HugeFrom = 64 << 20;

    /// <summary>
    /// Room that nobody may touch, before and behind the RAM: what would run over its edge ends in a fault and not in another VM's memory.
    /// </summary>
    private const ulong Guard = 64 << 10;

    private readonly nint _mapping; // of _mapped bytes: the RAM and its guards
    private readonly ulong _mapped;
    private byte* _host;

    private GuestRegion(GuestAddress start, ulong size, byte* host, nint mapping, ulong mapped)
    {
        Start = start;
        Size = size;
        (_mapping, _mapped) = (mapping, mapped);
        _host = host;
    }

    /// <summary>First guest physical address.</summary>
    public GuestAddress Start { get; }

    /// <summary>Length in bytes, a multiple of 4096.</summary>
    public ulong Size { get; }

    /// <summary>
    /// Host address of <see cref="Start"/>; lives until <see cref="Dispose"/>. For the native edge and the software CPU only.
    /// </summary>
    public nint HostAddress => (nint)_host;

    /// <summary>Maps zeroed, lazily committed memory.</summary>
    public static GuestRegion Map(GuestAddress start, ulong size)
    {
        var huge = size >= HugeFrom;
        var mapped = size + (2 * Guard) + (huge ? HugePages.Size : 0UL);
        // SAFETY: a fresh anonymous mapping chosen by the kernel; no existing memory is touched, and what is made accessible lies within it.
        var mapping = (byte*)MMap(null, (nuint)mapped, ProtNone, MapPrivateAnonymousNoReserve, -1, 0);
        if ((nint)mapping == -1) throw Refused(size);
        var host = mapping + Guard;
        if (huge) host = (byte*)HugePages.Align((nuint)host);
        if (MProtect(host, (nuint)size, ProtReadWrite) != 0)
        {
            var refused = Refused(size);
            _ = MUnmap(mapping, (nuint)mapped);
            throw refused;
        }
        if (huge) HugePages.Ask(host, (nuint)size);
        return new GuestRegion(start, size, host, (nint)mapping, mapped);
    }

    private static InvalidOperationException Refused(ulong size) =>
        new($"cannot reserve {size >> 20} MiB of guest memory: {Marshal.GetLastPInvokeErrorMessage()}");

    /// <summary>
    /// True where all of [<paramref name="at"/>, +<paramref name="count"/>) lies in this region, also for ranges that would wrap.
    /// </summary>
    public bool Contains(GuestAddress at, ulong count) =>
        at.Value >= Start.Value && count <= Size && at.Value - Start.Value <= Size - count;

    /// <summary>The bytes of a guest range.</summary>
    public bool TrySlice(GuestAddress at, int count, out Span<byte> bytes)
    {
        if (_host == null || count < 0 || !Contains(at, (ulong)count)) { bytes = default; return false; }
        // SAFETY: Contains proved that [at, at + count) lies in this mapping, and the mapping lives as long as the VM.
        bytes = new Span<byte>(_host + (at.Value - Start.Value), count);
        return true;
    }

    /// <summary>Back to zeroes, and the host's pages back to the host.</summary>
    public void Clear()
    {
        if (_host == null) return;
        // SAFETY: the whole of this private anonymous mapping; the kernel gives zero pages from now on (madvise(2)).
        if (MAdvise(_host, (nuint)Size, MadviseDontNeed) != 0)
            throw new InvalidOperationException($"cannot clear guest memory: {Marshal.GetLastPInvokeErrorMessage()}");
    }

    /// <summary>Bytes that the host has given pages for (mincore(2)); 0 where it does not say.</summary>
    public ulong ResidentBytes()
    {
        if (_host == null) return 0;
        const int Chunk = 16384;
        var pages = (int)Math.Min(Chunk, Size / PageSize);
        Span<byte> present = stackalloc byte[pages];
        ulong resident = 0;
        for (ulong at = 0; at < Size; at += (ulong)pages * PageSize)
        {
            var length = Math.Min(Size - at, (ulong)pages * PageSize);
            fixed (byte* flags = present)
            {
                // SAFETY: the range lies in this mapping, and there is one byte per page of it.
                if (MInCore(_host + at, (nuint)length, flags) != 0) return resident;
            }

            foreach (var flag in present[..(int)(length / PageSize)]) resident += (ulong)(flag & 1) * PageSize;
        }

        return resident;
    }

    public void Dispose()
    {
        if (_host == null) return;
        // SAFETY: the mapping was made by Map with exactly this size and is unmapped once.
        _ = MUnmap((void*)_mapping, (nuint)_mapped);
        _host = null;
    }

    [LibraryImport("libc", EntryPoint = "mmap", SetLastError = true)]
    private static partial void* MMap(void* address, nuint length, int protection, int flags, int fd, long offset);

    [LibraryImport("libc", EntryPoint = "mprotect", SetLastError = true)]
    private static partial int MProtect(void* address, nuint length, int protection);

    [LibraryImport("libc", EntryPoint = "mincore", SetLastError = true)]
    private static partial int MInCore(void* address, nuint length, byte* present);

    [LibraryImport("libc", EntryPoint = "munmap", SetLastError = true)]
    private static partial int MUnmap(void* address, nuint length);

    [LibraryImport("libc", EntryPoint = "madvise", SetLastError = true)]
    private static partial int MAdvise(void* address, nuint length, int advice);
}
