namespace ActorVmm.Devices.Power;

/// <summary>What the guest asks of its power supply.</summary>
public enum PowerEvent
{
    /// <summary>Reset through the keyboard controller (command 0xFE, output port bit 0), which is also the FADT's reset register.</summary>
    ResetI8042,

    /// <summary>Reset through the reset control register, port 0xCF9.</summary>
    ResetControl,

    /// <summary>ACPI S5.</summary>
    Poweroff,

    /// <summary>The guest's kernel panicked (pvpanic).</summary>
    GuestPanic,
}

/// <summary>
/// Where a device's power requests go. Called while the guest's write is being performed: note the request and stop the guest soon.
/// </summary>
public interface IPowerControl
{
    /// <summary>The guest asked for this. May be called again before the guest has stopped.</summary>
    void Request(PowerEvent powerEvent);
}
