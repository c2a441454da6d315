using ActorVmm.Actors.Host.Vm.Events;
using ActorVmm.Actors.Host.Vm.Faults;
using ActorVmm.Backends.Disks;
using ActorVmm.Backends.Entropy;
using ActorVmm.Devices.Virtio.Block;
using ActorVmm.Devices.Virtio.Rng;
using ActorVmm.Hypervisor;

namespace ActorVmm.Actors.Host.Vm.Devices.Virtio;

/// <summary>Makes the virtio devices that a <see cref="VmSpec"/> asks for.</summary>
internal static class VirtioRack
{
    /// <summary>Largest request, in bytes, that a synchronous disk does on the vCPU's thread: its copy takes as long as waking another.</summary>
    private const ulong MostInTurn = 128 << 10;

    public static IEnumerable<DeviceUnit> Of(VmSpec spec, DeviceParts parts) =>
        VirtioPlan.Of(spec).Select(place => place.Kind switch
        {
            VirtioKind.Disk    => Disk(spec, parts, place),
            VirtioKind.Net     => NetUnit.Of(spec, parts, place),
            VirtioKind.Entropy => Entropy(spec, parts, place),
            _ => throw new HypervisorException($"{spec.Name}: {place.Name} is not built in this version; remove it"),
        });

    private static DeviceUnit Disk(VmSpec spec, DeviceParts parts, VirtioPlace place)
    {
        var wanted = spec.Disks[place.Index];
        var slot = new VirtioSlot(parts, place, [.. Enumerable.Repeat((ushort)wanted.QueueSize, wanted.Queues)]);
        var disk = Open(spec, wanted);
        slot.Own(disk);
        disk.Wake = slot.Ring;
        IDisk seen = disk;
        if (FaultHooks.Compiled && parts.Faults is { } faults)
        {
            var faulty = faults.Wrap(place.Name, disk);
            slot.Base.Backend = faulty;
            seen = faulty;
        }

        var unit = new DiskUnit(disk, seen, wanted, slot.Clock);
        slot.Control = unit.Update;
        slot.Base.Work = () => DeviceWork.Of(slot.Ledger.Queues, disk: unit.Counters);
        return slot.Unit(unit.Make);
    }

    private static FileDisk Open(VmSpec spec, DiskSpec wanted)
    {
        try
        {
            return FileDisk.Open(wanted.Path, new DiskOptions
            {
                ReadOnly = wanted.ReadOnly, Direct = wanted.Direct, Writeback = wanted.Writeback, Id = wanted.Id,
                Engine = spec.Clock == ClockMode.Virtual ? IoEngine.Sync : wanted.Engine,
                // Under virtual time a completion belongs to the instruction that rang the doorbell.
                MostInTurn = spec.Clock == ClockMode.Virtual ? ulong.MaxValue : MostInTurn,
                // What the device does about a finished request is done by the thread that finished it.
                Start = (number, run) => EventsActor.StartThread($"{wanted.Id} io{number}", run),
            });
        }
        catch (DiskException cannot)
        {
            throw new HypervisorException($"disk {wanted.Id}: {cannot.Message}", cannot);
        }
    }

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

        if (FaultHooks.Compiled && parts.Faults is { } faults) source = faults.Wrap(place.Name, source);
        return slot.Unit(() => new EntropyDevice(source, slot.Clock, wanted.Limits));
    }
}
