using ActorVmm.Devices.Chipset;
using ActorVmm.Testing.Devices;
using Xunit;

namespace ActorVmm.Devices.Tests.Chipset;

public sealed class CmosRtcTests
{
    // 2026-01-01 00:00:00 UTC, a Thursday.
    readonly ManualClock _clock = new();
    readonly RecordingLine _irq8 = new();
    readonly CmosRtc _rtc;

    public CmosRtcTests() => _rtc = new CmosRtc(_irq8, _clock);

    [Fact]
    public void The_time_is_the_boot_epoch_plus_machine_time_in_bcd()
    {
        _clock.Nanoseconds = Seconds(13 * 3600 + 45 * 60 + 59);
        Assert.Equal([0x59, 0x45, 0x13, 0x05, 0x01, 0x01, 0x26, 0x20], Time());
        _clock.Advance(Seconds(1));
        Assert.Equal([0x00, 0x46, 0x13, 0x05, 0x01, 0x01, 0x26, 0x20], Time());
        _clock.Advance(Seconds(86_400 * 59));
        Assert.Equal([0x00, 0x46, 0x13, 0x01, 0x01, 0x03, 0x26, 0x20], Time()); // a Sunday in March
    }

    [Fact]
    public void Binary_and_12_hour_modes()
    {
        _clock.Nanoseconds = Seconds(13 * 3600 + 45 * 60 + 59);
        Write(0x0B, 0x06);
        Assert.Equal([59, 45, 13, 5, 1, 1, 26, 20], Time());
        Write(0x0B, 0x00);
        Assert.Equal(0x81, Read(4)); // 1 p.m.
        _clock.Nanoseconds = Seconds(5);
        Assert.Equal(0x12, Read(4)); // midnight is 12 a.m.
        _clock.Nanoseconds = Seconds(12 * 3600);
        Assert.Equal(0x92, Read(4)); // noon is 12 p.m.
    }

    [Fact]
    public void Setting_the_time_holds_it_still_and_lets_it_run_on_from_there()
    {
        Write(0x0B, 0x82);
        foreach (var (register, value) in ((byte, byte)[])[(0, 0x58), (2, 0x59), (4, 0x23), (7, 0x28), (8, 0x02), (9, 0x28), (0x32, 0x20)])
            Write(register, value);
        _clock.Advance(Seconds(100));
        Assert.Equal(0x58, Read(0));
        Write(0x0B, 0x02);
        Assert.Equal(0x58, Read(0));
        _clock.Advance(Seconds(2));
        Assert.Equal([0x00, 0x00, 0x00, 0x03, 0x29, 0x02, 0x28, 0x20], Time()); // 2028 is a leap year
    }

    [Fact]
    public void Writing_without_set_takes_effect_at_once()
    {
        Write(4, 0x17);
        Assert.Equal(0x17, Read(4));
        Assert.Equal(1_767_225_600 + 17 * 3600, _rtc.UnixSeconds);
    }

    [Fact]
    public void A_date_that_does_not_exist_becomes_the_nearest_that_does()
    {
        Write(0x0B, 0x82);
        foreach (var register in (byte[])[0, 2, 4, 7, 8, 9, 0x32]) Write(register, 0xFF);
        Write(0x0B, 0x02);
        Assert.Equal([0x59, 0x59, 0x23], Time()[..3]);
        Assert.Equal([0x31, 0x12], Time()[4..6]);
    }

    [Fact]
    public void Update_in_progress_warns_before_the_second_turns()
    {
        _clock.Nanoseconds = Seconds(1) - 244_001;
        Assert.Equal(0x26, Read(0x0A));
        _clock.Nanoseconds = Seconds(1) - 244_000;
        Assert.Equal(0xA6, Read(0x0A));
        Assert.Equal(0x00, Read(0));
        _clock.Nanoseconds = Seconds(1);
        Assert.Equal(0x26, Read(0x0A));
        Assert.Equal(0x01, Read(0));
        _clock.Nanoseconds = Seconds(2) - 1;
        Write(0x0B, 0x82);
        Assert.Equal(0x26, Read(0x0A)); // nothing updates while it is being set
    }

