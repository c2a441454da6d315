using System.Runtime.InteropServices;

namespace ActorVmm.Memory;

/// <summary>Huge pages of the host for memory that is used here and there: they save its TLB, most of all under another hypervisor.</summary>
public static unsafe partial class HugePages
{
    /// <summary>Bytes of one.</summary>
    public const int Size = 2 << 20;

    private const int MadviseHugePage = 14;

    /// <summary>
    /// Asks for them, before the memory is written for the first time: for those of its pages that lie wholly in it. A host without huge
    /// pages says no, and all works as well.
    /// </summary>
    /// <param name="memory">Memory that does not move: a mapping, or a pinned array.</param>
    public static void Ask(Span<byte> memory)
    {
        fixed (byte* start = memory) Ask(start, (nuint)memory.Length);
    }

    /// <summary>The same for a mapping, which may be longer than a span.</summary>
    internal static void Ask(byte* start, nuint length)
    {
        var first = Align((nuint)start);
        var end = ((nuint)start + length) & ~((nuint)Size - 1);
        // SAFETY: advice on whole pages within the caller's memory; it changes nothing of what is in them (madvise(2)).
        if (first < end) _ = MAdvise((void*)first, end - first, MadviseHugePage);
    }

    /// <summary>The first address from <paramref name="address"/> on at which one may begin.</summary>
    internal static nuint Align(nuint address) => (address + Size - 1) & ~((nuint)Size - 1);

    [LibraryImport("libc", EntryPoint = "madvise", SetLastError = true)]
    private static partial int MAdvise(void* address, nuint length, int advice);
}
