using Akka.Actor;
using ActorVmm.Devices.Power;

namespace ActorVmm.Actors.Host.Vm.Devices.Pvpanic;

/// <summary><c>devices/pvpanic</c>: where a guest kernel reports its panic, which tells it from a reset.</summary>
public sealed class PvpanicActor : DeviceActor<PvpanicState>
{
    public static Props Props(DeviceSlot slot, Checkpoint<PvpanicState> checkpoint) =>
        Made.By(() => new PvpanicActor(slot, checkpoint));

    public PvpanicActor(DeviceSlot slot, Checkpoint<PvpanicState> checkpoint)
        : base(slot, checkpoint, new ActorVmm.Devices.Power.Pvpanic(slot.Effects.Power))
    {
    }
}
