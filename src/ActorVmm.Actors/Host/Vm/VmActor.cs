using Akka.Actor;
using Akka.Event;
using Akka.Routing;
using ActorVmm.Actors.Host.Vm.Bus;
using ActorVmm.Actors.Host.Vm.Devices;
using ActorVmm.Actors.Host.Vm.Devices.Virtio;
using ActorVmm.Actors.Host.Vm.Events;
using ActorVmm.Actors.Host.Vm.Faults;
using ActorVmm.Actors.Host.Vm.Vcpus;
using ActorVmm.Actors.Settings;
using ActorVmm.Backends.Polling;
using ActorVmm.Devices.Faults;
using ActorVmm.Devices.Power;
using ActorVmm.Hypervisor;

namespace ActorVmm.Actors.Host.Vm;

/// <summary>
/// <c>/user/host/{vm}</c>: Building -> Starting -> Running &lt;-> Paused -> Stopping, with Quiescing and Restarting in between. It owns the
/// machine: whatever way it ends, <see cref="PostStop"/> runs after all its children have, and takes the machine down.
/// </summary>
internal sealed partial class VmActor : UntypedActor, IWithUnboundedStash, IWithTimers
{
    private const int ControlTicks = 10;

    private readonly VmRun _run;
    private readonly ActorSettings _settings;
    private readonly ILoggingAdapter _log = Context.GetLogger();
    private readonly RunFlag _flag = new();
    private readonly HashSet<int> _awaited = [];
    private string _restartReason = "";
    private readonly EventPoller _poller = new(EventsActor.StartThread);
    private VmParts? _parts;
    private AlarmClock? _alarms;
    private IActorRef _bus = ActorRefs.Nobody;
    private IActorRef _devices = ActorRefs.Nobody;
    private IActorRef _serial = ActorRefs.Nobody;
    private IActorRef _events = ActorRefs.Nobody;
    private IActorRef _vcpus = ActorRefs.Nobody;
    private Action _then = static () => { };
    private VmFaults? _faultHooks;
    private IActorRef _faults = ActorRefs.Nobody;
    private int _deviceCount;
    private int _lostThreads;
    private string? _attention;
    private int _starting;
    private ulong _retiredBefore;
    private StopReason _stopReason;
    private string _stopDetail = "";
    private string _state = "building";
    private Task _work = Task.CompletedTask;
    private TimeSpan _controlTick;
    private int _controlTicks;

    public static Props Props(VmRun run, ActorSettings settings) => Made.By(() => new VmActor(run, settings));

    public VmActor(VmRun run, ActorSettings settings)
    {
        _run = run;
        _settings = settings;
    }

    /// <inheritdoc/>
    public IStash Stash { get; set; } = null!;

    /// <inheritdoc/>
    public ITimerScheduler Timers { get; set; } = null!;

    /// <inheritdoc/>
    protected override void PreStart()
    {
        // Reading and unpacking a kernel takes its time; the actor answers meanwhile.
        _ = Task.Run(_run.Build).PipeTo(Self, Self, parts => new Built(parts), cause => new BuildFailed(cause));
    }

    /// <inheritdoc/>
    protected override void PostStop()
    {
        _run.Outcome = new VmOutcome(StopReason.Requested, "the host stopped", Retired());
        _faultHooks?.Dispose();
        _run.Gauges?.Close();
        _poller.Dispose();
        // Whoever still loads, saves or restores on a pool thread does so in the machine's memory: it is taken down when that is over.
        if (_work.IsCompleted) _parts?.Dispose();
        else _ = _work.ContinueWith(static (_, parts) => ((VmParts)parts!).Dispose(), _parts, TaskScheduler.Default);
        FailWaiters();
    }

    /// <summary>Work on the machine itself takes its time, so a pool thread does it; the actor answers meanwhile.</summary>
    private void WorkOnMachine(Func<object> work)
    {
        var task = Task.Run(work);
        _work = task;
        _ = task.PipeTo(Self, Self, static answer => answer, static cause => new WorkFailed(cause));
    }

    /// <inheritdoc/>
    protected override bool AroundReceive(Receive receive, object message)
    {
        try
        {
            return base.AroundReceive(receive, message);
        }
        catch (Exception cause)
        {
            // The host stops a VM that fails; the cause is for whoever waits for it.
            _flag.Ending = true;
            _run.Outcome = new VmOutcome(StopReason.Failed, $"the VM's actor failed: {cause.Message}", 0);
            throw;
        }
    }

