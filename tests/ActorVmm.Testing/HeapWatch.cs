namespace ActorVmm.Testing;

/// <summary>
/// Whether a long loop keeps what it need not: what is alive at its end, against what was alive when a quarter of it was done. Other tests of
/// the process count as well, so the bound is a wide one; a loop that keeps 32 bytes of each of ten million executions passes it.
/// </summary>
/// <param name="executions">How long the loop is.</param>
public sealed class HeapWatch(long executions)
{
    /// <summary>Most that may be alive beyond.</summary>
    public const long Bound = 96 << 20;

    private long? _settled;

    /// <summary>Bytes more than when the loop had settled.</summary>
    public long Growth => GC.GetTotalMemory(forceFullCollection: true) - (_settled ?? 0);

    /// <summary>Called for each execution.</summary>
    public void At(long done)
    {
        if (_settled is null && done >= executions / 4) _settled = GC.GetTotalMemory(forceFullCollection: true);
    }
}
