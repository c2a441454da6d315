using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using ActorVmm.Hypervisor.Kvm.Native;
using ActorVmm.Memory;
using ActorVmm.Testing.Guests;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Kvm.Tests;

/// <summary>The reference's tests of its KvmVm and vm-vcpu-ref, against a real kernel.</summary>
public class KvmVmTests
{
    private static KvmMachine Machine(GuestMemory memory, int vcpus = 1) => new KvmHypervisor().Create(new MachineOptions(memory, vcpus));

    [KvmFact]
    public void Create_vcpus_1_and_254()
    {
        foreach (var count in new[] { 1, 254 })
        {
            using var memory = GuestMemory.Create(1 << 20);
            using var machine = Machine(memory, count);
            Assert.Equal(count, machine.Vcpus.Count);
            Assert.Equal(count - 1, machine.Vcpus[^1].Id);
        }
    }

    [KvmFact]
    public void Failed_irqchip_setup_a_second_one_is_refused()
    {
        using var memory = GuestMemory.Create(1 << 20);
        using var machine = Machine(memory);
        var refused = Assert.Throws<HypervisorException>(() => machine.File.Call(KvmApi.KVM_CREATE_IRQCHIP, 0,
            nameof(KvmApi.KVM_CREATE_IRQCHIP)));
        Assert.StartsWith("KVM_CREATE_IRQCHIP failed", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Failed_setup_memory_more_regions_than_slots()
    {
        KvmMachine.DemandSlots(regions: 2, slots: 2);
        Assert.Contains("memory slots", Assert.Throws<HypervisorException>(() => KvmMachine.DemandSlots(regions: 3, slots: 2)).Message,
            StringComparison.Ordinal);
    }

    [KvmFact]
    public void Memory_above_the_gap_gets_a_slot_of_its_own()
    {
        using var guest = new TinyGuest(new KvmHypervisor(), memorySize: GuestMemory.GapStart + (16 << 20));
        guest.Map(GuestLayout.MappedArea, GuestMemory.HighStart + 0x1000, PageBits.KernelData);
        guest.Code(c =>
        {
            c.mov(rbx, GuestLayout.MappedArea);
            c.mov(__dword_ptr[rbx], 0x4711);
            c.Done();
        }).Start64();
        Assert.Equal(GuestEnd.Done, guest.Run().End);
        Assert.Equal(0x4711u, guest.Read<uint>(GuestMemory.HighStart + 0x1000));
    }

    [KvmFact]
    public void Shutdown_ends_four_vcpus_parked_in_hlt()
    {
        using var guest = new TinyGuest(new KvmHypervisor(), vcpus: 4);
        guest.Code(c =>
        {
            var again = c.CreateLabel();
            c.sti();
            c.Label(ref again);
            c.hlt();
            c.jmp(again);
        }).Start64();
        using var ended = new CountdownEvent(4);
        foreach (var vcpu in guest.Machine.Vcpus)
        {
            new Thread(() =>
            {
                while (vcpu.Run() != VcpuExitKind.Kicked) { }
                ended.Signal();
            }) { IsBackground = true }.Start();
        }
        foreach (var vcpu in guest.Machine.Vcpus) vcpu.Kick();
        Assert.True(ended.Wait(TimeSpan.FromSeconds(90)));
    }

    [KvmFact]
    public void Vm_save_state_has_every_part_and_restores()
    {
        using var memory = GuestMemory.Create(1 << 20);
        using var machine = Machine(memory, 2);
        machine.PauseClock();
        var state = machine.Save();
        Assert.Equal("clock ioapic pic0 pic1 pit", string.Join(' ', state.Chips.Keys.Order(StringComparer.Ordinal)));
        Assert.Equal(0u, BinaryPrimitives.ReadUInt32LittleEndian(state.Chips["pic0"]));
        Assert.Equal(1u, BinaryPrimitives.ReadUInt32LittleEndian(state.Chips["pic1"]));
        Assert.Equal(2u, BinaryPrimitives.ReadUInt32LittleEndian(state.Chips["ioapic"]));
        Assert.Equal(0u, BinaryPrimitives.ReadUInt32LittleEndian(state.Chips["clock"].AsSpan(8))); // no flag of the old host
        Assert.Equal(2, state.Vcpus.Count);
        using var other = Machine(memory, 2);
        other.Restore(state);
        var again = other.Save();
        Assert.Equal(state.Vcpus[0].General, again.Vcpus[0].General);
        Assert.Equal(state.Vcpus[1].Special, again.Vcpus[1].Special);
        Assert.Equal(state.Chips["ioapic"], again.Chips["ioapic"]);
    }

    [KvmFact]
    public void Delivery_mode_lint0_is_extint_and_lint1_nmi_with_masks_kept()
    {
        using var memory = GuestMemory.Create(1 << 20);
        using var machine = Machine(memory, 2);
        Assert.Equal((0x700u, 0x10400u), Lints(0));
        Assert.Equal((0x10700u, 0x10400u), Lints(1));

        (uint, uint) Lints(int vcpu)
        {
            var page = machine.Vcpus[vcpu].GetState().Lapic;
            return (BinaryPrimitives.ReadUInt32LittleEndian(page.AsSpan(KvmLapic.Lint0)),
                BinaryPrimitives.ReadUInt32LittleEndian(page.AsSpan(KvmLapic.Lint1)));
        }
    }

    [Fact]
    public void Create_boot_msrs_are_the_ten_of_the_sheet()
    {
        Assert.Equal([0x174u, 0x175, 0x176, 0xC0000081, 0xC0000083, 0xC0000102, 0xC0000084, 0xC0000082, 0x10, 0x1A0],
            KvmMsrs.Boot.Select(msr => msr.Index));
        Assert.All(KvmMsrs.Boot, msr => Assert.Equal(msr.Index == 0x1A0 ? 1UL : 0, msr.Value));
    }

    [KvmFact]
    public void Supported_guest_msrs_are_saved_without_the_two_that_no_guest_may_have()
    {
        using var memory = GuestMemory.Create(1 << 20);
        using var machine = Machine(memory);
        var saved = machine.Vcpus[0].GetState().Msrs.Select(msr => msr.Index).ToArray();
        Assert.Contains(0x10u, saved);
        Assert.Contains(0xC0000082u, saved);
        Assert.DoesNotContain(KvmMsrs.FeatureControl, saved);
        Assert.DoesNotContain(KvmMsrs.McgCtl, saved);
    }

    [KvmFact]
    public void The_xsave_area_has_the_size_the_host_needs()
    {
        using var system = KvmSystem.Open();
        using var memory = GuestMemory.Create(1 << 20);
        using var machine = Machine(memory);
        var size = machine.Vcpus[0].GetState().Xsave.Length;
        Assert.Equal(Math.Max(4096, system.Check(KvmCap.XSAVE2)), size);
    }

    [KvmFact]
    public void A_template_changes_an_msr_from_the_start()
    {
        using var memory = GuestMemory.Create(1 << 20);
        using var machine = new KvmHypervisor(new KvmCpuTemplate { Msrs = [new MsrModifier(KvmMsrs.SysenterEsp, new BitPattern(0xFF,
            0x5A))] })
            .Create(new MachineOptions(memory, 1));
        Assert.Equal(0x5AUL, machine.Vcpus[0].GetState().Msrs.Single(msr => msr.Index == KvmMsrs.SysenterEsp).Value);
    }

    [KvmFact(Needs = "cpuid-mask")]
    public void A_template_reaches_the_kernels_cpuid()
    {
        const uint popcnt = 1u << 23;
        using var memory = GuestMemory.Create(1 << 20);
        using var machine = new KvmHypervisor(new KvmCpuTemplate { Cpuid = [new CpuidModifier(1, 0, CpuidRegister.Ecx,
            new BitPattern(popcnt, 0))] })
            .Create(new MachineOptions(memory, 1));
        Assert.Equal(0u, LeafOne(machine.Vcpus[0]).Ecx & popcnt);
    }

    [KvmFact]
    public void The_topology_reaches_the_kernels_cpuid_of_each_vcpu()
    {
        using var memory = GuestMemory.Create(1 << 20);
        using var machine = Machine(memory, 3);
        foreach (var vcpu in machine.Vcpus)
        {
            Assert.Equal((uint)vcpu.Id, LeafOne(vcpu).Ebx >> 24);
            Assert.Equal(3u, LeafOne(vcpu).Ebx >> 16 & 0xFF);
        }
    }

    private static KvmCpuidEntry LeafOne(IVcpu vcpu)
    {
        var table = new byte[8 + (256 * Unsafe.SizeOf<KvmCpuidEntry>())];
        BinaryPrimitives.WriteUInt32LittleEndian(table, 256);
        ((KvmVcpu)vcpu).File.Call(KvmApi.KVM_GET_CPUID2, table, nameof(KvmApi.KVM_GET_CPUID2));
        return MemoryMarshal.Cast<byte, KvmCpuidEntry>(table.AsSpan(8)).ToArray().First(entry => entry.Function == 1);
    }
}
