using System.Collections.Concurrent;
using ActorVmm.Actors;
using ActorVmm.Actors.Fleet;
using ActorVmm.Host.Descriptions;
using ActorVmm.Hypervisor;
using ActorVmm.Hypervisor.Kvm;

namespace ActorVmm.Host.Fleet;

/// <summary>A host's VMs with their consoles: what the API, the signals and the reload of the description work on.</summary>
/// <param name="fleet">The VMs.</param>
/// <param name="hypervisors">What may run them.</param>
/// <param name="consoles">Where what they print is kept.</param>
internal sealed class HostState(VmFleet fleet, IHypervisorCatalog hypervisors, ConsoleShelf consoles)
{
    private readonly ConcurrentDictionary<string, Lazy<(IHypervisor Hypervisor, string Reason)>> _chosen = new(StringComparer.Ordinal);

    public VmFleet Fleet => fleet;

    /// <summary>Reads the description again; null where there is no file to read.</summary>
    public Func<Task<ReloadReport>>? Reload { get; set; }

    /// <summary>Called when a VM was added, and before it is first started.</summary>
    public Func<ManagedVm, Task> Added { get; set; } = static _ => Task.CompletedTask;

    /// <summary>The console of a VM, which is the same for all of its runs.</summary>
    /// <exception cref="FleetException">There is no such VM.</exception>
    public ConsoleHub Console(string name) => ConsoleOf(fleet.Get(name));

    /// <summary>Adds a VM, or gives one its new definition.</summary>
    /// <exception cref="FleetException">The name is taken, or a limit of the host is reached.</exception>
    public async Task<VmStatus> DefineAsync(FleetVm vm, bool replace)
    {
        var known = fleet.Find(vm.Name);
        var hub = known is null ? consoles.NewHub() : ConsoleOf(known);
        var status = await fleet.DefineAsync(Define(vm, hub), replace).ConfigureAwait(false);
        if (known is not null) return status;
        var managed = fleet.Get(vm.Name);
        consoles.Keep(vm.Name, hub);
        _ = managed.Removed.ContinueWith(_ => consoles.Forget(hub), TaskScheduler.Default);
        await Added(managed).ConfigureAwait(false);
        return status;
    }

    private static ConsoleHub ConsoleOf(ManagedVm vm) => (ConsoleHub)vm.Definition.Console.Output;

    private VmDefinition Define(FleetVm vm, ConsoleHub hub)
    {
        return new VmDefinition(vm.Vm.ToSpec(), () => Choose(vm.Vm), new VmConsole(hub, hub))
        {
            Restart = vm.Restart, Stop = vm.Stop, RestartsOnReset = vm.RestartsOnReset, Fingerprint = vm.Fingerprint,
        };
    }

    private IHypervisor Choose(VmDescription vm)
    {
        // Probed once per process, however many VMs ask.
        var (hypervisor, reason) = _chosen.GetOrAdd(vm.Hypervisor, name => new(() =>
        {
            var chosen = hypervisors.Select(name, out var why);
            return (chosen, why);
        })).Value;
        if (vm.Cpu.IsEmpty) return hypervisor;
        return hypervisor is ICpuTemplateHypervisor able
            ? able.With(vm.Cpu)
            : throw new HypervisorException($"cpu-config changes the CPU that KVM shows, and '{hypervisor.Name}' cannot ({reason})");
    }
}

/// <summary>What a reload did.</summary>
/// <param name="Added">VMs that are new.</param>
/// <param name="Removed">VMs that are gone.</param>
/// <param name="Changed">VMs with another definition; true where it takes effect only with a restart.</param>
/// <param name="Host">Keys of the <c>host</c> section that have changed and take effect when the host is started again.</param>
/// <param name="Failures">What did not work, for people.</param>
internal sealed record ReloadReport(IReadOnlyList<string> Added, IReadOnlyList<string> Removed,
    IReadOnlyDictionary<string, bool> Changed, IReadOnlyList<string> Host, IReadOnlyList<string> Failures);
