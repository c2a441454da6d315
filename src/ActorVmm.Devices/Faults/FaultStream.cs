namespace ActorVmm.Devices.Faults;

/// <summary>
/// One consumer's own stream of random numbers, split off the plan's seed by the consumer's path: what others draw, and whether they exist,
/// changes nothing here. (SplitMix64 over an FNV-1a hash of the path.)
/// </summary>
public sealed class FaultStream
{
    private ulong _state;

    /// <param name="seed">The plan's.</param>
    /// <param name="path">Who draws, for example <c>blk0/torn</c>.</param>
    public FaultStream(ulong seed, string path)
    {
        ArgumentNullException.ThrowIfNull(path);
        var hash = 0xCBF29CE484222325UL;
        foreach (var letter in path)
        {
            hash = (hash ^ (byte)letter) * 0x100000001B3UL;
            hash = (hash ^ (byte)(letter >> 8)) * 0x100000001B3UL;
        }

        _state = Mix(seed + 0x9E3779B97F4A7C15UL) ^ hash;
    }

    /// <summary>64 random bits.</summary>
    public ulong Next()
    {
        _state += 0x9E3779B97F4A7C15UL;
        return Mix(_state);
    }

    /// <summary>0 up to, and without, <paramref name="bound"/>.</summary>
    public ulong Below(ulong bound) => bound <= 1 ? 0 : (ulong)(((UInt128)Next() * bound) >> 64);

    /// <summary>True with this probability.</summary>
    public bool Chance(double probability) => probability >= 1 || (Next() >> 11) * (1.0 / (1UL << 53)) < probability;

    private static ulong Mix(ulong value)
    {
        value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9UL;
        value = (value ^ (value >> 27)) * 0x94D049BB133111EBUL;
        return value ^ (value >> 31);
    }
}
