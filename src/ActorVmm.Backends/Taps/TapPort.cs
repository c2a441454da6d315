using ActorVmm.Backends.Native;
using ActorVmm.Backends.Polling;
using ActorVmm.Devices.Virtio.Net;
using ActorVmm.Memory;

namespace ActorVmm.Backends.Taps;

/// <summary>
/// A tap interface as the outside of a network device. Packets go between the kernel and guest memory without a copy in between. An
/// interface that is down, full or gone costs packets, which are counted; one that is gone is looked for once a second.
/// </summary>
/// <remarks>
/// The device's thread sends and receives; the poller's waits for packets (edge-triggered: what the guest has no room for wakes nobody) and
/// for changes of the interface's state. An interface that was made here goes away when its last descriptor is closed, however this process
/// ends.
/// </remarks>
public sealed class TapPort : IPacketPort
{
    private static readonly TimeSpan s_retryPeriod = TimeSpan.FromSeconds(1);

    private readonly TapSettings _settings;
    private readonly EventPoller _poller;
    private readonly TapLink _link;
    private readonly IDisposable _linkWatch;
    private readonly ITimer _retry;
    private readonly List<IDisposable> _watches = [];
    private readonly Lock _gate = new(); // around opening and settings; never around packets
    private readonly bool _created;
    private TapHandles? _handles;
    private TapHandles? _retired;
    private PacketOffloads _offloads;
    private int _pairs = 1;
    private Action? _ready;
    private volatile bool _up;
    private volatile bool _disposed;
    private long _sent, _sentBytes, _received, _receivedBytes;
    private long _droppedDown, _droppedFull, _droppedGone, _refused, _lost, _reopened;

