using ActorVmm.Devices.Serial;
using ActorVmm.Testing.Devices;
using Xunit;

namespace ActorVmm.Devices.Tests.Serial;

public sealed class SerialPortTests
{
    readonly RecordingLine _line = new();
    readonly RecordingSink _sink = new();
    readonly ManualClock _clock = new();
    readonly SerialPort _port;
    readonly SerialDriver _driver;

    public SerialPortTests()
    {
        _port = new SerialPort(_line, _sink, _clock);
        _driver = new SerialDriver(_port);
    }

    [Fact]
    public void The_line_stays_up_until_the_guest_reads_the_byte()
    {
        _driver.Write(SerialRegister.InterruptEnable, 0x01);
        Assert.Equal(1, _port.Receive("x"u8));
        Assert.True(_line.Asserted);
        Assert.Equal(InterruptCause.ReceivedData, _driver.Identify());
        Assert.True(_line.Asserted);
        Assert.Equal((byte)'x', _driver.Read(SerialRegister.Data));
        Assert.False(_line.Asserted);
        Assert.Equal(InterruptCause.None, _driver.Identify());
    }

    [Fact]
    public void Output_leaves_in_order_and_raises_nothing_while_interrupts_are_off()
    {
        foreach (var value in "hello"u8) _driver.Write(SerialRegister.Data, value);
        Assert.Equal("hello", _sink.Text);
        Assert.Equal(0, _line.Rises);
        Assert.Equal(LineStatus.HoldingEmpty | LineStatus.TransmitterEmpty, _driver.LineStatus);
    }

    [Fact]
    public void Thr_empty_interrupt_comes_when_enabled_goes_with_iir_and_comes_again_with_each_byte()
    {
        _driver.Write(SerialRegister.InterruptEnable, 0x02);
        Assert.True(_line.Asserted);
        Assert.Equal(InterruptCause.HoldingEmpty, _driver.Identify());
        Assert.False(_line.Asserted);
        Assert.Equal(InterruptCause.None, _driver.Identify());

        _driver.Write(SerialRegister.Data, (byte)'a');
        Assert.True(_line.Asserted);
        var rises = _line.Rises;
        _driver.Write(SerialRegister.Data, (byte)'b'); // written without reading IIR: a new edge all the same
        Assert.Equal(rises + 1, _line.Rises);
        Assert.Equal("ab", _sink.Text);

        _driver.Write(SerialRegister.InterruptEnable, 0x00);
        Assert.False(_line.Asserted);
    }

    [Fact]
    public void Raw_input_is_taken_as_far_as_it_fits_and_read_back_in_order()
    {
        _driver.Write(SerialRegister.InterruptId, 0x01); // FIFO on
        var input = Enumerable.Range(1, 20).Select(i => (byte)i).ToArray();
        Assert.Equal(16, _port.Receive(input));
        Assert.Equal(0, _port.Receive(input.AsSpan(16)));
        Assert.Equal(input[..16], _driver.Drain());
        Assert.Equal(4, _port.Receive(input.AsSpan(16)));
        Assert.Equal(input[16..], _driver.Drain());
        Assert.Equal(0, _driver.Read(SerialRegister.Data)); // empty reads as zero
        Assert.Equal(0, _port.Receive([]));
    }

    [Fact]
    public void Fifo_max_size_is_16_with_the_fifo_and_1_without()
    {
        Assert.Equal(1, _port.Receive("ab"u8));
        Assert.Equal([(byte)'a'], _driver.Drain());
        _driver.Write(SerialRegister.InterruptId, 0x01);
        Assert.Equal(ByteFifo.Capacity, _port.Receive(new byte[100]));
    }

    [Fact]
    public void Loop_mode_feeds_output_back_and_disconnects_the_outside()
    {
        _driver.Write(SerialRegister.InterruptId, 0x01);
        _driver.Write(SerialRegister.ModemControl, 0x10);
        Assert.Equal(0, _port.Receive("outside"u8));
        Assert.Equal(0, _port.InputWanted);
        foreach (var value in "inside"u8) _driver.Write(SerialRegister.Data, value);
        Assert.Equal("inside"u8.ToArray(), _driver.Drain());
        Assert.Empty(_sink.Bytes);
        _driver.Write(SerialRegister.ModemControl, 0x08);
        _driver.Write(SerialRegister.Data, (byte)'!');
        Assert.Equal("!", _sink.Text);
    }

