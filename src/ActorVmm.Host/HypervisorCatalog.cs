using ActorVmm.Host.Hypervisors;
using ActorVmm.Hypervisor;

namespace ActorVmm.Host;

/// <summary>The hypervisors of this build, by name.</summary>
public interface IHypervisorCatalog
{
    /// <summary>In the order in which <c>auto</c> prefers them.</summary>
    IReadOnlyList<string> Names { get; }

    /// <summary>The hypervisor of that name; <c>auto</c> is the first one that works on this host.</summary>
    /// <exception cref="HypervisorException">It is unknown, or does not work here; the message says why and what to do.</exception>
    IHypervisor Select(string name);

    /// <inheritdoc cref="Select(string)"/>
    /// <param name="name">A name, or <c>auto</c>.</param>
    /// <param name="reason">Why it is this one, for people: explicit, or what the probe said of each that was looked at.</param>
    IHypervisor Select(string name, out string reason);

    /// <summary>
    /// What the probe says against the hypervisor that was asked for by name, so that nobody waits a minute to hear it from the guest; null
    /// where it says nothing against it, for <c>auto</c>, and where probes are not remembered (one per start would be too slow).
    /// </summary>
    ProbeReport? DoubtAbout(string name);

    /// <summary>Probes all of them now, whatever is remembered, in the order of <see cref="Names"/>.</summary>
    IReadOnlyList<ProbeReport> ProbeAll();
}

/// <inheritdoc cref="IHypervisorCatalog"/>
/// <param name="hypervisors">Name and factory, in the order in which <c>auto</c> prefers them.</param>
public sealed class HypervisorCatalog(params (string Name, Func<IHypervisor> Create)[] hypervisors) : IHypervisorCatalog
{
    /// <summary>Lets the host choose.</summary>
    public const string Auto = "auto";

    /// <inheritdoc/>
    public IReadOnlyList<string> Names { get; } = [.. hypervisors.Select(hypervisor => hypervisor.Name)];

    /// <summary>Remembers probes from one start to the next; null: every start probes.</summary>
    public ProbeCache? Remembered { get; init; }

    /// <inheritdoc/>
    public IReadOnlyList<ProbeReport> ProbeAll() => [.. hypervisors.Select(hypervisor => hypervisor.Create().Probe())];

    /// <inheritdoc/>
    public ProbeReport? DoubtAbout(string name)
    {
        var named = Array.Find(hypervisors, hypervisor => string.Equals(hypervisor.Name, name, StringComparison.Ordinal));
        return named.Create is not null && Remembered?.Get(named.Create(), out _) is { Usable: false } report ? report : null;
    }

    /// <inheritdoc/>
    public IHypervisor Select(string name) => Select(name, out _);

    /// <inheritdoc/>
    public IHypervisor Select(string name, out string reason)
    {
        reason = "asked for";
        if (!string.Equals(name, Auto, StringComparison.Ordinal))
        {
            // An explicit choice is obeyed: what does not work is said by the hypervisor when it is used.
            var chosen = Array.Find(hypervisors, hypervisor => string.Equals(hypervisor.Name, name, StringComparison.Ordinal));
            return chosen.Create is null
                ? throw new HypervisorException($"there is no hypervisor '{name}' in this build; there is {string.Join(", ", Names)}")
                : chosen.Create();
        }
        var verdicts = new List<string>();
        foreach (var (_, create) in hypervisors)
        {
            var hypervisor = create();
            var remembered = false;
            var report = Remembered?.Get(hypervisor, out remembered) ?? hypervisor.Probe();
            verdicts.Add($"{report.Hypervisor}: {report.Verdict}{(remembered ? " (probed earlier in this boot of the host)" : "")}");
            if (!report.Usable)
                continue;
            reason = string.Join("; ", verdicts);
            return hypervisor;
        }
        throw new HypervisorException("no hypervisor works on this host. " + string.Join("; ", verdicts));
    }
}
