using System.Globalization;
using ActorVmm.Actors;
using ActorVmm.Actors.Host.Vm.Devices.Virtio;

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

    /// <summary>Refuses more devices than there are interrupt inputs, at the key with which they become too many.</summary>
    internal void CheckCount(ObjectReader file, string disksKey, string netsKey)
    {
        var all = Disks.Count + Nets.Count + (Entropy is null ? 0 : 1);
        if (all <= VirtioPlan.MaxDevices) return;
        var key = Disks.Count > VirtioPlan.MaxDevices ? disksKey : Disks.Count + Nets.Count > VirtioPlan.MaxDevices ? netsKey : "entropy";
        file.Reject(key, string.Create(CultureInfo.InvariantCulture,
            $"{all} virtio devices are asked for; allowed are {VirtioPlan.MaxDevices} disks, network interfaces and entropy devices together"));
    }

    /// <summary>Adds them to a VM.</summary>
    public VmSpec AddTo(VmSpec spec)
    {
        ArgumentNullException.ThrowIfNull(spec);
        return spec with { Disks = Disks, Nets = Nets, Entropy = Entropy is null ? [] : [Entropy] };
    }
}
