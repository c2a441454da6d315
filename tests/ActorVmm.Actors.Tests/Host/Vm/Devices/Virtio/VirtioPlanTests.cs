using ActorVmm.Actors.Host.Vm.Bus;
using ActorVmm.Actors.Host.Vm.Devices.Virtio;
using ActorVmm.Boot;
using ActorVmm.Hypervisor;
using ActorVmm.Memory;

namespace ActorVmm.Actors.Tests.Host.Vm.Devices.Virtio;

public sealed class VirtioPlanTests
{
    [Fact]
    public void Seventeen_devices_have_windows_and_interrupts_of_their_own_clear_of_everything_else()
    {
        var places = VirtioPlan.Of(Spec(disks: 8, nets: 8, entropy: 1));
        Assert.Equal(17, places.Count);
        Assert.Equal(17, VirtioPlan.MaxDevices);
        (AddressRange, string)[] others =
        [
            (AddressRange.Mmio(0, GuestMemory.GapStart), "RAM"), (AddressRange.Mmio(GuestMemory.HighStart, 1UL << 40), "high RAM"),
            (AddressRange.Mmio(MemoryLayout.IoApic, 4096), "I/O APIC"), (AddressRange.Mmio(MemoryLayout.LocalApic, 4096), "local APIC"),
            (AddressRange.Mmio(MemoryLayout.Pvpanic, 4096), "pvpanic"),
        ];
        AddressTable.CheckDisjoint([.. others, .. places.Select(place => (AddressRange.Mmio(place.Slot.Address.Value, place.Slot.Size),
            place.Name))]);
        Assert.Equal(17, places.Select(place => place.Slot.Gsi).Distinct().Count());
        Assert.All(places, place => Assert.InRange(place.Slot.Gsi, 0, 23));
        Assert.DoesNotContain(places, place => place.Slot.Gsi is 0 or 1 or 2 or 3 or 4 or 8 or 9);
    }

    [Fact]
    public void The_first_disk_is_always_in_the_same_place_and_names_count_within_their_kind()
    {
        var places = VirtioPlan.Of(Spec(disks: 2, nets: 1, entropy: 1));
        Assert.Equal(["blk0", "blk1", "net0", "rng0"], places.Select(place => place.Name));
        Assert.Equal(new VirtioMmioSlot(new GuestAddress(0xD000_0000), 4096, 5), places[0].Slot);
        Assert.Equal(new VirtioMmioSlot(new GuestAddress(0xD000_1000), 4096, 6), places[1].Slot);
        Assert.Equal((VirtioKind.Net, 0), (places[2].Kind, places[2].Index));
        Assert.Empty(VirtioPlan.Of(Spec(0, 0, 0)));
    }

    [Fact]
    public void More_devices_than_interrupts_are_refused_by_number()
    {
        var refusal = Assert.Throws<HypervisorException>(() => VirtioPlan.Of(Spec(disks: 9, nets: 8, entropy: 1)));
        Assert.Contains("18 virtio devices", refusal.Message, StringComparison.Ordinal);
    }

    private static VmSpec Spec(int disks, int nets, int entropy) => VmFixture.Spec() with
    {
        Disks = [.. Enumerable.Range(0, disks).Select(id => new DiskSpec { Id = $"d{id}", Path = "none" })],
        Nets = [.. Enumerable.Range(0, nets).Select(id => new NetSpec { Id = $"n{id}", Backend = new NetBackend.Tap("none") })],
        Entropy = [.. Enumerable.Repeat(new EntropySpec(), entropy)],
    };
}
