namespace ActorVmm.Memory;

/// <summary>
/// A guest physical address, in bytes. Overflow past 2^64 throws: arithmetic on guest-chosen values goes through <see cref="TryAdd"/>.
/// </summary>
public readonly record struct GuestAddress(ulong Value) : IComparable<GuestAddress>
{
    public static GuestAddress operator +(GuestAddress address, ulong bytes) => new(checked(address.Value + bytes));
    public static bool operator <(GuestAddress left, GuestAddress right) => left.Value < right.Value;
    public static bool operator >(GuestAddress left, GuestAddress right) => left.Value > right.Value;
    public static bool operator <=(GuestAddress left, GuestAddress right) => left.Value <= right.Value;
    public static bool operator >=(GuestAddress left, GuestAddress right) => left.Value >= right.Value;

    /// <summary>The same as <c>+</c>, by name.</summary>
    public static GuestAddress Add(GuestAddress left, ulong right) => left + right;

    /// <summary>Adds <paramref name="bytes"/>; false where the sum passes 2^64.</summary>
    public bool TryAdd(ulong bytes, out GuestAddress sum)
    {
        sum = new GuestAddress(unchecked(Value + bytes));
        return sum.Value >= Value;
    }

    public int CompareTo(GuestAddress other) => Value.CompareTo(other.Value);

    public override string ToString() => $"0x{Value:x}";
}
