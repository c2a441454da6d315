using ActorVmm.Actors;
using ActorVmm.Actors.Fleet;
using ActorVmm.Devices;

namespace ActorVmm.Host.Fleet;

/// <summary>
/// The console of a kept VM, for all of its runs. What the guest prints is kept from the first byte, bounded: the beginning, and the
/// latest;
/// every viewer reads at its own speed from a position of its own, so a slow one loses bytes (and is told so) and holds nobody up. What
/// viewers type waits here until the guest takes it.
/// </summary>
/// <param name="headBytes">How much of the beginning is kept.</param>
/// <param name="ringBytes">How much of the latest is kept.</param>
internal sealed class ConsoleHub(int headBytes = 64 << 10, int ringBytes = 256 << 10) : IByteSink, IConsoleInput
{
    /// <summary>Typed bytes that wait at the most.</summary>
    public const int InputCapacity = 64 << 10;

    private readonly Lock _gate = new();
    private readonly Signal _printed = new();
    private readonly Signal _taken = new();
    private byte[] _head = [];
    private byte[] _ring = [];
    private int _headLength;
    private long _total;
    private long _ringFrom;
    private byte[] _input = [];
    private int _inputStart;
    private int _inputCount;
    private bool _starved = true;
    private Action? _available;

    /// <summary>Bytes printed so far: the position of the next one.</summary>
    public long Total
    {
        get { lock (_gate) return _total; }
    }

    /// <summary>The position of the first byte of the latest that is kept.</summary>
    public long LatestFrom
    {
        get { lock (_gate) return Oldest; }
    }

    /// <summary>How much of the beginning is kept.</summary>
    public int HeadBytes => headBytes;

    /// <summary>How much of the latest is kept.</summary>
    public int RingBytes => ringBytes;

    // What a smaller ring of an earlier process had lost is not in this one either.
    private long Oldest => Math.Max(_ringFrom, _total - ringBytes);

    /// <summary>Viewers at this moment.</summary>
    public int Viewers => Volatile.Read(ref _viewers);

    private int _viewers;

    /// <summary>Completes when something is printed. Take it first, then read, then wait.</summary>
    public Task Printed => _printed.Next;

    /// <inheritdoc/>
    public void Write(ReadOnlySpan<byte> bytes)
    {
        lock (_gate)
        {
            KeepHead(bytes);
            KeepLatest(bytes);
            _total += bytes.Length;
        }

        _printed.Raise();
    }

    /// <summary>The position at which the last <paramref name="lines"/> lines begin, as far as the latest output is kept.</summary>
    public long LastLines(long lines)
    {
        lock (_gate)
        {
            var oldest = Oldest;
            var position = _total;
            // A line break at the very end ends the last line, and begins none.
            for (var seen = 0L; position > oldest; position--)
            {
                if (_ring[(int)((position - 1) % _ring.Length)] != (byte)'\n' || position == _total) continue;
                if (++seen >= lines) break;
            }

            return lines <= 0 ? _total : position;
        }
    }

    /// <summary>Takes over what an earlier process has kept; nothing happens where something was printed already.</summary>
    /// <param name="head">The beginning.</param>
    /// <param name="latest">The latest bytes.</param>
    /// <param name="total">How many were printed.</param>
    public void Preload(ReadOnlySpan<byte> head, ReadOnlySpan<byte> latest, long total)
    {
        lock (_gate)
        {
            if (_total > 0) return;
            KeepHead(head);
            latest = latest[Math.Max(0, latest.Length - ringBytes)..];
            _ringFrom = _total = total - latest.Length;
            if (_total > 0) Array.Resize(ref _ring, ringBytes);
            KeepLatest(latest);
            _total = total;
        }
    }

    /// <summary>The first bytes, as far as they are kept.</summary>
    public int ReadHead(Span<byte> into)
    {
        lock (_gate)
        {
            var count = Math.Min(_headLength, into.Length);
            _head.AsSpan(0, count).CopyTo(into);
            return count;
        }
    }

    /// <summary>Copies what was printed at <paramref name="position"/> and after it, as much as fits and is kept.</summary>
    /// <param name="position">Moved past what was copied; where bytes are no longer kept, past these as well.</param>
    /// <param name="into">Room.</param>
    /// <param name="lost">Bytes that were skipped because they are no longer kept.</param>
    /// <returns>Bytes copied; 0 where nothing more was printed.</returns>
    public int Read(ref long position, Span<byte> into, out long lost)
    {
        lock (_gate)
        {
            lost = 0;
            if (position >= _total) return 0;
            var oldest = Oldest;
            if (position < _headLength && position < oldest)
            {
                var fromHead = (int)Math.Min(_headLength - position, into.Length);
                _head.AsSpan((int)position, fromHead).CopyTo(into);
                position += fromHead;
                return fromHead;
            }

            if (position < oldest)
            {
                lost = oldest - position;
                position = oldest;
            }

            var count = (int)Math.Min(_total - position, into.Length);
            for (var done = 0; done < count;)
            {
                var at = (int)((position + done) % _ring.Length);
                var piece = Math.Min(count - done, _ring.Length - at);
                _ring.AsSpan(at, piece).CopyTo(into[done..]);
                done += piece;
            }

            position += count;
            return count;
        }
    }

