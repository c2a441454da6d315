namespace ActorVmm.Actors.Host.Vm;

/// <summary>What VMs tell on the actor system's event stream; whoever wants to know subscribes to the type.</summary>
public static class VmEvents
{
    /// <summary>Event: a VM is in another state (<c>starting</c>, <c>running</c>, <c>pausing</c>, <c>paused</c>, <c>stopping</c>, ...).</summary>
    /// <param name="Vm">Its name.</param>
    /// <param name="State">The state it is in now.</param>
    /// <param name="Why">For a pause that nobody asked for: the cause. Otherwise empty.</param>
    /// <param name="Run">The <see cref="IVmHandle.Completion"/> of the run: a word of an earlier run of the same VM may come late.</param>
    public sealed record StateChanged(string Vm, string State, string Why, Task<VmOutcome> Run);

    /// <summary>Event: a device failed and was restarted from its checkpoint.</summary>
    public sealed record DeviceRestarted(string Vm, string Device, string Cause);

    /// <summary>Event: the guest reset its machine, and it starts again.</summary>
    public sealed record GuestRestarted(string Vm, string Reason);
}

/// <summary>A way to ask a guest, as its user would, to end in order.</summary>
public enum PowerKey
{
    /// <summary>The ACPI power button (ACPI 6.5 §4.8.2.2.1): guests with an ACPI daemon shut down.</summary>
    PowerButton,

    /// <summary>Ctrl-Alt-Del on the keyboard: Linux asks its init to reboot, or reboots.</summary>
    CtrlAltDel,
}

internal static class PowerKeys
{
    /// <summary>The device that has the key.</summary>
    public static string DeviceName(this PowerKey key) => key == PowerKey.PowerButton ? "power" : "i8042";
}
