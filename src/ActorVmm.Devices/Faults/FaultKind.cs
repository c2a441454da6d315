namespace ActorVmm.Devices.Faults;

/// <summary>What can be made to go wrong. The name in a plan is the member's, in lower case with hyphens: <c>block-torn-write</c>.</summary>
public enum FaultKind
{
    /// <summary>A request fails with an I/O error, without having happened.</summary>
    BlockEio,

    /// <summary>A write fails because the host's file system is full, without having happened.</summary>
    BlockEnospc,

    /// <summary>From the firing on, for a while or for good, every write fails with no space; reads go on.</summary>
    BlockDiskFull,

    /// <summary>A request is answered later, in machine time.</summary>
    BlockLatency,

    /// <summary>
    /// Only the first part of a write happens; it is answered as done. Together with <see cref="BlockVolatileCache"/> the rest happens with
    /// the next flush: that is how a write is torn where the power fails.
    /// </summary>
    BlockTornWrite,

    /// <summary>A write happens at another place than it was asked for; it is answered as done.</summary>
    BlockMisdirectedWrite,

    /// <summary>A flush is answered as done and does nothing: what it should have made durable is lost where the host ends.</summary>
    BlockDroppedFlush,

    /// <summary>What a read gives to the guest has bits that the disk does not have.</summary>
    BlockReadCorruption,

    /// <summary>
    /// A write stays in a cache of the disk until a flush makes it durable; what is in there when the VM ends, whatever way, is lost. With a
    /// probability the others are written through, so that what survives is not the order in which it was written.
    /// </summary>
    BlockVolatileCache,

    /// <summary>A request is never answered: a backend that hangs.</summary>
    BlockHang,

    /// <summary>A packet disappears.</summary>
    NetLoss,

    /// <summary>A packet arrives twice.</summary>
    NetDuplicate,

    /// <summary>A packet arrives after the next one.</summary>
    NetReorder,

    /// <summary>A packet arrives later, in machine time.</summary>
    NetDelay,

    /// <summary>A packet arrives with a bit flipped.</summary>
    NetCorruption,

    /// <summary>Packets wait for their turn on a slow line; what does not fit into its queue is lost.</summary>
    NetBandwidth,

    /// <summary>The cable is out for a while.</summary>
    NetLinkFlap,

    /// <summary>An interrupt line that should rise stays low.</summary>
    IrqLost,

    /// <summary>An interrupt line rises later, in machine time.</summary>
    IrqLate,

    /// <summary>An interrupt line rises and falls for nothing.</summary>
    IrqSpurious,

    /// <summary>A write to a device's doorbell register does not arrive.</summary>
    DoorbellLost,

    /// <summary>A byte that the guest prints disappears.</summary>
    SerialDrop,

    /// <summary>A byte that the guest prints arrives with a bit flipped.</summary>
    SerialCorruption,

    /// <summary>A device's actor crashes at a named crash point.</summary>
    ActorCrash,

    /// <summary>A device's handler does not return.</summary>
    ActorHang,

    /// <summary>A device's handler takes longer, in host time.</summary>
    ActorSlow,

    /// <summary>A device's mailbox is not served for a while, in host time.</summary>
    MailboxStall,

    /// <summary>A vCPU stays out of the guest for a while, in host time.</summary>
    VcpuPause,

    /// <summary>A vCPU gets only a part of its time.</summary>
    VcpuSlow,

    /// <summary>Machine time jumps ahead.</summary>
    ClockJump,

    /// <summary>Machine time runs fast for a while.</summary>
    ClockDrift,

    /// <summary>The entropy device has nothing to give for a while.</summary>
    EntropyStarvation,

    /// <summary>A bit of guest memory flips.</summary>
    MemoryBitFlip,

    /// <summary>The host's process dies at once, as by SIGKILL.</summary>
    HostKill,
}

/// <summary>Where a fault takes hold.</summary>
public enum FaultFamily
{
    /// <summary>Requests to a disk.</summary>
    Disk,

    /// <summary>Packets through a port.</summary>
    Packets,

    /// <summary>Levels on their way to the machine's interrupt inputs.</summary>
    Interrupt,

    /// <summary>Bytes on their way to the console.</summary>
    Console,

    /// <summary>Messages to a device's actor.</summary>
    Handler,

    /// <summary>Messages in the mailbox of a device's actor.</summary>
    Mailbox,

    /// <summary>Requests for random bytes.</summary>
    Entropy,

    /// <summary>Nothing that a device does: the clock alone fires it, and the machine or the host is what it is done to.</summary>
    Machine,
}

/// <summary>What is known about each kind.</summary>
public static class FaultKinds
{
    /// <summary>Every kind.</summary>
    public static IReadOnlyList<FaultKind> All { get; } = Enum.GetValues<FaultKind>();

    /// <summary>Where it takes hold.</summary>
    public static FaultFamily FamilyOf(FaultKind kind) => kind switch
    {
        <= FaultKind.BlockHang => FaultFamily.Disk,
        <= FaultKind.NetLinkFlap => FaultFamily.Packets,
        FaultKind.IrqSpurious => FaultFamily.Machine,
        <= FaultKind.IrqLate => FaultFamily.Interrupt,
        FaultKind.DoorbellLost => FaultFamily.Handler,
        FaultKind.SerialDrop or FaultKind.SerialCorruption => FaultFamily.Console,
        FaultKind.MailboxStall => FaultFamily.Mailbox,
        <= FaultKind.ActorSlow => FaultFamily.Handler,
        FaultKind.EntropyStarvation => FaultFamily.Entropy,
        _ => FaultFamily.Machine,
    };

    /// <summary>The only direction of events that it can happen to; null where there are several.</summary>
    public static string? DirectionOf(FaultKind kind) => kind switch
    {
        FaultKind.BlockEnospc or FaultKind.BlockDiskFull or FaultKind.BlockTornWrite or FaultKind.BlockMisdirectedWrite
            or FaultKind.BlockVolatileCache or FaultKind.DoorbellLost => "write",
        FaultKind.BlockDroppedFlush => "flush",
        FaultKind.BlockReadCorruption => "read",
        FaultKind.SerialDrop or FaultKind.SerialCorruption => "tx",
        _ => null,
    };

    /// <summary>Its name in a plan and in a trace.</summary>
    public static string NameOf(FaultKind kind) => s_names[(int)kind];

    /// <summary>Finds a kind by its name.</summary>
    public static bool TryParse(string name, out FaultKind kind)
    {
        var index = Array.IndexOf(s_names, name);
        kind = (FaultKind)Math.Max(0, index);
        return index >= 0;
    }

    private static readonly string[] s_names = [.. Enum.GetValues<FaultKind>().Select(static kind => Hyphens(kind.ToString()))];

    private static string Hyphens(string name) =>
        string.Concat(name.Select(static (letter, at) => char.IsUpper(letter)
            ? (at > 0 ? "-" : "") + char.ToLowerInvariant(letter) : letter.ToString()));
}
