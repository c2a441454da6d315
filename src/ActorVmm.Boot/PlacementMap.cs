using ActorVmm.Memory;

namespace ActorVmm.Boot;

/// <summary>
/// Who owns which bytes of the RAM below the gap while a boot is planned. Nothing is written to the guest before every range is claimed
/// here, so a lying image is refused with RAM untouched.
/// </summary>
internal sealed class PlacementMap(ulong ramEnd)
{
    private readonly List<Placement> _taken = [];

    /// <summary>Claimed ranges, ascending.</summary>
    public IReadOnlyList<Placement> Taken => [.. _taken.OrderBy(p => p.Start.Value)];

    /// <summary>End of the RAM that loads may use: below the gap, and so inside the identity map.</summary>
    public ulong RamEnd => ramEnd;

    /// <summary>Claims a range.</summary>
    /// <exception cref="BootException">It is not RAM below the gap, or somebody has it.</exception>
    public void Claim(string file, string field, string name, ulong start, ulong size)
    {
        if (start > ramEnd || size > ramEnd - start)
            throw BootException.Hex(file, field, start,
                $"{name} takes 0x{size:x} bytes there, but RAM that can be loaded ends at 0x{ramEnd:x}");
        foreach (var other in _taken)
            if (start < other.Start.Value + other.Size && other.Start.Value < start + size)
                throw BootException.Hex(file, field, start, $"{name} takes 0x{size:x} bytes there and overlaps {other}");
        if (size > 0) _taken.Add(new Placement(name, new GuestAddress(start), size));
    }

    /// <summary>
    /// Claims the highest free page-aligned range whose last byte is at most <paramref name="lastByte"/>, outside of the span <paramref
    /// name="avoid"/>.
    /// </summary>
    /// <exception cref="BootException">There is none.</exception>
    public ulong ClaimHighest(string file, string field, string name, ulong size, ulong lastByte, (ulong Start, ulong End) avoid)
    {
        var ceiling = lastByte >= ramEnd ? ramEnd : lastByte + 1;
        // Candidates go down from the ceiling, each next one just below what was in the way: whole pages, so the ceiling always falls.
        while (true)
        {
            ceiling &= ~0xFFFUL;
            if (size > ceiling) throw Full();
            var start = (ceiling - size) & ~0xFFFUL;
            if (start < MemoryLayout.HighMemory) throw Full();
            if (Blocker(start, size, avoid) is not { } blocker)
            {
                Claim(file, field, name, start, size);
                return start;
            }
            ceiling = blocker;
        }

        BootException Full() => BootException.Hex(
            file, field, size, $"no free range of this size lies below 0x{Math.Min(ramEnd, lastByte):x}; give the VM more memory");
    }

    private ulong? Blocker(ulong start, ulong size, (ulong Start, ulong End) avoid)
    {
        var end = start + ((size + 0xFFF) & ~0xFFFUL); // a partly used page belongs to its owner alone
        ulong? lowest = start < avoid.End && avoid.Start < end ? avoid.Start : null;
        foreach (var other in _taken)
            if (start < other.Start.Value + other.Size && other.Start.Value < end)
                lowest = Math.Min(lowest ?? ulong.MaxValue, other.Start.Value);
        return lowest;
    }
}
