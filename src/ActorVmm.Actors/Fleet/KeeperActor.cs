using System.Diagnostics;
using Akka.Actor;
using Akka.Event;
using ActorVmm.Actors.Host.Vm;

namespace ActorVmm.Actors.Fleet;

/// <summary>
/// <c>/user/fleet/{vm}</c>: keeps one VM as its operator wants it, through as many runs as its restart policy allows. What everybody sees
/// of
/// it is in its <see cref="ManagedVm"/>, which also outlives a failure of this actor.
/// </summary>
internal sealed class KeeperActor : UntypedActor, IWithTimers
{
    private const string BackOffTimer = "back-off", StopTimer = "stop", SecondKeyTimer = "second-key";

    private readonly ManagedVm _vm;
    private readonly FleetParts _parts;
    private readonly ILoggingAdapter _log = Context.GetLogger();
    private readonly List<TaskCompletionSource<VmStatus>> _startWaiters = [];
    private readonly List<TaskCompletionSource<VmStatus>> _stopWaiters = [];
    private readonly List<TaskCompletionSource<VmStatus>> _removers = [];
    private ResetHandler _resets = new(restarts: false);
    private bool _stopWhenStarted;
    private bool _startWhenStopped;
    private bool _isLeaving;
    private long _began;

    public static Props Props(ManagedVm vm, FleetParts parts) => Made.By(() => new KeeperActor(vm, parts));

    public KeeperActor(ManagedVm vm, FleetParts parts)
    {
        _vm = vm;
        _parts = parts;
    }

    /// <inheritdoc/>
    public ITimerScheduler Timers { get; set; } = null!;

    private VmState State => _vm.Status.State;

    /// <summary>The number of the present or last run: what comes of an earlier one is told by it.</summary>
    private int Run => _vm.Status.Runs;

    /// <inheritdoc/>
    protected override void PreStart()
    {
        // After a failure of this actor: the VM has run on meanwhile, or has ended.
        if (State is VmState.Stopped or VmState.Failed) return;
        _began = Stopwatch.GetTimestamp();
        if (State == VmState.BackingOff)
        {
            BecomeStopped(VmState.Failed, "its keeper failed", exitCode: 33); // the timer went with the actor
            return;
        }

        if (_vm.Handle is not { } handle) return; // it is being started, and what comes of that is sent to this address
        Watch(handle);
        if (State == VmState.Starting) BecomeStopped(VmState.Failed, "its keeper failed", exitCode: 33);
        else if (State == VmState.Stopping) handle.Stop();
    }

    /// <inheritdoc/>
    protected override void PostStop()
    {
        foreach (var waiter in (TaskCompletionSource<VmStatus>[])[.. _startWaiters, .. _stopWaiters, .. _removers])
            waiter.TrySetException(new FleetException(FleetFault.Conflict, $"{_vm.Name} has been removed, or its keeper failed"));
    }