    /// <inheritdoc/>
    protected override SupervisorStrategy SupervisorStrategy() =>
        new OneForOneStrategy(maxNrOfRetries: 0, withinTimeMilliseconds: 0, cause =>
    {
        _flag.Ending = true;
        Self.Tell(new UnitLost(Sender.Path.Name, cause));
        return Verdicts.OfUnit(cause);
    });

    /// <inheritdoc/>
    protected override void OnReceive(object message) => Building(message);

    // ---- Behaviours.

    private void Building(object message)
    {
        switch (message)
        {
            case Built built: OnBuilt(built.Parts); break;
            case BuildFailed failed: OnBuildFailed(failed.Cause); break;
            default: Interim(message); break;
        }
    }

    private void Starting(object message)
    {
        switch (message)
        {
            case DevicesProtocol.Ready ready: OnDevicesReady(ready.Devices); break;
            case Routees: OnBusReady(); break;
            case UnitProtocol.Done: OnUnitStarted(); break;
            case DevicesProtocol.GaveUp broken:
                BeginStop(StopReason.Failed, $"{broken.Device} cannot be made: {broken.Cause.GetBaseException().Message}");
                break;
            default: Interim(message); break;
        }
    }

    private void Running(object message)
    {
        switch (message)
        {
            case VmProtocol.Pause pause: Quiesce("pausing", () => BecomePaused(pause.Done)); break;
            case VmProtocol.Resume resume: resume.Done.TrySetResult(); break;
            case VmProtocol.Pulse pulse: OnPulse(pulse); break;
            case VmProtocol.Press press: _devices.Tell(new DevicesProtocol.Press(press.Key)); break;
            case VcpuProtocol.Halted halted: OnHalted(halted.Vcpu); break;
            default: Serving(message); break;
        }
    }

    private void Paused(object message)
    {
        switch (message)
        {
            case VmProtocol.Pause pause: pause.Done.TrySetResult(); break;
            case VmProtocol.Resume resume: OnResume(resume.Done); break;
            case VmProtocol.Pulse pulse: OnPulse(pulse); break;
            case VcpuProtocol.Halted: Stash.Stash(); break; // looked at when the guest goes on
            default: Serving(message); break;
        }
    }

    /// <summary>Waits until every vCPU is out of the guest; then <c>_then</c>.</summary>
    private void Quiescing(object message)
    {
        switch (message)
        {
            case VcpuProtocol.Paused paused:
                if (_awaited.Remove(paused.Vcpu) && _awaited.Count == 0) Proceed();
                break;
            case VcpuProtocol.StateIs state: OnStateWhileHaltCheck(state); break;
            case ControlOverdue:
                BeginStop(StopReason.Failed, $"vCPU {string.Join(", ", _awaited)} did not {_state} within {_settings.ControlDeadline}");
                break;
            default: Interim(message); break;
        }
    }

    private void Restarting(object message)
    {
        switch (message)
        {
            case UnitProtocol.Done done: OnUnitReset(done); break;
            case Reloaded: OnReloaded(); break;
            case WorkFailed failed: BeginStop(StopReason.Failed, $"the guest cannot be started again: {failed.Cause.Message}"); break;
            case ControlOverdue: BeginStop(StopReason.Failed, $"the machine was not reset within {_settings.ControlDeadline}"); break;
            default: Interim(message); break;
        }
    }

    private void Stopping(object message)
    {
        switch (message)
        {
            case Terminated gone: OnUnitGone(gone.ActorRef); break;
            case WorkOver: StopNext(); break;
            case ControlOverdue: Abandon(); break;
            case VmProtocol.Pause pause: pause.Done.TrySetException(Ended()); break;
            case VmProtocol.Inject inject: inject.Done.TrySetException(Ended()); break;
            case VmProtocol.Resume resume: resume.Done.TrySetException(Ended()); break;
            case VmProtocol.Pulse pulse: pulse.Done.TrySetException(Ended()); break;
            case UnitProtocol.Inspect: OnInspect(); break;
            default: break; // it is over
        }
    }

