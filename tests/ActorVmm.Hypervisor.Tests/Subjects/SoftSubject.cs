using ActorVmm.Hypervisor.Soft;
using ActorVmm.Testing.Guests;

namespace ActorVmm.Hypervisor.Tests.Subjects;

/// <summary>The software CPU: everything works everywhere, nothing is excused.</summary>
public sealed class SoftSubject : IConformanceSubject
{
    public IHypervisor Hypervisor { get; } = new SoftHypervisor();

    public string? WhyNotAtAll => null;

    public string? WhyNot(string feature) => null;

    public string? Excuse(GuestRun run) => null;
}
