using Akka.Actor;
using ActorVmm.Devices;
using ActorVmm.Devices.Power;

namespace ActorVmm.Actors.Host.Vm.Devices.Power;

/// <summary><c>devices/power</c>: the ACPI fixed hardware, by which guests switch their machine off.</summary>
public sealed class PowerActor : DeviceActor<AcpiPowerState>
{
    private readonly AcpiPower _power;

    public static Props Props(DeviceSlot slot, Checkpoint<AcpiPowerState> checkpoint, IClock time) =>
        Made.By(() => new PowerActor(slot, checkpoint, time));

    public PowerActor(DeviceSlot slot, Checkpoint<AcpiPowerState> checkpoint, IClock time)
        : this(slot, checkpoint, new AcpiPower(slot.Effects.InterruptLine(PowerPorts.SciGsi), slot.Effects.Power, time))
    {
    }

    private PowerActor(DeviceSlot slot, Checkpoint<AcpiPowerState> checkpoint, AcpiPower power) : base(slot, checkpoint, power) =>
        _power = power;

    /// <inheritdoc/>
    protected override void OnReceive(object message)
    {
        if (message is DevicesProtocol.Press { Key: PowerKey.PowerButton }) _power.PressPowerButton();
        else base.OnReceive(message);
    }
}
