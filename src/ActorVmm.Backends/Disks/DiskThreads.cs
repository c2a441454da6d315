using ActorVmm.Devices.Virtio.Block;

namespace ActorVmm.Backends.Disks;

/// <summary>
/// The threads of an asynchronous disk: they take requests in the order they came and finish them in any. A thread is started when a request
/// finds all others busy, up to the limit.
/// </summary>
/// <param name="limit">Most threads.</param>
/// <param name="start">Starts a thread: number, and what it runs.</param>
/// <param name="perform">Performs a request on the calling thread.</param>
/// <param name="give">Takes a request that was performed, quickly; true where somebody has to be woken for it.</param>
/// <param name="wake">Wakes; may do the whole work of whoever is woken, on the thread that performed the request.</param>
internal sealed class DiskThreads(
    int limit, Func<int, Action, Thread> start, Action<DiskRequest> perform, Func<DiskRequest, bool> give, Action wake) : IDisposable
{
    private readonly object _gate = new();
    private readonly List<Thread> _threads = [];
    private DiskRequest? _first;
    private DiskRequest? _last;
    private int _idle;
    private int _waiting;
    private int _busy;
    private bool _closed;

    /// <summary>Requests waiting or being performed.</summary>
    public int InFlight
    {
        get { lock (_gate) return _waiting + _busy; }
    }

    public void Enqueue(DiskRequest request)
    {
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_closed, this);
            request.Next = null;
            if (_last is null) _first = request;
            else _last.Next = request;
            _last = request;
            _waiting++;
            if (_waiting <= _idle) Monitor.Pulse(_gate);
            else if (_threads.Count < limit) Begin();
            else if (_idle > 0) Monitor.Pulse(_gate);
        }
    }

    /// <summary>Drops what waits and returns when nothing is being performed.</summary>
    public void Abandon()
    {
        lock (_gate)
        {
            (_first, _last, _waiting) = (null, null, 0);
            while (_busy > 0) Monitor.Wait(_gate);
        }
    }

    /// <summary>The same, and ends the threads.</summary>
    public void Dispose()
    {
        lock (_gate)
        {
            _closed = true;
            (_first, _last, _waiting) = (null, null, 0);
            Monitor.PulseAll(_gate);
        }
        foreach (var thread in _threads)
            if (thread != Thread.CurrentThread) thread.Join(); // a device that is stopped while it hears of a request is stopped right here
    }

    private void Begin() => _threads.Add(start(_threads.Count, Work));

    private void Work()
    {
        while (Take() is { } request)
        {
            perform(request);
            bool wanted;
            lock (_gate)
            {
                // Given and not busy at once: whoever abandons waits on the same gate, and nothing comes after that. It may also be this
                // very thread, when it wakes its device.
                wanted = give(request);
                _busy--;
                if (_busy == 0) Monitor.PulseAll(_gate);
            }
            if (wanted) wake();
        }
    }

    private DiskRequest? Take()
    {
        lock (_gate)
        {
            while (_first is null)
            {
                if (_closed) return null;
                _idle++;
                Monitor.Wait(_gate);
                _idle--;
            }
            var request = _first;
            _first = request.Next;
            if (_first is null) _last = null;
            request.Next = null;
            _waiting--;
            _busy++;
            return request;
        }
    }
}