    [Fact]
    public void Dlab_shows_the_divisor_and_hides_data_and_interrupt_enable()
    {
        _driver.Write(SerialRegister.InterruptEnable, 0x05);
        _driver.Write(SerialRegister.LineControl, 0x83);
        Assert.Equal(12, _driver.Read(SerialRegister.Data));
        Assert.Equal(0, _driver.Read(SerialRegister.InterruptEnable));
        _driver.Write(SerialRegister.Data, 0x34);
        _driver.Write(SerialRegister.InterruptEnable, 0x12);
        Assert.Equal(0x34, _driver.Read(SerialRegister.Data));
        Assert.Equal(0x12, _driver.Read(SerialRegister.InterruptEnable));
        Assert.Equal(0x1234, _port.State.Divisor);
        Assert.Empty(_sink.Bytes);
        _driver.Write(SerialRegister.LineControl, 0x03);
        Assert.Equal(0x05, _driver.Read(SerialRegister.InterruptEnable));
    }

    [Fact]
    public void Basic_register_accesses_keep_the_writable_bits_and_power_on_values()
    {
        Assert.Equal(0x01, _driver.Read(SerialRegister.InterruptId));
        Assert.Equal(0x03, _driver.Read(SerialRegister.LineControl));
        Assert.Equal(0x08, _driver.Read(SerialRegister.ModemControl));
        Assert.Equal(0x60, _driver.Read(SerialRegister.LineStatus));
        Assert.Equal(0xB0, _driver.Read(SerialRegister.ModemStatus));
        Assert.Equal(0x00, _driver.Read(SerialRegister.Scratch));

        _driver.Write(SerialRegister.InterruptEnable, 0xFF);
        Assert.Equal(0x0F, _driver.Read(SerialRegister.InterruptEnable));
        _driver.Write(SerialRegister.ModemControl, 0xEF);
        Assert.Equal(0x0F, _driver.Read(SerialRegister.ModemControl));
        _driver.Write(SerialRegister.LineControl, 0x7F);
        Assert.Equal(0x7F, _driver.Read(SerialRegister.LineControl));
        _driver.Write(SerialRegister.LineStatus, 0xFF);
        Assert.Equal(0x60, _driver.Read(SerialRegister.LineStatus));
    }

    [Fact]
    public void Scratch_register_round_trip()
    {
        _driver.Write(SerialRegister.Scratch, 0xA5);
        Assert.Equal(0xA5, _driver.Read(SerialRegister.Scratch));
        _port.Reset();
        Assert.Equal(0, _driver.Read(SerialRegister.Scratch));
    }

    [Fact]
    public void Invalid_access_past_the_registers_reads_ones_and_changes_nothing()
    {
        var before = _port.State;
        Assert.Equal(0xFFu, _port.Read(8, 1));
        Assert.Equal(0xFFFF_FFFFu, _port.Read(ulong.MaxValue - 3, 4)); // the offset wraps past the end of everything
        _port.Write(8, 1, 0x12);
        _port.Write(ulong.MaxValue, 1, 0x12);
        _port.Write(0, 0, 0x12);
        Assert.Equal(before, _port.State);
    }

    [Fact]
    public void Empty_and_2_byte_data_are_runs_of_bytes()
    {
        Assert.Equal(0u, _port.Read(0, 0));
        _port.Write(6, 2, 0x5A00); // MSR ignored, scratch set
        Assert.Equal(0x5AB0u, _port.Read(6, 2));
        Assert.Equal(0xFF5Au, _port.Read(7, 2)); // the second byte is past the device
        Assert.Equal(0xFFFF_FF5A_B060_0803UL, _port.Read(3, 8));
    }

    [Fact]
    public void Msr_follows_mcr_in_loop_mode_and_reports_each_change_once()
    {
        _driver.Write(SerialRegister.InterruptEnable, 0x08);
        _driver.Write(SerialRegister.ModemControl, 0x1A); // loop, OUT2, RTS
        Assert.True(_line.Asserted);
        Assert.Equal(InterruptCause.ModemStatus, _driver.Identify());
        Assert.Equal((byte)(ModemStatus.Dcd | ModemStatus.Cts | ModemStatus.DeltaDsr), _driver.Read(SerialRegister.ModemStatus));
        Assert.False(_line.Asserted);
        Assert.Equal((byte)(ModemStatus.Dcd | ModemStatus.Cts), _driver.Read(SerialRegister.ModemStatus));

        _driver.Write(SerialRegister.ModemControl, 0x1E); // OUT1 up: a ring begins, which is no event
        Assert.Equal((byte)(ModemStatus.Dcd | ModemStatus.Cts | ModemStatus.Ri), _driver.Read(SerialRegister.ModemStatus));
        _driver.Write(SerialRegister.ModemControl, 0x1A); // and ends, which is
        Assert.Equal((byte)(ModemStatus.Dcd | ModemStatus.Cts | ModemStatus.TrailingEdgeRi), _driver.Read(SerialRegister.ModemStatus));
        _driver.Write(SerialRegister.ModemControl, 0x19);
        Assert.Equal(
            (byte)(ModemStatus.Dcd | ModemStatus.Dsr | ModemStatus.DeltaCts | ModemStatus.DeltaDsr),
            _driver.Read(SerialRegister.ModemStatus));
    }

