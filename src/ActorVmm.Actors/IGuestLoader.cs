using ActorVmm.Hypervisor;

namespace ActorVmm.Actors;

/// <summary>Puts a guest into an empty machine: kernel, tables, command line into RAM, first instruction into vCPU 0.</summary>
public interface IGuestLoader
{
    /// <summary>Loads <paramref name="spec"/>; also called after a reset. RAM is zeroed, and no vCPU runs meanwhile.</summary>
    /// <returns>Choices made on the way, for the log.</returns>
    IReadOnlyList<string> Load(VmSpec spec, IMachine machine);
}
