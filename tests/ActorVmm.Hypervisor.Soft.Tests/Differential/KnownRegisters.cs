namespace ActorVmm.Hypervisor.Soft.Tests.Differential;

/// <summary>Which registers still hold a value that the generator knows, so that it knows where a memory operand points.</summary>
internal sealed class KnownRegisters
{
    private readonly ulong?[] _values = new ulong?[16];

    public bool DirectionKnown { get; set; } = true;

    public ulong? Value(int register) => _values[register];

    public void Set(int register, ulong? value) => _values[register] = value;

    /// <summary>Holds an address in the scratch pages.</summary>
    public bool IsPointer(int register) => IsInScratch(register, 1);

    /// <summary>[value, +<paramref name="size"/>) lies in the writable scratch pages.</summary>
    public bool IsInScratch(int register, int size) =>
        _values[register] is { } value && value >= Layout.Scratch && value - Layout.Scratch <= (ulong)(Layout.ScratchSize - size);

    /// <summary>There are <paramref name="room"/> bytes of scratch on both sides of the address.</summary>
    public bool HasRoom(int register, ulong room) =>
        _values[register] is { } value && value >= Layout.Scratch + room && value <= Layout.Scratch + Layout.ScratchSize - room;

    /// <summary>A register with a known value below <paramref name="bound"/>, or null.</summary>
    public int? PickBelow(Rng rng, ulong bound)
    {
        var start = rng.Below(16);
        for (var i = 0; i < 16; i++)
            if (_values[(start + i) & 15] < bound) return (start + i) & 15;
        return null;
    }
}
