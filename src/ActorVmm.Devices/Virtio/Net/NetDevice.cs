using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using ActorVmm.Devices.Virtio.Queue;

namespace ActorVmm.Devices.Virtio.Net;

/// <summary>
/// The network device (virtio 1.2 §5.1): pairs of receive and transmit queues around a packet port, a control queue, and configuration space.
/// <code>
///   configuration:  0 mac (6)   6 status (2)   8 max_virtqueue_pairs (2)   10 mtu (2)
///   queues:         0 receive   1 transmit   2 receive   3 transmit ...   control, after the last pair
/// </code>
/// Packets pass between guest memory and the port without a copy in between. Whatever a driver sends is sent, or dropped and counted.
/// </summary>
public sealed class NetDevice : IVirtioDevice, ITimedDevice
{
    /// <summary>Virtio device ID 1.</summary>
    public const uint Id = 1;

    private const int ConfigLength = 12;
    private const ushort LinkUpBit = 1; // VIRTIO_NET_S_LINK_UP

    private readonly NetOptions _options;
    private readonly IPacketPort _packets;
    private readonly IClock _clock;
    private readonly NetControl _control;
    private readonly ReceiveQueue[] _receive;
    private readonly TransmitQueue[] _transmit;
    private readonly ControlQueue _commands;
    private readonly RateLimiter _receiveLimiter, _transmitLimiter;
    private NetControl.Limits? _limits;
    private IVirtioPort? _port;
    private State _state;
    private bool _linkShown;

    /// <param name="options">What it is to be like.</param>
    /// <param name="packets">The outside; outlives the device.</param>
    /// <param name="clock">Machine time, for rate limits.</param>
    /// <param name="control">The operator's side; outlives the device.</param>
    public NetDevice(NetOptions options, IPacketPort packets, IClock clock, NetControl control)
    {
        ArgumentNullException.ThrowIfNull(options);
        ArgumentNullException.ThrowIfNull(packets);
        ArgumentNullException.ThrowIfNull(clock);
        ArgumentNullException.ThrowIfNull(control);
        if (options.Pairs is < 1 or > NetOptions.MaxPairs)
            throw new ArgumentOutOfRangeException(nameof(options), options.Pairs, $"a network device has 1 to {NetOptions.MaxPairs} pairs");
        (_options, _packets, _clock, _control) = (options, packets, clock, control);
        QueueSizes = options.Queues;
        Features = Offered(options, packets);
        _receiveLimiter = new RateLimiter(options.ReceiveLimits, clock.Nanoseconds);
        _transmitLimiter = new RateLimiter(options.TransmitLimits, clock.Nanoseconds);
        _receive = [.. Enumerable.Range(0, options.Pairs).Select(pair => new ReceiveQueue(this, pair, options.QueueSize))];
        _transmit = [.. Enumerable.Range(0, options.Pairs).Select(pair => new TransmitQueue(this, pair))];
        _commands = new ControlQueue(this);
        PowerOn();
        _linkShown = LinkUp;
    }

    /// <inheritdoc/>
    public uint DeviceId => Id;

    /// <inheritdoc/>
    public ulong Features { get; }

    /// <inheritdoc/>
    public IReadOnlyList<ushort> QueueSizes { get; }

    /// <inheritdoc/>
    public int StateSize => Unsafe.SizeOf<State>();

    /// <summary>The address that packets come to: as given, or as the driver set it.</summary>
    public MacAddress Mac => _state.Mac;

    /// <summary>Whether the guest may think that the cable is in.</summary>
    public bool LinkUp => _control.Plugged && _packets.LinkUp;

    /// <inheritdoc/>
    public ulong? Deadline
    {
        get
        {
            var first = Math.Min(_receiveLimiter.Deadline ?? ulong.MaxValue, _transmitLimiter.Deadline ?? ulong.MaxValue);
            foreach (var queue in _receive) first = Math.Min(first, queue.Deadline ?? ulong.MaxValue);
            return first == ulong.MaxValue ? null : first;
        }
    }

    internal ref NetControl.Unfinished InBuffers(int pair) => ref _control.InBuffers[pair];

    internal NetCounters Counters => _control.Counters;
    internal IPacketPort Packets => _packets;
    internal IVirtioPort Port => _port!;
    internal ulong Negotiated { get; private set; }
    internal ref State Saved => ref _state;
    internal bool SpoofCheck => _options.SpoofCheck;

    /// <summary>The largest packet that is not to be cut, header included.</summary>
    internal int LongestUncut =>
        Has(NetFeatures.Mtu) ? PacketHeader.Length + 18 + _options.Mtu!.Value : PacketLimits.MaxPacket;

    internal int Pairs => _options.Pairs;

