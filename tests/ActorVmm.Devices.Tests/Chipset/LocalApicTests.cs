using ActorVmm.Devices.Chipset;
using ActorVmm.Testing.Devices;
using Xunit;
using static ActorVmm.Testing.Devices.ApicRig;

namespace ActorVmm.Devices.Tests.Chipset;

public sealed class LocalApicTests
{
    const ulong Enabled = 1 << 11, X2Apic = 1 << 10;

    [Fact]
    public void Power_on_values_are_the_manuals()
    {
        var apic = new ApicRig(2).Apics[1];
        Assert.Equal(0xFEE0_0800UL, apic.ApicBase);
        Assert.Equal(0x0100_0000u, Read(apic, LocalApicRegister.Id));
        Assert.Equal(0x0005_0014u, Read(apic, LocalApicRegister.Version));
        Assert.Equal(0xFFu, Read(apic, LocalApicRegister.SpuriousVector));
        Assert.Equal(uint.MaxValue, Read(apic, LocalApicRegister.DestinationFormat));
        for (var lvt = LocalApicRegister.LvtTimer; lvt <= LocalApicRegister.LvtError; lvt++) Assert.Equal(0x10000u, Read(apic, lvt));
        Assert.Equal(0xFEE0_0900UL, new ApicRig().Apics[0].ApicBase); // the boot processor's flag
        Assert.Null(apic.PendingVector);
        Assert.False(apic.AcceptsExtInt);
    }

    [Fact]
    public void The_highest_request_is_served_first_and_blocks_its_class_until_eoi()
    {
        var rig = new ApicRig().Enable();
        var apic = rig.Apics[0];
        foreach (var vector in (byte[])[0x31, 0x80, 0x42, 0x45]) Assert.True(apic.Accept(ApicDeliveryMode.Fixed, vector, level: false));
        Assert.Equal(4, rig.Cores[0].Interrupts);

        Assert.Equal(0x80, apic.PendingVector);
        Assert.Equal(0x80, apic.Acknowledge());
        Assert.Null(apic.PendingVector); // 0x45 is of a lower class
        Assert.Equal(0x80u, Read(apic, LocalApicRegister.ProcessorPriority));
        apic.Accept(ApicDeliveryMode.Fixed, 0x8F, level: false);
        Assert.Null(apic.PendingVector); // same class
        apic.Accept(ApicDeliveryMode.Fixed, 0x90, level: false);
        Assert.Equal(0x90, apic.Acknowledge()); // nests

        Write(apic, LocalApicRegister.EndOfInterrupt, 0);
        Assert.Null(apic.PendingVector);
        Write(apic, LocalApicRegister.EndOfInterrupt, 0);
        foreach (var expected in (byte[])[0x8F, 0x45, 0x42, 0x31])
        {
            Assert.Equal(expected, apic.PendingVector);
            Assert.Equal(expected, apic.Acknowledge());
            Write(apic, LocalApicRegister.EndOfInterrupt, 0);
        }

        Assert.Null(apic.PendingVector);
    }

    [Fact]
    public void Task_priority_and_cr8_hold_back_lower_classes()
    {
        var rig = new ApicRig().Enable();
        var apic = rig.Apics[0];
        apic.Cr8 = 5;
        Assert.Equal(0x50u, Read(apic, LocalApicRegister.TaskPriority));
        apic.Accept(ApicDeliveryMode.Fixed, 0x5F, level: false);
        Assert.Null(apic.PendingVector);
        apic.Accept(ApicDeliveryMode.Fixed, 0x60, level: false);
        Assert.Equal(0x60, apic.PendingVector);
        Assert.Equal(0x60, apic.Acknowledge());
        Write(apic, LocalApicRegister.EndOfInterrupt, 0);
        var signalled = rig.Cores[0].Interrupts;
        apic.Cr8 = 4;
        Assert.Equal(0x5F, apic.PendingVector);
        Assert.True(rig.Cores[0].Interrupts > signalled); // the core hears of what its lower priority let through
    }

    [Fact]
    public void An_acknowledge_that_comes_too_late_gets_the_spurious_vector_and_nothing_in_service()
    {
        var apic = new ApicRig().Enable().Apics[0];
        Assert.Equal(0xFF, apic.Acknowledge());
        Assert.Equal(default, apic.State.InService);
    }

