using Akka.Actor;
using ActorVmm.Actors.Dispatch;
using ActorVmm.Hypervisor;

namespace ActorVmm.Actors.Host.Vm.Bus;

/// <summary>How an access ended.</summary>
public enum AccessOutcome
{
    /// <summary>Not yet.</summary>
    Pending,

    /// <summary>A device (or the exit handler) answered.</summary>
    Answered,

    /// <summary>No device has the address: reads are all ones, writes are dropped.</summary>
    OpenBus,

    /// <summary>The device failed, is gone, or did not answer in time: reads are all ones, writes are dropped.</summary>
    Faulted,
}

/// <summary>
/// One register access on its way from a vCPU to a device and back. Each vCPU owns one and uses it again for every exit: nothing is
/// allocated. A receiver must not keep it after <see cref="Complete"/>.
/// </summary>
public sealed class BusAccess : ISyncExit
{
    private const int Pending = 0;
    private const int Done = 1;
    private const int Parked = 2;

    private int _state = Done;
    private IActorRef? _waiter;
    private AddressTable.Entry? _entry;

    /// <summary>Port number or guest physical address.</summary>
    public ulong Address { get; private set; }

    /// <summary>From the device's base; set by the bus.</summary>
    public ulong Offset { get; internal set; }

    /// <summary>Bytes: 1, 2, 4 or 8.</summary>
    public int Size { get; private set; }

    /// <summary>Port I/O rather than MMIO.</summary>
    public bool IsPort { get; private set; }

    /// <summary>The guest writes.</summary>
    public bool IsWrite { get; private set; }

    /// <summary>The value written, or after <see cref="Complete"/> the answer to a read.</summary>
    public ulong Data { get; private set; }

    /// <summary>How it ended.</summary>
    public AccessOutcome Outcome { get; private set; }

    /// <summary>How often a device has failed while it handled this access.</summary>
    public int Failures { get; internal set; }

    /// <summary>The exit that this access is; what an <see cref="IExitHandler"/> is shown.</summary>
    public VcpuExit Exit { get; private set; } = new();

    /// <summary>True once answered.</summary>
    public bool IsDone => Volatile.Read(ref _state) == Done;

    /// <summary>True where an undeliverable message may still be in a dead mailbox: the owner must not use this object again.</summary>
    public bool IsSpoiled { get; private set; }

    /// <summary>All ones in <paramref name="size"/> bytes: what an empty bus reads as.</summary>
    public static ulong AllOnes(int size) => size >= 8 ? ulong.MaxValue : (1UL << (8 * size)) - 1;

    /// <summary>Takes over what the guest asked. Only the owning vCPU, and only after the previous access was answered.</summary>
    public void Begin(VcpuExit exit)
    {
        ArgumentNullException.ThrowIfNull(exit);
        if (!ReferenceEquals(Exit, exit)) Exit = exit; // once per vCPU: spares the write barrier
        Address = exit.Address;
        Offset = 0;
        Size = exit.Size;
        IsPort = exit.Kind is VcpuExitKind.PortRead or VcpuExitKind.PortWrite;
        IsWrite = exit.Kind is VcpuExitKind.PortWrite or VcpuExitKind.MmioWrite;
        Data = IsWrite ? exit.Data & AllOnes(exit.Size) : 0;
        Outcome = AccessOutcome.Pending;
        Failures = 0;
        if (_waiter is not null) _waiter = null;
        Volatile.Write(ref _state, Pending);
    }

    /// <summary>The device that it was last routed to; null where none was.</summary>
    internal string? Device => _entry?.Device.Name;

    /// <summary>The bus has found who answers.</summary>
    internal void RouteTo(AddressTable.Entry entry)
    {
        Offset = entry.OffsetOf(Address);
        if (!ReferenceEquals(_entry, entry)) _entry = entry;
    }

    /// <summary>The device that the bus has found; null where there was none.</summary>
    internal IActorRef? Target => _entry?.Actor;

    /// <summary>
    /// Takes over an access that was told to a device which will never answer: the same exit, on its way once more. The old object stays
    /// with whoever may still hold it.
    /// </summary>
    internal void BeginAgain(BusAccess lost)
    {
        Begin(lost.Exit);
        Failures = lost.Failures;
        _entry = lost._entry;
    }

    /// <summary>The device has handled it; in the device's turn and before <see cref="Complete"/>.</summary>
    internal void CountUse() => _entry?.Count(IsWrite);

    /// <summary>Answers. The first answer counts. Any thread.</summary>
    public void Complete(ulong data, AccessOutcome outcome = AccessOutcome.Answered)
    {
        if (IsDone) return;
        if (!IsWrite) Data = data & AllOnes(Size);
        Outcome = outcome;
        if (Interlocked.Exchange(ref _state, Done) == Parked) _waiter!.Tell(new ReplyReady(this));
    }

    /// <summary>Answers as an empty bus would.</summary>
    public void CompleteOpenBus(AccessOutcome outcome) => Complete(ulong.MaxValue, outcome);

    /// <inheritdoc/>
    public void Undeliverable()
    {
        IsSpoiled = true;
        CompleteOpenBus(AccessOutcome.Faulted);
    }

    /// <summary>Asks for a <see cref="ReplyReady"/> to <paramref name="waiter"/>; false where the answer is already there.</summary>
    internal bool TryPark(IActorRef waiter)
    {
        _waiter = waiter;
        return Interlocked.CompareExchange(ref _state, Parked, Pending) == Pending;
    }

    /// <summary>The answer to a parked access has arrived.</summary>
    public sealed record ReplyReady(BusAccess Access);
}
