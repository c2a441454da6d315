using ActorVmm.Hypervisor.Soft;
using ActorVmm.Testing.Guests;

namespace ActorVmm.Hypervisor.Tests.Subjects;

/// <summary>The software CPU, interpreting: everything works everywhere, nothing is excused.</summary>
public class SoftSubject(int compileThreshold) : IConformanceSubject
{
    public SoftSubject() : this(compileThreshold: 0) { }

    public IHypervisor Hypervisor { get; } = new SoftHypervisor(new SoftOptions(compileThreshold));

    public string? WhyNotAtAll => null;

    public string? WhyNot(string feature) => null;

    public string? Excuse(GuestRun run) => null;
}

/// <summary>The software CPU, every block of 64-bit code compiled when it is first entered.</summary>
public sealed class CompiledSubject() : SoftSubject(compileThreshold: 1);

/// <summary>The software CPU as it is by default, every vCPU kicked all the time.</summary>
public sealed class KickedSoftSubject() : SoftSubject(compileThreshold: 20), IConformanceSubject
{
    public bool IsKicked => true;
}
