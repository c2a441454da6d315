using ActorVmm.Devices.Chipset;
using ActorVmm.Testing.Devices;
using Xunit;

namespace ActorVmm.Devices.Tests.Chipset;

public sealed class DualPicTests
{
    readonly RecordingLine _intr = new();
    readonly DualPic _pic;

    public DualPicTests()
    {
        _pic = new DualPic(_intr);
        Initialize();
    }

    [Fact]
    public void A_request_raises_intr_and_acknowledging_it_gives_its_vector()
    {
        _pic.SetLine(4, true);
        Assert.True(_intr.Asserted);
        Assert.Equal(0x34, _pic.Acknowledge());
        Assert.False(_intr.Asserted);
        Assert.Equal(1 << 4, ReadIsr(DualPic.MasterCommand));
        _pic.WritePort(DualPic.MasterCommand, 0x20);
        Assert.Equal(0, ReadIsr(DualPic.MasterCommand));
        Assert.False(_intr.Asserted); // the line is still high, but an edge is one request
    }

    [Fact]
    public void The_slave_comes_through_input_2_and_needs_two_eois()
    {
        _pic.SetLine(8, true);
        _pic.SetLine(12, true);
        Assert.Equal(0x38, _pic.Acknowledge());
        Assert.Equal(1 << 2, ReadIsr(DualPic.MasterCommand));
        Assert.False(_intr.Asserted);
        _pic.WritePort(DualPic.SlaveCommand, 0x20);
        Assert.False(_intr.Asserted); // the master still serves its input 2
        _pic.WritePort(DualPic.MasterCommand, 0x20);
        Assert.True(_intr.Asserted);
        Assert.Equal(0x3C, _pic.Acknowledge());
    }

    [Fact]
    public void Priority_is_0_to_7_with_the_slave_between_1_and_3()
    {
        foreach (var irq in (int[])[7, 3, 9, 1, 0]) _pic.SetLine(irq, true);
        var order = new List<byte>();
        while (_pic.InterruptRequested)
        {
            var vector = _pic.Acknowledge();
            order.Add(vector);
            if (vector >= 0x38) _pic.WritePort(DualPic.SlaveCommand, 0x20);
            _pic.WritePort(DualPic.MasterCommand, 0x20);
        }

        Assert.Equal([0x30, 0x31, 0x39, 0x33, 0x37], order);
    }

    [Fact]
    public void A_higher_request_interrupts_a_lower_one_in_service_but_not_the_reverse()
    {
        _pic.SetLine(5, true);
        _pic.Acknowledge();
        _pic.SetLine(6, true);
        Assert.False(_intr.Asserted);
        _pic.SetLine(1, true);
        Assert.True(_intr.Asserted);
        Assert.Equal(0x31, _pic.Acknowledge());
    }

    [Fact]
    public void A_request_that_vanishes_before_the_acknowledge_is_spurious_irq_7()
    {
        _pic.SetLine(4, true);
        _pic.SetLine(4, false);
        Assert.Equal(0x37, _pic.Acknowledge());
        Assert.Equal(0, ReadIsr(DualPic.MasterCommand));

        _pic.SetLine(12, true); // and a request of the slave takes the master's with it
        _pic.SetLine(12, false);
        Assert.False(_intr.Asserted);
        Assert.Equal(0x37, _pic.Acknowledge());
        Assert.Equal(0, ReadIsr(DualPic.SlaveCommand));
    }

    [Fact]
    public void Masked_requests_wait()
    {
        _pic.WritePort(DualPic.MasterData, 0x10);
        _pic.SetLine(4, true);
        Assert.False(_intr.Asserted);
        Assert.Equal(1 << 4, _pic.ReadPort(DualPic.MasterCommand)); // IRR shows it
        Assert.Equal(0x10, _pic.ReadPort(DualPic.MasterData));
        _pic.WritePort(DualPic.MasterData, 0x00);
        Assert.True(_intr.Asserted);
    }

    [Fact]
    public void Elcr_makes_an_input_level_triggered_except_the_fixed_ones()
    {
        _pic.WritePort(DualPic.MasterElcr, 0xFF);
        _pic.WritePort(DualPic.SlaveElcr, 0xFF);
        Assert.Equal(0xF8, _pic.ReadPort(DualPic.MasterElcr));
        Assert.Equal(0xDE, _pic.ReadPort(DualPic.SlaveElcr));
        _pic.SetLine(5, true);
        Assert.Equal(0x35, _pic.Acknowledge());
        _pic.WritePort(DualPic.MasterCommand, 0x20);
        Assert.True(_intr.Asserted); // still high, so it asks again
        _pic.SetLine(5, false);
        Assert.False(_intr.Asserted);
    }

    [Fact]
    public void Automatic_eoi_leaves_nothing_in_service_and_may_rotate()
    {
        Initialize(icw4: 0x03);
        _pic.WritePort(DualPic.MasterCommand, 0x80); // rotate on automatic EOI
        _pic.SetLine(3, true);
        Assert.Equal(0x33, _pic.Acknowledge());
        Assert.Equal(0, ReadIsr(DualPic.MasterCommand));
        _pic.SetLine(3, false);
        foreach (var irq in (int[])[3, 4]) _pic.SetLine(irq, true);
        Assert.Equal(0x34, _pic.Acknowledge()); // 3 has the lowest priority now
        Assert.Equal(0x33, _pic.Acknowledge());
    }

