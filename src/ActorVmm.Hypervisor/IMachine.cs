using ActorVmm.Memory;

namespace ActorVmm.Hypervisor;

/// <summary>One virtual machine: RAM, vCPUs, interrupt controllers (LAPIC, IOAPIC, 8259), interval timer (8254) and its clock.</summary>
public interface IMachine : IDisposable
{
    GuestMemory Memory { get; }

    /// <summary>vCPU 0 is the boot processor; the others wait for INIT and SIPI.</summary>
    IReadOnlyList<IVcpu> Vcpus { get; }

    /// <summary>Machine time.</summary>
    IMachineClock Clock { get; }

    /// <summary>What an operator should know about how this machine runs here, one line each.</summary>
    IReadOnlyList<string> Notes => [];

    /// <summary>Drives input <paramref name="gsi"/> (0 to 23: IOAPIC pin and, below 16, the 8259 input). Any thread.</summary>
    void SetInterruptLine(int gsi, bool level);

    /// <summary>Sends a message-signalled interrupt. Any thread.</summary>
    void SendMsi(ulong address, uint data);

    /// <summary>Raises a non-maskable interrupt on one vCPU. Any thread.</summary>
    void SendNmi(int vcpu);

    /// <summary>
    /// Asks that guest writes to an address be signalled instead of exiting (ioeventfd). Null where this hypervisor has no such path: the
    /// write then arrives as an ordinary exit, and the caller handles it there.
    /// </summary>
    IDoorbell? TryCreateDoorbell(DoorbellAddress address);

    /// <summary>Stops and starts machine time; vCPUs must not be running.</summary>
    void PauseClock();

    /// <inheritdoc cref="PauseClock"/>
    void ResumeClock();

    /// <summary>Everything but RAM and bus devices: vCPUs, interrupt controllers, timer, clock. vCPUs must not be running.</summary>
    MachineState Save();

    /// <summary>Takes over a saved state. The vCPU count must match.</summary>
    /// <exception cref="HypervisorException">The state does not fit this machine; the message names the part.</exception>
    void Restore(MachineState state);

    /// <summary>Back to power-on: vCPUs at reset, controllers and timer reset. RAM is left as it is. vCPUs must not be running.</summary>
    void Reset();
}

/// <summary>Machine time: one monotonic clock that both the guest's timers and our devices follow.</summary>
public interface IMachineClock
{
    /// <summary>Nanoseconds since switch-on, without pauses. Any thread; exact on a vCPU's thread between its exits.</summary>
    ulong Nanoseconds { get; }

    ClockMode Mode { get; }

    /// <summary>
    /// Asks for <see cref="VcpuExitKind.Alarm"/> on vCPU 0 once machine time reaches <paramref name="nanoseconds"/> (absolute);
    /// <see cref="ulong.MaxValue"/> cancels. One alarm at a time; the owner multiplexes. Any thread.
    /// </summary>
    void SetAlarm(ulong nanoseconds);

    /// <summary>
    /// Moves machine time ahead at once, as if that much had passed; false where this hypervisor's clock cannot be moved. On vCPU 0's thread
    /// between its exits.
    /// </summary>
    bool TryAdvance(ulong nanoseconds) => false;
}

/// <summary>A guest address whose writes ring a doorbell.</summary>
/// <param name="Address">Port or guest physical address.</param>
/// <param name="IsPort">Port I/O rather than MMIO.</param>
/// <param name="Size">1, 2, 4, 8; 0 matches any size (MMIO).</param>
/// <param name="Match">Rings only for this value; null rings for any.</param>
public readonly record struct DoorbellAddress(ulong Address, bool IsPort, int Size, ulong? Match);

/// <summary>A registered doorbell; disposing it de-assigns the address.</summary>
public interface IDoorbell : IDisposable
{
    DoorbellAddress Address { get; }

    /// <summary>The event file descriptor to poll (non-blocking eventfd).</summary>
    int FileDescriptor { get; }
}
