using Akka.Actor;
using ActorVmm.Actors;
using ActorVmm.Actors.Host.Vm;
using ActorVmm.Actors.Host.Vm.Bus;
using ActorVmm.Actors.Host.Vm.Devices;

namespace ActorVmm.Testing.Virtio;

/// <summary>A device that answers no access, only the VM's questions: who reads from it waits.</summary>
internal sealed class MuteDevice : UntypedActor
{
    /// <summary>Its one port.</summary>
    public const byte Port = 0x50;

    public static DeviceUnit Unit { get; } = new("mute", Props.Create(() => new MuteDevice()), AddressRange.Ports(Port, 1));

    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case UnitProtocol.Start or UnitProtocol.Stop or UnitProtocol.Reset: Sender.Tell(new UnitProtocol.Done("mute")); break;
            case UnitProtocol.Inspect: Sender.Tell(new UnitProtocol.Inspected(InspectNode.Unresolved("mute"))); break;
            case BusAccess: break;
            default: Unhandled(message); break;
        }
    }
}
