using Akka.Actor;

namespace ActorVmm.Actors.Host;

/// <summary>One row of the table: what fails, what is done about it, what the guest sees of it.</summary>
/// <param name="Fails">What fails.</param>
/// <param name="Outcome">What is done.</param>
/// <param name="GuestSees">What the guest sees.</param>
public sealed record Verdict(string Fails, string Outcome, string GuestSees);

/// <summary>
/// What survives a failure: every verdict of every supervisor, with its reason. The table is the one of <c>src/ARCHITECTURE.md</c> (a test
/// compares them); limits are in <c>akka.hocon</c>, and none is unlimited.
/// </summary>
public static class Verdicts
{
    /// <summary>The table, row by row.</summary>
    public static IReadOnlyList<Verdict> Table { get; } =
    [
        new("a device handler throws",
            "restarted from its checkpoint within the same exit; the access is tried once more", "nothing"),
        new("the same access again", "restarted; the access reads as all ones", "one failed access"),
        new("a device handler does not return in `hang-deadline`, and touches registers only",
            "counts as a failure; the device is fenced off, another instance takes its place from the checkpoint and the access is tried once "
            + "more; a vCPU whose thread is inside goes on with another thread", "a delay"),
        new("the same access again", "as above; the access reads as all ones", "a delay, one failed access"),
        new("a device handler does not return, and may write to guest memory or a backend",
            "the VM ends as failed; its memory is kept", "power loss"),
        new("a disk answers nothing in `backend-deadline`", "counts as a failure of its device: restarted, and what was under way begins again",
            "a delay"),
        new("more than `max-lost-threads` threads of a VM are lost in handlers", "the VM ends as failed; its memory is kept", "power loss"),
        new("more than `max-retries` in `within`",
            "`over-limit`: `pause` (the access is kept, resuming tries it again), `unplug`, or `fail`", "a pause; an open bus; power loss"),
        new("a device cannot be made", "the VM does not start; a restart that cannot be made is `over-limit` at once",
            "a pause; an open bus; power loss"),
        new("a device does not answer in `reply-deadline`",
            "the access reads as all ones, its late answer goes to an abandoned object", "a delay, one failed access"),
        new("an effect's target (closed console)", "counted and logged at 1, 2, 4, 8, ...", "nothing"),
        new("a vCPU, or a hypervisor handle", "the VM ends as failed, its machine is taken down; other VMs go on", "power loss"),
        new("the VM actor, bus, event loop, fault plan, a supervisor", "the same", "power loss"),
        new("the exit handler throws", "logged; counts as the default answer", "an open bus"),
        new("a unit does not pause or stop in `control-deadline`",
            "the VM ends as failed; memory under a vCPU that does not come out is kept", "-"),
    ];

    /// <summary>A device: resumed from its checkpoint, as often as its limit allows.</summary>
    public static Directive OfDevice(Exception cause) => cause switch
    {
        ActorInitializationException => Directive.Stop,   // it cannot even start: report it, do not spin
        ActorKilledException         => Directive.Stop,   // somebody meant it
        _                            => Directive.Restart, // resume from the checkpoint
    };

    /// <summary>A vCPU: its state is the guest's, and a fresh actor would not have it. Its VM ends, and hears the cause.</summary>
    public static Directive OfVcpu(Exception cause)
    {
        _ = cause;
        return Directive.Stop;
    }

    /// <summary>Bus, devices, vcpus, events, faults: they hold what cannot be rebuilt under a running guest. What can is below them.</summary>
    public static Directive OfUnit(Exception cause)
    {
        _ = cause;
        return Directive.Stop;
    }

    /// <summary>A VM: its machine is gone with its actor. Whether it starts anew is its restart policy's to say, not Akka's.</summary>
    public static Directive OfVm(Exception cause)
    {
        _ = cause;
        return Directive.Stop;
    }
}
