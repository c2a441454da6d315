using Akka.Actor;
using Akka.Actor.Internal;
using Akka.Configuration;
using Akka.Dispatch;
using Akka.Dispatch.SysMsg;

namespace ActorVmm.Actors.Dispatch;

/// <summary>
/// Runs a receiver's mailbox on the thread of the vCPU that told it an <see cref="ISyncExit"/>; everything else goes to the thread pool.
/// An exit is still a real <c>Tell</c> into a real mailbox: order, one message at a time, and supervision are Akka's own.
/// </summary>
/// <remarks>
/// Akka claims the mailbox (a compare-and-swap) before it calls <see cref="ExecuteTask"/>, so this class only chooses the thread. The usual
/// case, an exit for a device that is idle, is shorter: claim the mailbox, find it empty, and invoke the actor. That is what
/// <see cref="Mailbox.Run"/> would do after putting the message in and taking it out; half of an exit's cost goes.
/// </remarks>
public sealed class CallerRunsDispatcher : Dispatcher
{
    internal CallerRunsDispatcher(
        MessageDispatcherConfigurator configurator, string id, int throughput, ExecutorServiceFactory pool, TimeSpan shutdownTimeout)
        : base(configurator, id, throughput, throughputDeadlineTime: null, pool, shutdownTimeout)
    {
    }

    /// <inheritdoc/>
    public override void Dispatch(ActorCell cell, Envelope envelope)
    {
        var exit = envelope.Message as ISyncExit;
        var context = CallerRunsContext.Current;
        if (exit is not null && context is { Running: false } && MailboxAccess.IsComplete && TryInvoke(context, cell, envelope))
        {
            if (cell.IsTerminated) exit.Undeliverable();
            return;
        }

        var before = false;
        if (context is not null)
        {
            // What a device handler tells while it runs inline must not inherit the permission of the message it answers.
            before = context.Armed;
            context.Armed = exit is not null;
        }

        try
        {
            base.Dispatch(cell, envelope);
        }
        catch (Exception)
        {
            if (context is not null) context.Armed = before;
            if (exit is null) throw;
            // ActorCell.SendMessage would swallow this (pool refused the work at shutdown), and the vCPU would wait for ever.
            exit.Undeliverable();
            return;
        }

        if (context is not null) context.Armed = before;
        if (exit is not null && cell.IsTerminated) exit.Undeliverable();
    }

    /// <inheritdoc/>
    public override void SystemDispatch(ActorCell cell, SystemMessage message)
    {
        // The failure of a device and the verdict of its supervisor also run on the vCPU's thread: the very next exit meets the restarted device.
        if (CallerRunsContext.Current is not { Running: true } context)
        {
            base.SystemDispatch(cell, message);
            return;
        }

        var before = context.Armed;
        context.Armed = true;
        try { base.SystemDispatch(cell, message); }
        finally { context.Armed = before; }
    }

    /// <inheritdoc/>
    protected override void ExecuteTask(IRunnable run)
    {
        var context = CallerRunsContext.Current;
        if (context is null || !context.TakeArmed(run)) base.ExecuteTask(run);
        else if (context.Running) context.Push(run);
        else RunInline(context, run);
    }

    /// <summary>Invokes the actor with a message that meets an idle, empty mailbox. False: nothing has happened.</summary>
    private bool TryInvoke(CallerRunsContext context, ActorCell cell, in Envelope envelope)
    {
        var mailbox = cell.Mailbox;
        if (mailbox is null || !MailboxAccess.SetAsScheduled(mailbox)) return false;
        if (MailboxAccess.HasMessages(mailbox) || MailboxAccess.HasSystemMessages(mailbox) || !MailboxAccess.ShouldProcessMessage(mailbox))
        {
            // The message goes behind what is there, and whoever puts it there schedules the mailbox: nothing is left behind unscheduled.
            MailboxAccess.SetAsIdle(mailbox);
            return false;
        }

        context.Enter(mailbox);
        var outer = InternalCurrentActorCellKeeper.Current;
        InternalCurrentActorCellKeeper.Current = cell;
        try
        {
            cell.Invoke(envelope);
        }
        finally
        {
            InternalCurrentActorCellKeeper.Current = outer;
            MailboxAccess.SetAsIdle(mailbox);
            if (MailboxAccess.HasMessages(mailbox) || MailboxAccess.HasSystemMessages(mailbox))
                MailboxAccess.RegisterForExecution(this, mailbox, hasMessages: false, hasSystemMessages: false);
            if (context.HasDue) RunDueAndEnd(context);
            else context.Leave();
        }

        return true;
    }

    private void RunDueAndEnd(CallerRunsContext context)
    {
        try { RunDue(context); }
        finally
        {
            context.Leave();
            if (context.HasDue) HandOver(context);
        }
    }

    // Loops have methods of their own: with a loop beside the handler this one would be compiled once, without a profile.
    private void RunInline(CallerRunsContext context, IRunnable run)
    {
        context.Enter(run);
        try
        {
            run.Run();
            if (context.HasDue) RunDue(context);
        }
        finally
        {
            context.Leave();
            // Only after an exception that Akka does not handle: claimed mailboxes must still run somewhere.
            if (context.HasDue) HandOver(context);
        }
    }

    private static void RunDue(CallerRunsContext context)
    {
        while (context.TryPop(out var next))
        {
            context.GoOn(next!);
            next!.Run();
        }
    }

    private void HandOver(CallerRunsContext context)
    {
        while (context.TryPop(out var left)) base.ExecuteTask(left!);
    }
}

/// <summary>Makes the one <see cref="CallerRunsDispatcher"/> of an actor system; named by <c>type</c> in <c>akka.hocon</c>.</summary>
public sealed class CallerRunsConfigurator : MessageDispatcherConfigurator
{
    private readonly CallerRunsDispatcher _instance;

    public CallerRunsConfigurator(Config config, IDispatcherPrerequisites prerequisites) : base(config, prerequisites) =>
        _instance = new CallerRunsDispatcher(
            this, Config.GetString("id"), Config.GetInt("throughput"), ConfigureExecutor(), Config.GetTimeSpan("shutdown-timeout"));

    /// <inheritdoc/>
    public override MessageDispatcher Dispatcher() => _instance;
}
