namespace ActorVmm.Boot;

/// <summary>The byte sum of firmware tables (ACPI 6.5 §5.2.6, MP specification §4): all bytes of a table add up to 0 modulo 256.</summary>
public static class Checksum
{
    /// <summary>Sum modulo 256.</summary>
    public static byte Sum(ReadOnlySpan<byte> bytes)
    {
        byte sum = 0;
        foreach (var b in bytes) sum += b;
        return sum;
    }

    /// <summary>What the checksum field must hold, while it is still 0.</summary>
    public static byte Complement(ReadOnlySpan<byte> bytes) => (byte)-Sum(bytes);
}
