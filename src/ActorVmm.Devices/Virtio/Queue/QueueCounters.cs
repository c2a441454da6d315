namespace ActorVmm.Devices.Virtio.Queue;

/// <summary>What a queue has done. Written by the device's thread, read by any; each request counts once, when its answer is final.</summary>
public sealed class QueueCounters
{
    private long _requests, _fromGuest, _toGuest;

    /// <summary>Requests answered.</summary>
    public long Requests => Volatile.Read(ref _requests);

    /// <summary>Bytes of their readable buffers, headers included.</summary>
    public long BytesFromGuest => Volatile.Read(ref _fromGuest);

    /// <summary>Bytes written to their writable buffers, headers and status included.</summary>
    public long BytesToGuest => Volatile.Read(ref _toGuest);

    internal void Count(ulong fromGuest, uint toGuest)
    {
        Volatile.Write(ref _requests, _requests + 1);
        Volatile.Write(ref _fromGuest, _fromGuest + (long)fromGuest);
        Volatile.Write(ref _toGuest, _toGuest + toGuest);
    }
}
