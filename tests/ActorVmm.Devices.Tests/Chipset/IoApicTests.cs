using ActorVmm.Devices.Chipset;
using ActorVmm.Testing.Devices;
using Xunit;
using static ActorVmm.Testing.Devices.ApicRig;

namespace ActorVmm.Devices.Tests.Chipset;

public sealed class IoApicTests
{
    const ulong Level = 1 << 15, Masked = 1 << 16, RemoteIrr = 1 << 14;
    readonly ApicRig _rig = new ApicRig(2).Enable();

    [Fact]
    public void Identification_registers_say_24_masked_inputs()
    {
        _rig.IoApic.Write(0, 4, 1);
        Assert.Equal(0x0017_0011u, _rig.IoApic.Read(0x10, 4));
        _rig.IoApic.Write(0, 4, 0);
        _rig.IoApic.Write(0x10, 4, 0xFF00_0000);
        Assert.Equal(0x0F00_0000u, _rig.IoApic.Read(0x10, 4));
        for (var pin = 0; pin < IoApic.Pins; pin++) Assert.Equal(Masked, _rig.IoApic.Entry(pin));
        _rig.IoApic.Write(0, 4, 0x40); // past the last entry
        _rig.IoApic.Write(0x10, 4, 0);
        Assert.Equal(0u, _rig.IoApic.Read(0x10, 4));
    }

    [Fact]
    public void A_rising_edge_is_one_interrupt()
    {
        _rig.Redirect(4, 0x0100_0000_0000_0034);
        _rig.IoApic.SetLine(4, true);
        _rig.IoApic.SetLine(4, true);
        Assert.Equal(0x34, _rig.Apics[1].Acknowledge());
        Write(_rig.Apics[1], LocalApicRegister.EndOfInterrupt, 0);
        Assert.Null(_rig.Apics[1].PendingVector);
        _rig.IoApic.SetLine(4, false);
        _rig.IoApic.SetLine(4, true);
        Assert.Equal(0x34, _rig.Apics[1].PendingVector);
        Assert.Null(_rig.Apics[0].PendingVector);
    }

    [Fact]
    public void A_level_comes_again_after_eoi_until_the_line_falls()
    {
        _rig.Redirect(10, Level | 0x5A);
        _rig.IoApic.SetLine(10, true);
        Assert.Equal(Level | RemoteIrr | 0x5A, _rig.IoApic.Entry(10));
        Assert.Equal(0x5A, _rig.Apics[0].Acknowledge());
        Assert.Null(_rig.Apics[0].PendingVector); // remote IRR holds it back
        Write(_rig.Apics[0], LocalApicRegister.EndOfInterrupt, 0);
        Assert.Equal(0x5A, _rig.Apics[0].Acknowledge());
        _rig.IoApic.SetLine(10, false);
        Write(_rig.Apics[0], LocalApicRegister.EndOfInterrupt, 0);
        Assert.Null(_rig.Apics[0].PendingVector);
        Assert.Equal(Level | 0x5A, _rig.IoApic.Entry(10));
    }

    [Fact]
    public void A_masked_level_waits_and_a_masked_edge_is_lost()
    {
        _rig.IoApic.SetLine(3, true);
        _rig.IoApic.SetLine(11, true);
        _rig.Redirect(3, 0x43);
        Assert.Null(_rig.Apics[0].PendingVector);
        _rig.Redirect(11, Level | 0x5B);
        Assert.Equal(0x5B, _rig.Apics[0].PendingVector);
    }

    [Fact]
    public void A_level_that_nobody_took_is_offered_again()
    {
        var rig = new ApicRig(); // software-disabled: refuses
        rig.Redirect(10, Level | 0x5A);
        rig.IoApic.SetLine(10, true);
        Assert.Equal(0UL, rig.IoApic.Entry(10) & RemoteIrr);
        rig.Enable();
        rig.Redirect(10, Level | 0x5A);
        Assert.Equal(0x5A, rig.Apics[0].PendingVector);
    }

    [Fact]
    public void Switching_to_edge_and_back_clears_a_stuck_remote_irr()
    {
        _rig.Redirect(10, Level | 0x5A);
        _rig.IoApic.SetLine(10, true);
        _rig.IoApic.SetLine(10, false);
        _rig.Redirect(10, Masked | 0x5A);
        Assert.Equal(Masked | 0x5A, _rig.IoApic.Entry(10));
        _rig.Redirect(10, Level | Masked | 0x5A);
        Assert.Equal(Level | Masked | 0x5A, _rig.IoApic.Entry(10));
    }

    [Fact]
    public void Extint_nmi_and_init_entries_become_their_messages()
    {
        _rig.Redirect(0, 0x700);
        _rig.IoApic.SetLine(0, true);
        Assert.True(_rig.Apics[0].ExtIntPending);
        _rig.Redirect(1, 0x0100_0000_0000_0400);
        _rig.IoApic.SetLine(1, true);
        Assert.Equal(1, _rig.Cores[1].Nmis);
        _rig.Redirect(2, 0xFF00_0000_0000_0500); // everybody
        _rig.IoApic.SetLine(2, true);
        Assert.Equal((1, 1), (_rig.Cores[0].Inits, _rig.Cores[1].Inits));
    }

    [Fact]
    public void The_index_and_window_take_the_access_sizes_of_the_datasheet()
    {
        _rig.IoApic.Write(0, 1, 0x10);
        Assert.Equal(0x10u, _rig.IoApic.Read(0, 4));
        Assert.Equal(Masked, _rig.IoApic.Read(0x10, 4));
        Assert.Equal(1u, _rig.IoApic.Read(0x12, 1));
        _rig.IoApic.Write(0x10, 1, 0); // not a 32-bit write
        Assert.Equal(Masked, _rig.IoApic.Read(0x10, 8));
        Assert.Equal(0u, _rig.IoApic.Read(0x14, 4));
        Assert.Equal(0u, _rig.IoApic.Read(0x20, 4));
        _rig.IoApic.SetLine(24, true);
        _rig.IoApic.SetLine(-1, true);
    }

    [Fact]
    public void Messages_signalled_by_memory_writes_reach_their_vector()
    {
        _rig.Bus.DeliverMsi(0xFEE0_1000, 0x41);
        Assert.Equal([null, 0x41], _rig.Apics.Select(a => a.PendingVector));
        _rig.Bus.DeliverMsi(0xFEEF_F000, 0x52);
        Assert.Equal([0x52, 0x52], _rig.Apics.Select(a => a.PendingVector));
        Write(_rig.Apics[1], LocalApicRegister.LogicalDestination, 0x0200_0000);
        _rig.Bus.DeliverMsi(0xFEE0_200C, 0x163); // logical, lowest priority
        Assert.Equal([0x52, 0x63], _rig.Apics.Select(a => a.PendingVector));
        _rig.Bus.DeliverMsi(0xFED0_0000, 0x99); // not an interrupt address
        Assert.Equal([0x52, 0x63], _rig.Apics.Select(a => a.PendingVector));
    }

    [Fact]
    public void State_round_trip()
    {
        _rig.Redirect(10, Level | 0x5A);
        _rig.IoApic.SetLine(10, true);
        var other = new IoApic(_rig.Bus) { State = _rig.IoApic.State };
        Assert.Equal(_rig.IoApic.State, other.State);
        Assert.Equal(_rig.IoApic.State.GetHashCode(), other.State.GetHashCode());
        other.Reset();
        Assert.NotEqual(_rig.IoApic.State, other.State);
    }
}
