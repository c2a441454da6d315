using System.Collections.Concurrent;
using Akka.Actor;
using Akka.Configuration;
using Akka.Dispatch;
using Akka.Dispatch.SysMsg;

namespace ActorVmm.Actors.Dispatch;

/// <summary>A message that a vCPU tells itself to go on: the only one that does not call it out of the guest.</summary>
public interface IVcpuToken;

/// <summary>
/// One thread for one vCPU actor. The thread owns the vCPU (hypervisors tie a vCPU to its thread), carries a
/// <see cref="CallerRunsContext"/>, and is called out of the guest whenever a message arrives.
/// </summary>
public sealed class VcpuDispatcher : MessageDispatcher
{
    private readonly BlockingCollection<IRunnable> _work = [];
    private readonly Lock _starting = new();
    private Thread? _thread;

    internal VcpuDispatcher(MessageDispatcherConfigurator configurator, string id, int throughput, TimeSpan shutdownTimeout) : base(configurator)
    {
        Id = id;
        Throughput = throughput;
        ShutdownTimeout = shutdownTimeout;
        Context = new CallerRunsContext(() => Gate.HasMail);
    }

    /// <summary>Between this actor's mailbox and its guest.</summary>
    public VcpuGate Gate { get; } = new();

    /// <summary>The context of the thread.</summary>
    public CallerRunsContext Context { get; }

    /// <inheritdoc/>
    public override void Dispatch(ActorCell cell, Envelope envelope)
    {
        base.Dispatch(cell, envelope);
        if (envelope.Message is not IVcpuToken) Ring();
    }

    /// <inheritdoc/>
    public override void SystemDispatch(ActorCell cell, SystemMessage message)
    {
        base.SystemDispatch(cell, message);
        Ring();
    }

    /// <inheritdoc/>
    public override void Detach(ActorCell cell)
    {
        base.Detach(cell);
        // One actor, one thread: with the actor gone the thread goes too, without waiting for Akka's idle timeout.
        _work.CompleteAdding();
    }

    /// <inheritdoc/>
    protected override void ExecuteTask(IRunnable run)
    {
        if (_thread is null) StartThread();
        try { _work.Add(run); }
        catch (InvalidOperationException) { /* The actor has stopped: nothing of it is left to run. */ }
    }

    /// <inheritdoc/>
    protected override void Shutdown() => _work.CompleteAdding();

    private void Ring() => Gate.Ring(ownThread: ReferenceEquals(CallerRunsContext.Current, Context));

    private void StartThread()
    {
        lock (_starting)
        {
            if (_thread is not null) return;
            _thread = new Thread(() => Context.Bind(Work)) { IsBackground = true, Name = "vcpu" };
            _thread.Start();
        }
    }

    private void Work()
    {
        foreach (var run in _work.GetConsumingEnumerable())
        {
            try { run.Run(); }
            catch (Exception cause) { ReportFailure(cause); }
        }
    }
}

/// <summary>Makes a <see cref="VcpuDispatcher"/> for every actor that asks; named by <c>type</c> in <c>akka.hocon</c>.</summary>
public sealed class VcpuConfigurator : MessageDispatcherConfigurator
{
    public VcpuConfigurator(Config config, IDispatcherPrerequisites prerequisites) : base(config, prerequisites) { }

    /// <inheritdoc/>
    public override MessageDispatcher Dispatcher() =>
        new VcpuDispatcher(this, Config.GetString("id"), Config.GetInt("throughput"), Config.GetTimeSpan("shutdown-timeout"));
}
