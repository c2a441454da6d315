using ActorVmm.Actors;

namespace ActorVmm.Host.Terminal;

/// <summary>
/// Console input on its way to the guest. The guest takes what its serial port has room for; the rest waits here, and when this is full the
/// reader of the terminal or file waits. So a paste of any size arrives whole.
/// </summary>
internal sealed class ConsoleQueue : IConsoleInput
{
    /// <summary>Bytes held at the most before <see cref="Feed"/> waits.</summary>
    public const int Capacity = 1 << 20;

    private readonly object _gate = new();
    private readonly Queue<byte[]> _chunks = new();
    private readonly int _capacity;
    private int _offset;
    private long _waiting;
    private bool _starved = true;
    private bool _held;
    private bool _closed;
    private Action? _available;

    /// <param name="capacity">Where <see cref="Feed"/> starts to wait.</param>
    /// <param name="held">Give the guest nothing before <see cref="Release"/>.</param>
    public ConsoleQueue(int capacity = Capacity, bool held = false) => (_capacity, _held) = (capacity, held);

    /// <summary>Bytes that the guest has not taken yet.</summary>
    public long Waiting
    {
        get
        {
            lock (_gate)
                return _waiting;
        }
    }

    /// <inheritdoc/>
    public int Take(Span<byte> into)
    {
        lock (_gate)
        {
            var taken = 0;
            while (!_held && taken < into.Length && _chunks.TryPeek(out var chunk))
            {
                var count = Math.Min(into.Length - taken, chunk.Length - _offset);
                chunk.AsSpan(_offset, count).CopyTo(into[taken..]);
                taken += count;
                _offset += count;
                if (_offset < chunk.Length)
                    continue;
                _chunks.Dequeue();
                _offset = 0;
            }
            _starved |= taken < into.Length;
            _waiting -= taken;
            if (taken > 0)
                Monitor.PulseAll(_gate);
            return taken;
        }
    }

    /// <inheritdoc/>
    public void OnAvailable(Action available)
    {
        bool call;
        lock (_gate)
        {
            _available = available;
            call = !_held && _waiting > 0;
        }
        if (call)
            available();
    }

    /// <summary>Adds input; waits while the queue is full. Nothing happens after <see cref="Close"/>.</summary>
    public void Feed(ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length == 0)
            return;
        lock (_gate)
        {
            while (_waiting >= _capacity && !_closed)
                Monitor.Wait(_gate);
            if (_closed)
                return;
            _chunks.Enqueue(bytes.ToArray());
            _waiting += bytes.Length;
        }
        Announce();
    }

    /// <summary>Lets the guest have what was held back.</summary>
    public void Release()
    {
        lock (_gate)
            _held = false;
        Announce();
    }

    /// <summary>Ends it: a waiting <see cref="Feed"/> returns.</summary>
    public void Close()
    {
        lock (_gate)
        {
            _closed = true;
            Monitor.PulseAll(_gate);
        }
    }

    // Called outside the lock: the guest's side may call Take at once.
    private void Announce()
    {
        Action? call = null;
        lock (_gate)
        {
            if (_starved && !_held && _waiting > 0)
            {
                _starved = false;
                call = _available;
            }
        }
        call?.Invoke();
    }
}
