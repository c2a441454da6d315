namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>
/// Compiled blocks by virtual address: how compiled code jumps to another page, through a register, and back from calls. An entry stands for
/// a mapping as a TLB entry does, so there is a table in each <see cref="TlbSet"/>. Code that ends leaves its entries behind: they lead to
/// where it begins, which then leads out (<see cref="CompiledTier.Drop"/>).
/// </summary>
internal static unsafe class JumpCache
{
    public const int EntryBytes = 16;
    // One disk request in Linux comes through more places than 1024 entries hold, and each that is missing costs two misses of the host's
    // cache; with 4096 a guest does a third more 4 KiB reads.
    public const int TableBytes = 4096 * EntryBytes;

    /// <summary>Bits of the hash that index a table in bytes.</summary>
    public const int HashMask = TableBytes - EntryBytes;

    /// <summary>Matches no target: not canonical.</summary>
    private const ulong NoTarget = 1UL << 63;

    /// <summary>Makes a table that leads nowhere.</summary>
    // SAFETY: a table has TableBytes bytes.
    public static void Empty(byte* table) => new Span<ulong>(table, TableBytes / sizeof(ulong)).Fill(NoTarget);
}