    [Fact]
    public void While_disabled_by_software_it_refuses_fixed_interrupts_but_takes_nmi_init_and_sipi()
    {
        var rig = new ApicRig(2);
        Assert.False(rig.Apics[1].Accept(ApicDeliveryMode.Fixed, 0x40, level: false));
        rig.Apics[0].WriteMmio(0x310, 4, 0x0100_0000);
        rig.Apics[0].WriteMmio(0x300, 4, 0x4500); // INIT
        rig.Apics[0].WriteMmio(0x300, 4, 0x8500); // INIT level de-assert: nothing
        rig.Apics[0].WriteMmio(0x300, 4, 0x4699); // SIPI
        rig.Apics[0].WriteMmio(0x300, 4, 0x4400); // NMI
        Assert.Equal((1, 1), (rig.Cores[1].Inits, rig.Cores[1].Nmis));
        Assert.Equal([0x99], rig.Cores[1].Startups);
        Assert.Equal((0, 0), (rig.Cores[0].Inits, rig.Cores[0].Nmis));
    }

    [Fact]
    public void Disabling_by_software_masks_the_local_vector_table_and_keeps_it_masked()
    {
        var apic = new ApicRig().Enable().Apics[0];
        Write(apic, LocalApicRegister.LvtTimer, 0x20030);
        Write(apic, LocalApicRegister.SpuriousVector, 0xFF);
        Assert.Equal(0x30030u, Read(apic, LocalApicRegister.LvtTimer));
        Write(apic, LocalApicRegister.LvtTimer, 0x20031);
        Assert.Equal(0x30031u, Read(apic, LocalApicRegister.LvtTimer));
    }

    [Fact]
    public void Shorthands_reach_self_all_and_all_but_self()
    {
        var rig = new ApicRig(3).Enable();
        rig.Apics[1].WriteMmio(0x300, 4, 0x40041); // self
        Assert.Equal([null, 0x41, null], rig.Apics.Select(a => a.PendingVector));
        rig.Apics[1].WriteMmio(0x300, 4, 0x80052); // all
        Assert.Equal([0x52, 0x52, 0x52], rig.Apics.Select(a => a.PendingVector));
        rig.Apics[1].WriteMmio(0x300, 4, 0xC0063); // all but self
        Assert.Equal([0x63, 0x52, 0x63], rig.Apics.Select(a => a.PendingVector));
        Assert.Equal(0u, Read(rig.Apics[1], LocalApicRegister.InterruptCommandLow) & (1 << 12)); // never "send pending"
    }

    [Fact]
    public void Physical_destinations_name_one_and_0xFF_names_all()
    {
        var rig = new ApicRig(3).Enable();
        Write(rig.Apics[0], LocalApicRegister.InterruptCommandHigh, 0x0200_0000);
        Write(rig.Apics[0], LocalApicRegister.InterruptCommandLow, 0x40);
        Assert.Equal([null, null, 0x40], rig.Apics.Select(a => a.PendingVector));
        Write(rig.Apics[0], LocalApicRegister.InterruptCommandHigh, 0xFF00_0000);
        Write(rig.Apics[0], LocalApicRegister.InterruptCommandLow, 0x50);
        Assert.Equal([0x50, 0x50, 0x50], rig.Apics.Select(a => a.PendingVector));
    }

    [Fact]
    public void Logical_destinations_follow_the_flat_and_the_cluster_model()
    {
        var rig = new ApicRig(3).Enable();
        for (var i = 0; i < 3; i++) Write(rig.Apics[i], LocalApicRegister.LogicalDestination, 1u << (24 + i));
        Write(rig.Apics[0], LocalApicRegister.InterruptCommandHigh, 0b110u << 24);
        Write(rig.Apics[0], LocalApicRegister.InterruptCommandLow, 0x840);
        Assert.Equal([null, 0x40, 0x40], rig.Apics.Select(a => a.PendingVector));

        for (var i = 0; i < 3; i++)
        {
            Write(rig.Apics[i], LocalApicRegister.DestinationFormat, 0x0FFF_FFFF);
            Write(rig.Apics[i], LocalApicRegister.LogicalDestination, (i == 2 ? 0x21u : 0x10u | (1u << i)) << 24);
        }

        Assert.Equal([true, true, false], rig.Apics.Select(a => a.Matches(0x13, logical: true)));
        Assert.Equal([false, false, true], rig.Apics.Select(a => a.Matches(0x21, logical: true)));
        Assert.Equal([true, false, true], rig.Apics.Select(a => a.Matches(0xF1, logical: true))); // any cluster
        Assert.Equal([false, false, false], rig.Apics.Select(a => a.Matches(0x31, logical: true)));
    }

