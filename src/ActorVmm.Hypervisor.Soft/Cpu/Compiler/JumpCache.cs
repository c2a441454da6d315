using System.Runtime.InteropServices;

namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>
/// Compiled blocks by virtual address, one table per privilege level: how compiled code jumps to another page, through a register, and
/// back from calls. An entry stands for a mapping as a TLB entry does, so whatever drops TLB entries empties both tables; so does the end of
/// a compiled block.
/// </summary>
internal sealed unsafe class JumpCache : IDisposable
{
    public const int EntryBytes = 16;
    public const int TableBytes = 1024 * EntryBytes;

    /// <summary>Bits of the hash that index a table in bytes.</summary>
    public const int HashMask = TableBytes - EntryBytes;

    /// <summary>Matches no target: not canonical.</summary>
    private const ulong Empty = 1UL << 63;

    private readonly byte* _tables;
    private readonly CpuState* _s;

    public JumpCache(CpuState* s)
    {
        // SAFETY: two tables, freed in Dispose; compiled code masks its index to one table.
        _tables = (byte*)NativeMemory.AlignedAlloc(2 * TableBytes, 64);
        _s = s;
        Fill();
        Select();
    }

    /// <summary>Times that the tables were emptied.</summary>
    public ulong Flushes { get; private set; }

    /// <summary>Chooses the table of the current privilege level.</summary>
    public void Select() => _s->JumpCache = _tables + (_s->Cpl == 3 ? TableBytes : 0);

    public void Flush()
    {
        Flushes++;
        Fill();
    }

    private void Fill()
    {
        for (var at = _tables; at < _tables + 2 * TableBytes; at += EntryBytes) *(ulong*)at = Empty;
    }

    public void Dispose() => NativeMemory.AlignedFree(_tables);
}
