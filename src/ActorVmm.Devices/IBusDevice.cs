namespace ActorVmm.Devices;

/// <summary>
/// A device as the bus sees it: registers at offsets from its base. Pure: no thread, no clock, no file. Whatever the guest asks has an
/// answer, never an exception.
/// </summary>
public interface IBusDevice
{
    /// <summary>
    /// Reads <paramref name="size"/> bytes (1, 2, 4 or 8) at <paramref name="offset"/> from the device's base; upper bits zero.
    /// </summary>
    ulong Read(ulong offset, int size);

    /// <summary>Writes the low <paramref name="size"/> bytes of <paramref name="value"/> at <paramref name="offset"/>.</summary>
    void Write(ulong offset, int size, ulong value);

    /// <summary>Back to the state at power-on, line levels included.</summary>
    void Reset();
}

/// <summary>A device whose whole guest-visible state is one value: comparable, loggable, savable.</summary>
/// <typeparam name="TState">An immutable value type or record.</typeparam>
public interface IDeviceState<TState>
{
    /// <summary>The guest-visible state. Setting it re-derives the line levels.</summary>
    TState State { get; set; }

    /// <summary>
    /// Writes the state into <paramref name="into"/>; called after every message. A device with a large state implements it as one copy.
    /// Throws nothing, and leaves <paramref name="into"/> either as it was or complete.
    /// </summary>
    void CopyState(ref TState into) => into = State;
}

/// <summary>A device that does something at a time of its own (timer, receive timeout).</summary>
public interface ITimedDevice
{
    /// <summary>Machine time in nanoseconds at which <see cref="Advance"/> wants to be called; null where nothing is due.</summary>
    ulong? Deadline { get; }

    /// <summary>Time is now <paramref name="nanoseconds"/>: do what is due. Calling early or late is harmless.</summary>
    void Advance(ulong nanoseconds);
}
