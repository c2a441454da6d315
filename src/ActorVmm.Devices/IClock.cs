namespace ActorVmm.Devices;

/// <summary>The machine's time. Host time or virtual time (a function of retired instructions): a device cannot tell which.</summary>
public interface IClock
{
    /// <summary>Nanoseconds since the machine was switched on; never goes back; stands still while the VM is paused.</summary>
    ulong Nanoseconds { get; }

    /// <summary>
    /// Nanoseconds since 1970-01-01 UTC at machine time 0 (the RTC's epoch); fixed under virtual time so that runs repeat.
    /// </summary>
    ulong BootUnixNanoseconds { get; }
}
