namespace ActorVmm.Devices.Virtio.Block;

/// <summary>What a block device has done; outlives the device, and is read from any thread.</summary>
public sealed class BlockCounters
{
    private long _reads, _writes, _readBytes, _writtenBytes, _flushes, _others, _errors, _malformed, _throttled;

    /// <summary>Requests that read sectors.</summary>
    public long Reads => Volatile.Read(ref _reads);

    /// <summary>Requests that wrote sectors.</summary>
    public long Writes => Volatile.Read(ref _writes);

    public long ReadBytes => Volatile.Read(ref _readBytes);

    public long WrittenBytes => Volatile.Read(ref _writtenBytes);

    public long Flushes => Volatile.Read(ref _flushes);

    /// <summary>Discards, write-zeroes and GET_ID requests.</summary>
    public long Others => Volatile.Read(ref _others);

    /// <summary>Requests that the host could not perform.</summary>
    public long Errors => Volatile.Read(ref _errors);

    /// <summary>Requests that were refused because the driver made them wrong.</summary>
    public long Malformed => Volatile.Read(ref _malformed);

    /// <summary>How often a request had to wait for the rate limiter.</summary>
    public long Throttled => Volatile.Read(ref _throttled);

    public override string ToString() =>
        $"{Reads} reads ({ReadBytes} bytes), {Writes} writes ({WrittenBytes} bytes), {Flushes} flushes, {Others} others, " +
        $"{Errors} errors, {Malformed} malformed, {Throttled} throttled";

    // Only the device's thread counts, so a plain add will do; others see each value whole.
    internal void Count(DiskRequest request)
    {
        switch (request.Operation)
        {
            case DiskOperation.Read:
                Volatile.Write(ref _reads, _reads + 1);
                Volatile.Write(ref _readBytes, _readBytes + (long)request.Bytes);
                break;
            case DiskOperation.Write:
                Volatile.Write(ref _writes, _writes + 1);
                Volatile.Write(ref _writtenBytes, _writtenBytes + (long)request.Bytes);
                break;
            case DiskOperation.Flush: Volatile.Write(ref _flushes, _flushes + 1); break;
            default: CountOther(); break;
        }
    }

    internal void CountOther() => Volatile.Write(ref _others, _others + 1);
    internal void CountError() => Volatile.Write(ref _errors, _errors + 1);
    internal void CountMalformed() => Volatile.Write(ref _malformed, _malformed + 1);
    internal void CountThrottled() => Volatile.Write(ref _throttled, _throttled + 1);
}
