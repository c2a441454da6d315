using ActorVmm.Devices.Power;
using ActorVmm.Testing.Devices;
using CsCheck;
using Xunit;

namespace ActorVmm.Devices.Tests.Power;

public sealed class PowerTests
{
    readonly RecordingLine _sci = new();
    readonly RecordingPowerControl _power = new();
    readonly ManualClock _clock = new();
    readonly AcpiPower _acpi;

    public PowerTests() => _acpi = new AcpiPower(_sci, _power, _clock);

    [Fact]
    public void Sleep_enable_with_type_5_is_poweroff_and_other_types_are_nothing()
    {
        Assert.Equal(1u, _acpi.Read(4, 2)); // ACPI mode is on
        _acpi.Write(4, 2, (5 << 10) | 1); // the type first, as Linux does
        Assert.Empty(_power.Requests);
        Assert.Equal((5u << 10) | 1, _acpi.Read(4, 2));
        _acpi.Write(4, 2, (5 << 10) | (1 << 13) | 1);
        Assert.Equal([PowerEvent.Poweroff], _power.Requests);
        Assert.Equal((5u << 10) | 1, _acpi.Read(4, 2)); // SLP_EN reads as zero
        _acpi.Write(4, 2, (1 << 10) | (1 << 13));
        Assert.Single(_power.Requests);
    }

    [Fact]
    public void The_power_button_raises_sci_once_enabled_until_its_status_is_cleared()
    {
        _acpi.PressPowerButton();
        Assert.False(_sci.Asserted);
        _acpi.Write(2, 2, 1 << 8);
        Assert.True(_sci.Asserted);
        Assert.Equal(0x0100_0100u, _acpi.Read(0, 4));
        _acpi.Write(0, 2, 1 << 5); // clears another bit
        Assert.True(_sci.Asserted);
        _acpi.Write(0, 2, 1 << 8);
        Assert.False(_sci.Asserted);
        Assert.Equal(0u, _acpi.Read(0, 2));
    }

    [Fact]
    public void The_timer_runs_at_3_579545_MHz_and_wraps_at_24_bits()
    {
        _clock.Nanoseconds = 1_000_000_000;
        Assert.Equal(3_579_545u, _acpi.Read(8, 4));
        Assert.Equal((ulong)(3_579_545 >> 16), _acpi.Read(10, 1));
        _clock.Nanoseconds = 10_000_000_000;
        Assert.Equal(35_795_450u & 0xFF_FFFF, _acpi.Read(8, 4));
        _acpi.Write(8, 4, 0);
        Assert.Equal(35_795_450u & 0xFF_FFFF, _acpi.Read(8, 4));
    }

    [Fact]
    public void The_timers_top_bit_sets_its_status_and_raises_sci_when_wanted()
    {
        Assert.Null(_acpi.Deadline);
        _acpi.Write(2, 2, 1);
        var due = _acpi.Deadline!.Value;
        Assert.InRange(due, 2_343_484_000UL, 2_343_485_000UL); // 2^23 ticks
        _clock.RunTo(due - 1, _acpi);
        Assert.False(_sci.Asserted);
        _clock.RunTo(due, _acpi);
        Assert.True(_sci.Asserted);
        Assert.Null(_acpi.Deadline);
        _acpi.Write(0, 2, 1);
        Assert.False(_sci.Asserted);
        Assert.True(_acpi.Deadline > due);
    }

    [Fact]
    public void Pvpanic_says_what_it_understands_and_reports_panics_only()
    {
        var pvpanic = new Pvpanic(_power);
        Assert.Equal(3u, pvpanic.Read(0, 1));
        pvpanic.Write(0, 1, 2); // a crash kernel takes over
        Assert.Empty(_power.Requests);
        pvpanic.Write(0, 1, 0xFC);
        Assert.Empty(_power.Requests);
        pvpanic.Write(1, 1, 1);
        Assert.Empty(_power.Requests);
        pvpanic.Write(0, 1, 1);
        Assert.Equal([PowerEvent.GuestPanic], _power.Requests);
        Assert.Equal(PvpanicEvents.All, pvpanic.Reported);
        pvpanic.Reset();
        Assert.Equal(PvpanicEvents.None, pvpanic.Reported);
    }

    [Fact]
    public void Port_cf9_resets_at_the_rise_of_its_trigger()
    {
        var reset = new ResetControl(_power);
        reset.Write(0, 1, 0x02); // the kind first
        Assert.Empty(_power.Requests);
        reset.Write(0, 1, 0x06);
        reset.Write(0, 1, 0x06);
        Assert.Equal([PowerEvent.ResetControl], _power.Requests);
        Assert.Equal(0x06u, reset.Read(0, 1));
        reset.Reset();
        reset.Write(0, 4, 0x06); // a PCI configuration address, not this register
        Assert.Single(_power.Requests);
    }

    [Fact]
    public void Any_access_sequence_throws_nothing_and_the_state_is_all_there_is() =>
        Gen.Select(Gen.Int[0, 5], Gen.Frequency((9, Gen.ULong[0, 13]), (1, Gen.ULong)), Gen.Int[0, 8], Gen.ULong).Array[0, 100].Sample(steps =>
        {
            var line = new RecordingLine();
            var clock = new ManualClock();
            var power = new RecordingPowerControl();
            var acpi = new AcpiPower(line, power, clock);
            var pvpanic = new Pvpanic(power);
            var reset = new ResetControl(power);
            foreach (var (kind, offset, size, value) in steps)
            {
                switch (kind)
                {
                    case 0: acpi.Read(offset, size); break;
                    case 1: acpi.Write(offset, size, value); break;
                    case 2: acpi.PressPowerButton(); break;
                    case 3:
                        clock.Advance(value & 0xFFFF_FFFF_FFFF);
                        acpi.Advance(clock.Nanoseconds);
                        break;
                    case 4:
                        pvpanic.Write(offset, size, value);
                        reset.Write(offset, size, value);
                        break;
                    default:
                        pvpanic.Read(offset, size);
                        reset.Read(offset, size);
                        break;
                }
            }

            var copyLine = new RecordingLine();
            var copy = new AcpiPower(copyLine, power, clock) { State = acpi.State };
            Assert.Equal(acpi.State, copy.State);
            Assert.Equal(line.Asserted, copyLine.Asserted);
            Assert.Equal(acpi.Deadline, copy.Deadline);
            Assert.NotEmpty($"{acpi}{pvpanic}{reset}");
        });
}
