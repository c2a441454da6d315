using System.Runtime.InteropServices;
using ActorVmm.Hypervisor.Soft.Cpu.Compiler;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// The TLBs of one privilege level and address space (read, write, code), and the compiled code's jumps by virtual address, which hold as long
/// as they do. Beside each slot stands what dropping entries must know; small filters answer "nothing of this page is here" at once, which is
/// the usual answer: a kernel drops pages by the ten thousand that were never executed, and large pages hardly ever.
/// </summary>
internal sealed unsafe class TlbSet : IDisposable
{
    private const int Slots = 3 * Mem.TlbSize;

    /// <summary>Bits of a filter by page number.</summary>
    private const int FilterBits = 1 << 16;

    private readonly TlbEntry* _entries;
    private readonly byte* _toZero;
    private readonly byte[] _shift = new byte[Slots];
    private readonly byte[] _listed = new byte[Slots]; // 1: in _local, 2: in _global
    private readonly ushort[] _local = new ushort[Slots];
    private readonly ushort[] _global = new ushort[Slots];
    private readonly ulong[] _largePages = new ulong[64]; // 2 MiB and 4 MiB pages that entries came from
    private readonly ulong[] _codePages = new ulong[FilterBits / 64]; // pages that jumps may lead into
    private readonly ulong[] _writablePages = new ulong[FilterBits / 64]; // host pages that write entries may lead to
    private int _localCount;
    private int _globalCount;
    private ulong _hugePages; // 1 GiB
    private bool _localCode;

    /// <param name="toZero">See <see cref="Stubs.ToZero"/>; null without a compiler.</param>
    public TlbSet(byte* toZero)
    {
        // SAFETY: three tables of TlbSize entries and one of jumps, freed in Dispose; every index is masked to its table.
        _entries = (TlbEntry*)NativeMemory.AlignedAlloc((nuint)(Slots * sizeof(TlbEntry)), 64);
        for (var i = 0; i < Slots; i++) _entries[i] = new TlbEntry { Tag = TlbEntry.Invalid };
        Jumps = (byte*)NativeMemory.AlignedAlloc(JumpCache.Bytes, 64);
        JumpCache.Empty(Jumps, toZero);
        _toZero = toZero;
    }

    /// <summary>The process-context identifier whose entries these are (user sets).</summary>
    public ulong Context { get; set; }

    /// <summary>When it was selected last, in selections.</summary>
    public ulong LastUse { get; set; }

    public TlbEntry* Read => _entries;

    public TlbEntry* Write => _entries + Mem.TlbSize;

    public TlbEntry* Code => _entries + 2 * Mem.TlbSize;

    /// <summary>See <see cref="JumpCache"/>.</summary>
    public byte* Jumps { get; }

    /// <summary>Times that the jumps were emptied.</summary>
    public ulong JumpFlushes { get; private set; }

    public bool HasGlobal => _globalCount > 0;

    private static void Mark(ulong[] filter, ulong number) => filter[number / 64 % (uint)filter.Length] |= 1UL << (int)(number % 64);

    private static bool MayHave(ulong[] filter, ulong number) => (filter[number / 64 % (uint)filter.Length] >> (int)(number % 64) & 1) != 0;

    /// <summary>Enters a translation, and gives the entry.</summary>
    /// <param name="shift">Log2 of the size of the page it came from.</param>
    public TlbEntry* Fill(Access access, ulong linear, ulong addend, byte shift, bool isGlobal)
    {
        var slot = (int)access * Mem.TlbSize + (int)((linear >> 12) & (Mem.TlbSize - 1));
        _entries[slot] = new TlbEntry { Tag = linear & ~0xFFFUL, Addend = addend };
        _shift[slot] = shift;
        if (shift > 22) _hugePages |= 1UL << (int)(linear >> 30 & 63);
        else if (shift > 12) MarkLarge(linear, shift);
        if (access == Access.Execute)
        {
            Mark(_codePages, linear >> 12);
            _localCode |= !isGlobal;
        }
        else if (access == Access.Write)
        {
            Mark(_writablePages, (linear + addend) >> 12);
        }
        List(slot, isGlobal);
        return _entries + slot;
    }

    private void MarkLarge(ulong linear, byte shift)
    {
        Mark(_largePages, linear >> 21);
        if (shift == 22) Mark(_largePages, linear >> 21 ^ 1);
    }

    private void List(int slot, bool isGlobal)
    {
        var bit = isGlobal ? 2 : 1;
        if ((_listed[slot] & bit) != 0) return;
        _listed[slot] |= (byte)bit;
        if (isGlobal) _global[_globalCount++] = (ushort)slot;
        else _local[_localCount++] = (ushort)slot;
    }

    /// <summary>Drops entries; global ones only on request.</summary>
    public void Flush(bool includeGlobal)
    {
        for (var i = 0; i < _localCount; i++) Drop(_local[i], 2);
        _localCount = 0;
        if (includeGlobal)
        {
            for (var i = 0; i < _globalCount; i++) Drop(_global[i], 0);
            _globalCount = 0;
        }
        // Jumps into global pages stay as those do; whether an entry leads to another page, the table does not tell.
        if (includeGlobal || _localCode) FlushJumps();
        _localCode = false;
        if (_globalCount > 0) return;
        Array.Clear(_largePages);
        Array.Clear(_codePages);
        Array.Clear(_writablePages);
        _hugePages = 0;
    }

    private void Drop(int slot, int keep)
    {
        _entries[slot].Tag = TlbEntry.Invalid;
        _listed[slot] &= (byte)keep;
    }

    public void FlushJumps()
    {
        JumpFlushes++;
        JumpCache.Empty(Jumps, _toZero);
    }

    /// <summary>Drops the entries of one page; of a large page every entry that came from it (SDM Vol. 3 §4.10.4.1).</summary>
    public void FlushPage(ulong linear)
    {
        if (MayHave(_largePages, linear >> 21) || (_hugePages >> (int)(linear >> 30 & 63) & 1) != 0)
        {
            DropPage(linear, _local, _localCount);
            DropPage(linear, _global, _globalCount);
            FlushJumps();
            return;
        }
        for (var table = _entries; table < _entries + Slots; table += Mem.TlbSize)
        {
            var entry = Mem.Entry(table, linear);
            if (entry->Tag == (linear & ~0xFFFUL)) entry->Tag = TlbEntry.Invalid;
        }
        if (MayHave(_codePages, linear >> 12)) FlushJumps();
    }

    private void DropPage(ulong linear, ushort[] used, int count)
    {
        for (var i = 0; i < count; i++)
        {
            var slot = used[i];
            if (_entries[slot].Tag != TlbEntry.Invalid && (_entries[slot].Tag ^ linear) >> _shift[slot] == 0) _entries[slot].Tag = TlbEntry.Invalid;
        }
    }

    /// <summary>Drops write entries that lead to a host page.</summary>
    public void FlushWrites(byte* host)
    {
        if (!MayHave(_writablePages, (ulong)host >> 12)) return;
        for (var entry = Write; entry < Write + Mem.TlbSize; entry++)
            if (entry->Tag != TlbEntry.Invalid && (byte*)(entry->Tag + entry->Addend) == host) entry->Tag = TlbEntry.Invalid;
    }

    public void Dispose()
    {
        NativeMemory.AlignedFree(_entries);
        NativeMemory.AlignedFree(Jumps);
    }
}
