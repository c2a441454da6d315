using ActorVmm.Devices.Chipset;
using ActorVmm.Testing.Devices;
using CsCheck;
using Xunit;
using static ActorVmm.Testing.Devices.ApicRig;

namespace ActorVmm.Devices.Tests.Chipset;

public sealed class LocalApicTimerTests
{
    readonly ApicRig _rig = new ApicRig(tscFrequencyHz: 2_500_000_000).Enable();
    LocalApic Apic => _rig.Apics[0];

    [Fact]
    public void One_shot_counts_down_once_and_fires_at_zero()
    {
        Write(Apic, LocalApicRegister.LvtTimer, 0x31);
        Write(Apic, LocalApicRegister.DivideConfiguration, 0b0011); // by 16
        Write(Apic, LocalApicRegister.InitialCount, 1000);
        Assert.Equal(16_000UL, Apic.Deadline);
        _rig.Clock.RunTo(8_000, Apic);
        Assert.Equal(500u, Read(Apic, LocalApicRegister.CurrentCount));
        _rig.Clock.RunTo(15_999, Apic);
        Assert.Equal(1u, Read(Apic, LocalApicRegister.CurrentCount));
        Assert.Null(Apic.PendingVector);
        _rig.Clock.RunTo(16_000, Apic);
        Assert.Equal(0u, Read(Apic, LocalApicRegister.CurrentCount));
        Assert.Equal(0x31, Apic.PendingVector);
        Assert.Null(Apic.Deadline);
    }

    [Fact]
    public void Periodic_reloads_and_does_not_drift_when_served_late()
    {
        Write(Apic, LocalApicRegister.LvtTimer, 0x20031);
        Write(Apic, LocalApicRegister.DivideConfiguration, 0b1011); // by 1
        Write(Apic, LocalApicRegister.InitialCount, 1000);
        _rig.Clock.Nanoseconds = 3_250; // three periods nobody served: one interrupt
        Apic.Advance(3_250);
        Assert.Equal(0x31, Apic.Acknowledge());
        Write(Apic, LocalApicRegister.EndOfInterrupt, 0);
        Assert.Null(Apic.PendingVector);
        Assert.Equal(4_000UL, Apic.Deadline);
        Assert.Equal(750u, Read(Apic, LocalApicRegister.CurrentCount));
        Write(Apic, LocalApicRegister.InitialCount, 0);
        Assert.Null(Apic.Deadline);
    }

    [Theory]
    [InlineData(0b0000, 2)]
    [InlineData(0b0001, 4)]
    [InlineData(0b0010, 8)]
    [InlineData(0b0011, 16)]
    [InlineData(0b1000, 32)]
    [InlineData(0b1001, 64)]
    [InlineData(0b1010, 128)]
    [InlineData(0b1011, 1)]
    public void Every_divide_value_divides(uint configuration, ulong divisor)
    {
        Write(Apic, LocalApicRegister.LvtTimer, 0x31);
        Write(Apic, LocalApicRegister.DivideConfiguration, configuration);
        Write(Apic, LocalApicRegister.InitialCount, 100);
        Assert.Equal(100 * divisor, Apic.Deadline);
    }

    [Fact]
    public void A_masked_timer_runs_and_stays_silent()
    {
        Write(Apic, LocalApicRegister.LvtTimer, 0x10031);
        Write(Apic, LocalApicRegister.InitialCount, 10);
        _rig.Clock.RunTo(100, Apic);
        Assert.Null(Apic.PendingVector);
        Assert.Equal(0u, Read(Apic, LocalApicRegister.CurrentCount));
    }