    /// <summary>Running or paused: what ends a run is heard.</summary>
    private void Serving(object message)
    {
        switch (message)
        {
            case VmProtocol.Stop: BeginStop(StopReason.Requested, "stopped on request"); break;
            case VmProtocol.PowerSignalled power: OnPower(power.Signal); break;
            case VmProtocol.Inject inject: OnInject(inject); break;
            case VmProtocol.Heal: _faultHooks!.Engine.Heal(); break;
            case VcpuProtocol.Hold or VcpuProtocol.Slow: _vcpus.Tell(message); break;
            case VcpuProtocol.Ended ended: BeginEnd(ended.Reason, ended.Detail); break;
            case VcpuProtocol.Lost lost: BeginStop(StopReason.Failed, $"vCPU {lost.Vcpu} failed: {lost.Cause.Message}"); break;
            case DevicesProtocol.GaveUp gaveUp: OnGaveUp(gaveUp); break;
            case DevicesProtocol.Hung or DevicesProtocol.Replaced or VcpuProtocol.Rescued: OnHang(message); break;
            case UnitLost lost: BeginStop(StopReason.Failed, $"{lost.Unit} failed: {lost.Cause.Message}"); break;
            case UnitProtocol.Inspect: OnInspect(); break;
            default: break; // an answer that came late (Paused of a vCPU that was paused twice)
        }
    }

    /// <summary>In between two states: inspection is served, losses are heard, everything else waits.</summary>
    private void Interim(object message)
    {
        switch (message)
        {
            case UnitProtocol.Inspect: OnInspect(); break;
            case VcpuProtocol.Lost lost: BeginStop(StopReason.Failed, $"vCPU {lost.Vcpu} failed: {lost.Cause.Message}"); break;
            case DevicesProtocol.Hung or DevicesProtocol.Replaced or VcpuProtocol.Rescued: OnHang(message); break;
            case UnitLost lost: BeginStop(StopReason.Failed, $"{lost.Unit} failed: {lost.Cause.Message}"); break;
            default: Stash.Stash(); break;
        }
    }

    // ---- Building and starting.

    private void OnBuilt(VmParts parts)
    {
        _run.Claim();
        _parts = parts;
        foreach (var note in parts.Notes) _log.Info("{0}", note);
        _alarms = new AlarmClock(parts.Machine.Clock);
        var time = new MachineTime(parts.Machine.Clock, parts.BootUnixNanoseconds);
        _faultHooks = new VmFaults(new FaultEngine(_run.Spec.Faults, time, new FaultTrace(_run.ExitHandler, _log)), parts.Machine);
        var target = new EffectTarget(parts.Machine, _run.Console, _flag, Self, _faultHooks.Engine);
        var made = new DeviceParts(parts.Machine, _alarms, target, _run.Console, parts.BootUnixNanoseconds)
        {
            Poller = _poller, Faults = _faultHooks, VmName = _run.Spec.Name,
        };
        IReadOnlyList<DeviceUnit> units;
        try
        {
            units = [.. DeviceRack.Standard(made), .. VirtioRack.Of(_run.Spec, made), .. _run.Devices.Select(device => device(made))];
            AddressTable.CheckDisjoint(units.SelectMany(unit => unit.Ranges.Select(range => (range, unit.Name))));
        }
        catch (Exception cause) // ranges that overlap, a disk that cannot be opened
        {
            made.Abandon();
            OnBuildFailed(cause);
            return;
        }

        _deviceCount = units.Count;
        var ports = new BusPorts(_run.ExitHandler, _log);
        _run.Gauges = new VmGauges(parts, made.Slots, ports);
        _bus = Context.ActorOf(new BusGroup(ports, Akka.Dispatch.Dispatchers.DefaultDispatcherId).Props(),
            BusGroup.ActorName);
        _faults = Context.ActorOf(
            FaultsActor.Props(_faultHooks, _alarms, target)
                .WithDispatcher(ActorSettings.CallerRunsDispatcher).WithMailbox(ActorSettings.ExitMailbox),
            "faults");
        _devices = Context.ActorOf(
            DevicesSupervisor.Props(units, _bus, _settings)
                .WithDispatcher(ActorSettings.CallerRunsDispatcher).WithMailbox(ActorSettings.ExitMailbox),
            "devices");
        _devices.Tell(UnitProtocol.Start.Instance);
        EnterState("starting", Starting);
    }