    /// <inheritdoc/>
    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case FleetProtocol.Start start: OnStart(start.Done); break;
            case FleetProtocol.Stop stop: OnStop(stop.Deadline, stop.Done); break;
            case FleetProtocol.Kill kill: OnKill(kill.Done); break;
            case FleetProtocol.Restart restart: OnRestart(restart); break;
            case FleetProtocol.Pause pause: OnPause(pause.Done); break;
            case FleetProtocol.Resume resume: OnResume(resume.Done); break;
            case FleetProtocol.Redefine redefine: OnRedefine(redefine); break;
            case FleetProtocol.PrepareRemoval removal: OnPrepareRemoval(removal); break;
            case RunStarted started when started.Run == Run: OnRunStarted(started); break;
            case RunStarted late: late.Handle.Stop(); break;
            case RunRefused refused when refused.Run == Run: OnRunEnded(Refusal(refused.Cause)); break;
            case RunEnded ended when ended.Run == Run: OnRunEnded(ended.Outcome); break;
            case BackOffOver: if (State == VmState.BackingOff) BeginRestart(); break;
            case SecondKey: if (State == VmState.Stopping) Press(_vm.Definition.Stop.Second); break;
            case StopOverdue: OnStopOverdue(); break;
            case ControlEnded control: OnControlEnded(control); break;
            case VmEvents.StateChanged changed: OnStateChanged(changed); break;
            case VmEvents.GuestRestarted restarted: OnGuestRestarted(restarted.Reason); break;
            default: break; // of a run that is over
        }
    }

    /// <summary>What is known of a VM, as a node of the tree.</summary>
    public static InspectNode Describe(ManagedVm vm)
    {
        var status = vm.Status;
        return new InspectNode(vm.Name, new SortedDictionary<string, string>(StringComparer.Ordinal)
        {
            ["state"] = $"{status.State}",
            ["runs"] = $"{status.Runs}",
            ["restarts"] = $"{status.Restarts}",
            ["resets"] = $"{status.Resets}",
            ["last-cause"] = status.LastCause ?? "none",
            ["policy"] = $"{vm.Definition.Restart.Mode}",
            ["mailbox"] = $"{Inspection.Depth(vm.Keeper) ?? 0}",
        });
    }

    // ---- Start.

    private void OnStart(TaskCompletionSource<VmStatus> done)
    {
        // A run that began now would have no keeper in a moment.
        if (_isLeaving)
        {
            done.TrySetException(new FleetException(FleetFault.Conflict, $"{_vm.Name} is being removed"));
            return;
        }

        switch (State)
        {
            case VmState.Running or VmState.Paused: done.TrySetResult(_vm.Status); break;
            case VmState.Starting: _startWaiters.Add(done); break;
            case VmState.Stopping:
                _startWaiters.Add(done);
                _startWhenStopped = true;
                break;
            default:
                Timers.Cancel(BackOffTimer);
                _vm.InARow = 0;
                _startWaiters.Add(done);
                BeginRun();
                break;
        }
    }

    private void BeginRun()
    {
        var definition = _vm.Definition;
        _began = Stopwatch.GetTimestamp();
        _stopWhenStarted = _startWhenStopped = false;
        _resets = new ResetHandler(definition.RestartsOnReset);
        var resets = _resets;
        _vm.Status = _vm.Status with
        {
            Runs = _vm.Status.Runs + 1, StartedAt = _parts.Time.GetUtcNow(), NeedsRestart = false,
            Vcpus = definition.Spec.Vcpus, MemoryMib = definition.Spec.MemoryMib,
        };
        var run = Run;
        _vm.Handle = null; // of the run before: its end must never be taken for that of this one
        Enter(VmState.Starting, "starting", "");
        _ = Task.Run(() => StartAsync(run, definition, resets)).PipeTo(Self, Self, started => started, cause => new RunRefused(run, cause));
    }

    private async Task<RunStarted> StartAsync(int run, VmDefinition definition, IExitHandler resets)
    {
        var hypervisor = definition.Hypervisor();
        var handle = await _parts.Host.StartAsync(definition.Spec, hypervisor, definition.Console, resets).ConfigureAwait(false);
        return new RunStarted(run, handle, hypervisor.Name);
    }

    private void BeginRestart()
    {
        _vm.Status = _vm.Status with { Restarts = _vm.Status.Restarts + 1 };
        BeginRun();
    }

    private void OnRunStarted(RunStarted started)
    {
        _vm.Handle = started.Handle;
        _vm.Status = _vm.Status with { Hypervisor = started.Hypervisor };
        Watch(started.Handle);
        Enter(VmState.Running, "started", $"run {_vm.Status.Runs}");
        Complete(_startWaiters);
        if (_stopWhenStarted) BeginStop(_vm.Definition.Stop with { Key = PowerKeyChoice.None });
    }

    private void Watch(IVmHandle handle)
    {
        var run = Run;
        _ = handle.Completion.PipeTo(Self, Self, outcome => new RunEnded(run, outcome));
    }

    // ---- The end of a run.

    private static VmOutcome Refusal(Exception cause) => new(StopReason.Failed, cause.GetBaseException().Message, 0);

    private void OnRunEnded(VmOutcome outcome)
    {
        Timers.Cancel(StopTimer);
        Timers.Cancel(SecondKeyTimer);
        var policy = _vm.Definition.Restart;
        if (Stopwatch.GetElapsedTime(_began) >= policy.HealthyAfter) _vm.InARow = 0;
        if (State == VmState.Stopping || _stopWhenStarted)
        {
            BecomeStopped(VmState.Stopped, outcome.Text, outcome.ExitCode);
            if (_startWhenStopped && !_isLeaving) BeginRun();
            else FailStarters("was stopped before it ran", FleetFault.Conflict);
            return;
        }

        FailStarters(outcome.Detail);
        if (!policy.Wants(outcome))
        {
            BecomeStopped(outcome.ExitCode == 0 ? VmState.Stopped : VmState.Failed, outcome.Text, outcome.ExitCode);
            return;
        }

        if (_vm.InARow >= policy.Limit)
        {
            _log.Error("{0} is given up after {1} restarts in a row: {2}", _vm.Name, _vm.InARow, outcome.Text);
            BecomeStopped(VmState.Failed, $"{outcome.Text}; given up after {_vm.InARow} restarts in a row", outcome.ExitCode);
            return;
        }

        var delay = policy.DelayBefore(++_vm.InARow);
        _vm.Status = _vm.Status with { LastCause = outcome.Text, LastExitCode = outcome.ExitCode };
        Enter(VmState.BackingOff, "back-off", $"{outcome.Text}; starts again in {delay.TotalSeconds:0.###} s");
        Timers.StartSingleTimer(BackOffTimer, BackOffOver.Instance, delay);
    }

    private void BecomeStopped(VmState state, string cause, int exitCode)
    {
        _vm.Status = _vm.Status with { LastCause = cause, LastExitCode = exitCode };
        Enter(state, state == VmState.Failed ? "failed" : "stopped", cause);
        _stopWhenStarted = false;
        Complete(_stopWaiters);
        if (_removers.Count > 0)
        {
            _isLeaving = true;
            foreach (var remover in _removers) Context.Parent.Tell(new FleetProtocol.Removable(_vm.Name, remover));
            _removers.Clear();
        }
    }

    // ---- Stop.

    private void OnStop(TimeSpan? deadline, TaskCompletionSource<VmStatus> done)
    {
        var policy = _vm.Definition.Stop;
        if (deadline is { } given) policy = policy with { Deadline = given };
        _startWhenStopped = false;
        if (!CeaseWaiting(done)) return;
        _stopWaiters.Add(done);
        if (State == VmState.Starting) _stopWhenStarted = true;
        else if (State != VmState.Stopping) BeginStop(policy);
    }

    private void OnKill(TaskCompletionSource<VmStatus> done)
    {
        _startWhenStopped = false;
        if (!CeaseWaiting(done)) return;
        _stopWaiters.Add(done);
        if (State == VmState.Starting) _stopWhenStarted = true;
        else CutPower("killed");
    }

    /// <summary>False where nothing runs: whoever asked for an end has it.</summary>
    private bool CeaseWaiting(TaskCompletionSource<VmStatus> done)
    {
        if (State == VmState.BackingOff)
        {
            Timers.Cancel(BackOffTimer);
            BecomeStopped(VmState.Stopped, _vm.Status.LastCause ?? "", _vm.Status.LastExitCode ?? 0);
        }

        if (State is not (VmState.Stopped or VmState.Failed)) return true;
        done.TrySetResult(_vm.Status);
        return false;
    }

    private void BeginStop(StopPolicy policy)
    {
        if (policy.Key == PowerKeyChoice.None || policy.Deadline <= TimeSpan.Zero)
        {
            CutPower("power cut");
            return;
        }

        var paused = State == VmState.Paused;
        _resets.Stopping = true; // a guest that answers Ctrl-Alt-Del with a reboot has done what was asked
        Enter(VmState.Stopping, "stopping", $"at the latest in {policy.Deadline.TotalSeconds:0.###} s");
        if (paused) _ = _vm.Handle!.ResumeAsync().ContinueWith(static _ => { }, TaskScheduler.Default);
        Press(policy.Key);
        Timers.StartSingleTimer(SecondKeyTimer, SecondKey.Instance, policy.Deadline / 3);
        Timers.StartSingleTimer(StopTimer, StopOverdue.Instance, policy.Deadline);
    }

    private void OnStopOverdue()
    {
        if (State == VmState.Stopping) CutPower("the deadline is over: power cut");
    }

    private void CutPower(string how)
    {
        _resets.Stopping = true;
        if (State == VmState.Stopping) _parts.Journal.Append(_vm.Name, "stopping", how);
        else Enter(VmState.Stopping, "stopping", how);
        _vm.Handle!.Stop();
    }

    private void Press(PowerKeyChoice key)
    {
        if (key == PowerKeyChoice.None) return;
        _vm.Handle!.Press(key == PowerKeyChoice.PowerButton ? PowerKey.PowerButton : PowerKey.CtrlAltDel);
    }

    private void OnRestart(FleetProtocol.Restart restart)
    {
        if (State is VmState.Running or VmState.Paused or VmState.Stopping)
        {
            _startWaiters.Add(restart.Done);
            var policy = _vm.Definition.Stop;
            if (State != VmState.Stopping) BeginStop(restart.Deadline is { } given ? policy with { Deadline = given } : policy);
            _startWhenStopped = true;
            _vm.InARow = 0;
        }
        else
        {
            OnStart(restart.Done);
        }
    }

    private void OnPrepareRemoval(FleetProtocol.PrepareRemoval removal)
    {
        if (State == VmState.BackingOff)
        {
            Timers.Cancel(BackOffTimer);
            BecomeStopped(VmState.Stopped, _vm.Status.LastCause ?? "", _vm.Status.LastExitCode ?? 0);
        }

        if (State is VmState.Stopped or VmState.Failed)
        {
            _isLeaving = true;
            Context.Parent.Tell(new FleetProtocol.Removable(_vm.Name, removal.Done));
            return;
        }

        if (!removal.Force)
        {
            removal.Done.TrySetException(new FleetException(FleetFault.Conflict,
                $"{_vm.Name} is {Word(State)}: stop it first, or remove it by force"));
            return;
        }

        _removers.Add(removal.Done);
        _startWhenStopped = false;
        if (State == VmState.Starting) _stopWhenStarted = true;
        else CutPower("removed by force");
    }

    // ---- Pause, resume, definition.

    private void OnPause(TaskCompletionSource<VmStatus> done)
    {
        if (State == VmState.Paused) done.TrySetResult(_vm.Status);
        else if (State == VmState.Running) Control(_vm.Handle!.PauseAsync(), VmState.Paused, done);
        else RefuseInState(done, "paused");
    }

    private void OnResume(TaskCompletionSource<VmStatus> done)
    {
        if (State == VmState.Running) done.TrySetResult(_vm.Status);
        else if (State == VmState.Paused) Control(_vm.Handle!.ResumeAsync(), VmState.Running, done);
        else RefuseInState(done, "resumed");
    }

    private void Control(Task task, VmState then, TaskCompletionSource<VmStatus> done)
    {
        var run = Run;
        _ = task.PipeTo(Self, Self, () => new ControlEnded(run, then, done, null), cause => new ControlEnded(run, then, done, cause));
    }

    private void OnControlEnded(ControlEnded control)
    {
        if (control.Cause is { } cause)
        {
            control.Done.TrySetException(new FleetException(FleetFault.Conflict, cause.GetBaseException().Message));
            return;
        }

        if (control.Run == Run && State is VmState.Running or VmState.Paused) EnterPausedOrRunning(control.Then, "");
        control.Done.TrySetResult(_vm.Status);
    }

    /// <summary>The VM's own word: it also tells of a pause that nobody asked for.</summary>
    private void OnStateChanged(VmEvents.StateChanged changed)
    {
        if (State is not (VmState.Running or VmState.Paused) || !ReferenceEquals(changed.Run, _vm.Handle?.Completion)) return;
        if (string.Equals(changed.State, "paused", StringComparison.Ordinal)) EnterPausedOrRunning(VmState.Paused, changed.Why);
        if (string.Equals(changed.State, "running", StringComparison.Ordinal)) EnterPausedOrRunning(VmState.Running, "");
    }

    private void EnterPausedOrRunning(VmState state, string why)
    {
        if (why.Length > 0) _vm.Status = _vm.Status with { LastCause = why };
        if (State != state) Enter(state, state == VmState.Paused ? "paused" : "resumed", why);
    }

    private void OnGuestRestarted(string reason)
    {
        _vm.Status = _vm.Status with { Resets = _vm.Status.Resets + 1 };
        _parts.Journal.Append(_vm.Name, "guest-restarted", reason);
    }

    private void OnRedefine(FleetProtocol.Redefine redefine)
    {
        var differs = !string.Equals(redefine.Definition.Fingerprint, _vm.Definition.Fingerprint, StringComparison.Ordinal);
        var runs = State is not (VmState.Stopped or VmState.Failed);
        _vm.Definition = redefine.Definition;
        _vm.Status = runs
            ? _vm.Status with { NeedsRestart = _vm.Status.NeedsRestart || differs }
            : _vm.Status with { Vcpus = redefine.Definition.Spec.Vcpus, MemoryMib = redefine.Definition.Spec.MemoryMib };
        if (differs) _parts.Journal.Append(_vm.Name, "redefined", runs ? "takes effect with its next start" : "");
        redefine.Done.TrySetResult(_vm.Status);
    }

    // ---- The rest.

    private void RefuseInState(TaskCompletionSource<VmStatus> done, string what) =>
        done.TrySetException(new FleetException(FleetFault.Conflict, $"{_vm.Name} is {Word(State)} and cannot be {what}"));

    private void Enter(VmState state, string kind, string detail)
    {
        _vm.Status = _vm.Status with { State = state, Since = _parts.Time.GetUtcNow() };
        _parts.Journal.Append(_vm.Name, kind, detail);
        _log.Info("{0} is {1} {2}", _vm.Name, Word(state), detail);
    }

    private void FailStarters(string why, FleetFault fault = FleetFault.Failed)
    {
        foreach (var waiter in _startWaiters) waiter.TrySetException(new FleetException(fault, $"{_vm.Name}: {why}"));
        _startWaiters.Clear();
    }

    private void Complete(List<TaskCompletionSource<VmStatus>> waiters)
    {
        foreach (var waiter in waiters) waiter.TrySetResult(_vm.Status);
        waiters.Clear();
    }

    /// <summary>A state as people and programs read it.</summary>
    public static string Word(VmState state) => state == VmState.BackingOff ? "backing-off" : state.ToString().ToLowerInvariant();

    /// <summary>Decides what a reset of the guest does; asked on the VM actor's thread.</summary>
    private sealed class ResetHandler(bool restarts) : IExitHandler
    {
        private volatile bool _stopping;

        public bool Stopping
        {
            get => _stopping;
            set => _stopping = value;
        }

        public StopVerdict OnStopping(StopReason reason) =>
            restarts && !_stopping && reason is StopReason.ResetI8042 or StopReason.ResetControl ? StopVerdict.Restart : StopVerdict.Stop;
    }

    private sealed record RunStarted(int Run, IVmHandle Handle, string Hypervisor);
    private sealed record RunRefused(int Run, Exception Cause);
    private sealed record RunEnded(int Run, VmOutcome Outcome);
    private sealed record ControlEnded(int Run, VmState Then, TaskCompletionSource<VmStatus> Done, Exception? Cause);
    private sealed record BackOffOver { public static readonly BackOffOver Instance = new(); }
    private sealed record SecondKey { public static readonly SecondKey Instance = new(); }
    private sealed record StopOverdue { public static readonly StopOverdue Instance = new(); }
}
