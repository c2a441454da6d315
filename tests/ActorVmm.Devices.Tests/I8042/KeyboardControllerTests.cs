using ActorVmm.Devices.I8042;
using ActorVmm.Devices.Power;
using ActorVmm.Testing.Devices;
using CsCheck;
using Xunit;

namespace ActorVmm.Devices.Tests.I8042;

public sealed class KeyboardControllerTests
{
    readonly RecordingLine _irq1 = new();
    readonly RecordingPowerControl _power = new();
    readonly KeyboardController _i8042;

    public KeyboardControllerTests() => _i8042 = new KeyboardController(_irq1, _power);

    [Fact]
    public void Valid_ops_command_0xFE_resets_and_reads_of_an_idle_controller_are_harmless()
    {
        Assert.Equal(0u, _i8042.Read(0, 1));
        Assert.Equal(0, (int)Status & 0x03); // both buffers empty: Linux's reset loop goes on at once
        Command(0xFE);
        Assert.Equal([PowerEvent.ResetI8042], _power.Requests);
    }

    [Fact]
    public void Invalid_reset_0xFE_at_another_port_or_other_pulses_do_nothing()
    {
        Data(0xFE);
        _i8042.Write(3, 1, 0xFE);
        _i8042.Write(ulong.MaxValue, 1, 0xFE);
        Assert.Equal(0u, _i8042.Read(1, 1));
        foreach (var pulse in (byte[])[0xF1, 0xF3, 0xFD, 0xFF]) Command(pulse);
        Assert.Empty(_power.Requests);
        Command(0xF0); // pulses all four lines, the reset line with them
        Assert.Single(_power.Requests);
    }

    [Fact]
    public void Output_port_bit_0_low_resets_too()
    {
        Command(0xD1);
        Data(0x03);
        Assert.Empty(_power.Requests);
        Command(0xD0);
        Assert.Equal(0x03, Answer());
        Command(0xD1);
        Data(0x02);
        Assert.Equal([PowerEvent.ResetI8042], _power.Requests);
    }

    [Fact]
    public void Linux_probes_controller_and_keyboard_without_a_timeout()
    {
        Assert.Equal(ControllerStatus.None, Status & ControllerStatus.OutputFull); // nothing to flush
        Command(0x20);
        var config = Answer();
        Command(0x20);
        Assert.Equal(config, Answer()); // it reads twice and wants the same
        Assert.NotEqual(0, config & 0x40); // translated
        Assert.NotEqual(ControllerStatus.None, Status & ControllerStatus.Unlocked); // or it warns of a key lock
        Command(0x60);
        Data((byte)((config | 0x10) & ~0x01)); // keyboard and its interrupt off

        Command(0xAA);
        Assert.Equal(0x55, Answer());
        Command(0xAB);
        Assert.Equal(0x00, Answer());

        Command(0xD3); // auxiliary loop: without a mouse it must not come back as mouse data
        Data(0x5A);
        Assert.Equal(ControllerStatus.OutputFull, Status & (ControllerStatus.OutputFull | ControllerStatus.MouseData));
        Answer();
        Command(0xA9);
        Assert.DoesNotContain(Answer(), (byte[])[0x00, 0xFA, 0xFF]); // these would mean "a port is there"

        Command(0x60);
        Data((byte)((config & ~0x10) | 0x01));
        foreach (var (send, expected) in ((byte[], byte[])[])[
                     ([0xF5], [0xFA]), ([0xF2], [0xFA, 0xAB, 0x41]), ([0xED, 0x00], [0xFA, 0xFA]), ([0xF3, 0x00], [0xFA, 0xFA]),
                     ([0xF4], [0xFA]), ([0xFF], [0xFA, 0xAA]), ([0xEE], [0xEE]), ([0xF0, 0x00], [0xFA, 0xFA, 0x02]), ([0x01], [0xFE])])
        {
            var heard = new List<byte>();
            foreach (var value in send)
            {
                Data(value);
                while (_irq1.Asserted) heard.Add(Answer());
            }

            Assert.Equal(expected, heard);
        }
    }

