namespace ActorVmm.Hypervisor.Soft;

/// <summary>Settings of the software CPU that a guest cannot see: they change its speed, never a result.</summary>
/// <param name="CompileThreshold">
/// Entries after which a block of 64-bit code is compiled to the host's machine code; 1 compiles at the first entry, 0 interprets always.
/// </param>
public sealed record SoftOptions(int CompileThreshold = SoftOptions.DefaultThreshold)
{
    /// <summary>Measured: lower compiles what hardly runs, higher interprets for too long.</summary>
    public const int DefaultThreshold = 40;
}
