using ActorVmm.Devices.Chipset;
using ActorVmm.Testing.Devices;
using Xunit;

namespace ActorVmm.Devices.Tests.Chipset;

public sealed class Pit8254Tests
{
    readonly ManualClock _clock = new();
    readonly RecordingLine _irq0 = new();
    readonly Pit8254 _pit;

    public Pit8254Tests() => _pit = new Pit8254(_irq0, _clock);

    [Fact]
    public void Mode_2_ticks_a_hundred_times_a_second_without_drift()
    {
        Program(0, mode: 2, 11932); // 100 Hz
        var before = _irq0.Rises;
        _clock.RunTo(10_000_000_000, _pit);
        Assert.Equal(999, _irq0.Rises - before); // 11932 ticks are 0.0034 % longer than 10 ms
        Assert.True(_irq0.Asserted); // the pulse is over: nothing can be lost to a late acknowledge
    }

    [Fact]
    public void Mode_3_rises_once_a_period_and_its_output_is_square()
    {
        Program(2, mode: 3, 1000);
        OpenGate();
        Assert.True(Out2);
        To(Ticks(499));
        Assert.True(Out2);
        To(Ticks(501));
        Assert.False(Out2);
        To(Ticks(1001));
        Assert.True(Out2);

        Program(0, mode: 3, 1000);
        var before = _irq0.Rises;
        To(_clock.Nanoseconds + Ticks(10_001));
        Assert.Equal(10, _irq0.Rises - before);
    }

    [Fact]
    public void Mode_0_is_low_until_the_count_ends_and_rises_once()
    {
        Program(0, mode: 0, 1000);
        Assert.False(_irq0.Asserted);
        _clock.RunTo(Ticks(1000) - 2_000, _pit);
        Assert.False(_irq0.Asserted);
        _clock.RunTo(Ticks(1001), _pit);
        Assert.True(_irq0.Asserted);
        Assert.Null(_pit.Deadline);
        Assert.Equal(1, _irq0.Rises);
        Program(0, mode: 0, 500); // programming again lowers it
        Assert.False(_irq0.Asserted);
        _pit.WritePort(Pit8254.Counter0, 0x10); // half a count stops it
        Assert.Null(_pit.Deadline);
    }

    [Fact]
    public void Mode_1_waits_for_the_gate_and_can_be_retriggered()
    {
        Program(2, mode: 1, 1000);
        Assert.True(Out2);
        To(Ticks(5000));
        Assert.True(Out2);
        OpenGate();
        Assert.False(Out2);
        To(_clock.Nanoseconds + Ticks(900));
        CloseGate();
        OpenGate(); // starts over
        To(_clock.Nanoseconds + Ticks(900));
        Assert.False(Out2);
        To(_clock.Nanoseconds + Ticks(101));
        Assert.True(Out2);
    }

    [Fact]
    public void Modes_4_and_5_strobe_low_for_one_tick()
    {
        Program(0, mode: 4, 1000);
        Assert.True(_irq0.Asserted);
        var rises = _irq0.Rises;
        _clock.RunTo(Ticks(999), _pit);
        Assert.Equal(rises, _irq0.Rises);
        _clock.RunTo(Ticks(1002), _pit);
        Assert.Equal(rises + 1, _irq0.Rises);
        Assert.Null(_pit.Deadline);

        Program(2, mode: 5, 100);
        To(_clock.Nanoseconds + Ticks(1000));
        Assert.True(Out2);
        OpenGate();
        var trigger = (_clock.Nanoseconds * Pit8254.FrequencyHz) / 1_000_000_000;
        To(TscScale.Nanoseconds(trigger, 100, Pit8254.FrequencyHz));
        Assert.False(Out2);
        To(TscScale.Nanoseconds(trigger, 101, Pit8254.FrequencyHz));
        Assert.True(Out2);
    }

    [Fact]
    public void Linux_calibrates_its_tsc_with_channel_2_through_port_61()
    {
        // Gate up, speaker off, mode 0, count for 10 ms; then spin on bit 5.
        _pit.WritePort(0x61, (byte)((_pit.ReadPort(0x61) & ~0x02) | 0x01));
        _pit.WritePort(0x43, 0xB0);
        const int Count = (int)(Pit8254.FrequencyHz / 100);
        _pit.WritePort(0x42, Count & 0xFF);
        _pit.WritePort(0x42, Count >> 8);
        Assert.False(Out2);
        while ((_pit.ReadPort(0x61) & 0x20) == 0) _clock.Advance(1_000);
        Assert.InRange(_clock.Nanoseconds, 9_990_000UL, 10_002_000UL);
        Assert.Equal(0x21, _pit.ReadPort(0x61) & 0xEF);
    }

    [Fact]
    public void A_closed_gate_stops_mode_0_and_opening_it_goes_on()
    {
        OpenGate();
        Program(2, mode: 0, 1000);
        To(Ticks(400));
        CloseGate();
        To(Ticks(10_000));
        Assert.InRange(ReadCount(2), 599, 601);
        OpenGate();
        To(_clock.Nanoseconds + Ticks(598));
        Assert.False(Out2);
        To(_clock.Nanoseconds + Ticks(4));
        Assert.True(Out2);
    }

    [Fact]
    public void A_closed_gate_forces_mode_3_high_and_opening_it_reloads()
    {
        OpenGate();
        Program(2, mode: 3, 1000);
        To(Ticks(700));
        Assert.False(Out2);
        CloseGate();
        Assert.True(Out2);
        OpenGate();
        To(_clock.Nanoseconds + Ticks(400));
        Assert.True(Out2);
        To(_clock.Nanoseconds + Ticks(200));
        Assert.False(Out2);
    }