    [Fact]
    public void Each_byte_is_an_edge_of_its_own()
    {
        Data(0xFF);
        Assert.Equal(1, _irq1.Rises);
        Assert.Equal(0xFA, Answer());
        Assert.Equal(2, _irq1.Rises);
        Assert.Equal(0xAA, Answer());
        Assert.False(_irq1.Asserted);
        Assert.Equal(0xAAu, _i8042.Read(0, 1)); // an empty buffer keeps its last byte
    }

    [Fact]
    public void Ctrl_alt_del_arrives_as_translated_make_and_break_codes()
    {
        Assert.True(_i8042.PressCtrlAltDel());
        Assert.Equal([0x1D, 0x38, 0xE0, 0x53, 0xE0, 0xD3, 0xB8, 0x9D], Drain());
        Command(0x60);
        Data(0x05); // no translation
        Assert.True(_i8042.PressCtrlAltDel());
        Assert.Equal([0x14, 0x11, 0xE0, 0x71, 0xE0, 0xF0, 0x71, 0xF0, 0x11, 0xF0, 0x14], Drain());
    }

    [Fact]
    public void A_keyboard_that_is_off_or_full_drops_ctrl_alt_del()
    {
        Data(0xF5);
        Answer();
        Assert.False(_i8042.PressCtrlAltDel());
        Data(0xF4);
        Answer();
        Assert.True(_i8042.PressCtrlAltDel());
        Assert.True(_i8042.PressCtrlAltDel());
        Assert.False(_i8042.PressCtrlAltDel());
        Assert.Equal(16, Drain().Count);
    }

    [Fact]
    public void A_disabled_keyboard_keeps_its_bytes_while_the_controller_still_answers()
    {
        Command(0xAD);
        _i8042.PressCtrlAltDel();
        Assert.False(_irq1.Asserted);
        Command(0x20);
        Assert.Equal(0x10, Answer() & 0x10);
        Assert.False(_irq1.Asserted);
        Command(0xAE);
        Assert.Equal(8, Drain().Count);
    }

    [Fact]
    public void State_round_trip_carries_the_line()
    {
        _i8042.PressCtrlAltDel();
        var line = new RecordingLine();
        var other = new KeyboardController(line, _power) { State = _i8042.State };
        Assert.Equal(_i8042.State, other.State);
        Assert.True(line.Asserted);
        other.Reset();
        Assert.False(line.Asserted);
        Assert.Equal(KeyboardControllerState.PowerOn, other.State);
    }

    [Fact]
    public void Any_access_sequence_throws_nothing_and_the_state_is_all_there_is() =>
        Gen.Select(Gen.Int[0, 7], Gen.ULong, Gen.Int[0, 8]).Array[0, 200].Sample(steps =>
        {
            var line = new RecordingLine();
            var i8042 = new KeyboardController(line, new RecordingPowerControl());
            foreach (var (kind, value, size) in steps)
            {
                switch (kind)
                {
                    case <= 1: i8042.Write(4, 1, value); break;
                    case <= 3: i8042.Write(0, 1, value); break;
                    case 4: i8042.Read(0, 1); break;
                    case 5: i8042.Write(value % 10, size, value); break;
                    case 6: i8042.Read(value % 10, size); break;
                    default: i8042.PressCtrlAltDel(); break;
                }
            }

            var copyLine = new RecordingLine();
            var copy = new KeyboardController(copyLine, new RecordingPowerControl()) { State = i8042.State };
            Assert.Equal(i8042.State, copy.State);
            Assert.Equal(line.Asserted, copyLine.Asserted);
            Assert.NotEmpty(i8042.ToString());
        });

    ControllerStatus Status => (ControllerStatus)_i8042.Read(4, 1);

    void Command(byte value) => _i8042.Write(4, 1, value);

    void Data(byte value) => _i8042.Write(0, 1, value);

    byte Answer()
    {
        Assert.NotEqual(ControllerStatus.None, Status & ControllerStatus.OutputFull);
        return (byte)_i8042.Read(0, 1);
    }

    List<byte> Drain()
    {
        var bytes = new List<byte>();
        while ((Status & ControllerStatus.OutputFull) != 0) bytes.Add(Answer());
        return bytes;
    }
}
