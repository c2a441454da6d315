namespace ActorVmm.Actors.Host.Vm.Bus;

/// <summary>A range of ports or guest physical addresses that one device answers for.</summary>
/// <param name="IsPort">Port I/O rather than MMIO.</param>
/// <param name="Start">First address.</param>
/// <param name="Length">Bytes, at least 1; the range must not pass the end of its space (65536 ports, 2^64 addresses).</param>
/// <param name="DeviceOffset">The device's register offset of <paramref name="Start"/>, for devices with a hole in their ports.</param>
public readonly record struct AddressRange(bool IsPort, ulong Start, ulong Length, ulong DeviceOffset = 0)
{
    /// <summary>Ports [<paramref name="start"/>, +<paramref name="length"/>).</summary>
    public static AddressRange Ports(ushort start, int length, ulong deviceOffset = 0) => new(true, start, (ulong)length, deviceOffset);

    /// <summary>Guest physical addresses [<paramref name="start"/>, +<paramref name="length"/>).</summary>
    public static AddressRange Mmio(ulong start, ulong length) => new(false, start, length);

    /// <summary>The last address.</summary>
    public ulong Last => unchecked(Start + Length - 1);

    /// <summary>Non-empty and inside its address space.</summary>
    public bool IsValid => Length > 0 && Last >= Start && (!IsPort || Last <= ushort.MaxValue);

    /// <summary>True where both are in the same space and share an address.</summary>
    public bool Overlaps(AddressRange other) => IsPort == other.IsPort && Start <= other.Last && other.Start <= Last;

    /// <summary>True where all of [<paramref name="address"/>, +<paramref name="size"/>) lies in this range.</summary>
    public bool Contains(ulong address, int size) =>
        address >= Start && (ulong)size <= Length && address - Start <= Length - (ulong)size;

    public override string ToString() => $"{(IsPort ? "port" : "mmio")} 0x{Start:x}-0x{Last:x}";
}
