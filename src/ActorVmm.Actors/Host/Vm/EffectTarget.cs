using Akka.Actor;
using ActorVmm.Actors.Host.Vm.Devices;
using ActorVmm.Hypervisor;
using ActorVmm.Devices.Faults;
using ActorVmm.Devices.Power;

namespace ActorVmm.Actors.Host.Vm;

/// <summary>Where the effects of a VM's devices leave: the machine's interrupt lines, the console's sink, the VM actor.</summary>
internal sealed class EffectTarget(IMachine machine, VmConsole console, RunFlag run, IActorRef vm, FaultEngine faults) : IEffectTarget
{
    private int _levels;

    public void WriteConsole(ReadOnlySpan<byte> bytes)
    {
        console.Output.Write(bytes);
        if (faults.WatchesConsole) faults.Printed(bytes);
    }

    public void SetInterruptLine(int gsi, bool level)
    {
        if (level) Interlocked.Or(ref _levels, 1 << gsi);
        else Interlocked.And(ref _levels, ~(1 << gsi));
        machine.SetInterruptLine(gsi, level);
    }

    /// <summary>The level that devices have last given to an input, 0 to 23. Any thread.</summary>
    public bool LevelOf(int gsi) => (Volatile.Read(ref _levels) & (1 << gsi)) != 0;

    public void Signal(PowerEvent signal)
    {
        // The flag first: the vCPU whose exit this is must not enter the guest again.
        run.Ending = true;
        vm.Tell(new VmProtocol.PowerSignalled(signal));
    }
}
