using ActorVmm.Backends.Entropy;
using ActorVmm.Devices.Virtio.Rng;
using ActorVmm.Hypervisor;

namespace ActorVmm.Actors.Host.Vm.Devices.Virtio;

/// <summary>Makes the virtio devices that a <see cref="VmSpec"/> asks for.</summary>
internal static class VirtioRack
{
    public static IEnumerable<DeviceUnit> Of(VmSpec spec, DeviceParts parts) =>
        VirtioPlan.Of(spec).Select(place => place.Kind switch
        {
            VirtioKind.Entropy => Entropy(spec, parts, place),
            _ => throw new HypervisorException($"{spec.Name}: {place.Name} is not built in this version; remove it"),
        });

    private static DeviceUnit Entropy(VmSpec spec, DeviceParts parts, VirtioPlace place)
    {
        var wanted = spec.Entropy[place.Index];
        var slot = new VirtioSlot(parts, place, EntropyDevice.Queues);
        IEntropySource source = HostEntropy.Instance;
        if (spec.Clock == ClockMode.Virtual)
        {
            var seeded = new SeededEntropy(spec.Seed, place.Name);
            slot.Own(seeded);
            source = seeded;
        }

        return slot.Unit(() => new EntropyDevice(source, slot.Clock, wanted.Limits));
    }
}
