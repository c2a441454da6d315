using ActorVmm.Memory;

namespace ActorVmm.Hypervisor;

/// <summary>A way to run guests: KVM or the software CPU. The rest of the program does not know which.</summary>
public interface IHypervisor
{
    /// <summary><c>kvm</c> or <c>soft</c>.</summary>
    string Name { get; }

    /// <summary>What works on this host. Never throws; what is missing is in the report.</summary>
    ProbeReport Probe();

    /// <summary>Creates a machine with its vCPUs, interrupt controllers and timers, all in their reset state.</summary>
    /// <exception cref="HypervisorException">The host lacks what the machine needs; the message names it and what to do.</exception>
    IMachine CreateMachine(MachineOptions options);
}

/// <summary>What a machine is made of.</summary>
/// <param name="Memory">Guest RAM; owned by the caller and outlives the machine.</param>
/// <param name="VcpuCount">1 to 254.</param>
/// <param name="Clock">Host time or virtual time.</param>
public sealed record MachineOptions(GuestMemory Memory, int VcpuCount, ClockMode Clock = ClockMode.Host)
{
    /// <summary>Wall clock at machine time 0, in nanoseconds since 1970; the default under virtual time is 2026-01-01.</summary>
    public ulong BootUnixNanoseconds { get; init; } = 1_767_225_600_000_000_000;

    /// <summary>Nanoseconds of virtual time per retired instruction.</summary>
    public uint VirtualNanosecondsPerInstruction { get; init; } = 1;

    /// <summary>
    /// Software CPU only: entries after which a block of code is compiled to the host's machine code; 0 interprets always, null is its
    /// default. It changes the speed and nothing that a guest can see.
    /// </summary>
    public int? CompileThreshold { get; init; }

    /// <summary>Software CPU only: MiB of machine code per vCPU, after which it begins anew; null is its default.</summary>
    public int? CodeCacheMib { get; init; }

    /// <summary>
    /// Software CPU only, a debug mode under virtual time: each compiled block is also interpreted, and the first difference ends the run with
    /// a description of the block. Slow; a guest sees nothing of it.
    /// </summary>
    public bool LockStep { get; init; }

    /// <summary>Seed of the guest-visible random source (RDRAND) under virtual time.</summary>
    public ulong Seed { get; init; }
}

/// <summary>Where guest time comes from.</summary>
public enum ClockMode
{
    /// <summary>The host's monotonic clock.</summary>
    Host,

    /// <summary>Retired instructions: the same input gives the same run.</summary>
    Virtual,
}

/// <summary>The host cannot do what was asked; the message says what and what to do about it.</summary>
public sealed class HypervisorException : Exception
{
    public HypervisorException(string message) : base(message) { }
    public HypervisorException(string message, Exception inner) : base(message, inner) { }
    public HypervisorException() { }
}

/// <summary>One thing that was probed.</summary>
/// <param name="Name">Short name, e.g. <c>KVM_CAP_IRQCHIP</c> or <c>syscall</c>.</param>
/// <param name="Works">Whether it works here.</param>
/// <param name="Detail">What was seen; where it does not work, what to do.</param>
public sealed record ProbeItem(string Name, bool Works, string Detail);

/// <summary>What a hypervisor can do on this host.</summary>
/// <param name="Hypervisor"><see cref="IHypervisor.Name"/>.</param>
/// <param name="Usable">True where it boots an unmodified Linux to user space.</param>
/// <param name="Items">Every check, in order.</param>
/// <param name="Verdict">One line for people.</param>
public sealed record ProbeReport(string Hypervisor, bool Usable, IReadOnlyList<ProbeItem> Items, string Verdict);
