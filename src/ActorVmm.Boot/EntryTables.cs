using System.Buffers.Binary;

namespace ActorVmm.Boot;

/// <summary>
/// Descriptor table and page tables for the first instruction. The selectors are those the 64-bit boot protocol asks for: code 0x10, data
/// 0x18 (boot.rst, "64-bit Boot Protocol"); the task state segment follows at 0x20.
/// </summary>
public static class EntryTables
{
    public const ushort CodeSelector = 0x10;
    public const ushort DataSelector = 0x18;
    public const ushort TaskSelector = 0x20;

    /// <summary>
    /// Bytes of either GDT: null, null, code, data, and a task segment, which takes two slots in long mode (SDM Vol. 3 §7.2.3).
    /// </summary>
    public const int GdtSize = 6 * 8;

    private const ulong Code64 = 0x00AF_9B00_0000_FFFF;
    private const ulong Code32 = 0x00CF_9B00_0000_FFFF;
    private const ulong Data32 = 0x00CF_9300_0000_FFFF;
    private const ulong BusyTask = 0x0000_8B00_0000_0067;
    private const ulong PresentWritable = 0b11;
    private const ulong LargePage = 1 << 7;

    /// <summary>The global descriptor table.</summary>
    public static byte[] Gdt(EntryProtocol protocol)
    {
        var table = new byte[GdtSize];
        BinaryPrimitives.WriteUInt64LittleEndian(table.AsSpan(CodeSelector), protocol is EntryProtocol.Linux64 ? Code64 : Code32);
        BinaryPrimitives.WriteUInt64LittleEndian(table.AsSpan(DataSelector), Data32);
        BinaryPrimitives.WriteUInt64LittleEndian(table.AsSpan(TaskSelector), BusyTask);
        return table;
    }

    /// <summary>
    /// PML4, PDPT and four page directories that map the first 4 GiB to themselves in 2 MiB pages. The protocol asks for the kernel with
    /// its
    /// <c>init_size</c>, the zero page and the command line; nothing is loaded higher, so this covers every load.
    /// </summary>
    /// <param name="at">Guest physical address of the result, page aligned.</param>
    public static byte[] PageTables(ulong at)
    {
        var tables = new byte[MemoryLayout.PageTablesSize];
        Entry(0, (at + 0x1000) | PresentWritable);
        for (var gib = 0; gib < 4; gib++)
        {
            Entry(0x1000 + 8 * gib, (at + 0x2000 + 0x1000 * (ulong)gib) | PresentWritable);
            for (var i = 0; i < 512; i++)
                Entry(0x2000 + 0x1000 * gib + 8 * i, ((ulong)gib << 30) | ((ulong)i << 21) | LargePage | PresentWritable);
        }
        return tables;

        void Entry(int offset, ulong value) => BinaryPrimitives.WriteUInt64LittleEndian(tables.AsSpan(offset), value);
    }
}
