using System.Runtime.InteropServices;

namespace ActorVmm.Memory;

/// <summary>
/// A piece of guest RAM by its place in the host's memory, for system calls that take many pieces at once: laid out like the C library's
/// <c>struct iovec</c>. Only <see cref="GuestMemory.TryLocate"/> makes one that is not empty, so its bounds hold; it lives as long as the VM.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
public readonly struct HostSlice : IEquatable<HostSlice>
{
    internal HostSlice(nint address, nuint length) => (Address, Length) = (address, length);

    /// <summary>Host address of the first byte.</summary>
    public nint Address { get; }

    /// <summary>Bytes.</summary>
    public nuint Length { get; }

    /// <summary>The bytes.</summary>
    public unsafe Span<byte> Bytes =>
        // SAFETY: GuestMemory.TryLocate proved that the range is guest RAM, no longer than an int; it is mapped as long as the VM lives.
        new((void*)Address, (int)Length);

    /// <summary>A part of it.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The part is not inside.</exception>
    public HostSlice Slice(nuint start, nuint length)
    {
        if (start > Length || length > Length - start) throw new ArgumentOutOfRangeException(nameof(length), length, "outside the slice");
        return new HostSlice(Address + (nint)start, length);
    }

    /// <inheritdoc/>
    public bool Equals(HostSlice other) => Address == other.Address && Length == other.Length;

    /// <inheritdoc/>
    public override bool Equals(object? obj) => obj is HostSlice other && Equals(other);

    /// <inheritdoc/>
    public override int GetHashCode() => HashCode.Combine(Address, Length);

    public static bool operator ==(HostSlice left, HostSlice right) => left.Equals(right);
    public static bool operator !=(HostSlice left, HostSlice right) => !left.Equals(right);
}