    private void OnBuildFailed(Exception cause)
    {
        _run.Outcome = new VmOutcome(StopReason.Failed, cause.Message, 0);
        _run.Started.TrySetException(cause);
        Context.Stop(Self);
    }

    private void OnDevicesReady(IReadOnlyDictionary<string, IActorRef> devices)
    {
        _serial = devices["serial0"];
        // Behind the devices' own entries: its answer says that the table is complete.
        Await(devices.Count, then: () => _bus.Tell(new GetRoutees()));
    }

    private void OnBusReady()
    {
        var links = new VcpuLinks(Self, _bus, _alarms!, _flag, _settings.ReplyDeadline, _run.Gauges,
            Alone: _parts!.Machine.Vcpus.Count == 1, Exact: _run.Spec.Clock == ClockMode.Virtual);
        _vcpus = Context.ActorOf(VcpusSupervisor.Props(_parts!.Machine.Vcpus, links, _settings.InspectDeadline), "vcpus");
        _events = Context.ActorOf(EventsActor.Props(_run.Console.Input, _serial, _poller), "events");
        Await(_parts.Machine.Vcpus.Count + 1, then: OnAllStarted);
        _vcpus.Tell(UnitProtocol.Start.Instance);
        _events.Tell(UnitProtocol.Start.Instance);
    }

    private void Await(int units, Action then)
    {
        _starting = units;
        _then = then;
    }

    private void OnUnitStarted()
    {
        if (--_starting == 0) Proceed();
    }

    private void OnAllStarted()
    {
        _log.Info("{0} runs: {1} MiB, {2} vCPU, {3}", _run.Spec.Name, _run.Spec.MemoryMib, _run.Spec.Vcpus, _run.Hypervisor.Name);
        if (_run.Spec.Clock == ClockMode.Virtual)
        {
            foreach (var net in _run.Spec.Nets.Where(static net => net.Backend.HasOutside))
                _log.Warning("network interface {0} leads outside of this process: what comes from there comes when it comes, and a run with it "
                    + "does not repeat", net.Id);
        }

        BecomeRunning();
        _run.Started.TrySetResult(new VmHandle(_run, Self));
    }

    // ---- Pause and resume.

    private void Quiesce(string state, Action then)
    {
        _awaited.Clear();
        foreach (var vcpu in _parts!.Machine.Vcpus) _awaited.Add(vcpu.Id);
        _then = then;
        StartDeadline();
        EnterState(state, Quiescing, unstash: false);
        _vcpus.Tell(VcpuProtocol.Pause.Instance);
    }

    private void Proceed()
    {
        StopDeadline();
        var then = _then;
        _then = static () => { };
        then();
    }

    private void BecomePaused(TaskCompletionSource? done)
    {
        _parts!.Machine.PauseClock();
        EnterState("paused", Paused);
        done?.TrySetResult();
    }

    private void OnResume(TaskCompletionSource done)
    {
        _parts!.Machine.ResumeClock();
        _attention = null;
        _devices.Tell(DevicesProtocol.Retry.Instance);
        BecomeRunning();
        done.TrySetResult();
    }

    private void BecomeRunning()
    {
        _vcpus.Tell(VcpuProtocol.Resume.Instance);
        EnterState("running", Running);
    }

    // ---- Every vCPU halted?

    private bool _someoneLives;

    /// <summary>
    /// One vCPU that halts with interrupts off may still be woken by another (INIT, NMI). It is the end where no other can: only with all
    /// of them out of the guest is that a fact and not a race.
    /// </summary>
    private void OnHalted(int vcpu)
    {
        if (_parts!.Machine.Vcpus.Count == 1) BeginEnd(StopReason.Halted, $"vCPU {vcpu} halted with interrupts off");
        else Quiesce("checking", AskActivities);
    }

    private void AskActivities()
    {
        _someoneLives = false;
        foreach (var vcpu in _parts!.Machine.Vcpus) _awaited.Add(vcpu.Id);
        StartDeadline();
        _vcpus.Tell(VcpuProtocol.GetState.Instance);
    }

