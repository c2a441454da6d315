using Akka.Actor;
using ActorVmm.Devices.I8042;

namespace ActorVmm.Actors.Host.Vm.Devices.I8042;

/// <summary><c>devices/i8042</c>: the keyboard controller, by which guests reset their machine.</summary>
public sealed class I8042Actor : DeviceActor<KeyboardControllerState>
{
    private readonly KeyboardController _controller;

    public static Props Props(DeviceSlot slot, Checkpoint<KeyboardControllerState> checkpoint) =>
        Made.By(() => new I8042Actor(slot, checkpoint));

    public I8042Actor(DeviceSlot slot, Checkpoint<KeyboardControllerState> checkpoint)
        : this(slot, checkpoint, new KeyboardController(slot.Effects.InterruptLine(KeyboardController.Irq), slot.Effects.Power))
    {
    }

    private I8042Actor(DeviceSlot slot, Checkpoint<KeyboardControllerState> checkpoint, KeyboardController controller)
        : base(slot, checkpoint, controller) => _controller = controller;

    /// <inheritdoc/>
    protected override void OnReceive(object message)
    {
        if (message is DevicesProtocol.Press { Key: PowerKey.CtrlAltDel }) _controller.PressCtrlAltDel();
        else base.OnReceive(message);
    }
}
