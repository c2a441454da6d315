using ActorVmm.Devices.Chipset;
using ActorVmm.Hypervisor.Soft.Cpu;

namespace ActorVmm.Hypervisor.Soft;

/// <summary>One vCPU of the software hypervisor: the port over a <see cref="SoftCpu"/>.</summary>
internal sealed class SoftVcpu : IVcpu, IApicCore
{
    public SoftVcpu(SoftMachine machine, int id) => Cpu = new SoftCpu(machine, id);

    public SoftCpu Cpu { get; }

    public int Id => Cpu.Id;

    public VcpuExit Exit => Cpu.Exit;

    public ulong RetiredInstructions => Cpu.Retired;

    /// <summary>Blocks and machine code of this vCPU; read while it runs, so the figures are a moment apart.</summary>
    public string? Counters => Cpu.Counters;

    public void Bind(LocalApic apic) => Cpu.Apic = new LocalApicPort(apic);

    public VcpuExitKind Run() => Cpu.Run();

    public void Kick() => Cpu.Kick();

    public VcpuExitKind CompletePending() => Cpu.CompletePending();

    public VcpuState GetState() => Cpu.GetState();

    public void SetState(VcpuState state) => Cpu.SetState(state);

    public void InterruptRequested() => Cpu.RequestInterrupt();

    public void NmiRequested() => Cpu.RequestNmi();

    public void InitRequested() => Cpu.RequestInit();

    public void StartupRequested(byte vector) => Cpu.RequestStartup(vector);

    /// <summary>There is no system management mode here.</summary>
    public void SmiRequested() { }
}