    /// <summary>Where a receive queue keeps a packet that waits; outlives the device.</summary>
    internal KeptPacket Kept(int pair) => _control.Kept(pair);

    /// <summary>Bytes that the largest packet to be received takes, as things are.</summary>
    internal int ReceiveRoom { get; private set; }

    internal bool Has(ulong feature) => (Negotiated & feature) != 0;

    /// <inheritdoc/>
    public bool AcceptsFeatures(ulong features) => NetFeatures.AreConsistent(features);

    /// <inheritdoc/>
    public void ReadConfig(int offset, Span<byte> into)
    {
        Span<byte> config = stackalloc byte[ConfigLength];
        _state.Mac.CopyTo(config);
        BinaryPrimitives.WriteUInt16LittleEndian(config[6..], _linkShown ? LinkUpBit : (ushort)0);
        BinaryPrimitives.WriteUInt16LittleEndian(config[8..], (ushort)_options.Pairs);
        BinaryPrimitives.WriteUInt16LittleEndian(config[10..], (ushort)(_options.Mtu ?? 0));
        into.Clear();
        if (offset < ConfigLength) config[offset..Math.Min(ConfigLength, offset + into.Length)].CopyTo(into);
    }

    /// <inheritdoc/>
    public void WriteConfig(int offset, ReadOnlySpan<byte> from)
    {
        // Read-only with VERSION_1 (§5.1.4): the address is changed by command.
    }

    /// <inheritdoc/>
    public void Activate(ulong features, IVirtioPort port)
    {
        ArgumentNullException.ThrowIfNull(port);
        _port = port;
        Negotiated = features;
        if (_state.Active == 0)
        {
            _state.Active = 1;
            _state.Pairs = 1;
            _state.Offloads = NetFeatures.Receive(features);
            if (!Has(NetFeatures.ControlReceive)) _state.Filter = ReceiveFilter.PowerOn;
        }
        Configure();
        ShowLink();
        port.StateChanged();
    }

    /// <inheritdoc/>
    public void Reset()
    {
        foreach (var queue in _receive) queue.Clear();
        _receiveLimiter.Forget();
        _transmitLimiter.Forget();
        Negotiated = 0;
        _port = null;
        PowerOn();
        _packets.Configure(PacketOffloads.None, 1);
        _linkShown = LinkUp;
    }

    /// <inheritdoc/>
    public void OnQueueReset(int index)
    {
        if (IsControl(index) || index / 2 >= _options.Pairs) return;
        if (index % 2 == 0) _receive[index / 2].Clear();
    }

    /// <inheritdoc/>
    public void OnNotify(int index)
    {
        if (_port is null) return;
        ShowLink();
        if (IsControl(index))
        {
            _commands.Serve();
        }
        else if (index % 2 != 0 && index / 2 < _options.Pairs)
        {
            _transmit[index / 2].Serve();
        }
        // There may be buffers for what waits; and what was sent may have been answered at once, and nobody else says so.
        Receive();
        KeepLimits();
    }

    /// <inheritdoc/>
    public void OnBackend()
    {
        TakeLimits();
        if (_port is null)
        {
            _linkShown = LinkUp;
            return;
        }
        ShowLink();
        // A driver without buffers to receive into still sends.
        for (var pair = 0; pair < _state.Pairs; pair++) _packets.Release(pair);
        foreach (var queue in _transmit.AsSpan(0, _state.Pairs))
            if (queue.Continues) queue.Serve();
        Receive();
        KeepLimits();
    }

    /// <inheritdoc/>
    public void Advance(ulong nanoseconds)
    {
        if (_port is null) return;
        // A deadline that has come is gone: what still has to wait sets another. What waited may be nobody's any more (its queue was broken
        // or reset, the cable is out), and a deadline that stayed would be due for ever.
        if (_receiveLimiter.Deadline <= nanoseconds) _receiveLimiter.Forget();
        foreach (var queue in _receive) queue.Advance(nanoseconds);
        if (_transmitLimiter.Deadline <= nanoseconds)
        {
            _transmitLimiter.Forget();
            foreach (var queue in _transmit.AsSpan(0, _state.Pairs)) queue.Serve();
        }
        Receive();
        KeepLimits();
    }

    /// <inheritdoc/>
    public void SaveState(Span<byte> into)
    {
        _state.ReceiveLimiter = _receiveLimiter.State;
        _state.TransmitLimiter = _transmitLimiter.State;
        _state.LinkShown = _linkShown ? (byte)1 : (byte)0;
        MemoryMarshal.Write(into, in _state);
    }

