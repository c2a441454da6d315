namespace ActorVmm.Hypervisor;

/// <summary>
/// One virtual CPU. <see cref="Run"/> and the state methods belong to one thread at a time; <see cref="Kick"/> may be called from any.
/// </summary>
public interface IVcpu
{
    int Id { get; }

    /// <summary>
    /// Runs the guest until it needs something from outside, and describes it in <see cref="Exit"/>. A read exit is answered by setting
    /// <see cref="VcpuExit.Data"/> before the next call. A halted vCPU blocks in here until an interrupt or a kick; allocates nothing.
    /// </summary>
    VcpuExitKind Run();

    /// <summary>The current exit; one object for the life of the vCPU.</summary>
    VcpuExit Exit { get; }

    /// <summary>
    /// Makes the current or next <see cref="Run"/> return <see cref="VcpuExitKind.Kicked"/> promptly, exactly once however often it was
    /// asked since. Any thread.
    /// </summary>
    void Kick();

    /// <summary>
    /// Finishes the instruction of a pending read or write exit without running another, so that the state is whole. Where that instruction
    /// makes a further access (the store of a read-modify-write, the second half of 16 bytes), it is in <see cref="Exit"/> as after
    /// <see cref="Run"/>: serve it and call again.
    /// </summary>
    /// <returns><see cref="VcpuExitKind.None"/> once nothing is pending.</returns>
    VcpuExitKind CompletePending();

    /// <summary>The full architectural state; call <see cref="CompletePending"/> first.</summary>
    VcpuState GetState();

    /// <summary>Replaces the full architectural state.</summary>
    void SetState(VcpuState state);

    /// <summary>Instructions retired since reset; 0 where the hypervisor cannot count.</summary>
    ulong RetiredInstructions { get; }

    /// <summary>What the implementation counts of itself (caches, translations), as one line for an operator; null where it counts nothing.</summary>
    string? Counters => null;
}

/// <summary>Why <see cref="IVcpu.Run"/> returned.</summary>
public enum VcpuExitKind
{
    /// <summary>Nothing happened yet.</summary>
    None = 0,

    /// <summary>IN; answer in <see cref="VcpuExit.Data"/>.</summary>
    PortRead,

    /// <summary>OUT.</summary>
    PortWrite,

    /// <summary>A load outside RAM; answer in <see cref="VcpuExit.Data"/>.</summary>
    MmioRead,

    /// <summary>A store outside RAM.</summary>
    MmioWrite,

    /// <summary>Somebody called <see cref="IVcpu.Kick"/>.</summary>
    Kicked,

    /// <summary>The alarm of <see cref="IMachineClock.SetAlarm"/> is due (vCPU 0).</summary>
    Alarm,

    /// <summary>HLT with interrupts off and no NMI pending: only INIT, NMI or reset can wake it. Reported once per halt.</summary>
    Halted,

    /// <summary>Triple fault (SHUTDOWN).</summary>
    Shutdown,

    /// <summary>The hypervisor reports a power event of the guest (KVM_EXIT_SYSTEM_EVENT).</summary>
    SystemEvent,

    /// <summary>The hypervisor cannot go on; <see cref="VcpuExit.Detail"/> has cause, RIP, bytes and instruction.</summary>
    Failed,
}

/// <summary>The description of one exit. A string instruction arrives as one exit per element.</summary>
public sealed class VcpuExit
{
    public VcpuExitKind Kind { get; set; }

    /// <summary>Port number or guest physical address.</summary>
    public ulong Address { get; set; }

    /// <summary>Bytes: 1, 2, 4 or 8.</summary>
    public int Size { get; set; }

    /// <summary>The value written, or the answer to a read (upper bytes ignored).</summary>
    public ulong Data { get; set; }

    /// <summary>For <see cref="VcpuExitKind.Failed"/> and <see cref="VcpuExitKind.SystemEvent"/>: what happened, for people.</summary>
    public string? Detail { get; set; }

    public override string ToString() => $"{Kind} 0x{Address:x} size {Size} data 0x{Data:x} {Detail}";
}
