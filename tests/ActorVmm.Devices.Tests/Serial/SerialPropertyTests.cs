using ActorVmm.Devices.Serial;
using ActorVmm.Testing.Devices;
using CsCheck;
using Xunit;

namespace ActorVmm.Devices.Tests.Serial;

public sealed class SerialPropertyTests
{
    // 0-2 read, 3-6 write, 7 input, 8 time passes.
    static readonly int[] Sizes = [0, 1, 1, 1, 1, 2, 4, 8];

    static readonly Gen<(int Kind, ulong Offset, int Size, ulong Value)[]> Steps = Gen.Select(
        Gen.Int[0, 8],
        Gen.Frequency((9, Gen.ULong[0, 8]), (1, Gen.ULong)),
        Gen.Int[0, 7].Select(i => Sizes[i]),
        Gen.ULong).Array[0, 200];

    [Fact]
    public void Any_access_sequence_throws_nothing_and_the_state_and_line_follow_the_registers() => Steps.Sample(steps =>
    {
        var (port, line, clock) = NewPort();
        foreach (var step in steps) Perform(port, clock, step);

        var copyLine = new RecordingLine();
        var copy = new SerialPort(copyLine, new RecordingSink(), clock) { State = port.State };
        Assert.Equal(port.State, copy.State);
        Assert.Equal(line.Asserted, copyLine.Asserted); // the line is a function of the state
        Assert.Equal(port.InputWanted, copy.InputWanted);
        Assert.Equal(port.Deadline, copy.Deadline);
        Assert.InRange(port.State.Received.Count, 0, 16);
        Assert.NotEmpty(port.ToString());
    });

    [Fact]
    public void A_restart_from_the_checkpoint_after_any_access_is_invisible() => Gen.Select(Steps, Gen.Int[0, 200]).Sample((steps, at) =>
    {
        var (straight, line, clock) = NewPort();
        var (restarted, restartedLine, otherClock) = NewPort();
        for (var i = 0; i < steps.Length; i++)
        {
            if (i == at)
            {
                var state = restarted.State;
                restartedLine = new RecordingLine();
                restarted = new SerialPort(restartedLine, new RecordingSink(), otherClock) { State = state };
            }

            Assert.Equal(Perform(straight, clock, steps[i]), Perform(restarted, otherClock, steps[i]));
            Assert.Equal(line.Asserted, restartedLine.Asserted);
        }
    });

    [Fact]
    public void The_line_is_up_exactly_when_iir_names_a_cause_and_out2_is_set() => Steps.Sample(steps =>
    {
        var (port, line, clock) = NewPort();
        foreach (var step in steps)
        {
            Perform(port, clock, step);
            var asserted = line.Asserted;
            var probe = new SerialPort(new RecordingLine(), new RecordingSink(), clock) { State = port.State };
            var pending = (probe.Read(SerialRegister.InterruptId) & 1) == 0;
            Assert.Equal(pending && (port.State.ModemControl & ModemControl.Out2) != 0, asserted);
        }
    }, iter: 300);

    static (SerialPort Port, RecordingLine Line, ManualClock Clock) NewPort()
    {
        var line = new RecordingLine();
        var clock = new ManualClock();
        return (new SerialPort(line, new RecordingSink(), clock), line, clock);
    }

    static ulong Perform(SerialPort port, ManualClock clock, (int Kind, ulong Offset, int Size, ulong Value) step)
    {
        switch (step.Kind)
        {
            case <= 2: return port.Read(step.Offset, step.Size);
            case <= 6:
                port.Write(step.Offset, step.Size, step.Value);
                return 0;
            case 7: return (ulong)port.Receive(BitConverter.GetBytes(step.Value));
            default:
                clock.RunTo(clock.Nanoseconds + step.Value % 10_000_000, port);
                return port.Deadline ?? 0;
        }
    }
}
