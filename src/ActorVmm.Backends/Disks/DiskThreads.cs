using ActorVmm.Devices.Virtio.Block;

namespace ActorVmm.Backends.Disks;

/// <summary>
/// The threads of an asynchronous disk: they take requests in the order they came and finish them in any. A thread is started when a request
/// finds all others busy, up to the limit.
/// </summary>
/// <param name="name">For people who look at the threads.</param>
/// <param name="limit">Most threads.</param>
/// <param name="perform">Performs a request on the calling thread.</param>
/// <param name="done">Told of each request that was performed, on the thread that did it.</param>
internal sealed class DiskThreads(string name, int limit, Action<DiskRequest> perform, Action<DiskRequest> done) : IDisposable
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
        foreach (var thread in _threads) thread.Join();
    }

    private void Begin()
    {
        var thread = new Thread(Work) { IsBackground = true, Name = $"{name} io{_threads.Count}" };
        _threads.Add(thread);
        thread.Start();
    }

    private void Work()
    {
        while (Take() is { } request)
        {
            perform(request);
            done(request);
            lock (_gate)
            {
                _busy--;
                // Whoever abandons waits on the same gate.
                if (_busy == 0) Monitor.PulseAll(_gate);
            }
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
