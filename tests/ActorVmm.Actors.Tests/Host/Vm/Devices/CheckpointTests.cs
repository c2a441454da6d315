using ActorVmm.Actors.Host.Vm.Devices;
using ActorVmm.Devices.Serial;
using ActorVmm.Testing.Devices;

namespace ActorVmm.Actors.Tests.Host.Vm.Devices;

public sealed class CheckpointTests
{
    [Fact]
    public void A_checkpoint_of_a_serial_port_is_its_whole_state_and_does_not_follow_it()
    {
        var port = new SerialPort(new RecordingLine(), new RecordingSink(), new ManualClock());
        foreach (var (register, value) in new (ulong, ulong)[] { (3, 0x80), (0, 0x34), (1, 0x12), (3, 0x1B), (2, 0xC1), (4, 0x0B), (1, 0x0F), (7, 0x5A) })
            port.Write(register, 1, value);
        port.Receive("abc"u8);
        var checkpoint = new Checkpoint<SerialState>();

        checkpoint.Store(port);

        var stored = checkpoint.Last;
        Assert.True(checkpoint.Exists);
        Assert.Equal(port.State, stored);
        Assert.NotEqual(SerialState.PowerOn, stored);
        port.Write(7, 1, 0xA5);
        port.Read(0, 1);
        Assert.Equal(stored, checkpoint.Last);
    }
}
