using ActorVmm.Hypervisor.Soft.Cpu;

namespace ActorVmm.Hypervisor.Soft;

/// <summary>
/// Several vCPUs under virtual time: they take turns, one runs at a time for a quantum of instructions, so that a run repeats. Each keeps its
/// own thread (exits are served there); a vCPU without the turn waits, and answers to nothing but a kick. Machine time is what all have retired
/// together. A turn also ends when a halted vCPU is due, and passes over those that have nothing to run.
/// </summary>
internal sealed class TurnOrder(SoftMachine machine, SoftCpu[] cpus)
{
    /// <summary>
    /// Instructions per turn. Handing over costs two thread switches, some ten microseconds; a vCPU that spins for another one wastes what is
    /// left of its turn.
    /// </summary>
    public const ulong Quantum = 100_000;

    private int _holder;

    /// <summary>Turns given so far.</summary>
    public ulong Count { get; private set; }

    public bool Holds(SoftCpu cpu) => Volatile.Read(ref _holder) == cpu.Id;

    /// <summary>Power-on: vCPU 0 begins.</summary>
    public void Reset()
    {
        foreach (var cpu in cpus) cpu.BeginTurn(retiredByOthers: 0);
        Count = 0;
        Volatile.Write(ref _holder, 0);
        machine.Clock.Bind(cpus[0]);
    }

    /// <summary>Something arrived for a vCPU from outside; whoever waits because nobody can run shall look again.</summary>
    public void WakeHolder() => cpus[Volatile.Read(ref _holder)].Wake();

    /// <summary>Between two blocks of the holder: true where its turn is over and the next one has it.</summary>
    public bool IsOver(SoftCpu holder)
    {
        if (holder.Retired < holder.TurnEnd && HaltedDeadline(holder) > machine.Clock.NanosecondsAt(holder.Elapsed)) return false;
        if (PassOn(holder)) return true;
        holder.BeginTurn(holder.RetiredByOthers);
        return false;
    }

    /// <summary>Gives the turn to the next vCPU that can run; false where there is none but the holder.</summary>
    public bool PassOn(SoftCpu holder)
    {
        var now = machine.Clock.NanosecondsAt(holder.Elapsed);
        for (var step = 1; step < cpus.Length; step++)
        {
            var next = cpus[(holder.Id + step) % cpus.Length];
            if (!next.CanRun && !(next.Activity == VcpuActivity.Halted && DeadlineOf(next) <= now)) continue;
            next.BeginTurn(holder.Elapsed - next.Retired);
            Count++;
            machine.Clock.Bind(next);
            Volatile.Write(ref _holder, next.Id);
            next.Wake();
            return true;
        }
        return false;
    }

    /// <summary>When the first of the other vCPUs that are halted has to act; the holder's grant ends there.</summary>
    public ulong HaltedDeadline(SoftCpu holder)
    {
        var deadline = ulong.MaxValue;
        foreach (var cpu in cpus)
            if (cpu != holder && cpu.Activity == VcpuActivity.Halted) deadline = Math.Min(deadline, DeadlineOf(cpu));
        return deadline;
    }

    /// <summary>True while some vCPU may still be woken by time; where all are halted for good, time stands still.</summary>
    public bool AnyAlive => Array.Exists(cpus, cpu => cpu.Activity == VcpuActivity.Running || cpu.CanBeInterrupted);

    private ulong DeadlineOf(SoftCpu cpu)
    {
        var deadline = machine.Apics[cpu.Id].Deadline ?? ulong.MaxValue;
        return cpu.Id == 0 ? Math.Min(deadline, Math.Min(machine.ChipDeadline, machine.Clock.Alarm)) : deadline;
    }
}