    private void OnStateWhileHaltCheck(VcpuProtocol.StateIs answer)
    {
        if (!string.Equals(_state, "checking", StringComparison.Ordinal)) return;
        // All of them are waited for, although one that lives decides: an answer left over would meddle with the next check.
        if (!_awaited.Remove(answer.Vcpu)) return;
        _someoneLives |= answer.AwaitsReply || !IsDead(answer.State);
        if (_awaited.Count > 0) return;
        StopDeadline();
        if (_someoneLives) BecomeRunning();
        else BeginEnd(StopReason.Halted, "every vCPU halted with interrupts off");
    }

    private static bool IsDead(Hypervisor.VcpuState state)
    {
        const ulong InterruptFlag = 1 << 9; // RFLAGS.IF (Intel SDM Vol. 1 §3.4.3)
        return state.Activity switch
        {
            Hypervisor.VcpuActivity.WaitForInit => true,
            Hypervisor.VcpuActivity.Halted => (state.General.Rflags & InterruptFlag) == 0 && !state.Events.NmiPending,
            _ => false,
        };
    }

    // ---- The end of a run, and its verdict.

    private void OnPower(PowerEvent signal) => BeginEnd(signal switch
    {
        PowerEvent.Poweroff     => StopReason.Poweroff,
        PowerEvent.GuestPanic   => StopReason.GuestPanic,
        PowerEvent.ResetControl => StopReason.ResetControl,
        _                       => StopReason.ResetI8042,
    }, "");

    private void BeginEnd(StopReason reason, string detail)
    {
        _flag.Ending = true;
        if (reason == StopReason.Failed || Verdict(reason) == StopVerdict.Stop) BeginStop(reason, detail);
        else
        {
            _restartReason = new VmOutcome(reason, detail, 0).Text;
            Quiesce("restarting", BeginRestart);
        }
    }

    private StopVerdict Verdict(StopReason reason)
    {
        try
        {
            return _run.ExitHandler?.OnStopping(reason) ?? StopVerdict.Stop;
        }
        catch (Exception cause)
        {
            _log.Error(cause, "the exit handler failed in OnStopping({0}); the run ends", reason);
            return StopVerdict.Stop;
        }
    }

    private void BeginRestart()
    {
        _awaited.Clear();
        for (var i = 0; i < _deviceCount + _parts!.Machine.Vcpus.Count; i++) _awaited.Add(i);
        StartDeadline();
        EnterState("restarting", Restarting, unstash: false);
        _vcpus.Tell(UnitProtocol.Reset.Instance);
        _devices.Tell(DevicesProtocol.Retry.Instance); // one that waits for an operator starts anew like the rest
        _devices.Tell(UnitProtocol.Reset.Instance);
    }

    private void OnUnitReset(UnitProtocol.Done done)
    {
        if (done.Refusal is { } refusal) { BeginStop(StopReason.Failed, $"{done.Unit} cannot be reset: {refusal}"); return; }
        if (_awaited.Count > 0) _awaited.Remove(_awaited.Max());
        if (_awaited.Count > 0) return;

        _retiredBefore = Retired();
        _alarms!.Reset();
        StopDeadline(); // like the first start, reading and unpacking a kernel takes as long as a busy host makes it take
        var (machine, spec, loader) = (_parts!.Machine, _run.Spec, _run.Loader);
        WorkOnMachine(() =>
        {
            machine.Memory.Clear(); // the loader wants the zeroed RAM of a machine that was just switched on
            machine.Reset();
            loader.Load(spec, machine);
            return Reloaded.Instance;
        });
    }

    private void OnReloaded()
    {
        _log.Info("{0} starts again", _run.Spec.Name);
        Context.System.EventStream.Publish(new VmEvents.GuestRestarted(_run.Spec.Name, _restartReason));
        _flag.Ending = false;
        _faults.Tell(UnitProtocol.Reset.Instance, ActorRefs.NoSender);
        BecomeRunning();
    }

