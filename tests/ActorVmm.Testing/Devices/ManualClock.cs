using ActorVmm.Devices;

namespace ActorVmm.Testing.Devices;

/// <summary>Machine time that moves when a test says so.</summary>
public sealed class ManualClock(ulong bootUnixNanoseconds = 1_767_225_600_000_000_000) : IClock
{
    public ulong Nanoseconds { get; set; }

    public ulong BootUnixNanoseconds { get; } = bootUnixNanoseconds;

    public void Advance(ulong nanoseconds) => Nanoseconds += nanoseconds;

    /// <summary>Moves time and calls the device at each of its deadlines on the way, as a machine does.</summary>
    public void RunTo(ulong nanoseconds, ITimedDevice device)
    {
        while (device.Deadline is { } due && due <= nanoseconds)
        {
            Nanoseconds = Math.Max(Nanoseconds, due);
            device.Advance(Nanoseconds);
        }

        Nanoseconds = nanoseconds;
        device.Advance(nanoseconds);
    }
}
