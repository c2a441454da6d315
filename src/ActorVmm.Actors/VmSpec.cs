using ActorVmm.Devices.Faults;
using ActorVmm.Hypervisor;

namespace ActorVmm.Actors;

/// <summary>One valid VM, ready to be built. Descriptions (HOCON, JSON, flags) are parsed and checked before they become this.</summary>
public sealed record VmSpec
{
    /// <summary>Unique in its host; also the actor name (letters, digits, <c>-</c>, <c>_</c>).</summary>
    public required string Name { get; init; }
    public required KernelSpec Kernel { get; init; }
    public int MemoryMib { get; init; } = 256;
    public int Vcpus { get; init; } = 1;
    public ClockMode Clock { get; init; } = ClockMode.Host;

    /// <summary>Seed of everything random that the guest can see under virtual time.</summary>
    public ulong Seed { get; init; }

    /// <summary>What shall go wrong.</summary>
    public FaultPlan Faults { get; init; } = FaultPlan.None;

    /// <summary>See <see cref="MachineOptions.CompileThreshold"/>.</summary>
    public int? CompileThreshold { get; init; }

    /// <summary>See <see cref="MachineOptions.CodeCacheMib"/>.</summary>
    public int? CodeCacheMib { get; init; }

    /// <summary>See <see cref="MachineOptions.LockStep"/>.</summary>
    public bool LockStep { get; init; }

    /// <summary><c>blk0</c>, <c>blk1</c>, ...: the guest's <c>/dev/vda</c>, <c>/dev/vdb</c>, ...</summary>
    public IReadOnlyList<DiskSpec> Disks { get; init; } = [];

    /// <summary><c>net0</c>, <c>net1</c>, ...</summary>
    public IReadOnlyList<NetSpec> Nets { get; init; } = [];

    /// <summary><c>rng0</c>, ...: one serves every guest.</summary>
    public IReadOnlyList<EntropySpec> Entropy { get; init; } = [];
}

/// <summary>What is booted.</summary>
public sealed record KernelSpec
{
    public required string Path { get; init; }
    public string? InitrdPath { get; init; }

    /// <summary>The user's part; <c>console=ttyS0</c> is added where it is missing.</summary>
    public string CommandLine { get; init; } = "panic=1 pci=off";

    /// <summary>Lower bound of the kernel's place in RAM (himem).</summary>
    public ulong LoadAddress { get; init; } = 0x100000;
    public KernelEntry Entry { get; init; } = KernelEntry.Auto;
}

/// <summary>How the kernel image is entered.</summary>
public enum KernelEntry
{
    /// <summary>ELF: 64-bit entry. bzImage: unpack its payload where that works, else its own decompressor.</summary>
    Auto,

    /// <summary>ELF, 64-bit boot protocol.</summary>
    Elf64,

    /// <summary>ELF with a PVH note, 32-bit entry.</summary>
    Pvh,

    /// <summary>bzImage through its own decompressor (64-bit entry at +0x200).</summary>
    BzImage,

    /// <summary>bzImage whose compressed ELF is unpacked by the loader.</summary>
    Payload,
}
