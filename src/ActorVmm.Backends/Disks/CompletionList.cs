using System.Diagnostics.CodeAnalysis;
using ActorVmm.Devices.Virtio.Block;

namespace ActorVmm.Backends.Disks;

/// <summary>Finished requests on their way from any thread to one: lock-free, linked through the requests themselves, in order.</summary>
internal sealed class CompletionList
{
    private DiskRequest? _newest; // pushed by any thread, newest first
    private DiskRequest? _oldest; // the taker's own part, oldest first

    /// <summary>Adds a request. Any thread.</summary>
    /// <returns>True where nothing was waiting before: the taker has to be woken.</returns>
    public bool Push(DiskRequest request)
    {
        while (true)
        {
            var seen = Volatile.Read(ref _newest);
            request.Next = seen;
            if (ReferenceEquals(Interlocked.CompareExchange(ref _newest, request, seen), seen)) return seen is null;
        }
    }

    /// <summary>Takes the oldest; only the taker.</summary>
    public bool TryTake([NotNullWhen(true)] out DiskRequest? request)
    {
        if (_oldest is null && !Reverse())
        {
            request = null;
            return false;
        }
        request = _oldest!;
        _oldest = request.Next;
        request.Next = null;
        return true;
    }

    private bool Reverse()
    {
        if (Volatile.Read(ref _newest) is null) return false;
        for (var next = Interlocked.Exchange(ref _newest, null); next is not null;)
        {
            var after = next.Next;
            next.Next = _oldest;
            _oldest = next;
            next = after;
        }
        return true;
    }
}
