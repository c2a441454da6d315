namespace ActorVmm.Devices.Power;

/// <summary>The reset control register as last written.</summary>
public readonly record struct ResetControlState(byte Value);

/// <summary>
/// The reset control register at port 0xCF9 (Intel PIIX3 datasheet, "RC"): the rise of bit 2 resets the machine. One byte wide; a wider
/// access is the PCI configuration address at 0xCF8 and does not come here.
/// </summary>
/// <param name="power">Where the reset goes.</param>
public sealed class ResetControl(IPowerControl power) : IBusDevice, IDeviceState<ResetControlState>
{
    const byte HardReset = 1 << 1;
    const byte Trigger = 1 << 2;
    const byte FullReset = 1 << 3;

    /// <inheritdoc/>
    public ResetControlState State { get; set; }

    /// <inheritdoc/>
    public void Reset() => State = default;

    /// <inheritdoc/>
    public ulong Read(ulong offset, int size) => offset == 0 ? State.Value : 0u;

    /// <inheritdoc/>
    public void Write(ulong offset, int size, ulong value)
    {
        if (offset != 0 || size != 1) return;
        var rose = (value & Trigger) != 0 && (State.Value & Trigger) == 0;
        State = new ResetControlState((byte)(value & (HardReset | Trigger | FullReset)));
        if (rose) power.Request(PowerEvent.ResetControl);
    }

    public override string ToString() => $"rc={State.Value:x2}";
}
