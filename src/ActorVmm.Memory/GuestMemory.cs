using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace ActorVmm.Memory;

/// <summary>
/// Guest RAM: one or two anonymous private mappings (below and above the 32-bit gap), reserved lazily. Every access is bounds-checked;
/// whatever the guest asks for gets true or false, never an exception.
/// </summary>
public sealed class GuestMemory : IDisposable
{
    /// <summary>First byte of the 768 MiB MMIO gap below 4 GiB (3.25 GiB).</summary>
    public const ulong GapStart = 0xD000_0000;

    /// <summary>RAM that does not fit below the gap continues here.</summary>
    public const ulong HighStart = 0x1_0000_0000;

    private readonly GuestRegion[] _regions;

    private GuestMemory(GuestRegion[] regions) => _regions = regions;

    /// <summary>The mapped regions in ascending order; one KVM memory slot each.</summary>
    public IReadOnlyList<GuestRegion> Regions => _regions;

    /// <summary>Bytes of RAM in all regions.</summary>
    public ulong Size => _regions.Aggregate(0UL, (sum, region) => sum + region.Size);

    /// <summary>Bytes of RAM that the host has given pages for.</summary>
    public ulong ResidentBytes => _regions.Aggregate(0UL, static (sum, region) => sum + region.ResidentBytes());

    /// <summary>Told of device writes; null where nobody caches guest code (KVM).</summary>
    public IGuestWriteObserver? WriteObserver { get; set; }

    /// <summary>Reserves <paramref name="bytes"/> of zeroed RAM at 0, split around the gap when it is larger than 3328 MiB.</summary>
    /// <exception cref="ArgumentOutOfRangeException">Zero, or not a multiple of 4096.</exception>
    /// <exception cref="InvalidOperationException">The host refuses the mapping.</exception>
    public static GuestMemory Create(ulong bytes)
    {
        ArgumentOutOfRangeException.ThrowIfZero(bytes);
        if (bytes % 4096 != 0) throw new ArgumentOutOfRangeException(nameof(bytes), bytes, "guest RAM is made of whole 4096-byte pages");

        return bytes <= GapStart
            ? new GuestMemory([GuestRegion.Map(new GuestAddress(0), bytes)])
            : new GuestMemory([GuestRegion.Map(new GuestAddress(0), GapStart),
                GuestRegion.Map(new GuestAddress(HighStart), bytes - GapStart)]);
    }

    /// <summary>The region that holds all of [<paramref name="at"/>, +<paramref name="count"/>), or null.</summary>
    public GuestRegion? Find(GuestAddress at, ulong count)
    {
        foreach (var region in _regions)
            if (region.Contains(at, count)) return region;
        return null;
    }

    /// <summary>True where all of the range is RAM of one region.</summary>
    public bool Contains(GuestAddress at, ulong count) => Find(at, count) is not null;

    /// <summary>A view for reading. False where the range is not wholly in one region.</summary>
    public bool TrySlice(GuestAddress at, int count, out ReadOnlySpan<byte> bytes)
    {
        bytes = default;
        if (count < 0 || Find(at, (ulong)count) is not { } region || !region.TrySlice(at, count, out var writable)) return false;
        bytes = writable;
        return true;
    }

    /// <summary>A view for writing; call <see cref="Written"/> when the bytes are in place.</summary>
    public bool TrySliceForWrite(GuestAddress at, int count, out Span<byte> bytes)
    {
        bytes = default;
        return count >= 0 && Find(at, (ulong)count) is { } region && region.TrySlice(at, count, out bytes);
    }

    /// <summary>The host address of a range, for system calls that read or write it in place (then <see cref="Written"/> is due). False where
    /// the range is not wholly in one region.</summary>
    public unsafe bool TryLocate(GuestAddress at, int count, out HostSegment segment)
    {
        segment = default;
        if (count < 0 || Find(at, (ulong)count) is not { } region || !region.TrySlice(at, count, out _)) return false;
        // SAFETY: TrySlice proved that the range lies in this region's mapping.
        segment = new HostSegment((byte*)region.HostAddress + (at.Value - region.Start.Value), count);
        return true;
    }

    /// <summary>Tells the observer that a device wrote through <see cref="TrySliceForWrite"/>.</summary>
    public void Written(GuestAddress at, ulong count) => WriteObserver?.OnWritten(at, count);

    /// <summary>Copies out of RAM; false and nothing copied where the range is not RAM.</summary>
    public bool TryRead(GuestAddress at, Span<byte> into)
    {
        if (!TrySlice(at, into.Length, out var bytes)) return false;
        bytes.CopyTo(into);
        return true;
    }

    /// <summary>Copies into RAM and tells the observer; false and nothing written where the range is not RAM.</summary>
    public bool TryWrite(GuestAddress at, ReadOnlySpan<byte> from)
    {
        if (!TrySliceForWrite(at, from.Length, out var bytes)) return false;
        from.CopyTo(bytes);
        Written(at, (ulong)from.Length);
        return true;
    }

    /// <summary>
    /// Reads a little-endian value (host order: x86-64 and arm64 hosts are little-endian). One of up to eight bytes at its natural alignment
    /// is read in one access: what another thread writes meanwhile is seen whole or not at all.
    /// </summary>
    public bool TryRead<T>(GuestAddress at, out T value) where T : unmanaged
    {
        value = default;
        if (!TrySlice(at, Unsafe.SizeOf<T>(), out var bytes)) return false;
        value = MemoryMarshal.Read<T>(bytes);
        return true;
    }

    /// <summary>Writes a little-endian value, in one access as <see cref="TryRead{T}"/> reads it.</summary>
    public bool TryWrite<T>(GuestAddress at, T value) where T : unmanaged
    {
        if (!TrySliceForWrite(at, Unsafe.SizeOf<T>(), out var bytes)) return false;
        MemoryMarshal.Write(bytes, in value);
        Written(at, (ulong)Unsafe.SizeOf<T>());
        return true;
    }

    /// <summary>All of RAM back to zeroes, as after power-on; the observer hears of it. No vCPU may run meanwhile.</summary>
    public void Clear()
    {
        foreach (var region in _regions)
        {
            region.Clear();
            Written(region.Start, region.Size);
        }
    }

    public void Dispose()
    {
        foreach (var region in _regions) region.Dispose();
    }
}
