namespace ActorVmm.Hypervisor.Soft.Tests.Differential;

/// <summary>Virtual addresses that a case sees, the same natively and in the guest.</summary>
internal static class Layout
{
    /// <summary>Code of case n of a batch starts at <c>CodeBase + n * CodeSlot</c>.</summary>
    public const ulong CodeBase = 0x2000_0000;
    public const int CodeSlot = 256;

    /// <summary>Two writable pages that every case starts with its own contents of, then a read-only page, then nothing.</summary>
    public const ulong Scratch = 0x2100_0000;
    public const int ScratchSize = 0x2000;
    public const ulong ReadOnlyPage = Scratch + ScratchSize;
    public const ulong UnmappedPage = ReadOnlyPage + 0x1000;

    /// <summary>Cases per batch.</summary>
    public const int BatchSize = 512;

    /// <summary>The contents of the read-only page: repeatable, and not all the same.</summary>
    public static byte ReadOnlyByte(int offset) => (byte)(offset * 167 + (offset >> 8) * 13);
}