    /// <summary>Opens an interface, or makes it and puts it up.</summary>
    /// <param name="settings">Which.</param>
    /// <param name="poller">Waits for packets; outlives this object.</param>
    /// <param name="time">The host's clock, for looking again.</param>
    /// <exception cref="TapException">It cannot be had.</exception>
    public TapPort(TapSettings settings, EventPoller poller, TimeProvider? time = null)
    {
        ArgumentNullException.ThrowIfNull(settings);
        ArgumentNullException.ThrowIfNull(poller);
        _settings = settings;
        _poller = poller;
        var handles = TapHandles.Open(settings, mayCreate: true);
        _created = handles.Created;
        try
        {
            _link = new TapLink(settings.Name);
            if (_created) _link.BringUp();
            _linkWatch = poller.Watch(_link.Descriptor, OnLinkMessage);
            lock (_gate) Adopt(handles);
        }
        catch
        {
            _linkWatch?.Dispose();
            _link?.Dispose();
            handles.Dispose();
            throw;
        }
        _retry = (time ?? TimeProvider.System).CreateTimer(static state => ((TapPort)state!).Reopen(), this,
            Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
    }

    /// <summary>The interface's name.</summary>
    public string Name => _settings.Name;

    /// <inheritdoc/>
    public int MaxPairs => _settings.Pairs;

    /// <inheritdoc/>
    public PacketOffloads SendOffloads =>
        PacketOffloads.Checksum | PacketOffloads.Tcp4 | PacketOffloads.Tcp6 | PacketOffloads.TcpEcn | PacketOffloads.Udp;

    /// <inheritdoc/>
    public PacketOffloads ReceiveOffloads => SendOffloads;

    /// <inheritdoc/>
    public bool LinkUp => _up;

    /// <inheritdoc/>
    public IEnumerable<KeyValuePair<string, long>> Counters =>
    [
        new("packets-from-guest", Volatile.Read(ref _sent)), new("bytes-from-guest", Volatile.Read(ref _sentBytes)),
        new("packets-to-guest", Volatile.Read(ref _received)), new("bytes-to-guest", Volatile.Read(ref _receivedBytes)),
        new("dropped-link-down", Volatile.Read(ref _droppedDown)), new("dropped-tap-full", Volatile.Read(ref _droppedFull)),
        new("dropped-tap-gone", Volatile.Read(ref _droppedGone)), new("refused-by-tap", Volatile.Read(ref _refused)),
        new("tap-lost", Volatile.Read(ref _lost)), new("tap-reopened", Volatile.Read(ref _reopened)),
    ];

    /// <inheritdoc/>
    public void OnReady(Action ready) => Volatile.Write(ref _ready, ready);

    /// <inheritdoc/>
    public void Configure(PacketOffloads receive, int pairs)
    {
        lock (_gate)
        {
            _offloads = receive;
            _pairs = pairs;
            Apply();
        }
    }

    /// <inheritdoc/>
    public PacketSent Send(int pair, ReadOnlySpan<HostSegment> packet)
    {
        if (Volatile.Read(ref _handles) is not { } handles || (uint)pair >= (uint)handles.Count)
        {
            Interlocked.Increment(ref _droppedGone);
            return PacketSent.Dropped;
        }

        int count;
        try { count = Tun.Write(handles[pair], packet); }
        catch (ObjectDisposedException) { count = -Libc.EBADFD; } // closed at this very moment
        if (count >= 0)
        {
            Interlocked.Increment(ref _sent);
            Interlocked.Add(ref _sentBytes, count);
            return PacketSent.Done;
        }
        switch (-count)
        {
            case Libc.EIO: Interlocked.Increment(ref _droppedDown); break;
            case Libc.EAGAIN: Interlocked.Increment(ref _droppedFull); break;
            case Libc.EBADFD: Lose(handles); break;
            default: Interlocked.Increment(ref _refused); break; // a header that the kernel makes no sense of
        }
        return PacketSent.Dropped;
    }

    /// <inheritdoc/>
    public int Receive(int pair, ReadOnlySpan<HostSegment> into)
    {
        if (Volatile.Read(ref _handles) is not { } handles || (uint)pair >= (uint)handles.Count) return 0;
        int count;
        try { count = Tun.Read(handles[pair], into); }
        catch (ObjectDisposedException) { count = -Libc.EBADFD; }
        if (count > 0)
        {
            Interlocked.Increment(ref _received);
            Interlocked.Add(ref _receivedBytes, count);
            return count;
        }
        if (count == -Libc.EBADFD) Lose(handles);
        return 0;
    }

    /// <summary>Closes it; an interface that was made here goes away.</summary>
    public void Dispose()
    {
        lock (_gate)
        {
            if (_disposed) return;
            _disposed = true;
            _retry.Dispose();
            _linkWatch.Dispose();
            Unwatch();
            _handles?.Dispose();
            _retired?.Dispose();
            _handles = _retired = null;
            _link.Dispose();
        }
    }

    private void TellReady() => Volatile.Read(ref _ready)?.Invoke();

    private void OnLinkMessage()
    {
        lock (_gate)
        {
            if (_disposed) return;
            _link.Drain();
            var up = _handles is not null && _link.IsUp;
            if (up == _up) return;
            _up = up;
        }
        TellReady();
    }

    /// <summary>The interface is away: perhaps it is back.</summary>
    private void Reopen()
    {
        lock (_gate)
        {
            if (_disposed || _handles is not null) return;
            // Whoever still used these has long returned from a call that never waits.
            _retired?.Dispose();
            _retired = null;
            try
            {
                var handles = TapHandles.Open(_settings, mayCreate: _created);
                if (handles.Created) _link.BringUp();
                Adopt(handles);
            }
            catch (TapException)
            {
                return; // not yet
            }
            _retry.Change(Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
            Interlocked.Increment(ref _reopened);
        }
        TellReady();
    }

    private void Adopt(TapHandles handles)
    {
        for (var i = 0; i < handles.Count; i++) _watches.Add(_poller.Watch((int)handles[i].DangerousGetHandle(), TellReady));
        Volatile.Write(ref _handles, handles);
        Apply();
        _up = _link.IsUp;
    }

    private void Apply()
    {
        if (_handles is not { } handles) return;
        handles.SetOffloads(_offloads);
        handles.Enable(_pairs);
    }

    private void Unwatch()
    {
        foreach (var watch in _watches) watch.Dispose();
        _watches.Clear();
    }

    private void Lose(TapHandles handles)
    {
        Interlocked.Increment(ref _droppedGone);
        lock (_gate)
        {
            if (_disposed || !ReferenceEquals(_handles, handles)) return;
            Volatile.Write(ref _handles, null);
            Unwatch();
            _retired = handles; // closed when it is opened again: another thread may be in a call on it
            _up = false;
            Interlocked.Increment(ref _lost);
            _retry.Change(s_retryPeriod, s_retryPeriod);
        }
    }
}
