using ActorVmm.Boot;
using ActorVmm.Devices.Virtio.Mmio;
using ActorVmm.Hypervisor;
using ActorVmm.Memory;

namespace ActorVmm.Actors.Host.Vm.Devices.Virtio;

/// <summary>What a virtio device of a VM is.</summary>
public enum VirtioKind
{
    Disk,
    Net,
    Entropy,
}

/// <summary>Where one virtio device of a VM is: its register window and its interrupt.</summary>
/// <param name="Name">Actor name: <c>blk0</c>, <c>net0</c>, <c>rng0</c>.</param>
/// <param name="Kind">Which list of the <see cref="VmSpec"/>.</param>
/// <param name="Index">Its place in that list.</param>
/// <param name="Slot">Window and GSI, as the guest is told.</param>
public sealed record VirtioPlace(string Name, VirtioKind Kind, int Index, VirtioMmioSlot Slot);

/// <summary>
/// Gives each virtio device of a VM its window and its interrupt input: disks first, then network interfaces, then entropy, so that the
/// first disk is always in the same place. Loader and device rack ask here, and so agree.
/// </summary>
public static class VirtioPlan
{
    /// <summary>First window; right above all RAM below 4 GiB.</summary>
    public const ulong FirstWindow = GuestMemory.GapStart;

    // Left out: 0 timer, 1 keyboard, 2 cascade, 3 and 4 serial, 8 clock, 9 ACPI. 12 and 13 come last, because old kernels take them for a
    // mouse and a coprocessor.
    private static readonly int[] s_inputs = [5, 6, 7, 10, 11, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 12, 13];

    /// <summary>Every device has an interrupt input of its own: 17.</summary>
    public static int MaxDevices => s_inputs.Length;

    /// <summary>The places of all virtio devices of a VM, ascending by address.</summary>
    /// <exception cref="HypervisorException">More than <see cref="MaxDevices"/> are asked for.</exception>
    public static IReadOnlyList<VirtioPlace> Of(VmSpec spec)
    {
        ArgumentNullException.ThrowIfNull(spec);
        (VirtioKind Kind, int Index)[] wanted =
        [
            .. Enumerable.Range(0, spec.Disks.Count).Select(index => (VirtioKind.Disk, index)),
            .. Enumerable.Range(0, spec.Nets.Count).Select(index => (VirtioKind.Net, index)),
            .. Enumerable.Range(0, spec.Entropy.Count).Select(index => (VirtioKind.Entropy, index)),
        ];
        if (wanted.Length > MaxDevices)
            throw new HypervisorException(
                $"{spec.Name}: {wanted.Length} virtio devices are asked for; there are interrupt inputs for {MaxDevices}");
        return
        [
            .. wanted.Select(static (device, place) =>
                new VirtioPlace($"{Prefix(device.Kind)}{device.Index}", device.Kind, device.Index, Slot(place))),
        ];
    }

    private static VirtioMmioSlot Slot(int place) =>
        new(new GuestAddress(FirstWindow + (ulong)place * VirtioMmio.WindowSize), (uint)VirtioMmio.WindowSize, s_inputs[place]);

    private static string Prefix(VirtioKind kind) => kind switch
    {
        VirtioKind.Disk => "blk",
        VirtioKind.Net  => "net",
        _               => "rng",
    };
}
