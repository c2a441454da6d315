using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using ActorVmm.Devices.Virtio.Queue;

namespace ActorVmm.Devices.Virtio.Rng;

/// <summary>
/// The entropy device (virtio 1.2 §5.4): one queue of device-writable buffers, which it fills with random bytes, in order. A buffer too
/// large is filled in part, as the specification allows, so that a driver's request costs the host a bounded time.
/// </summary>
public sealed class EntropyDevice : IVirtioDevice, ITimedDevice
{
    /// <summary>Virtio device ID 4.</summary>
    public const uint Id = 4;

    /// <summary>Entries of the one queue.</summary>
    public const ushort QueueSize = 256;

    /// <summary>The most bytes that one request gets.</summary>
    public const int MaxBytes = 64 * 1024;

    private readonly IEntropySource _source;
    private readonly IClock _clock;
    private readonly RateLimiter _limiter;
    private IVirtioPort? _port;
    private State _state;
    private ulong? _starvedUntil; // the source has nothing before then

    /// <param name="source">Outlives the device.</param>
    /// <param name="clock">Machine time, for the rate limit.</param>
    /// <param name="limits">Bytes and requests per time; <see cref="RateLimiterSpec.Off"/> for none.</param>
    public EntropyDevice(IEntropySource source, IClock clock, RateLimiterSpec limits)
    {
        ArgumentNullException.ThrowIfNull(clock);
        _source = source;
        _clock = clock;
        _limiter = new RateLimiter(limits, clock.Nanoseconds);
    }

    /// <summary>The queues of every entropy device.</summary>
    public static IReadOnlyList<ushort> Queues { get; } = [QueueSize];

    /// <inheritdoc/>
    public uint DeviceId => Id;

    /// <inheritdoc/>
    public ulong Features => VirtioFeatures.InOrder;

    /// <inheritdoc/>
    public IReadOnlyList<ushort> QueueSizes => Queues;

    /// <inheritdoc/>
    public int StateSize => Unsafe.SizeOf<State>();

    /// <inheritdoc/>
    public ulong? Deadline => _starvedUntil is { } until ? Math.Max(until, _limiter.Deadline ?? 0) : _limiter.Deadline;

    /// <summary>Bytes given since power-on.</summary>
    public ulong Given => _state.Position;

    /// <summary>How often a request had to wait for the rate limit.</summary>
    public long Throttled => _limiter.Throttled;

    /// <inheritdoc/>
    public void ReadConfig(int offset, Span<byte> into) => into.Clear(); // it has none (§5.4.4)

    /// <inheritdoc/>
    public void WriteConfig(int offset, ReadOnlySpan<byte> from) { /* it has none */ }

    /// <inheritdoc/>
    public void Activate(ulong features, IVirtioPort port)
    {
        ArgumentNullException.ThrowIfNull(port);
        _port = port;
        port.StateChanged(); // the stream's position outlives a reset, so the ledger has to have it from the start
    }

    /// <inheritdoc/>
    public void Reset()
    {
        _port = null;
        NothingWaits();
        // The stream goes on: a driver that resets its device does not get the same bytes again.
    }

    /// <inheritdoc/>
    public void OnQueueReset(int index) => NothingWaits();

    /// <inheritdoc/>
    public void OnNotify(int index) => Serve();

    /// <inheritdoc/>
    public void OnBackend() { /* entropy never waits for anybody */ }

    /// <inheritdoc/>
    public void Advance(ulong nanoseconds)
    {
        if (Deadline is { } at && at <= nanoseconds) Serve();
    }

    /// <inheritdoc/>
    public void SaveState(Span<byte> into)
    {
        _state.Limiter = _limiter.State;
        MemoryMarshal.Write(into, in _state);
    }

    /// <inheritdoc/>
    public bool RestoreState(ReadOnlySpan<byte> from)
    {
        if (!MemoryMarshal.TryRead(from, out _state)) return false;
        _limiter.State = _state.Limiter;
        return true;
    }

    private void Serve()
    {
        if (_port is not { } port) return;
        var queue = port.Queue(0);
        while (queue.TryTake(out var chain))
        {
            if ((_starvedUntil = _source.ReadyAt()) is not null)
            {
                queue.Untake(chain);
                return;
            }

            var count = (int)Math.Min(chain.WritableLength, MaxBytes);
            if (!_limiter.TryTake((ulong)count, _clock.Nanoseconds))
            {
                queue.Untake(chain);
                return;
            }

            // A request on which the device failed twice gets nothing; the driver asks again.
            if (chain.IsSuspect) count = 0;
            Fill(chain, count);
            _state.Position += (ulong)count;
            port.StateChanged();
            queue.Complete(chain, (uint)count);
        }
        // Empty, or broken by its driver while a request waited: a deadline that stayed would be due for ever.
        NothingWaits();
    }

    private void NothingWaits()
    {
        _limiter.Forget();
        _starvedUntil = null;
    }

    private void Fill(DescriptorChain chain, int count)
    {
        ulong offset = 0;
        foreach (var segment in chain.Writable)
        {
            var part = (int)Math.Min(segment.Length, (ulong)(count - (int)offset));
            if (part == 0) return;
            if (!chain.Memory.TrySliceForWrite(segment.Address, part, out var bytes)) return;
            _source.Fill(_state.Position + offset, bytes);
            chain.Memory.Written(segment.Address, (ulong)part);
            offset += (ulong)part;
        }
    }

    [StructLayout(LayoutKind.Sequential)]
    private record struct State
    {
        public ulong Position;
        public RateLimiterState Limiter;
    }
}