    /// <inheritdoc/>
    public bool RestoreState(ReadOnlySpan<byte> from)
    {
        if (!MemoryMarshal.TryRead(from, out State state)) return false;
        if (state.Pairs < 1 || state.Pairs > _options.Pairs || !state.Filter.IsSound || state.Mac.Value >> 48 != 0) return false;
        _state = state;
        _receiveLimiter.State = state.ReceiveLimiter;
        _transmitLimiter.State = state.TransmitLimiter;
        _linkShown = state.LinkShown != 0; // what the driver knows; the cable may have been moved while nobody was here
        return true;
    }

    /// <inheritdoc/>
    public override string ToString() =>
        $"{_state.Mac}, link {(LinkUp ? "up" : "down")}, {_state.Pairs} of {_options.Pairs} pairs; {Counters}; outside: "
        + string.Join(", ", _packets.Counters.Where(static counter => counter.Value != 0).Select(static counter => $"{counter.Key} {counter.Value}"));

    /// <summary>Machine time, in nanoseconds.</summary>
    internal ulong Now => _clock.Nanoseconds;

    internal bool MaySend(ulong bytes) => _transmitLimiter.TryTake(bytes, _clock.Nanoseconds);

    internal bool MayReceive(ulong bytes) => _receiveLimiter.TryTake(bytes, _clock.Nanoseconds);

    /// <summary>There is more to do than one message should: the device wants to be called again.</summary>
    internal void Again() => _control.Ring();

    /// <summary>What the driver takes has changed.</summary>
    internal void Configure()
    {
        _packets.Configure(_state.Offloads, _state.Pairs);
        var uncut = (_state.Offloads & ~PacketOffloads.Checksum) != 0;
        ReceiveRoom = uncut ? PacketLimits.MaxPacket : Math.Min(PacketLimits.MaxPacket, PacketHeader.Length + 18 + (_options.Mtu ?? 1500));
    }

    internal bool WantsFrame(ReadOnlySpan<byte> frame) => _state.Filter.Accepts(MacAddress.From(frame), _state.Mac);

    private static ulong Offered(NetOptions options, IPacketPort packets)
    {
        var features = NetFeatures.Mac | NetFeatures.MergeBuffers | NetFeatures.Status | NetFeatures.ControlQueue | NetFeatures.ControlReceive
            | NetFeatures.ControlReceiveExtra | NetFeatures.ControlMac | NetFeatures.ControlGuestOffloads
            | NetFeatures.Of(packets.SendOffloads, packets.ReceiveOffloads);
        if (options.Mtu is not null) features |= NetFeatures.Mtu;
        if (options.Pairs > 1) features |= NetFeatures.MultiQueue;
        return NetFeatures.Consistent(features & options.Features);
    }

    // §5.1.2: without MQ there is one pair, and the control queue follows it.
    private int ControlIndex => Has(NetFeatures.MultiQueue) ? 2 * _options.Pairs : 2;

    private bool IsControl(int index) => Has(NetFeatures.ControlQueue) && index == ControlIndex;

    internal VirtQueue? ControlVirtQueue => Has(NetFeatures.ControlQueue) ? Port.Queue(ControlIndex) : null;

    private void Receive()
    {
        if (!LinkUp)
        {
            foreach (var queue in _receive.AsSpan(0, _state.Pairs)) queue.Discard();
            return;
        }
        foreach (var queue in _receive.AsSpan(0, _state.Pairs)) queue.Serve();
    }

    private void PowerOn() => _state = new State { Mac = _options.Mac, Pairs = 1, Filter = ReceiveFilter.PowerOn };

    /// <summary>The cable's state as the driver sees it follows the real one.</summary>
    private void ShowLink()
    {
        var up = LinkUp;
        if (up == _linkShown) return;
        _linkShown = up;
        if (Has(NetFeatures.Status)) _port!.ConfigChanged();
        _port!.StateChanged(); // only now: a failure in between says it once more
    }

    private void TakeLimits()
    {
        var limits = _control.Changed;
        if (limits is null || ReferenceEquals(limits, _limits)) return;
        _limits = limits;
        if (limits.Receive is { } receive) _receiveLimiter.Change(receive, _clock.Nanoseconds);
        if (limits.Transmit is { } transmit)
        {
            _transmitLimiter.Change(transmit, _clock.Nanoseconds);
            foreach (var queue in _transmit) queue.Continues = true;
        }
    }

    private void KeepLimits()
    {
        if (_receiveLimiter.Spec.Enabled || _transmitLimiter.Spec.Enabled) _port?.StateChanged();
    }

    /// <summary>What a restarted device resumes from, beside its queues.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct State
    {
        public MacAddress Mac;
        public int Pairs;
        public byte Active, LinkShown;
        public PacketOffloads Offloads;
        public ReceiveFilter Filter;
        public RateLimiterState ReceiveLimiter, TransmitLimiter;
    }
}
