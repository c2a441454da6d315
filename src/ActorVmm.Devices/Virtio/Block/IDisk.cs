namespace ActorVmm.Devices.Virtio.Block;

/// <summary>
/// What a block device stores its sectors on. One owner at a time calls it, except where a member says otherwise. It outlives the device's
/// actor. Decorators (fault injection) wrap it: whoever is given a request may hold, change or answer it before passing it on.
/// </summary>
public interface IDisk
{
    /// <summary>Size in 512-byte sectors. It may change while the VM runs; <see cref="Wake"/> is then called.</summary>
    ulong Sectors { get; }

    /// <summary>Writes are refused.</summary>
    bool ReadOnly { get; }

    /// <summary>Bytes of the smallest unit that it reads and writes without detours: a power of two, 512 or more.</summary>
    int BlockSize { get; }

    /// <summary>What GET_ID answers; ASCII, of which the guest sees 20 bytes.</summary>
    string Id { get; }

    /// <summary>True where a flush makes completed writes durable; false where nobody promises that.</summary>
    bool Flushes { get; }

    /// <summary>Whether ranges can be given back to the host (DISCARD).</summary>
    bool Discards { get; }

    /// <summary>What the host said when it last could not perform a request, for people; null where it never happened. Any thread.</summary>
    string? LastError => null;

    /// <summary>
    /// Called from any thread when a completion waits after there was none, or when <see cref="Sectors"/> has changed. Quick, and throws
    /// nothing. Spurious calls are harmless.
    /// </summary>
    Action? Wake { get; set; }

    /// <summary>
    /// Begins a request. True: it is done, <see cref="DiskRequest.Status"/> says how. False: it belongs to the disk until
    /// <see cref="TryTakeCompleted"/> gives it back, in any order. The caller has checked that the range lies on the disk.
    /// </summary>
    bool Start(DiskRequest request);

    /// <summary>Takes the next request that is done. Allocates nothing.</summary>
    bool TryTakeCompleted([System.Diagnostics.CodeAnalysis.NotNullWhen(true)] out DiskRequest? request);

    /// <summary>
    /// Forgets every request that is under way. When this returns, none of them touches guest memory any more and none will be given back;
    /// a write among them may have happened or not.
    /// </summary>
    void Abandon();
}