    [Fact]
    public void Automatic_eoi_on_both_still_delivers_every_slave_request()
    {
        Initialize(icw4: 0x03);
        _pic.SetLine(9, true);
        _pic.SetLine(10, true);
        Assert.Equal(0x39, _pic.Acknowledge());
        Assert.True(_intr.Asserted);
        Assert.Equal(0x3A, _pic.Acknowledge());
        Assert.False(_intr.Asserted);
    }

    [Fact]
    public void Specific_eoi_rotation_and_set_priority()
    {
        foreach (var irq in (int[])[0, 5]) _pic.SetLine(irq, true);
        _pic.WritePort(DualPic.MasterCommand, 0xC4); // lowest priority: 4, so 5 is highest
        Assert.Equal(0x35, _pic.Acknowledge());
        _pic.WritePort(DualPic.MasterCommand, 0xE5); // end 5 and make it lowest
        Assert.Equal(0, ReadIsr(DualPic.MasterCommand));
        Assert.Equal(0x30, _pic.Acknowledge());
        _pic.WritePort(DualPic.MasterCommand, 0x60); // specific EOI of 0
        Assert.Equal(0, ReadIsr(DualPic.MasterCommand));
        _pic.SetLine(6, true);
        _pic.Acknowledge();
        _pic.WritePort(DualPic.MasterCommand, 0xA0); // rotating non-specific EOI
        Assert.Equal(6, _pic.State.Master.Lowest);
    }

    [Fact]
    public void Special_mask_mode_lets_lower_requests_through_a_masked_service()
    {
        _pic.SetLine(1, true);
        _pic.Acknowledge();
        _pic.SetLine(6, true);
        Assert.False(_intr.Asserted);
        _pic.WritePort(DualPic.MasterData, 0x02);
        _pic.WritePort(DualPic.MasterCommand, 0x68);
        Assert.True(_intr.Asserted);
        Assert.Equal(0x36, _pic.Acknowledge());
        _pic.WritePort(DualPic.MasterCommand, 0x20); // ends 6, not the masked 1
        Assert.Equal(1 << 1, ReadIsr(DualPic.MasterCommand));
    }

    [Fact]
    public void Special_fully_nested_mode_lets_a_higher_slave_request_interrupt_a_lower_one()
    {
        Initialize(icw4: 0x11);
        _pic.SetLine(12, true);
        _pic.Acknowledge();
        _pic.SetLine(9, true);
        Assert.True(_intr.Asserted);
        Assert.Equal(0x39, _pic.Acknowledge());
    }

    [Fact]
    public void Poll_acknowledges_without_the_processor()
    {
        _pic.SetLine(3, true);
        _pic.WritePort(DualPic.MasterCommand, 0x0C);
        Assert.Equal(0x83, _pic.ReadPort(DualPic.MasterCommand));
        Assert.Equal(1 << 3, ReadIsr(DualPic.MasterCommand));
        _pic.WritePort(DualPic.SlaveCommand, 0x0C);
        Assert.Equal(0, _pic.ReadPort(DualPic.SlaveData));
    }

    [Fact]
    public void Before_initialization_and_for_odd_words_nothing_breaks()
    {
        var pic = new DualPic();
        pic.WritePort(DualPic.MasterCommand, 0x12); // single, no ICW4
        pic.WritePort(DualPic.MasterData, 0x40);
        pic.WritePort(DualPic.MasterData, 0x00); // OCW1 already
        pic.SetLine(0, true);
        Assert.Equal(0x40, pic.Acknowledge());
        pic.SetLine(2, true); // the cascade is not an input
        pic.SetLine(16, true);
        Assert.Equal(0xFF, pic.ReadPort(0x22));
        pic.WritePort(0x22, 1);
    }

    [Fact]
    public void State_round_trip_carries_intr()
    {
        _pic.SetLine(12, true);
        var line = new RecordingLine();
        var other = new DualPic(line) { State = _pic.State };
        Assert.Equal(_pic.State, other.State);
        Assert.True(line.Asserted);
        Assert.Equal(0x3C, other.Acknowledge());
        other.Reset();
        Assert.False(line.Asserted);
    }

    void Initialize(byte icw4 = 0x01)
    {
        foreach (var (command, data, vector, cascade) in ((ushort, ushort, byte, byte)[])[
                     (DualPic.MasterCommand, DualPic.MasterData, 0x30, 0x04), (DualPic.SlaveCommand, DualPic.SlaveData, 0x38, 0x02)])
        {
            _pic.WritePort(command, 0x11);
            _pic.WritePort(data, vector);
            _pic.WritePort(data, cascade);
            _pic.WritePort(data, icw4);
            _pic.WritePort(data, 0);
        }
    }

    byte ReadIsr(ushort command)
    {
        _pic.WritePort(command, 0x0B);
        var isr = _pic.ReadPort(command);
        _pic.WritePort(command, 0x0A);
        return isr;
    }
}
