using Akka.Actor;
using ActorVmm.Devices;
using ActorVmm.Devices.Chipset;

namespace ActorVmm.Actors.Host.Vm.Devices.Rtc;

/// <summary><c>devices/rtc</c>: the real-time clock and its memory.</summary>
public sealed class RtcActor : DeviceActor<CmosRtcState>
{
    public static Props Props(DeviceSlot slot, Checkpoint<CmosRtcState> checkpoint, IClock time) =>
        Made.By(() => new RtcActor(slot, checkpoint, time));

    public RtcActor(DeviceSlot slot, Checkpoint<CmosRtcState> checkpoint, IClock time)
        : base(slot, checkpoint, new CmosRtc(slot.Effects.InterruptLine(CmosRtc.Irq), time))
    {
    }
}