    [Fact]
    public void A_latched_count_stands_still_until_read()
    {
        Program(0, mode: 2, 10_000);
        To(Ticks(2500));
        _pit.WritePort(0x43, 0x00);
        To(Ticks(5000));
        _pit.WritePort(0x43, 0x00); // ignored: the first is not read yet
        Assert.InRange(_pit.ReadPort(0x40) | (_pit.ReadPort(0x40) << 8), 7499, 7501);
        Assert.InRange(_pit.ReadPort(0x40) | (_pit.ReadPort(0x40) << 8), 4999, 5001); // live again
    }

    [Fact]
    public void Read_back_latches_status_and_count_of_several_channels()
    {
        Program(0, mode: 2, 10_000);
        _pit.WritePort(0x43, 0xB0); // channel 2 mode 0, no count yet
        To(Ticks(100));
        _pit.WritePort(0x43, 0xC0 | 0x0A); // status and count of 0 and 2
        Assert.Equal(0xB4, _pit.ReadPort(0x40)); // out, loaded, word access, mode 2
        Assert.InRange(_pit.ReadPort(0x40) | (_pit.ReadPort(0x40) << 8), 9899, 9901);
        Assert.Equal(0x70, _pit.ReadPort(0x42)); // low, null count, word access, mode 0
    }

    [Fact]
    public void A_new_count_in_mode_2_takes_over_at_the_end_of_the_period()
    {
        Program(0, mode: 2, 1000);
        To(Ticks(500));
        _pit.WritePort(0x40, 2000 & 0xFF);
        _pit.WritePort(0x40, 2000 >> 8);
        _pit.WritePort(0x43, 0xE2);
        Assert.Equal(0x40, _pit.ReadPort(0x40) & 0x40); // null count: not in force yet
        var rises = _irq0.Rises;
        _clock.RunTo(Ticks(1001), _pit);
        Assert.Equal(rises + 1, _irq0.Rises);
        _clock.RunTo(Ticks(2990), _pit);
        Assert.Equal(rises + 1, _irq0.Rises);
        _clock.RunTo(Ticks(3001), _pit);
        Assert.Equal(rises + 2, _irq0.Rises);
    }

    [Fact]
    public void Single_byte_access_modes_and_bcd()
    {
        _pit.WritePort(0x43, 0x95); // channel 2, low byte, mode 2, BCD
        _pit.WritePort(0x42, 0x50); // fifty
        OpenGate();
        To(_clock.Nanoseconds + Ticks(11));
        Assert.InRange(_pit.ReadPort(0x42), (byte)0x38, (byte)0x40);

        _pit.WritePort(0x43, 0xA4); // channel 2, high byte, mode 2
        _pit.WritePort(0x42, 0x10);
        Assert.Equal(0x10, _pit.ReadPort(0x42)); // 4096
    }

    [Fact]
    public void The_refresh_bit_toggles_and_unclaimed_ports_are_open()
    {
        var first = _pit.ReadPort(0x61) & 0x10;
        _clock.Advance(15_085);
        Assert.NotEqual(first, _pit.ReadPort(0x61) & 0x10);
        Assert.Equal(0xFF, _pit.ReadPort(0x43));
        Assert.Equal(0xFF, _pit.ReadPort(0x44));
        _pit.WritePort(0x44, 1);
        Assert.True(Pit8254.Claims(0x61) && !Pit8254.Claims(0x60));
    }

    [Fact]
    public void An_unprogrammed_timer_is_silent_and_reset_brings_it_back_there()
    {
        Assert.Null(_pit.Deadline);
        Program(0, mode: 2, 100);
        Assert.NotNull(_pit.Deadline);
        _pit.Reset();
        Assert.Null(_pit.Deadline);
        Assert.False(_irq0.Asserted);
    }

    [Fact]
    public void A_restored_timer_goes_on_from_where_it_was()
    {
        Program(0, mode: 2, 1000);
        To(Ticks(300));
        var line = new RecordingLine();
        var other = new Pit8254(line, _clock) { State = _pit.State };
        Assert.Equal(_pit.State, other.State);
        Assert.Equal(_pit.Deadline, other.Deadline);
        Assert.Equal(_irq0.Asserted, line.Asserted);
    }

    static ulong Ticks(ulong ticks) => TscScale.Nanoseconds(ticks, 0, Pit8254.FrequencyHz);

    bool Out2 => (_pit.ReadPort(0x61) & 0x20) != 0;

    void To(ulong nanoseconds) => _clock.RunTo(nanoseconds, _pit);

    void OpenGate() => _pit.WritePort(0x61, 1);

    void CloseGate() => _pit.WritePort(0x61, 0);

    void Program(int channel, int mode, int count)
    {
        _pit.WritePort(0x43, (byte)((channel << 6) | 0x30 | (mode << 1)));
        _pit.WritePort((ushort)(0x40 + channel), (byte)count);
        _pit.WritePort((ushort)(0x40 + channel), (byte)(count >> 8));
    }

    int ReadCount(int channel)
    {
        _pit.WritePort(0x43, (byte)(channel << 6));
        var port = (ushort)(0x40 + channel);
        return _pit.ReadPort(port) | (_pit.ReadPort(port) << 8);
    }
}
