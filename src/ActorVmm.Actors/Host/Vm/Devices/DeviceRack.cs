using Akka.Actor;
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
        DeviceUnit Unit(string name, Func<DeviceSlot, Props> props, params AddressRange[] ranges)
        {
            var slot = parts.Slot(name);
            return new DeviceUnit(name, props(slot), ranges) { Slot = slot, RegistersOnly = true };
        }

        return
        [
            Unit("serial0", slot => SerialActor.Props(slot, new(), input, SerialPort.Com1Irq),
                AddressRange.Ports(SerialPort.Com1, SerialPort.PortCount)),
            // Port 0x61 between the two is the interval timer's, inside the hypervisor.
            Unit("i8042", slot => I8042Actor.Props(slot, new()),
                AddressRange.Ports(KeyboardController.BasePort, length: 1, KeyboardController.DataOffset),
                AddressRange.Ports(KeyboardController.BasePort + (ushort)KeyboardController.CommandOffset, length: 1,
                    KeyboardController.CommandOffset)),
            Unit("rtc", slot => RtcActor.Props(slot, new(), time),
                AddressRange.Ports(CmosRtc.BasePort, length: 2)),
            Unit("power", slot => PowerActor.Props(slot, new(), time),
                AddressRange.Ports(PowerPorts.Pm1aEvent, PowerPorts.AcpiLength)),
            Unit("reset", slot => ResetActor.Props(slot, new()),
                AddressRange.Ports(PowerPorts.ResetControl, length: 1)),
            Unit("pvpanic", slot => PvpanicActor.Props(slot, new()),
                AddressRange.Mmio(MemoryLayout.Pvpanic, Page)),
        ];
    }
}
