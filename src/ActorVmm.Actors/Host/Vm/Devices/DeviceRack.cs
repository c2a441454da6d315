using ActorVmm.Actors.Host.Vm.Bus;
using ActorVmm.Actors.Host.Vm.Devices.Serial;
using ActorVmm.Devices.Serial;

namespace ActorVmm.Actors.Host.Vm.Devices;

/// <summary>The devices that every VM has, with their addresses and interrupt inputs.</summary>
internal static class DeviceRack
{
    public static IEnumerable<DeviceUnit> Standard(DeviceParts parts) => [Serial0(parts)];

    private static DeviceUnit Serial0(DeviceParts parts)
    {
        var (slot, checkpoint, input) = (parts.Slot("serial0"), new Checkpoint<SerialState>(), new SerialInput(parts.Console.Input));
        return new DeviceUnit(
            "serial0", SerialActor.Props(slot, checkpoint, input, SerialPort.Com1Irq), AddressRange.Ports(SerialPort.Com1, SerialPort.PortCount));
    }
}
