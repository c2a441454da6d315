using ActorVmm.Hypervisor;
using ActorVmm.Memory;

namespace ActorVmm.Actors.Host.Vm;

/// <summary>
/// The machine under the actors: RAM and hypervisor handles. Whatever happens while it is built, nothing of it is left behind.
/// </summary>
internal sealed class VmParts : IDisposable
{
    /// <summary>APIC ids are bytes, and 255 is the broadcast (Intel MP specification §4.3.1).</summary>
    public const int MaxVcpus = 254;

    private VmParts(GuestMemory memory, IMachine machine, ulong bootUnixNanoseconds, IReadOnlyList<string> notes)
    {
        Memory = memory;
        Machine = machine;
        BootUnixNanoseconds = bootUnixNanoseconds;
        Notes = notes;
    }

    public GuestMemory Memory { get; }
    public IMachine Machine { get; }
    public ulong BootUnixNanoseconds { get; }

    /// <summary>What the loader has to say.</summary>
    public IReadOnlyList<string> Notes { get; }

    public static VmParts Build(VmSpec spec, IHypervisor hypervisor, IGuestLoader loader)
    {
        if (spec.Vcpus is < 1 or > MaxVcpus)
            throw new HypervisorException($"{spec.Name}: {spec.Vcpus} vCPUs are asked for; 1 to {MaxVcpus} are possible");
        if (spec.MemoryMib < 1)
            throw new HypervisorException($"{spec.Name}: {spec.MemoryMib} MiB of memory are asked for; at least 1 is needed");
        var memory = GuestMemory.Create((ulong)spec.MemoryMib << 20);
        IMachine? machine = null;
        try
        {
            var options = new MachineOptions(memory, spec.Vcpus, spec.Clock) { Seed = spec.Seed, CompileThreshold = spec.CompileThreshold, LockStep = spec.LockStep, CodeCacheMib = spec.CodeCacheMib };
            // Under virtual time the epoch is fixed, so that runs repeat; otherwise the guest's wall clock starts at the host's.
            if (spec.Clock == ClockMode.Host)
                options = options with
                {
                    BootUnixNanoseconds = (ulong)TimeProvider.System.GetUtcNow().ToUnixTimeMilliseconds() * 1_000_000,
                };
            machine = hypervisor.CreateMachine(options);
            return new VmParts(memory, machine, options.BootUnixNanoseconds, [.. machine.Notes, .. loader.Load(spec, machine)]);
        }
        catch
        {
            machine?.Dispose();
            memory.Dispose();
            throw;
        }
    }

    public void Dispose()
    {
        Machine.Dispose();
        Memory.Dispose();
    }
}