    [Fact]
    public void Lowest_priority_goes_to_the_idlest_and_takes_turns_among_equals()
    {
        var rig = new ApicRig(3).Enable();
        for (var i = 0; i < 3; i++) Write(rig.Apics[i], LocalApicRegister.LogicalDestination, 1u << (24 + i));
        rig.Apics[0].TaskPriority = 0x20;
        for (byte vector = 0x50; vector < 0x54; vector++) Assert.True(Lowest(vector, 7));
        var counts = rig.Apics.Select(a => Enumerable.Range(0x50, 4).Count(v => a.State.Requested.Contains((byte)v))).ToArray();
        Assert.Equal([0, 2, 2], counts);
        Assert.False(Lowest(0x50, 0x80)); // nobody is in that set

        bool Lowest(byte vector, uint set) => rig.Bus.Deliver(set, logical: true, ApicDeliveryMode.LowestPriority, vector, level: false);
    }

    [Fact]
    public void Illegal_vectors_are_reported_in_esr_and_by_the_error_interrupt()
    {
        var rig = new ApicRig().Enable();
        var apic = rig.Apics[0];
        Write(apic, LocalApicRegister.LvtError, 0xFE);
        Write(apic, LocalApicRegister.InterruptCommandLow, 0x0005);
        Assert.Equal(0u, Read(apic, LocalApicRegister.ErrorStatus)); // ESR shows errors only after a write
        Write(apic, LocalApicRegister.ErrorStatus, 0);
        Assert.Equal(1u << 5, Read(apic, LocalApicRegister.ErrorStatus));
        Assert.Equal(0xFE, apic.Acknowledge());
        Write(apic, LocalApicRegister.EndOfInterrupt, 0);
        Write(apic, LocalApicRegister.ErrorStatus, 0);
        Assert.Equal(0u, Read(apic, LocalApicRegister.ErrorStatus));

        apic.Accept(ApicDeliveryMode.Fixed, 3, level: false);
        Write(apic, LocalApicRegister.ErrorStatus, 0);
        Assert.Equal(1u << 6, Read(apic, LocalApicRegister.ErrorStatus));
        _ = apic.ReadMmio(0x3F0, 4); // no such register in xAPIC mode
        Write(apic, LocalApicRegister.ErrorStatus, 0);
        Assert.Equal(1u << 7, Read(apic, LocalApicRegister.ErrorStatus));
    }

    [Fact]
    public void Lint0_as_extint_accepts_the_8259_and_lint1_as_nmi_raises_nmi()
    {
        var rig = new ApicRig();
        var apic = rig.Apics[0];
        apic.EnterVirtualWireMode();
        Assert.Equal(0x700u, Read(apic, LocalApicRegister.LvtTimer + 3));
        Assert.True(apic.AcceptsExtInt);
        apic.SetLint(1, true);
        apic.SetLint(1, true);
        Assert.Equal(1, rig.Cores[0].Nmis);
        apic.SetLint(1, false);
        apic.SetLint(1, true);
        Assert.Equal(2, rig.Cores[0].Nmis);

        rig.Enable();
        Write(apic, LocalApicRegister.LvtTimer + 3, 0x10700);
        Assert.False(apic.AcceptsExtInt);
        var signalled = rig.Cores[0].Interrupts;
        Write(apic, LocalApicRegister.LvtTimer + 3, 0x700);
        Assert.True(rig.Cores[0].Interrupts > signalled); // a request of the 8259 may have waited behind the mask
        Write(apic, LocalApicRegister.LvtTimer + 3, 0x48); // fixed
        apic.SetLint(0, true);
        Assert.Equal(0x48, apic.PendingVector);
    }

