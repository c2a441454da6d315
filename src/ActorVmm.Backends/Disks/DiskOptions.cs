namespace ActorVmm.Backends.Disks;

/// <summary>Who performs a disk's requests.</summary>
public enum IoEngine
{
    /// <summary>
    /// The thread that asks, before it goes on. Nothing is quicker for what the page cache holds, and it repeats exactly; what is larger than
    /// <see cref="DiskOptions.MostInTurn"/> is done beside the guest.
    /// </summary>
    Sync,

    /// <summary>
    /// Threads of the disk: many requests at once, done in any order. Small reads of what the page cache holds never wait, and are done by
    /// the thread that asks.
    /// </summary>
    Async,
}

/// <summary>How a file or block device is used as a disk.</summary>
public sealed record DiskOptions
{
    /// <summary>Refuse writes; the lock is then shared with other readers.</summary>
    public bool ReadOnly { get; init; }

    public IoEngine Engine { get; init; } = IoEngine.Sync;

    /// <summary>Go around the host's page cache (O_DIRECT).</summary>
    public bool Direct { get; init; }

    /// <summary>Offer flushes, and make completed writes durable with them; else nothing is promised, as under Firecracker's Unsafe.</summary>
    public bool Writeback { get; init; }

    /// <summary>What GET_ID answers.</summary>
    public string Id { get; init; } = "";

    /// <summary>Most threads of the asynchronous engine; they are started as they are needed.</summary>
    public int Threads { get; init; } = 4;

    /// <summary>
    /// Largest read, in bytes, that the asynchronous engine tries to do at once out of the page cache. A larger one is better done beside the
    /// guest than in its time.
    /// </summary>
    public ulong MostInline { get; init; } = 64 << 10;

    /// <summary>
    /// Largest read or write, in bytes, that the synchronous engine does in the guest's time; a thread of the disk does larger ones, one after
    /// the other. Copying a mebibyte takes longer than waking a thread, and the guest goes on meanwhile. Without a bound all is done in turn.
    /// </summary>
    public ulong MostInTurn { get; init; } = ulong.MaxValue;

    /// <summary>
    /// Starts a thread of the disk, given its number and what it runs. What <see cref="ActorVmm.Devices.Virtio.Block.IDisk.Wake"/>
    /// calls is run by these threads.
    /// </summary>
    public Func<int, Action, Thread> Start { get; init; } = static (number, run) =>
    {
        var thread = new Thread(() => run()) { IsBackground = true, Name = $"disk io{number}" };
        thread.Start();
        return thread;
    };
}

/// <summary>A disk cannot be used; the message names it and says what to do.</summary>
public sealed class DiskException : IOException
{
    public DiskException() { }
    public DiskException(string message) : base(message) { }
    public DiskException(string message, Exception inner) : base(message, inner) { }
}
