namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>
/// Compiled blocks by virtual address: how compiled code jumps to another page and through a register; and behind it the returns, by where the
/// stack pointer stands: each call leaves there where it will go on, which a return with the same address takes. The stack keeps the order, so
/// that switches between threads and long jumps cost nothing. An entry stands for a mapping as a TLB entry does, so there is a table in each
/// <see cref="TlbSet"/>. Code that ends leaves its entries behind: they lead to where it begins, which then leads out
/// (<see cref="CompiledTier.Drop"/>), or to the patched jump behind a call.
/// </summary>
internal static unsafe class JumpCache
{
    public const int EntryBytes = 16;
    // One disk request in Linux comes through more places than 1024 entries hold, and each that is missing costs two misses of the host's
    // cache; with 4096 a guest does a third more 4 KiB reads.
    private const int TableBytes = 4096 * EntryBytes;

    /// <summary>Bits of the hash that index a table in bytes.</summary>
    public const int HashMask = TableBytes - EntryBytes;

    private const int Returns = 64;

    /// <summary>Bits of the stack pointer that index the returns in bytes.</summary>
    public const int ReturnMask = (Returns - 1) * sizeof(ulong);

    /// <summary>Where the addresses of the returns lie, from the start.</summary>
    public const int ReturnAddress = TableBytes;

    /// <summary>Where the code of the returns lies, from the start.</summary>
    public const int ReturnCode = ReturnAddress + Returns * sizeof(ulong);

    /// <summary>Size of it all.</summary>
    public const int Bytes = ReturnCode + Returns * sizeof(ulong);

    /// <summary>No target, and where it hashes to is known.</summary>
    private const ulong NoTarget = 1UL << 63;

    /// <summary>Makes a table that leads nowhere.</summary>
    /// <param name="table">Of <see cref="Bytes"/> bytes.</param>
    /// <param name="toZero">Code that goes on at address 0, see <see cref="Stubs.ToZero"/>.</param>
    public static void Empty(byte* table, byte* toZero)
    {
        // SAFETY: the parts of a table, one behind the other.
        var entries = new Span<ulong>(table, TableBytes / sizeof(ulong));
        entries.Fill(NoTarget);
        // A guest may jump there all the same: it comes to entry 0, which must hold something else.
        entries[0] = NoTarget | EntryBytes;
        // Any return may meet any value: an empty one is a true one, to address 0.
        new Span<ulong>(table + ReturnAddress, Returns).Clear();
        new Span<nuint>(table + ReturnCode, Returns).Fill((nuint)toZero);
    }
}