    [Fact]
    public void An_extint_message_waits_until_the_core_fetches_its_vector()
    {
        var rig = new ApicRig();
        Assert.True(rig.Apics[0].Accept(ApicDeliveryMode.ExtInt, 0, level: false));
        Assert.True(rig.Apics[0].ExtIntPending);
        Assert.Equal(1, rig.Cores[0].Interrupts);
        rig.Apics[0].AcknowledgeExtInt();
        Assert.False(rig.Apics[0].ExtIntPending);
    }

    [Fact]
    public void X2apic_mode_moves_the_registers_to_msrs_with_a_32_bit_id_and_a_derived_logical_id()
    {
        var rig = new ApicRig(18).EnableX2Apic();
        var apic = rig.Apics[17];
        Assert.False(apic.MmioEnabled);
        Assert.True(apic.TryReadMsr(0x802, out var id));
        Assert.Equal(17u, id);
        Assert.True(apic.TryReadMsr(0x80D, out var ldr));
        Assert.Equal(0x0001_0002u, ldr);

        Assert.True(rig.Apics[0].TryWriteMsr(0x830, (17UL << 32) | 0x55));
        Assert.Equal(0x55, apic.PendingVector);
        Assert.True(rig.Apics[0].TryWriteMsr(0x830, (0x0001_0003UL << 32) | 0x866)); // logical: 16 and 17
        Assert.Equal([16, 17], Enumerable.Range(0, 18).Where(i => rig.Apics[i].PendingVector == 0x66));
        Assert.True(rig.Apics[0].TryWriteMsr(0x830, (0xFFFF_FFFFUL << 32) | 0x77));
        Assert.All(rig.Apics, a => Assert.Equal(0x77, a.PendingVector));
        Assert.True(apic.TryWriteMsr(0x83F, 0x88)); // self IPI
        Assert.Equal(0x88, apic.Acknowledge());
        Assert.True(apic.TryWriteMsr(0x80B, 0)); // EOI
        Assert.Equal(0x77, apic.PendingVector);
    }

    [Theory]
    [InlineData(0x80BU, 1UL)]                 // EOI takes only zero
    [InlineData(0x828U, 1UL)]                 // ESR too
    [InlineData(0x802U, 1UL)]                 // ID is read-only
    [InlineData(0x80DU, 1UL)]                 // LDR is derived
    [InlineData(0x80EU, 1UL)]                 // no DFR
    [InlineData(0x831U, 0UL)]                 // ICR is one MSR
    [InlineData(0x808U, 0x100UL)]             // TPR has eight bits
    [InlineData(0x83FU, 0x100UL)]             // self IPI is a vector
    [InlineData(0x832U, 0x1_0000_0000UL)]     // upper half reserved
    [InlineData(0x8FFU, 0UL)]                 // no register
    [InlineData(0x7FFU, 0UL)]
    public void X2apic_writes_that_the_manual_forbids_fault(uint msr, ulong value) =>
        Assert.False(new ApicRig().EnableX2Apic().Apics[0].TryWriteMsr(msr, value));

    [Fact]
    public void X2apic_msrs_fault_outside_x2apic_mode_and_where_there_is_no_register()
    {
        var rig = new ApicRig();
        Assert.False(rig.Apics[0].TryReadMsr(0x802, out _));
        Assert.False(rig.Apics[0].TryWriteMsr(0x80F, 0x1FF));
        rig.EnableX2Apic();
        foreach (var msr in (uint[])[0x80B, 0x809, 0x80E, 0x831, 0x83F, 0x800, 0x8FF]) Assert.False(rig.Apics[0].TryReadMsr(msr, out _));
    }

    [Fact]
    public void Apic_base_only_takes_the_steps_of_the_manuals_state_diagram()
    {
        var apic = new ApicRig().Apics[0];
        const ulong Base = 0xFEE0_0100;
        Assert.False(apic.TrySetApicBase(Base | X2Apic));           // EXTD without EN
        Assert.False(apic.TrySetApicBase(Base | Enabled | 1));      // reserved bit
        Assert.True(apic.TrySetApicBase(Base));                     // off
        Assert.False(apic.TrySetApicBase(Base | Enabled | X2Apic)); // off to x2APIC
        Assert.True(apic.AcceptsExtInt);                            // INTR goes straight to the core
        Assert.False(apic.Accept(ApicDeliveryMode.Nmi, 0, false));
        Assert.True(apic.TrySetApicBase(Base | Enabled));
        Assert.True(apic.TrySetApicBase(Base | Enabled | X2Apic));
        Assert.False(apic.TrySetApicBase(Base | Enabled));          // x2APIC to xAPIC
        Assert.True(apic.TrySetApicBase(Base));
    }

