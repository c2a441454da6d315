using ActorVmm.Actors.Dispatch;
using ActorVmm.Hypervisor;

namespace ActorVmm.Actors.Host.Vm.Vcpus;

/// <summary>What a vCPU hears and says. Everything but <see cref="Run"/> calls it out of the guest.</summary>
public static class VcpuProtocol
{
    /// <summary>Command: enter the guest. Exactly one of these per running vCPU; it is the right to run.</summary>
    public sealed record Run : IVcpuToken { public static readonly Run Token = new(); }

    /// <summary>Command: stay out of the guest; answered by <see cref="Paused"/>, also while an access waits for its device.</summary>
    public sealed record Pause { public static readonly Pause Instance = new(); }

    /// <summary>Event.</summary>
    public sealed record Paused(int Vcpu);

    /// <summary>Command: run, or run on.</summary>
    public sealed record Resume { public static readonly Resume Instance = new(); }

    /// <summary>Question, answered by <see cref="StateIs"/>.</summary>
    public sealed record GetState { public static readonly GetState Instance = new(); }

    /// <summary>The architectural state.</summary>
    /// <param name="Vcpu">Its number.</param>
    /// <param name="State">The state.</param>
    /// <param name="AwaitsReply">An access waits for its device: the instruction that made it has not ended yet.</param>
    public sealed record StateIs(int Vcpu, VcpuState State, bool AwaitsReply);

    /// <summary>
    /// Command to a paused vCPU: end the instruction that left the guest. Answered by <see cref="Settled"/> once it owes nothing and nothing
    /// is owed to it, which is when its device has answered; a vCPU that is resumed before answers never.
    /// </summary>
    public sealed record Settle { public static readonly Settle Instance = new(); }

    /// <summary>Event: what the vCPU's state is now, it stays until it runs again.</summary>
    public sealed record Settled(int Vcpu);

    /// <summary>Event: HLT with interrupts off; only INIT, NMI or a reset can wake it.</summary>
    public sealed record Halted(int Vcpu);

    /// <summary>Event: the guest, or the hypervisor, has ended the run.</summary>
    public sealed record Ended(int Vcpu, StopReason Reason, string Detail);

    /// <summary>
    /// Command to <c>vcpus</c>: a device was given up inside a handler. Where that handler runs on a vCPU's thread, the thread is lost with
    /// it: another one takes the vCPU over. Answered by a <see cref="Rescued"/> for each.
    /// </summary>
    /// <param name="Mailbox">The device's mailbox.</param>
    internal sealed record Rescue(Akka.Dispatch.Mailbox Mailbox);

    /// <summary>Event: a vCPU has a new thread.</summary>
    public sealed record Rescued(int Vcpu);

    /// <summary>Command: <paramref name="Device"/> was replaced; who waits for its answer asks again.</summary>
    public sealed record AskAgain(Akka.Actor.IActorRef Device);

    /// <summary>Command (a fault): one vCPU stays out of the guest for a while of host time.</summary>
    internal sealed record Hold(int Vcpu, TimeSpan For);

    /// <summary>Command (a fault): one vCPU gets only one part in <paramref name="Factor"/> of its time, for a while of host
    /// time.</summary>
    internal sealed record Slow(int Vcpu, double Factor, TimeSpan For);

    /// <summary>Event: the vCPU actor failed; its machine cannot go on.</summary>
    public sealed record Lost(string Vcpu, Exception Cause);
}