    [Fact]
    public void Tsc_deadline_fires_at_the_first_nanosecond_that_reaches_it_and_disarms()
    {
        Apic.TscDeadline = 1000;
        Assert.Equal(0u, Apic.TscDeadline); // not in this mode: ignored
        Write(Apic, LocalApicRegister.LvtTimer, 0x40031);
        Write(Apic, LocalApicRegister.InitialCount, 50); // and this one is ignored now
        Assert.Null(Apic.Deadline);

        Apic.TscDeadline = 1_001; // at 2.5 GHz: 400.4 ns
        Assert.Equal(401UL, Apic.Deadline);
        _rig.Clock.RunTo(400, Apic);
        Assert.Null(Apic.PendingVector);
        Assert.True(Apic.TscAt(400) < 1_001 && Apic.TscAt(401) >= 1_001);
        _rig.Clock.RunTo(401, Apic);
        Assert.Equal(0x31, Apic.PendingVector);
        Assert.Equal(0u, Apic.TscDeadline);
        Assert.Null(Apic.Deadline);
    }

    [Fact]
    public void A_tsc_deadline_in_the_past_fires_at_once_and_zero_disarms()
    {
        Write(Apic, LocalApicRegister.LvtTimer, 0x40031);
        _rig.Clock.Nanoseconds = 1_000_000;
        Apic.TscDeadline = 5;
        Assert.Equal(0x31, Apic.Acknowledge());
        Write(Apic, LocalApicRegister.EndOfInterrupt, 0);
        Apic.TscDeadline = ulong.MaxValue;
        Assert.NotNull(Apic.Deadline);
        Apic.TscDeadline = 0;
        Assert.Null(Apic.Deadline);
        Assert.Null(Apic.PendingVector);
    }

    [Fact]
    public void A_running_deadline_follows_the_tsc_when_the_guest_moves_it()
    {
        Write(Apic, LocalApicRegister.LvtTimer, 0x40031);
        _rig.Clock.Nanoseconds = 1_000_000;
        Apic.TscDeadline = 10_000_000;
        Assert.Equal(4_000_000UL, Apic.Deadline);
        Apic.TscOffset = 500_000;
        Assert.Equal(3_800_000UL, Apic.Deadline);
        Apic.TscOffset = unchecked((ulong)-250_000L);
        Assert.Equal(4_100_000UL, Apic.Deadline);
    }

    [Fact]
    public void Leaving_tsc_deadline_mode_disarms()
    {
        Write(Apic, LocalApicRegister.LvtTimer, 0x40031);
        Apic.TscDeadline = 1_000_000;
        Write(Apic, LocalApicRegister.LvtTimer, 0x31);
        Assert.Null(Apic.Deadline);
        Assert.Equal(0u, Apic.TscDeadline);
    }

    [Fact]
    public void Deadlines_and_ticks_are_each_others_inverse() =>
        Gen.Select(Gen.ULong[0, 1UL << 52], Gen.ULong[1, 1UL << 40], Gen.ULong[1_000, 20_000_000_000]).Sample((now, ahead, frequency) =>
        {
            Assert.Equal((ulong)((UInt128)now * frequency / 1_000_000_000), TscScale.Ticks(now, frequency));
            var ticks = TscScale.Ticks(now, frequency);
            var due = TscScale.Nanoseconds(ticks, ahead, frequency);
            Assert.True(TscScale.Ticks(due, frequency) >= ticks + ahead);
            Assert.True(TscScale.Ticks(due - 1, frequency) < ticks + ahead);
        });

    [Theory]
    [InlineData(ulong.MaxValue, 1UL, 1_000_000_000UL)]
    [InlineData(ulong.MaxValue - 5, 3UL, 1_000UL)]
    [InlineData(0UL, ulong.MaxValue, 20_000_000_000UL)]
    [InlineData(0UL, ulong.MaxValue, 1_193_182UL)]
    [InlineData(5UL, 5UL, 0UL)]
    public void A_deadline_beyond_the_end_of_time_saturates(ulong ticks, ulong ahead, ulong frequency)
    {
        var due = TscScale.Nanoseconds(ticks, ahead, frequency);
        if (frequency <= 1_193_182 || ticks != 0) Assert.Equal(ulong.MaxValue - 1, due);
        else Assert.InRange(due, 922_337_203_685_477_580UL, 922_337_203_685_477_581UL); // 2^64 ticks of 50 ps
    }
}