    [Fact]
    public void The_register_page_carries_the_state_to_another_apic()
    {
        var rig = new ApicRig().Enable();
        var apic = rig.Apics[0];
        Write(apic, LocalApicRegister.LvtTimer, 0x20031);
        Write(apic, LocalApicRegister.DivideConfiguration, 0xB);
        Write(apic, LocalApicRegister.InitialCount, 1000);
        Write(apic, LocalApicRegister.LogicalDestination, 0x0100_0000);
        Write(apic, LocalApicRegister.InterruptCommandHigh, 0x0500_0000);
        apic.EnterVirtualWireMode();
        apic.Accept(ApicDeliveryMode.Fixed, 0x61, level: true);
        apic.Accept(ApicDeliveryMode.Fixed, 0x71, level: false);
        apic.Acknowledge();
        rig.Clock.Advance(300);

        var page = new byte[1024];
        apic.ExportRegisters(page);
        Assert.Equal(700, BitConverter.ToInt32(page, 0x390));
        Assert.Equal(0x700, BitConverter.ToInt32(page, 0x350));

        var other = new ApicRig();
        other.Apics[0].ImportRegisters(page);
        var again = new byte[1024];
        other.Apics[0].ExportRegisters(again);
        Assert.Equal(page, again);
        Assert.Equal(700UL, other.Apics[0].Deadline);
        Assert.Equal(0x71u, other.Apics[0].ProcessorPriority & 0xF0u | 1);
        Assert.Throws<ArgumentException>(() => apic.ExportRegisters(new byte[100]));
        Assert.Throws<ArgumentException>(() => apic.ImportRegisters(new byte[100]));
    }

    [Fact]
    public void Init_keeps_the_base_and_clears_the_rest()
    {
        var rig = new ApicRig().EnableX2Apic();
        var apic = rig.Apics[0];
        apic.Accept(ApicDeliveryMode.Fixed, 0x61, level: false);
        apic.InitReset();
        Assert.True(apic.X2ApicMode);
        Assert.Null(apic.PendingVector);
        Assert.False(apic.SoftwareEnabled);
        apic.Reset();
        Assert.False(apic.X2ApicMode);
    }

    [Fact]
    public async Task Interrupts_from_other_threads_are_never_lost()
    {
        var rig = new ApicRig().Enable();
        var apic = rig.Apics[0];
        const int Rounds = 2000;
        var seen = new int[256];
        using var start = new Barrier(3);

        // Each sender raises its own vectors and waits until the owner has served them, so none may be coalesced or lost.
        Task Sender(byte first) => Task.Run(() =>
        {
            start.SignalAndWait();
            for (var i = 0; i < Rounds; i++)
            {
                var vector = (byte)(first + i % 64);
                var before = Volatile.Read(ref seen[vector]);
                apic.Accept(ApicDeliveryMode.Fixed, vector, level: i % 2 == 0);
                SpinWait.SpinUntil(() => Volatile.Read(ref seen[vector]) != before);
            }
        });

        var senders = Task.WhenAll(Sender(0x40), Sender(0x80));
        start.SignalAndWait();
        var giveUp = TimeSpan.FromSeconds(60);
        var watch = System.Diagnostics.Stopwatch.StartNew();
        while (!senders.IsCompleted && watch.Elapsed < giveUp)
        {
            if (apic.PendingVector is null)
            {
                Thread.Yield();
                continue;
            }

            var vector = apic.Acknowledge();
            Write(apic, LocalApicRegister.EndOfInterrupt, 0);
            Volatile.Write(ref seen[vector], seen[vector] + 1);
        }

        Assert.True(senders.IsCompleted, $"lost an interrupt: {apic}");
        await senders;
        Assert.Equal(2 * Rounds, seen.Sum());
    }
}