    [Fact]
    public void Interrupt_causes_are_reported_in_the_datasheets_order()
    {
        _driver.Write(SerialRegister.ModemControl, 0x18); // loop with OUT2: DSR and CTS fall
        _driver.Write(SerialRegister.Data, 1);
        _driver.Write(SerialRegister.Data, 2); // without a FIFO this overruns
        _driver.Write(SerialRegister.InterruptEnable, 0x0F);

        Assert.Equal(InterruptCause.LineStatus, _driver.Identify());
        Assert.Equal(LineStatus.Overrun, _driver.LineStatus & LineStatus.Errors);
        Assert.Equal(InterruptCause.ReceivedData, _driver.Identify());
        Assert.Equal(2, _driver.Read(SerialRegister.Data)); // the new byte replaced the old one
        Assert.Equal(InterruptCause.HoldingEmpty, _driver.Identify());
        Assert.Equal(InterruptCause.ModemStatus, _driver.Identify());
        _driver.Read(SerialRegister.ModemStatus);
        Assert.Equal(InterruptCause.None, _driver.Identify());
        Assert.False(_line.Asserted);
    }

    [Fact]
    public void Overrun_is_seen_once_in_lsr_and_loses_the_new_byte_when_the_fifo_is_on()
    {
        _driver.Write(SerialRegister.InterruptId, 0x01);
        _driver.Write(SerialRegister.ModemControl, 0x10);
        for (var i = 0; i < 17; i++) _driver.Write(SerialRegister.Data, (byte)i);
        Assert.True((_driver.LineStatus & LineStatus.Overrun) != 0);
        Assert.True((_driver.LineStatus & LineStatus.Overrun) == 0);
        Assert.Equal(Enumerable.Range(0, 16).Select(i => (byte)i), _driver.Drain());
    }

    [Theory]
    [InlineData(0x00, 1)]
    [InlineData(0x40, 4)]
    [InlineData(0x80, 8)]
    [InlineData(0xC0, 14)]
    public void The_receive_interrupt_waits_for_the_trigger_level(byte trigger, int level)
    {
        _driver.Open(trigger);
        for (var i = 1; i < level; i++)
        {
            _port.Receive([(byte)i]);
            Assert.False(_line.Asserted);
        }

        _port.Receive([0xFF]);
        Assert.True(_line.Asserted);
        Assert.Equal(0xC0 | (int)InterruptCause.ReceivedData, _driver.Read(SerialRegister.InterruptId));
        _driver.Read(SerialRegister.Data);
        Assert.False(_line.Asserted);
    }

    [Fact]
    public void Below_the_trigger_level_a_character_timeout_speaks_after_four_character_times()
    {
        _driver.Open(trigger: 0x80);
        _port.Receive("ab"u8);
        const ulong FourCharacters = 4 * 10_000_000_000 / 115_200; // 8N1 at 115200
        Assert.InRange(_port.Deadline!.Value, FourCharacters - 4, FourCharacters + 4);

        _clock.RunTo(_port.Deadline.Value - 1, _port);
        Assert.False(_line.Asserted);
        _clock.RunTo(_port.Deadline.Value, _port);
        Assert.True(_line.Asserted);
        Assert.Equal(0xC0 | (int)InterruptCause.CharacterTimeout, _driver.Read(SerialRegister.InterruptId));
        Assert.True(_line.Asserted); // reading IIR does not clear it

        Assert.Equal((byte)'a', _driver.Read(SerialRegister.Data));
        Assert.False(_line.Asserted);
        Assert.NotNull(_port.Deadline); // one byte is left: the timeout runs again
        Assert.Equal((byte)'b', _driver.Read(SerialRegister.Data));
        Assert.Null(_port.Deadline);
    }

    [Fact]
    public void Advancing_early_is_harmless()
    {
        _driver.Open();
        _port.Receive("a"u8);
        var state = _port.State;
        _port.Advance(0);
        _port.Advance(1);
        Assert.Equal(state, _port.State);
    }

    [Fact]
    public void Out2_gates_the_interrupt_line()
    {
        _driver.Open(trigger: 0);
        _driver.Write(SerialRegister.ModemControl, 0x03);
        _port.Receive("a"u8);
        Assert.False(_line.Asserted);
        Assert.Equal(InterruptCause.ReceivedData, _driver.Identify()); // the chip itself still knows
        _driver.Write(SerialRegister.ModemControl, 0x0B);
        Assert.True(_line.Asserted);
    }

