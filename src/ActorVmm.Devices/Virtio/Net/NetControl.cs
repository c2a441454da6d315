namespace ActorVmm.Devices.Virtio.Net;

/// <summary>
/// The operator's side of a network device: the cable, limits at run time, and the counters. Outlives the device when it is restarted; any
/// thread.
/// </summary>
public sealed class NetControl
{
    private volatile bool _plugged = true;
    private volatile Limits? _limits;
    private readonly List<KeptPacket> _kept = [];

    /// <summary>Rings the device; set by whoever runs it.</summary>
    public Action Ring { get; set; } = static () => { };

    /// <summary>Whether the operator's cable is in. The guest's link is up where the outside's is as well.</summary>
    public bool Plugged => _plugged;

    /// <summary>What went through the device and what was dropped.</summary>
    public NetCounters Counters { get; } = new();

    /// <summary>Pulls the cable, or puts it in.</summary>
    public void SetPlugged(bool plugged)
    {
        _plugged = plugged;
        Ring();
    }

    /// <summary>New limits; null leaves a direction as it is.</summary>
    public void SetLimits(RateLimiterSpec? receive, RateLimiterSpec? transmit)
    {
        var before = _limits;
        _limits = new Limits(receive ?? before?.Receive, transmit ?? before?.Transmit);
        Ring();
    }

    /// <summary>
    /// The packet that lies in the driver's buffers and is not theirs yet, for each pair. A device that fails meanwhile gets the same buffers
    /// again, oldest first, with the packet in them: what was received is not lost.
    /// </summary>
    internal Unfinished[] InBuffers { get; } = new Unfinished[NetOptions.MaxPairs];

    /// <summary>How far the completion of a packet's buffers has come.</summary>
    /// <param name="Head">The next buffer to be completed.</param>
    /// <param name="Left">Bytes in it and behind it; 0: there is no such packet.</param>
    /// <param name="Part">Bytes in it.</param>
    /// <param name="IsFirst">The packet begins in it.</param>
    internal readonly record struct Unfinished(ushort Head, int Left, int Part, bool IsFirst);

    /// <summary>Limits that were changed; the same object until the next change.</summary>
    internal Limits? Changed => _limits;

    /// <summary>The packet that a receive queue has taken and could not pass on yet; a restarted device finds it here.</summary>
    internal KeptPacket Kept(int pair)
    {
        while (_kept.Count <= pair) _kept.Add(new KeptPacket());
        return _kept[pair];
    }

    internal sealed record Limits(RateLimiterSpec? Receive, RateLimiterSpec? Transmit);
}

/// <summary>A packet received that waits for the driver's buffers or for the rate limit; only the device's thread.</summary>
internal sealed class KeptPacket
{
    /// <summary>Header and frame; made with the first packet that has to wait.</summary>
    public byte[]? Bytes { get; set; }

    /// <summary>Bytes of it; 0 where none waits.</summary>
    public int Length { get; set; }

    /// <summary>When to look for more buffers, in nanoseconds of machine time; null where it does not wait for any.</summary>
    public ulong? Look { get; set; }

    /// <summary>How often that was in vain.</summary>
    public int Looks { get; set; }

    /// <summary>No packet waits.</summary>
    public void Clear() => (Length, Look, Looks) = (0, null, 0);
}

/// <summary>What a network device counts. Written by the device's thread, read by any.</summary>
public sealed class NetCounters
{
    private readonly long[] _values = new long[(int)NetCounter.Count];

    /// <summary>One counter's value.</summary>
    public long this[NetCounter counter] => Volatile.Read(ref _values[(int)counter]);

    internal void Add(NetCounter counter, long amount = 1) => Volatile.Write(ref _values[(int)counter], _values[(int)counter] + amount);

    /// <inheritdoc/>
    public override string ToString() => string.Join(", ",
        Enumerable.Range(0, _values.Length).Where(i => _values[i] != 0).Select(i => $"{(NetCounter)i} {Volatile.Read(ref _values[i])}"));
}

/// <summary>Counters of a network device: packets, or bytes where the name says so.</summary>
public enum NetCounter
{
    Sent,
    SentBytes,
    Received,
    ReceivedBytes,

    /// <summary>Sent, shorter than the two headers or longer than any packet.</summary>
    SentBadLength,

    /// <summary>Sent, with a packet header that the negotiated features do not allow.</summary>
    SentBadHeader,

    /// <summary>Sent from an address that is not the device's.</summary>
    SentSpoofed,

    /// <summary>Sent, and dropped by the outside.</summary>
    SentRefused,

    /// <summary>Either way, while the link was down.</summary>
    LinkDown,

    /// <summary>Received, and not for this device.</summary>
    Filtered,

    /// <summary>Received, and larger than the driver's buffers.</summary>
    ReceivedNoRoom,

    /// <summary>Receive buffers that cannot be used: too short, or not writable.</summary>
    BadBuffers,

    /// <summary>Requests on which the device failed again and again.</summary>
    Suspect,

    /// <summary>Commands of the control queue.</summary>
    Commands,

    /// <summary>Of these, refused.</summary>
    BadCommands,

    Count,
}
