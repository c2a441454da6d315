using Akka.Actor;
using ActorVmm.Actors.Host.Vm.Devices;
using ActorVmm.Hypervisor;
using ActorVmm.Devices.Power;

namespace ActorVmm.Actors.Host.Vm;

/// <summary>Where the effects of a VM's devices leave: the machine's interrupt lines, the console's sink, the VM actor.</summary>
internal sealed class EffectTarget(IMachine machine, VmConsole console, RunFlag run, IActorRef vm) : IEffectTarget
{
    public void WriteConsole(ReadOnlySpan<byte> bytes) => console.Output.Write(bytes);

    public void SetInterruptLine(int gsi, bool level) => machine.SetInterruptLine(gsi, level);

    public void Signal(PowerEvent signal)
    {
        // The flag first: the vCPU whose exit this is must not enter the guest again.
        run.Ending = true;
        vm.Tell(new VmProtocol.PowerSignalled(signal));
    }
}
