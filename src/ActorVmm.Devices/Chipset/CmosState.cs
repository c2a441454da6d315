using System.Runtime.CompilerServices;

namespace ActorVmm.Devices.Chipset;

/// <summary>The 128 bytes of the chip as one comparable value.</summary>
[InlineArray(CmosRtc.Size)]
public struct CmosBytes : IEquatable<CmosBytes>
{
    byte _byte0;

    public readonly bool Equals(CmosBytes other) => ((ReadOnlySpan<byte>)this).SequenceEqual(other);
    public override readonly bool Equals(object? obj) => obj is CmosBytes other && Equals(other);

    public override readonly int GetHashCode()
    {
        var hash = default(HashCode);
        hash.AddBytes(this);
        return hash.ToHashCode();
    }

    public static bool operator ==(CmosBytes left, CmosBytes right) => left.Equals(right);
    public static bool operator !=(CmosBytes left, CmosBytes right) => !left.Equals(right);
}

/// <summary>The state of the real-time clock.</summary>
/// <param name="Index">The selected byte; bit 7 masks NMIs.</param>
/// <param name="Bytes">Alarm, control and general bytes; the time of day too while it is being set.</param>
/// <param name="OffsetSeconds">What the guest's clock is ahead of machine time.</param>
/// <param name="SettledAt">Machine time up to which the interrupt flags are known.</param>
public readonly record struct CmosRtcState(byte Index, CmosBytes Bytes, long OffsetSeconds, ulong SettledAt);