    [Fact]
    public void Events_input_is_wanted_only_by_a_guest_that_listens()
    {
        Assert.Equal(0, _port.InputWanted); // nobody has opened the port
        _driver.Open();
        Assert.Equal(16, _port.InputWanted);
        _port.Receive("abc"u8);
        Assert.Equal(13, _port.InputWanted);
        _driver.Write(SerialRegister.ModemControl, 0x09); // RTS low: stop sending
        Assert.Equal(0, _port.InputWanted);
        _driver.Write(SerialRegister.ModemControl, 0x0B);
        _port.Receive(new byte[13]);
        Assert.Equal(0, _port.InputWanted); // full
        _driver.Drain();
        Assert.Equal(16, _port.InputWanted);
        _driver.Write(SerialRegister.InterruptId, 0x00); // FIFO off, and with it the evidence of polling
        _driver.Write(SerialRegister.InterruptEnable, 0x00);
        Assert.Equal(0, _port.InputWanted);
    }

    [Fact]
    public void A_guest_that_polls_lsr_with_the_fifo_on_is_listening()
    {
        _driver.Write(SerialRegister.ModemControl, 0x03);
        _ = _driver.LineStatus; // an early console without FIFO only waits for the transmitter
        Assert.Equal(0, _port.InputWanted);
        _driver.Write(SerialRegister.InterruptId, 0x01);
        Assert.Equal(0, _port.InputWanted);
        _ = _driver.LineStatus;
        Assert.Equal(16, _port.InputWanted);
    }

    [Fact]
    public void Pasting_100_KB_through_the_wanted_count_loses_nothing()
    {
        var pasted = new byte[100_000];
        new Random(7).NextBytes(pasted);
        _driver.Open(trigger: 0x80);
        var received = new List<byte>();
        for (var sent = 0; received.Count < pasted.Length;)
        {
            var wanted = Math.Min(_port.InputWanted, pasted.Length - sent);
            Assert.Equal(wanted, _port.Receive(pasted.AsSpan(sent, wanted)));
            sent += wanted;
            if (!_line.Asserted) _clock.RunTo(_port.Deadline!.Value, _port); // the tail is below the trigger level
            Assert.True(_line.Asserted);
            while (_driver.Identify() is InterruptCause.ReceivedData or InterruptCause.CharacterTimeout)
                received.Add(_driver.Read(SerialRegister.Data));
        }

        Assert.Equal(pasted, received);
    }

    [Fact]
    public void Out_descrp_full_thre_sent_a_sink_that_fails_still_leaves_the_transmitter_empty_and_the_line_up()
    {
        var port = new SerialPort(_line, new FailingSink(), _clock);
        port.Write((ulong)SerialRegister.InterruptEnable, 1, 0x02);
        port.Read((ulong)SerialRegister.InterruptId, 1);
        Assert.False(_line.Asserted);
        Assert.Throws<IOException>(() => port.Write((ulong)SerialRegister.Data, 1, 'a'));
        Assert.True(_line.Asserted);
        Assert.Equal((ulong)InterruptCause.HoldingEmpty, port.Read((ulong)SerialRegister.InterruptId, 1));
    }

    [Fact]
    public void Setting_the_state_of_one_port_on_another_makes_them_the_same_line_included()
    {
        _driver.Open(trigger: 0);
        _port.Receive("abc"u8);
        var line = new RecordingLine();
        var other = new SerialPort(line, _sink, _clock) { State = _port.State };
        Assert.True(line.Asserted);
        Assert.Equal(_port.State, other.State);
        Assert.Equal("abc"u8.ToArray(), new SerialDriver(other).Drain());
        Assert.False(line.Asserted);
        other.Reset();
        Assert.Equal(SerialState.PowerOn, other.State);
    }

    [Fact]
    public void Accesses_and_checkpoints_allocate_nothing()
    {
        _driver.Open();
        var port = _port;
        var sink = new NullSink();
        var quiet = new SerialPort(_line, sink, _clock) { State = port.State };
        SerialState checkpoint = default;
        Work(); // first use
        var before = GC.GetAllocatedBytesForCurrentThread();
        for (var i = 0; i < 1000; i++) Work();
        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
        Assert.Equal(quiet.State, checkpoint);

        void Work()
        {
            quiet.Write(0, 1, 'x');
            quiet.Receive("ab"u8);
            for (ulong register = 0; register < 8; register++) quiet.Read(register, 1);
            checkpoint = quiet.State;
        }
    }

    sealed class FailingSink : IByteSink
    {
        public void Write(ReadOnlySpan<byte> bytes) => throw new IOException("no space left");
    }

    sealed class NullSink : IByteSink
    {
        public void Write(ReadOnlySpan<byte> bytes) { }
    }
}