    private void OnGaveUp(DevicesProtocol.GaveUp gaveUp)
    {
        _attention = $"{gaveUp.Device} failed too often ({_settings.Supervision.Of(gaveUp.Device).OverLimit}): {gaveUp.Cause.Message}";
        switch (_settings.Supervision.Of(gaveUp.Device).OverLimit)
        {
            case OverLimitPolicy.Fail:
                BeginStop(StopReason.Failed, $"{gaveUp.Device} failed too often: {gaveUp.Cause.Message}");
                break;
            case OverLimitPolicy.Unplug:
                _log.Error("{0} is unplugged from {1}; the VM goes on", gaveUp.Device, _run.Spec.Name);
                break;
            default:
                _log.Error("{0} is paused because {1} failed too often ({2}); resume it to try again", _run.Spec.Name,
                    gaveUp.Device, gaveUp.Cause.Message);
                if (!string.Equals(_state, "paused", StringComparison.Ordinal)) Quiesce("pausing", () => BecomePaused(done: null));
                break;
        }
    }

    private void OnInject(VmProtocol.Inject inject)
    {
        _faultHooks!.Engine.Add(inject.Rule);
        _log.Info("{0}: a fault is injected: {1}", _run.Spec.Name, inject.Rule);
        inject.Done.TrySetResult();
    }

    // ---- A handler that never came back.

    private void OnHang(object message)
    {
        switch (message)
        {
            case DevicesProtocol.Hung hung: OnHung(hung); break;
            case VcpuProtocol.Rescued rescued: _log.Warning("vCPU {0} of {1} goes on with another thread", rescued.Vcpu, _run.Spec.Name); break;
            case DevicesProtocol.Replaced replaced: _vcpus.Tell(new VcpuProtocol.AskAgain(replaced.Old)); break;
            default: break;
        }
    }

    /// <summary>
    /// The thread inside cannot be ended. A device that only has registers is fenced off completely, so its VM goes on without that thread;
    /// one that may still write to guest memory or a backend must not get a second instance beside it, so its VM ends.
    /// </summary>
    private void OnHung(DevicesProtocol.Hung hung)
    {
        _lostThreads++;
        _attention = hung.Cause.Message;
        if (!hung.CanBeReplaced)
            BeginStop(StopReason.Failed, $"{hung.Cause.Message}; it may still write to guest memory or its backend");
        else if (_lostThreads > _settings.Supervision.MaxLostThreads)
            BeginStop(StopReason.Failed, $"{hung.Cause.Message}; {_lostThreads} threads are lost, which is too many");
        else
            _vcpus.Tell(new VcpuProtocol.Rescue(hung.Mailbox));
    }

    // ---- Teardown, in the reverse of the order in which things were made.

    private void BeginStop(StopReason reason, string detail)
    {
        _flag.Ending = true;
        _stopReason = reason;
        _stopDetail = detail;
        _faultHooks?.Dispose(); // what a plan made to hang is let go
        // A lost thread keeps its actor from ending: nobody waits for that as long as for one that may still come.
        StartDeadline(_lostThreads > 0 ? _settings.InspectDeadline : _settings.ControlDeadline);
        EnterState("stopping", Stopping);
        StopNext();
    }

    private void StopNext()
    {
        foreach (var unit in (IActorRef[])[_vcpus, _events, _faults, _devices, _bus])
        {
            if (unit.IsNobody()) continue;
            Context.Watch(unit);
            Context.Stop(unit);
            return;
        }

        if (!_work.IsCompleted)
        {
            // Its answer, one or the other, comes here again.
            _ = _work.ContinueWith(static _ => WorkOver.Instance, TaskScheduler.Default).PipeTo(Self);
            return;
        }

        StopDeadline();
        _run.Outcome = new VmOutcome(_stopReason, _stopDetail, Retired());
        Context.Stop(Self);
    }

    private void OnUnitGone(IActorRef unit)
    {
        if (unit.Equals(_vcpus)) _vcpus = ActorRefs.Nobody;
        else if (unit.Equals(_events)) _events = ActorRefs.Nobody;
        else if (unit.Equals(_faults)) _faults = ActorRefs.Nobody;
        else if (unit.Equals(_devices)) _devices = ActorRefs.Nobody;
        else if (unit.Equals(_bus)) _bus = ActorRefs.Nobody;
        StopNext();
    }

