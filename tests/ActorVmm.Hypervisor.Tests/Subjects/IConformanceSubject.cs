using ActorVmm.Testing.Guests;

namespace ActorVmm.Hypervisor.Tests.Subjects;

/// <summary>A hypervisor that the suite is run for.</summary>
public interface IConformanceSubject
{
    IHypervisor Hypervisor { get; }

    /// <summary>Whether every run is kicked all the time (<see cref="TinyGuest.IsKicked"/>).</summary>
    bool IsKicked => false;

    /// <summary>Why nothing at all can run here, or null.</summary>
    string? WhyNotAtAll { get; }

    /// <summary>Why the probe says that <paramref name="feature"/> does not work on this host, or null.</summary>
    string? WhyNot(string feature);

    /// <summary>The words of a run that ended because the host's hypervisor itself says that it cannot go on, or null where that is a
    /// failure of ours.</summary>
    string? Excuse(GuestRun run);
}
