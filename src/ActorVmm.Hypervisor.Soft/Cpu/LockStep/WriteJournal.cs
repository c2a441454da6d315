using System.Runtime.InteropServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// What a block has written to guest RAM, by whole pages: each page is copied before its first write, so that a block can be taken back and
/// run again, and what two runs wrote can be compared.
/// </summary>
internal sealed unsafe class WriteJournal : IDisposable
{
    private const int MaxPages = 64, PageBytes = 0x1000;

    // SAFETY: two images per page, freed in Dispose; every index is below Count, which never passes MaxPages.
    private readonly byte* _images = (byte*)NativeMemory.Alloc(2 * MaxPages * PageBytes);
    private readonly byte*[] _hosts = new byte*[MaxPages];
    private int _first; // pages of the first run

    /// <summary>Pages written so far.</summary>
    public int Count { get; private set; }

    private byte* Before(int page) => _images + page * PageBytes;

    private byte* After(int page) => _images + (MaxPages + page) * PageBytes;

    private static Span<byte> Page(byte* at) => new(at, PageBytes);

    public void Clear() => (Count, _first) = (0, 0);

    /// <summary>A page of RAM may be written from now on. False where there is no room to remember it.</summary>
    public bool TryNote(byte* host)
    {
        var page = (byte*)((nint)host & ~(PageBytes - 1));
        for (var i = 0; i < Count; i++)
            if (_hosts[i] == page) return true;
        if (Count == MaxPages) return false;
        _hosts[Count] = page;
        // SAFETY: guest RAM is mapped in whole, aligned pages.
        Page(page).CopyTo(Page(Before(Count)));
        Count++;
        return true;
    }

    /// <summary>Bits that a page walk has set stay set, also where the page is taken back.</summary>
    public void Keep(byte* entry, ulong bits)
    {
        for (var i = 0; i < Count; i++)
            if (_hosts[i] == (byte*)((nint)entry & ~(PageBytes - 1)))
                *(ulong*)(Before(i) + ((nint)entry & (PageBytes - 1))) |= bits;
    }

    /// <summary>Ends the first run: remembers what it wrote and takes it back.</summary>
    public void TakeBack()
    {
        _first = Count;
        for (var i = 0; i < Count; i++)
        {
            Page(_hosts[i]).CopyTo(Page(After(i)));
            Page(Before(i)).CopyTo(Page(_hosts[i]));
        }
    }

    /// <summary>Host address of the first byte in which memory differs from what the first run left, or null; with both bytes.</summary>
    public byte* FindDifference(out byte first, out byte second)
    {
        for (var i = 0; i < Count; i++)
        {
            var wanted = Page(i < _first ? After(i) : Before(i));
            var at = wanted.CommonPrefixLength(Page(_hosts[i]));
            if (at == PageBytes) continue;
            (first, second) = (wanted[at], _hosts[i][at]);
            return _hosts[i] + at;
        }
        (first, second) = (0, 0);
        return null;
    }

    public void Dispose() => NativeMemory.Free(_images);
}
