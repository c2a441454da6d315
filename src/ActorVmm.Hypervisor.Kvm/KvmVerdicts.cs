namespace ActorVmm.Hypervisor.Kvm;

/// <summary>Phrases of this hypervisor's diagnoses that other parts may look for.</summary>
public static class KvmVerdicts
{
    /// <summary>In the detail of a <see cref="VcpuExitKind.Failed"/> exit: the host's KVM has to emulate an instruction and does not know
    /// it.</summary>
    public const string CannotEmulate = "KVM cannot emulate an instruction";
}