    /// <summary>What is printed from <paramref name="position"/> on, as it comes; a line says where bytes are missing.</summary>
    public async Task FollowAsync(long position, Func<ReadOnlyMemory<byte>, Task> take, bool follow, CancellationToken cancel)
    {
        Interlocked.Increment(ref _viewers);
        try
        {
            var buffer = new byte[16 << 10];
            while (!cancel.IsCancellationRequested)
            {
                var more = Printed;
                int count;
                while ((count = Read(ref position, buffer, out var lost)) > 0)
                {
                    if (lost > 0) await take(System.Text.Encoding.ASCII.GetBytes($"\r\n[{lost} bytes are no longer kept]\r\n"))
                        .ConfigureAwait(false);
                    await take(buffer.AsMemory(0, count)).ConfigureAwait(false);
                }

                if (!follow) return;
                await more.WaitAsync(cancel).ConfigureAwait(false);
            }
        }
        finally
        {
            Interlocked.Decrement(ref _viewers);
        }
    }

    /// <summary>Types; waits while the guest takes nothing and the queue is full.</summary>
    public async Task TypeAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancel)
    {
        while (bytes.Length > 0)
        {
            var room = _taken.Next;
            var count = Enqueue(bytes.Span);
            bytes = bytes[count..];
            if (count == 0) await room.WaitAsync(cancel).ConfigureAwait(false);
        }
    }

    /// <summary>What was typed and not taken is forgotten (the VM it was meant for is gone).</summary>
    public void DropInput()
    {
        lock (_gate) (_inputStart, _inputCount) = (0, 0);
        _taken.Raise();
    }

    /// <inheritdoc/>
    public int Take(Span<byte> into)
    {
        int count;
        lock (_gate)
        {
            count = Math.Min(into.Length, _inputCount);
            for (var i = 0; i < count; i++) into[i] = _input[(_inputStart + i) % _input.Length];
            if (count > 0) _inputStart = (_inputStart + count) % _input.Length;
            _inputCount -= count;
            _starved |= count < into.Length;
        }

        if (count > 0) _taken.Raise();
        return count;
    }

    /// <inheritdoc/>
    public void OnAvailable(Action available)
    {
        bool call;
        lock (_gate)
        {
            _available = available;
            call = _inputCount > 0;
        }

        if (call) available();
    }

    private int Enqueue(ReadOnlySpan<byte> bytes)
    {
        Action? call = null;
        int count;
        lock (_gate)
        {
            count = Math.Min(bytes.Length, InputCapacity - _inputCount);
            GrowInput(_inputCount + count);
            for (var i = 0; i < count; i++) _input[(_inputStart + _inputCount + i) % _input.Length] = bytes[i];
            _inputCount += count;
            if (_starved && count > 0)
            {
                _starved = false;
                call = _available;
            }
        }

        // Outside the lock: the guest's side may take at once.
        call?.Invoke();
        return count;
    }

    private void GrowInput(int needed)
    {
        if (needed <= _input.Length) return;
        var grown = new byte[Math.Min(InputCapacity, Math.Max(256, (int)System.Numerics.BitOperations.RoundUpToPowerOf2((uint)needed)))];
        for (var i = 0; i < _inputCount; i++) grown[i] = _input[(_inputStart + i) % _input.Length];
        (_input, _inputStart) = (grown, 0);
    }

    private void KeepHead(ReadOnlySpan<byte> bytes)
    {
        var count = Math.Min(bytes.Length, headBytes - _headLength);
        if (count <= 0) return;
        if (_headLength + count > _head.Length) Array.Resize(ref _head, Math.Min(headBytes, Math.Max(1024, 2 * (_headLength + count))));
        bytes[..count].CopyTo(_head.AsSpan(_headLength));
        _headLength += count;
    }

    private void KeepLatest(ReadOnlySpan<byte> bytes)
    {
        // Below its full size it is not yet a ring: every byte is at its position.
        if (_total + bytes.Length > _ring.Length && _ring.Length < ringBytes)
            Array.Resize(ref _ring, (int)Math.Min(ringBytes, Math.Max(1024, 2 * (_total + bytes.Length))));
        var skipped = Math.Max(0, bytes.Length - _ring.Length);
        var position = _total + skipped;
        bytes = bytes[skipped..];
        while (bytes.Length > 0)
        {
            var at = (int)(position % _ring.Length);
            var piece = Math.Min(bytes.Length, _ring.Length - at);
            bytes[..piece].CopyTo(_ring.AsSpan(at));
            bytes = bytes[piece..];
            position += piece;
        }
    }
}
