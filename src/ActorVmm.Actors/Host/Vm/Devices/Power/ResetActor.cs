using Akka.Actor;
using ActorVmm.Devices.Power;

namespace ActorVmm.Actors.Host.Vm.Devices.Power;

/// <summary><c>devices/reset</c>: the chipset's reset control register, which some guests try before the keyboard controller.</summary>
public sealed class ResetActor : DeviceActor<ResetControlState>
{
    public static Props Props(DeviceSlot slot, Checkpoint<ResetControlState> checkpoint) =>
        Made.By(() => new ResetActor(slot, checkpoint));

    public ResetActor(DeviceSlot slot, Checkpoint<ResetControlState> checkpoint)
        : base(slot, checkpoint, new ResetControl(slot.Effects.Power))
    {
    }
}
