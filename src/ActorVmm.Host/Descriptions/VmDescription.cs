using ActorVmm.Actors;
using ActorVmm.Devices.Faults;
using ActorVmm.Hypervisor;
using ActorVmm.Hypervisor.Kvm;

namespace ActorVmm.Host.Descriptions;

/// <summary>One valid VM as a user described it: in HOCON, as a Firecracker configuration, or with flags.</summary>
public sealed record VmDescription
{
    /// <summary>1 to 64 letters, digits, <c>-</c> or <c>_</c>.</summary>
    public string Name { get; init; } = "vm";

    /// <summary><c>auto</c>, <c>kvm</c> or <c>soft</c>.</summary>
    public string Hypervisor { get; init; } = "auto";

    /// <summary>Kernel, initrd (absolute paths of readable files) and command line.</summary>
    public required KernelSpec Kernel { get; init; }

    /// <summary>1 to <see cref="VmLimits.MaxMemoryMib"/>.</summary>
    public int MemoryMib { get; init; } = 256;

    /// <summary>1 to <see cref="VmLimits.MaxVcpus"/>.</summary>
    public int Vcpus { get; init; } = 1;
    public ClockMode Clock { get; init; } = ClockMode.Host;

    /// <summary>Seed of everything random that the guest can see under virtual time.</summary>
    public ulong Seed { get; init; }

    /// <summary>See <see cref="MachineOptions.CompileThreshold"/>.</summary>
    public int? CompileThreshold { get; init; }

    /// <summary>See <see cref="MachineOptions.CodeCacheMib"/>.</summary>
    public int? CodeCacheMib { get; init; }

    /// <summary>See <see cref="MachineOptions.LockStep"/>.</summary>
    public bool LockStep { get; init; }

    /// <summary>Changes to the CPU that KVM shows the guest (<c>cpu-config</c>); no other hypervisor takes any.</summary>
    public KvmCpuTemplate Cpu { get; init; } = KvmCpuTemplate.None;

    /// <summary>Virtio devices.</summary>
    public DeviceDescriptions Devices { get; init; } = DeviceDescriptions.None;

    /// <summary>What shall go wrong.</summary>
    public FaultPlan Faults { get; init; } = FaultPlan.None;

    /// <summary>A log file of this VM's run; null where the description asks for none.</summary>
    public LogDescription? Log { get; init; }

    /// <summary>File that takes Firecracker's metrics, one JSON object per line; null for none.</summary>
    public string? MetricsPath { get; init; }

    /// <summary>What the actor system builds.</summary>
    public VmSpec ToSpec() =>
        Devices.AddTo(new()
        {
            Name = Name, Kernel = Kernel, MemoryMib = MemoryMib, Vcpus = Vcpus, Clock = Clock, Seed = Seed, CompileThreshold = CompileThreshold,
            Faults = Faults, LockStep = LockStep, CodeCacheMib = CodeCacheMib,
        });
}

/// <summary>Logging as a description asks for it; what it leaves out is as the operator's settings say.</summary>
/// <param name="Path">Log file to append to, or null.</param>
/// <param name="Level"><c>off</c>, <c>error</c>, <c>warning</c>, <c>info</c>, <c>debug</c> or <c>trace</c>.</param>
/// <param name="ShowLevel">Put the level into each line of the file.</param>
public sealed record LogDescription(string? Path, string Level, bool ShowLevel);

/// <summary>The limits of a VM, in one place.</summary>
public static class VmLimits
{
    /// <summary>8-bit APIC ids, less the broadcast id and one for the I/O APIC.</summary>
    public const int MaxVcpus = 254;

    /// <summary>Firecracker's own limit for its configuration files.</summary>
    public const int MaxFirecrackerVcpus = 32;

    /// <summary>1 TiB, the address width offered to guests.</summary>
    public const int MaxMemoryMib = 1 << 20;

    /// <summary>Linux on x86 keeps 2048 bytes, of which the last is the terminating zero.</summary>
    public const int MaxCommandLineBytes = 2047;

    /// <summary>A description larger than this is none.</summary>
    public const int MaxFileBytes = 1 << 20;
}