    [Fact]
    public void The_periodic_interrupt_comes_at_its_rate_and_reading_c_answers_it()
    {
        Write(0x0A, 0x26); // 1024 Hz
        Write(0x0B, 0x42);
        _ = Read(0x0C);
        var count = 0;
        while (_rtc.Deadline is { } due && due <= Seconds(1))
        {
            _clock.RunTo(due, _rtc);
            Assert.True(_irq8.Asserted);
            Assert.Null(_rtc.Deadline); // until it is answered nothing more can happen
            Assert.Equal(0xC0, Read(0x0C) & 0xC0);
            Assert.False(_irq8.Asserted);
            count++;
        }

        Assert.Equal(1024, count);
    }

    [Fact]
    public void The_update_interrupt_comes_each_second()
    {
        Write(0x0B, 0x12);
        _clock.RunTo(Seconds(1) - 1, _rtc);
        Assert.False(_irq8.Asserted);
        Assert.Equal(Seconds(1), _rtc.Deadline);
        _clock.RunTo(Seconds(1), _rtc);
        Assert.True(_irq8.Asserted);
        Assert.Equal(0x90, Read(0x0C) & 0xB0);
        Assert.Equal(Seconds(2), _rtc.Deadline);
    }

    [Fact]
    public void The_alarm_matches_its_bytes_and_ignores_those_that_do_not_care()
    {
        Write(1, 0x30);
        Write(3, 0x15);
        Write(5, 0x02);
        Write(0x0B, 0x22);
        Assert.Equal(Seconds(2 * 3600 + 15 * 60 + 30), _rtc.Deadline);
        _clock.RunTo(Seconds(2 * 3600 + 15 * 60 + 30), _rtc);
        Assert.True(_irq8.Asserted);
        Assert.Equal(0xA0, Read(0x0C) & 0xA0);
        Assert.Equal(Seconds(86_400 + 2 * 3600 + 15 * 60 + 30), _rtc.Deadline); // tomorrow again

        Write(5, 0xC0);
        Write(3, 0xFF);
        Assert.Equal(Seconds(2 * 3600 + 16 * 60 + 30), _rtc.Deadline); // each minute at :30
        Write(1, 0x99);
        Assert.Null(_rtc.Deadline); // never
    }

    [Fact]
    public void Flags_are_set_without_enables_but_the_line_stays_down()
    {
        _clock.Nanoseconds = Seconds(2);
        Assert.Equal(0x50, Read(0x0C)); // PF and UF, no IRQF
        Assert.Equal(0x00, Read(0x0C));
        Assert.Equal(0, _irq8.Rises);
    }

    [Fact]
    public void Memory_keeps_bytes_and_fixed_registers_stay_fixed()
    {
        Write(0x40, 0x5A);
        Write(0x0F, 0x0A); // shutdown status, as SMP boot writes it
        Assert.Equal(0x5A, Read(0x40));
        Assert.Equal(0x0A, Read(0x0F));
        Write(0x0D, 0x00);
        Assert.Equal(0x80, Read(0x0D)); // the battery is good
        Assert.Equal(0xFFu, _rtc.Read(0, 1));
        Assert.False(_rtc.NmiMasked);
        _rtc.Write(0, 1, 0x80 | 0x40);
        Assert.True(_rtc.NmiMasked);
        Assert.Equal(0x5Au, _rtc.Read(1, 1));
        _rtc.Write(0, 2, 0x7741); // index and data in one word
        Assert.Equal(0x77, _rtc.PeekMemory(0x41));
        Assert.Equal(0x77FFu, _rtc.Read(0, 2));
    }

    [Fact]
    public void State_round_trip()
    {
        Write(4, 0x17);
        Write(0x40, 0x5A);
        Write(0x0B, 0x12);
        _clock.RunTo(Seconds(1), _rtc);
        var line = new RecordingLine();
        var other = new CmosRtc(line, _clock) { State = _rtc.State };
        Assert.Equal(_rtc.State, other.State);
        Assert.Equal(_rtc.State.GetHashCode(), other.State.GetHashCode());
        Assert.True(line.Asserted);
        Assert.Equal(_rtc.UnixSeconds, other.UnixSeconds);
        other.Reset();
        Assert.False(line.Asserted);
        Assert.NotEqual(_rtc.State, other.State);
    }

    static ulong Seconds(int seconds) => (ulong)seconds * 1_000_000_000;

    byte Read(byte register)
    {
        _rtc.Write(0, 1, register);
        return (byte)_rtc.Read(1, 1);
    }

    void Write(byte register, byte value)
    {
        _rtc.Write(0, 1, register);
        _rtc.Write(1, 1, value);
    }

    byte[] Time() => [Read(0), Read(2), Read(4), Read(6), Read(7), Read(8), Read(9), Read(0x32)];
}
