using System.Runtime.InteropServices;

namespace ActorVmm.Hypervisor.Soft;

/// <summary>Settings of the software CPU that a guest cannot see: they change its speed, never a result.</summary>
/// <param name="CompileThreshold">
/// Entries after which a block of 64-bit code is compiled to the host's machine code; 1 compiles at the first entry, 0 interprets always.
/// </param>
/// <param name="CodeBytes">Bytes for the machine code of one vCPU; when they are used up, all its blocks are forgotten.</param>
public sealed record SoftOptions(int CompileThreshold = SoftOptions.DefaultThreshold, long CodeBytes = (long)SoftOptions.DefaultCodeMib << 20)
{
    /// <summary>A stock boot fills a few MiB; reserved, and used only as far as code is made.</summary>
    public const int DefaultCodeMib = 48;

    /// <summary>
    /// A choice between compiling what hardly runs (lower) and interpreting for too long (higher). No other value was timed.
    /// </summary>
    public const int DefaultThreshold = 40;

    /// <summary>What the host's processor is: there is machine code for x64 alone. Only tests say another than it is.</summary>
    public Architecture Host { get; init; } = RuntimeInformation.ProcessArchitecture;
}
