using ActorVmm.Backends.Native;
using ActorVmm.Devices.Virtio.Net;
using ActorVmm.Memory;

namespace ActorVmm.Backends.Taps;

/// <summary>
/// A tap interface as the outside of a network device. Packets go between the kernel and guest memory without a copy in between. An
/// interface that is down, full or gone costs packets, which are counted; one that is gone is looked for once a second.
/// </summary>
/// <remarks>
/// The device's thread sends and receives; the watcher's thread waits for packets, follows the interface's state, and opens it again. One that
/// was made here goes away when its last descriptor is closed, however this process ends.
/// </remarks>
public sealed class TapPort : IPacketPort
{
    private readonly TapSettings _settings;
    private readonly TapWatcher _watcher;
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
    /// <exception cref="TapException">It cannot be had.</exception>
    public TapPort(TapSettings settings)
    {
        ArgumentNullException.ThrowIfNull(settings);
        _settings = settings;
        var handles = TapHandles.Open(settings, mayCreate: true);
        _created = handles.Created;
        try
        {
            _watcher = new TapWatcher(settings.Name, this);
            if (_created) _watcher.BringUp();
            Adopt(handles);
        }
        catch
        {
            handles.Dispose();
            _watcher?.Dispose();
            throw;
        }
        _watcher.Start();
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
        if (_disposed) return;
        _disposed = true;
        _watcher.Dispose();
        lock (_gate)
        {
            _handles?.Dispose();
            _retired?.Dispose();
            _handles = _retired = null;
        }
    }

    /// <summary>The watcher: packets wait, or may.</summary>
    internal void OnPackets() => Volatile.Read(ref _ready)?.Invoke();

    /// <summary>The watcher: the interface's state may have changed.</summary>
    internal void OnState(bool up)
    {
        if (_up == up) return;
        _up = up;
        OnPackets();
    }

    /// <summary>The watcher: the interface is away; true where it is back.</summary>
    internal bool TryReopen()
    {
        lock (_gate)
        {
            if (_disposed || _handles is not null) return true;
            // Whoever still used these has long returned from a call that never waits.
            _retired?.Dispose();
            _retired = null;
            try
            {
                var handles = TapHandles.Open(_settings, mayCreate: _created);
                if (handles.Created) _watcher.BringUp();
                Adopt(handles);
            }
            catch (TapException)
            {
                return false; // not yet
            }
            Interlocked.Increment(ref _reopened);
        }
        OnPackets();
        return true;
    }

    private void Adopt(TapHandles handles)
    {
        _watcher.Watch(handles);
        Volatile.Write(ref _handles, handles);
        Apply();
        _up = _watcher.IsUp();
    }

    private void Apply()
    {
        if (_handles is not { } handles) return;
        handles.SetOffloads(_offloads);
        handles.Enable(_pairs);
    }

    private void Lose(TapHandles handles)
    {
        Interlocked.Increment(ref _droppedGone);
        lock (_gate)
        {
            if (!ReferenceEquals(_handles, handles)) return;
            Volatile.Write(ref _handles, null);
            _retired = handles; // closed when it is opened again: another thread may be in a call on it
            Interlocked.Increment(ref _lost);
        }
        _watcher.Wake();
    }
}
