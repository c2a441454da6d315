using System.Runtime.InteropServices;

namespace ActorVmm.Backends.Polling;

/// <summary>
/// Watches file descriptors of one VM (doorbells, taps) with one epoll instance, edge-triggered: a descriptor is reported when something
/// new happens on it, and nobody has to read it for the next report to come. The thread is its owner's, and is asked for with the first
/// watch.
/// </summary>
/// <param name="start">Asked once, with the loop: runs it on a thread of its own, until <see cref="Dispose"/>.</param>
public sealed class EventPoller(Action<Action> start) : IDisposable
{
    private const int Batch = 64;
    private const ulong WakeUp = 0;

    private readonly Lock _lock = new();
    private readonly Dictionary<ulong, Watched> _watches = [];
    private int _epoll = -1;
    private int _wake = -1;
    private ulong _lastId = WakeUp;
    private bool _ended;
    private bool _looping;
    private long _events;

    /// <summary>Events reported so far. Any thread.</summary>
    public long Events => Volatile.Read(ref _events);

    /// <summary>Descriptors watched now. Any thread.</summary>
    public int Watches
    {
        get { lock (_lock) return _watches.Count; }
    }

    /// <summary>
    /// Calls <paramref name="ready"/> on the poller's thread whenever <paramref name="descriptor"/> becomes readable, or more readable than
    /// it was. Disposing the result ends that; it does not close the descriptor, which must live until then. A call may still be under way
    /// when the disposal returns. Any thread.
    /// </summary>
    /// <exception cref="InvalidOperationException">The host refuses.</exception>
    /// <exception cref="ObjectDisposedException">The poller has ended.</exception>
    public IDisposable Watch(int descriptor, Action ready)
    {
        ArgumentNullException.ThrowIfNull(ready);
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_ended, this);
            if (_epoll < 0) Open();
            var watched = new Watched(this, ++_lastId, descriptor, ready);
            Check(EpollNative.Add(_epoll, descriptor, watched.Id), "epoll_ctl");
            _watches.Add(watched.Id, watched);
            return watched;
        }
    }

    /// <summary>Ends the loop and forgets all descriptors; they stay open.</summary>
    public void Dispose()
    {
        lock (_lock)
        {
            if (_ended) return;
            _ended = true;
            _watches.Clear();
            if (_looping) EpollNative.Ring(_wake); // the loop closes what it uses
            else Close();
        }
    }

    private void Open()
    {
        _epoll = Check(EpollNative.Create(), "epoll_create1");
        try
        {
            _wake = Check(EpollNative.CreateEvent(), "eventfd");
            Check(EpollNative.Add(_epoll, _wake, WakeUp), "epoll_ctl");
        }
        catch
        {
            Close();
            throw;
        }

        _looping = true;
        start(Loop);
    }

    private void Loop()
    {
        Span<ulong> ids = stackalloc ulong[Batch];
        while (true)
        {
            var count = EpollNative.Wait(_epoll, ids);
            if (count < 0)
            {
                if (Marshal.GetLastPInvokeError() == EpollNative.Interrupted) continue;
                break; // the instance is gone: nothing can be waited for
            }

            if (Volatile.Read(ref _ended)) break;
            for (var i = 0; i < count; i++) Report(ids[i]);
        }

        lock (_lock)
        {
            _looping = false;
            Close();
        }
    }

    private void Report(ulong id)
    {
        Watched? watched;
        lock (_lock) _watches.TryGetValue(id, out watched);
        if (watched is null) return;
        Volatile.Write(ref _events, _events + 1);
        watched.Ready();
    }

    private void Forget(Watched watched)
    {
        lock (_lock)
        {
            if (_watches.Remove(watched.Id)) EpollNative.Remove(_epoll, watched.Descriptor);
        }
    }

    private void Close()
    {
        if (_wake >= 0) EpollNative.Close(_wake);
        if (_epoll >= 0) EpollNative.Close(_epoll);
        _wake = _epoll = -1;
    }

    private static int Check(int result, string call) =>
        result >= 0 ? result : throw new InvalidOperationException($"{call}: {Marshal.GetLastPInvokeErrorMessage()}");

    private sealed class Watched(EventPoller poller, ulong id, int descriptor, Action ready) : IDisposable
    {
        public ulong Id { get; } = id;
        public int Descriptor { get; } = descriptor;
        public Action Ready { get; } = ready;

        public void Dispose() => poller.Forget(this);
    }
}
