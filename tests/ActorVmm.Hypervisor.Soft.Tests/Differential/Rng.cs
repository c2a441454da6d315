namespace ActorVmm.Hypervisor.Soft.Tests.Differential;

/// <summary>SplitMix64: small, seeded, the same everywhere.</summary>
internal sealed class Rng(ulong seed)
{
    private ulong _state = seed;

    public ulong Next()
    {
        var z = _state += 0x9E37_79B9_7F4A_7C15;
        z = (z ^ (z >> 30)) * 0xBF58_476D_1CE4_E5B9;
        z = (z ^ (z >> 27)) * 0x94D0_49BB_1331_11EB;
        return z ^ (z >> 31);
    }

    /// <summary>0 to <paramref name="bound"/> - 1.</summary>
    public int Below(int bound) => (int)((Next() >> 33) % (uint)bound);

    public bool OneIn(int n) => Below(n) == 0;

    public T Pick<T>(IReadOnlyList<T> from) => from[Below(from.Count)];

    public void Fill(Span<byte> bytes)
    {
        var words = System.Runtime.InteropServices.MemoryMarshal.Cast<byte, ulong>(bytes);
        foreach (ref var word in words) word = Next();
    }

    /// <summary>A seed for case <paramref name="index"/> of a run.</summary>
    public static ulong Derive(ulong seed, long index) => new Rng(seed ^ ((ulong)index * 0xD6E8_FEB8_6659_FD93)).Next();
}
