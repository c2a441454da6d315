using ActorVmm.Actors;

namespace ActorVmm.Host.Descriptions;

/// <summary>The virtio devices that a description asks for.</summary>
public sealed record DeviceDescriptions
{
    /// <summary>None of them.</summary>
    public static readonly DeviceDescriptions None = new();

    /// <summary>Disks, in the guest's order.</summary>
    public IReadOnlyList<DiskSpec> Disks { get; init; } = [];

    /// <summary>Network interfaces, in the guest's order.</summary>
    public IReadOnlyList<NetSpec> Nets { get; init; } = [];

    /// <summary>The entropy device, or null.</summary>
    public EntropySpec? Entropy { get; init; }

    /// <summary>Adds them to a VM.</summary>
    public VmSpec AddTo(VmSpec spec)
    {
        ArgumentNullException.ThrowIfNull(spec);
        return spec with { Disks = Disks, Nets = Nets, Entropy = Entropy is null ? [] : [Entropy] };
    }
}
