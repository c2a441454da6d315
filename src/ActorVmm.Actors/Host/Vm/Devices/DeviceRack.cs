using ActorVmm.Actors.Host.Vm.Bus;
using ActorVmm.Actors.Host.Vm.Devices.I8042;
using ActorVmm.Actors.Host.Vm.Devices.Power;
using ActorVmm.Actors.Host.Vm.Devices.Pvpanic;
using ActorVmm.Actors.Host.Vm.Devices.Rtc;
using ActorVmm.Actors.Host.Vm.Devices.Serial;
using ActorVmm.Boot;
using ActorVmm.Devices.Chipset;
using ActorVmm.Devices.I8042;
using ActorVmm.Devices.Power;
using ActorVmm.Devices.Serial;

namespace ActorVmm.Actors.Host.Vm.Devices;

/// <summary>The devices that every VM has, with their addresses. Interval timer and interrupt controllers are the hypervisor's.</summary>
internal static class DeviceRack
{
    private const ulong Page = 4096;

    public static IEnumerable<DeviceUnit> Standard(DeviceParts parts)
    {
        var time = new MachineTime(parts.Machine.Clock, parts.BootUnixNanoseconds);
        var input = new SerialInput(parts.Console.Input);
        return
        [
            new("serial0", SerialActor.Props(parts.Slot("serial0"), new(), input, SerialPort.Com1Irq),
                AddressRange.Ports(SerialPort.Com1, SerialPort.PortCount)),
            // Port 0x61 between the two is the interval timer's, inside the hypervisor.
            new("i8042", I8042Actor.Props(parts.Slot("i8042"), new()),
                AddressRange.Ports(KeyboardController.BasePort, length: 1, KeyboardController.DataOffset),
                AddressRange.Ports(KeyboardController.BasePort + (ushort)KeyboardController.CommandOffset, length: 1,
                    KeyboardController.CommandOffset)),
            new("rtc", RtcActor.Props(parts.Slot("rtc"), new(), time),
                AddressRange.Ports(CmosRtc.BasePort, length: 2)),
            new("power", PowerActor.Props(parts.Slot("power"), new(), time),
                AddressRange.Ports(PowerPorts.Pm1aEvent, PowerPorts.AcpiLength)),
            new("reset", ResetActor.Props(parts.Slot("reset"), new()),
                AddressRange.Ports(PowerPorts.ResetControl, length: 1)),
            new("pvpanic", PvpanicActor.Props(parts.Slot("pvpanic"), new()),
                AddressRange.Mmio(MemoryLayout.Pvpanic, Page)),
        ];
    }
}
