using System.Buffers;

namespace ActorVmm.Backends.UserNet;

/// <summary>Bytes that buffers may still take, of all flows together.</summary>
internal sealed class BufferBudget(int bytes)
{
    public int Left { get; private set; } = bytes;

    public bool TryTake(int count)
    {
        if (count > Left) return false;
        Left -= count;
        return true;
    }

    public void Give(int count) => Left += count;
}

/// <summary>
/// A first-in-first-out buffer of bytes. Its limit is fixed when it is made, out of the budget; memory is taken as it fills. Where the budget is
/// spent it is small, so that every flow works, if slowly.
/// </summary>
internal sealed class ByteRing : IDisposable
{
    /// <summary>The limits that are tried, largest first; the last one is outside the budget.</summary>
    private static readonly int[] Limits = [256 << 10, 64 << 10, 8 << 10];

    private const int FirstSize = 8 << 10;

    private readonly BufferBudget _budget;
    private readonly int _budgeted;
    private byte[] _bytes = [];
    private int _size; // of _bytes, what is used: a power of two
    private int _start;

    public ByteRing(BufferBudget budget)
    {
        _budget = budget;
        Limit = Limits[^1];
        foreach (var limit in Limits.AsSpan(0, Limits.Length - 1))
        {
            if (!budget.TryTake(limit)) continue;
            Limit = _budgeted = limit;
            break;
        }
    }

    /// <summary>The most it can hold.</summary>
    public int Limit { get; }

    public int Count { get; private set; }
    public int Free => Limit - Count;

    /// <summary>True while somebody else reads <see cref="First"/>: that array is not used for anything else.</summary>
    public bool Held { get; set; }

    /// <summary>Room for at least one byte, in one piece; empty where the ring is full.</summary>
    public Span<byte> Room()
    {
        if (Count == _size && !Grow()) return default;
        var end = (_start + Count) & (_size - 1);
        return _bytes.AsSpan(end, Math.Min(_size - Count, _size - end));
    }

    /// <summary>Bytes were written into <see cref="Room"/>.</summary>
    public void Commit(int count) => Count += count;

    /// <summary>Appends what fits; the number of bytes taken.</summary>
    public int Write(ReadOnlySpan<byte> from)
    {
        var taken = 0;
        while (taken < from.Length)
        {
            var room = Room();
            if (room.IsEmpty) break;
            var part = Math.Min(room.Length, from.Length - taken);
            from.Slice(taken, part).CopyTo(room);
            Commit(part);
            taken += part;
        }
        return taken;
    }

    /// <summary>The oldest bytes, as far as they are in one piece.</summary>
    public Memory<byte> First => _bytes.AsMemory(_start, Math.Min(Count, _size - _start));

    /// <summary>Bytes [<paramref name="offset"/>, +<paramref name="count"/>) in two pieces.</summary>
    public void Slices(int offset, int count, out ReadOnlySpan<byte> first, out ReadOnlySpan<byte> second)
    {
        if (count == 0)
        {
            first = second = default;
            return;
        }
        var at = (_start + offset) & (_size - 1);
        var inFirst = Math.Min(count, _size - at);
        first = _bytes.AsSpan(at, inFirst);
        second = _bytes.AsSpan(0, count - inFirst);
    }

    /// <summary>Forgets the oldest bytes.</summary>
    public void Consume(int count)
    {
        Count -= count;
        _start = Count == 0 && !Held ? 0 : (_start + count) & (_size - 1);
    }

    public void Dispose()
    {
        _budget.Give(_budgeted);
        // Whoever still holds the bytes may yet read them: then the pool does not get them back.
        if (_bytes.Length > 0 && !Held) ArrayPool<byte>.Shared.Return(_bytes);
        (_bytes, _size, _start, Count) = ([], 0, 0, 0);
    }

    private bool Grow()
    {
        if (_size >= Limit) return false;
        var size = _size == 0 ? Math.Min(FirstSize, Limit) : 2 * _size;
        var bytes = ArrayPool<byte>.Shared.Rent(size);
        Slices(0, Count, out var first, out var second);
        first.CopyTo(bytes);
        second.CopyTo(bytes.AsSpan(first.Length));
        if (_bytes.Length > 0 && !Held) ArrayPool<byte>.Shared.Return(_bytes);
        (_bytes, _size, _start) = (bytes, size, 0);
        return true;
    }
}