    /// <summary>A vCPU does not come out of the guest. Its machine cannot be taken down under it: it is left, and said so.</summary>
    private void Abandon()
    {
        if (_lostThreads > 0)
        {
            // The end is what it is; only what a lost thread may still touch has to stay.
            _log.Warning("{0} ends with {1} threads inside hung devices; its memory is kept", _run.Spec.Name, _lostThreads);
            _run.Outcome = new VmOutcome(_stopReason, _stopDetail, Retired());
            Context.Parent.Tell(HostProtocol.Abandoned.Instance);
            return;
        }

        _run.Outcome = new VmOutcome(
            StopReason.Failed, $"a unit of {_run.Spec.Name} did not stop within {_settings.ControlDeadline}; its memory is kept",
            _retiredBefore);
        _log.Error(_run.Outcome!.Detail);
        Context.Parent.Tell(HostProtocol.Abandoned.Instance);
    }

    private ulong Retired() => _parts is { } parts
        ? parts.Machine.Vcpus.Aggregate(_retiredBefore, (sum, vcpu) => sum + vcpu.RetiredInstructions)
        : 0;

    private InvalidOperationException Ended() => new($"{_run.Spec.Name} has ended: {_run.Outcome?.Text ?? "it is being stopped"}");

    private void FailWaiters()
    {
        // Whoever asked for a pause or a resume that will never come.
        foreach (var stashed in Stash.ClearStash())
        {
            if (stashed.Message is VmProtocol.Pause pause) pause.Done.TrySetException(Ended());
            if (stashed.Message is VmProtocol.Inject inject) inject.Done.TrySetException(Ended());
            if (stashed.Message is VmProtocol.Resume resume) resume.Done.TrySetException(Ended());
            if (stashed.Message is VmProtocol.Pulse pulse) pulse.Done.TrySetException(Ended());
        }

        _pulse?.Done.TrySetException(Ended());
    }

    // ---- The rest.

    private void EnterState(string state, Receive behaviour, bool unstash = true)
    {
        _log.Debug("{0}: {1} -> {2}", _run.Spec.Name, _state, state);
        if (!string.Equals(_state, state, StringComparison.Ordinal))
            Context.System.EventStream.Publish(new VmEvents.StateChanged(_run.Spec.Name, state, _attention ?? "", _run.Completion));
        _state = state;
        Become(behaviour);
        if (unstash) Stash.UnstashAll();
    }

    private void EnterState(string state, Action<object> behaviour, bool unstash = true) => EnterState(state, message =>
    {
        if (message is ControlTick) OnControlTick(behaviour);
        else behaviour(message);
        return true;
    }, unstash);

    /// <summary>A deadline passes in pieces: a process that was stopped for a while finds one of them over, and not the deadline.</summary>
    private void StartDeadline(TimeSpan? deadline = null)
    {
        _controlTicks = ControlTicks;
        _controlTick = (deadline ?? _settings.ControlDeadline) / ControlTicks;
        Timers.StartSingleTimer("control", ControlTick.Instance, _controlTick);
    }

    private void OnControlTick(Action<object> behaviour)
    {
        if (--_controlTicks == 0) behaviour(ControlOverdue.Instance);
        else Timers.StartSingleTimer("control", ControlTick.Instance, _controlTick);
    }

    private void StopDeadline() => Timers.Cancel("control");

    private void OnInspect()
    {
        var units = ((IActorRef[])[_bus, _devices, _vcpus, _events, _faults]).Where(unit => !unit.IsNobody());
        var values = new SortedDictionary<string, string>(StringComparer.Ordinal)
        {
            ["state"] = _state,
            ["attention"] = _attention ?? "none",
            ["hypervisor"] = _run.Hypervisor.Name,
            ["memory-mib"] = $"{_run.Spec.MemoryMib}",
            ["clock-ns"] = $"{_parts?.Machine.Clock.Nanoseconds ?? 0}",
        };
        // A supervisor gathers its children within the deadline, so it gets twice that itself.
        _ = Inspection.GatherAsync(_run.Spec.Name, units, 2 * _settings.InspectDeadline, values).PipeTo(Sender, Self);
    }

    private sealed record Built(VmParts Parts);
    private sealed record BuildFailed(Exception Cause);
    private sealed record WorkFailed(Exception Cause);
    private sealed record WorkOver { public static readonly WorkOver Instance = new(); }
    private sealed record Reloaded { public static readonly Reloaded Instance = new(); }
    private sealed record UnitLost(string Unit, Exception Cause);
    private sealed record ControlOverdue { public static readonly ControlOverdue Instance = new(); }
    private sealed record ControlTick { public static readonly ControlTick Instance = new(); }
}
