using ActorVmm.Hypervisor;

namespace ActorVmm.Actors;

internal sealed class KernelLoader : IGuestLoader
{
    public static readonly KernelLoader Instance = new();

    public IReadOnlyList<string> Load(VmSpec spec, IMachine machine) =>
        throw new HypervisorException("no boot code");
}
