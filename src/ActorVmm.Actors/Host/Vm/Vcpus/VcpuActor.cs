using System.Numerics;
using System.Runtime.CompilerServices;
using Akka.Actor;
using Akka.Event;
using ActorVmm.Actors.Dispatch;
using ActorVmm.Actors.Host.Vm.Bus;
using ActorVmm.Actors.Host.Vm.Devices;
using ActorVmm.Hypervisor;

namespace ActorVmm.Actors.Host.Vm.Vcpus;

/// <summary>
/// <c>vcpus/{n}</c>: runs the guest in slices on its own thread. A slice ends when a message arrives, or when a device does not answer at
/// once: the vCPU then waits as an actor, not as a thread, so that pause, stop and inspection are served in the meantime.
/// </summary>
public sealed partial class VcpuActor : UntypedActor
{
    // Waiting for another thread that holds the device's mailbox: a few short spins cover a handler of a microsecond, yielding covers a
    // worker on the same core; anything longer is worth a message.
    private const int Spins = 40;
    private const int Yields = 20;

    private readonly VcpuSeat _seat;
    private readonly IVcpu _vcpu;
    private readonly IActorRef _self; // Self looks it up in the thread's context
    private readonly IActorRef _bus;
    private readonly VcpuExit _exit; // one for the life of the vCPU
    private readonly CallerRunsContext _context;
    private readonly VcpuLinks _links;
    private readonly VcpuDispatcher _dispatcher;
    private readonly ILoggingAdapter _log;
    private BusAccess _access;
    private ICancelable? _overdue;
    private bool _tokenOut;
    private bool _runAfterReply;
    private bool _ringFirst;
    private IActorRef? _settling;
    private long _exits;
    private long _parked;
    private long _overdueCount;
    private string _state = "paused";

    public static Props Props(VcpuSeat seat, VcpuLinks links) => Made.By(() => new VcpuActor(seat, links));

    public VcpuActor(VcpuSeat seat, VcpuLinks links)
    {
        ArgumentNullException.ThrowIfNull(seat);
        _seat = seat;
        _vcpu = seat.Vcpu;
        _self = Self;
        _bus = links.Bus;
        _exit = seat.Vcpu.Exit;
        _links = links;
        _log = Context.GetLogger();
        _dispatcher = ((ActorCell)Context).Dispatcher as VcpuDispatcher
            ?? throw new ActorInitializationException(Self, $"a vCPU needs the dispatcher {Settings.ActorSettings.VcpuDispatcher}");
        _context = _dispatcher.Context;
        _access = TakeSeat(seat);
        _context.Outstanding = () => !_access.IsDone;
        _context.IsExact = links.Exact;
        _dispatcher.Gate.Attach(_vcpu);
        links.Meters?.Attach(_vcpu.Id, this);
    }

    /// <inheritdoc/>
    protected override void PreStart()
    {
        NoteThread();
        if (!AwaitsReply) return;
        _state = "awaiting-reply";
        Become(AwaitingReply);
    }

    /// <inheritdoc/>
    protected override void PostStop()
    {
        _dispatcher.Gate.Attach(null);
        _overdue?.Cancel();
    }

    /// <inheritdoc/>
    protected override void OnReceive(object message) => Paused(message);

    /// <summary>
    /// Takes the vCPU over. Where the thread before this one was lost inside a device, its access is still owed an answer: it waits for
    /// <see cref="VcpuProtocol.AskAgain"/>, or for its deadline.
    /// </summary>
    private BusAccess TakeSeat(VcpuSeat seat)
    {
        var lost = seat.Access;
        var access = new BusAccess();
        _ringFirst = lost is not null && _vcpu.Id == 0; // the alarm may have been what the lost thread died of
        if (lost is { IsDone: false })
        {
            access.BeginAgain(lost);
            _ = access.TryPark(Self);
        }

        seat.Take(_dispatcher.Context, access);
        return access;
    }

    // ---- Behaviours: who may enter the guest, and when.

    private void Paused(object message)
    {
        switch (message)
        {
            case VcpuProtocol.Run: _tokenOut = false; break; // the right to run has been withdrawn meanwhile
            case VcpuProtocol.Resume: BecomeRunning(); break;
            case VcpuProtocol.Pause: Sender.Tell(new VcpuProtocol.Paused(_vcpu.Id)); break;
            default: Always(message); break;
        }
    }

    private void Running(object message)
    {
        switch (message)
        {
            case VcpuProtocol.Run: _tokenOut = false; if (_holds == 0) RunSlice(); break; // who ends the hold tells the token
            case VcpuProtocol.Resume: break;
            case VcpuProtocol.Pause: BecomePaused(); Sender.Tell(new VcpuProtocol.Paused(_vcpu.Id)); break;
            default: Always(message); break;
        }
    }

    private void AwaitingReply(object message)
    {
        switch (message)
        {
            case VcpuProtocol.Run: _tokenOut = false; break;
            case BusAccess.ReplyReady ready when ReferenceEquals(ready.Access, _access): OnReply(); break;
            case BusAccess.ReplyReady: break; // of an access that was given up
            case ReplyOverdue overdue when ReferenceEquals(overdue.Access, _access): OnOverdue(); break;
            case ReplyOverdue: break;
            case VcpuProtocol.AskAgain again when again.Device.Equals(_access.Target): AskAgain(); break;
            case VcpuProtocol.Settle: _settling = Sender; break; // what the answer leads to settles it
            case VcpuProtocol.Resume: ResumeWaiting(); break;
            case VcpuProtocol.Pause: PauseWaiting(); Sender.Tell(new VcpuProtocol.Paused(_vcpu.Id)); break;
            default: Always(message); break;
        }
    }

    /// <summary>The thread was lost in a device and came back: another one has the vCPU.</summary>
    private static void Abandoned(object message) { /* Not ours any more, whatever it is. */ }

    private void Always(object message)
    {
        switch (message)
        {
            case VcpuProtocol.Hold hold: OnHold(hold); break;
            case VcpuProtocol.Slow slow: OnSlow(slow); break;
            case HoldOver: OnHoldOver(); break;
            case SlowTurn turn: OnSlowTurn(turn); break;
            case VcpuProtocol.GetState: Sender.Tell(new VcpuProtocol.StateIs(_vcpu.Id, TakeState(), IsWaiting)); break;
            case VcpuProtocol.Settle: _settling = Sender; Settle(); break;
            case UnitProtocol.Inspect: Sender.Tell(new UnitProtocol.Inspected(Inspect())); break;
            case UnitProtocol.Reset: OnReset(); break;
            case UnitProtocol.Save: Sender.Tell(new UnitProtocol.Saved(Self.Path.Name, State: null)); break; // saved with its machine
            case UnitProtocol.Start or UnitProtocol.Stop or UnitProtocol.Restore: Sender.Tell(new UnitProtocol.Done(Self.Path.Name)); break;
            case BusAccess.ReplyReady or ReplyOverdue or VcpuProtocol.AskAgain: break; // late, or not for us
            default: Unhandled(message); break;
        }
    }

    // ---- One slice.

    // Optimized at once: a busy guest may stay in this loop for ever, and what the loop starts with is what it keeps.
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void RunSlice()
    {
        if (_ringFirst)
        {
            _ringFirst = false;
            if (!Ring()) return;
        }

        var (gate, run, vcpu) = (_dispatcher.Gate, _links.Run, _vcpu);
        while (!gate.HasMail)
        {
            if (run.Ending) { BecomePaused(); return; }
            if (!Handle(vcpu.Run())) return;
        }

        gate.EndSlice();
        TellToken();
    }

    /// <summary>False where the slice is over and somebody else will continue it.</summary>
    private bool Handle(VcpuExitKind kind) => kind is >= VcpuExitKind.PortRead and <= VcpuExitKind.MmioWrite
        ? Access(_exit, kind)
        : HandleOther(kind);

    private bool HandleOther(VcpuExitKind kind)
    {
        switch (kind)
        {
            case VcpuExitKind.Kicked: return true; // the gate says why, unless the cause has been served meanwhile
            case VcpuExitKind.Alarm: return Ring();
            case VcpuExitKind.Halted:
                // Nobody else can wake a vCPU that is alone. It waits here for the verdict: time that went on would be another in each run.
                if (_links.Alone) _links.Run.Ending = true;
                _links.Vm.Tell(new VcpuProtocol.Halted(_vcpu.Id), Self);
                return true;
            case VcpuExitKind.Shutdown: return End(StopReason.TripleFault, "");
            case VcpuExitKind.SystemEvent: return End(StopReason.Poweroff, _vcpu.Exit.Detail ?? "");
            case VcpuExitKind.Failed: return End(StopReason.Failed, _vcpu.Exit.Detail ?? "the hypervisor gives no cause");
            default: return End(StopReason.Failed, $"vCPU {_vcpu.Id}: the hypervisor returned from the guest without a reason ({kind})");
        }
    }

    private bool End(StopReason reason, string detail)
    {
        _links.Run.Ending = true;
        _links.Vm.Tell(new VcpuProtocol.Ended(_vcpu.Id, reason, detail), Self);
        BecomePaused();
        return false;
    }

    private bool Access(VcpuExit exit, VcpuExitKind kind)
    {
        _exits++;
        exit.Kind = kind;
        _access.Begin(exit);
        if ((_exits & ExitTelemetry.SampleMask) == 0 && ExitTelemetry.IsWatched) return SampledAccess(exit, kind);
        _context.BeginExit();
        _bus.Tell(_access, _self);
        if (_context.IsAbandoned) return BecomeAbandoned();
        if (_access.IsDone || WaitBriefly()) { Finish(exit); return true; }
        if (!_access.TryPark(Self)) { Finish(exit); return true; }
        BecomeAwaitingReply();
        return false;
    }

    private bool Ring()
    {
        _links.Alarms.Ring();
        return !_dispatcher.Context.IsAbandoned || BecomeAbandoned();
    }

    /// <summary>Always false: the slice is over for good.</summary>
    private bool BecomeAbandoned()
    {
        Become(Abandoned);
        return false;
    }

    private bool WaitBriefly()
    {
        for (var i = 0; i < Spins; i++)
        {
            Thread.SpinWait(10);
            if (_access.IsDone) return true;
        }

        for (var i = 0; i < Yields; i++)
        {
            Thread.Yield();
            if (_access.IsDone) return true;
        }

        return false;
    }

    private void Finish(VcpuExit exit)
    {
        if (!_access.IsWrite) exit.Data = _access.Data;
        if (_access.IsSpoiled) RenewAccess();
    }

    // ---- A device that does not answer at once.

    private void BecomeAwaitingReply()
    {
        _parked++;
        _runAfterReply = true;
        _state = "awaiting-reply";
        StartOverdue();
        Become(AwaitingReply);
    }

    private void OnReply()
    {
        _overdue?.Cancel();
        EndSample();
        Finish(_vcpu.Exit);
        Continue();
    }

    private void OnOverdue()
    {
        if (!_runAfterReply) return; // paused: the device may be waiting for an operator; the wait starts anew with the resume
        _overdueCount++;
        EndSample();
        if (BitOperations.IsPow2(_overdueCount))
            _log.Warning("no device answered {0} within {1}; it reads as all ones (so far {2})", _vcpu.Exit, _links.ReplyDeadline,
                _overdueCount);
        AnswerAllOnes();
    }

    private void Continue()
    {
        if (_runAfterReply)
        {
            BecomeRunning();
            return;
        }

        BecomePaused();
        Settle();
    }

    private void PauseWaiting()
    {
        _runAfterReply = false;
        _overdue?.Cancel();
    }

    private void ResumeWaiting()
    {
        if (_runAfterReply) return;
        _settling = null;
        _runAfterReply = true;
        StartOverdue();
    }

    private void StartOverdue()
    {
        _overdue?.Cancel();
        _overdue = Context.System.Scheduler.ScheduleTellOnceCancelable(_links.ReplyDeadline, Self, new ReplyOverdue(_access), Self);
    }

    /// <summary>The device may still answer this access, much later: it must not be used for another exit.</summary>
    private void GiveUpAccess()
    {
        _overdue?.Cancel();
        RenewAccess();
    }

    private void RenewAccess() => _seat.Access = _access = new BusAccess();

    /// <summary>
    /// The device that owes the answer was replaced. Once, the new one is asked; an access that has cost two devices reads as all ones.
    /// </summary>
    private void AskAgain()
    {
        var lost = _access;
        if (lost.IsDone) return; // the answer is on its way
        if (lost.Failures > 0)
        {
            _log.Warning("{0} has not come back twice; it reads as all ones", _vcpu.Exit);
            AnswerAllOnes();
            return;
        }

        RenewAccess();
        _access.BeginAgain(lost);
        _access.Failures++;
        _dispatcher.Context.BeginExit();
        _links.Bus.Tell(_access, Self);
        if (_dispatcher.Context.IsAbandoned) { BecomeAbandoned(); return; }
        if (!_access.IsDone && _access.TryPark(Self)) { if (_runAfterReply) StartOverdue(); }
        else OnReply();
    }

    private void AnswerAllOnes()
    {
        GiveUpAccess();
        if (_vcpu.Exit.Kind is VcpuExitKind.PortRead or VcpuExitKind.MmioRead) _vcpu.Exit.Data = BusAccess.AllOnes(_vcpu.Exit.Size);
        Continue();
    }

    private bool AwaitsReply => !_access.IsDone;

    /// <summary>A device has yet to answer, or has, and the word of it is still under way.</summary>
    private bool IsWaiting => string.Equals(_state, "awaiting-reply", StringComparison.Ordinal);

    // ---- The rest.

    private void BecomeRunning()
    {
        _state = "running";
        _settling = null;
        Become(Running);
        if (!_tokenOut && _holds == 0) TellToken();
    }

    private void BecomePaused()
    {
        _state = "paused";
        Become(Paused);
    }

    private void TellToken()
    {
        _tokenOut = true;
        Self.Tell(VcpuProtocol.Run.Token, Self);
    }

    /// <summary>
    /// The instruction that left the guest is finished first, and what it still has to say to devices is said: a state that is saved must
    /// owe nothing. Where a device does not answer at once, the answer to the question says so.
    /// </summary>
    private VcpuState TakeState()
    {
        CompletePending();
        return _vcpu.GetState();
    }

    private void CompletePending()
    {
        // The answer may be there already, and only the word of it not: the instruction must not be ended without it.
        if (IsWaiting) return;
        while (_vcpu.CompletePending() is var kind and not VcpuExitKind.None)
        {
            var paused = string.Equals(_state, "paused", StringComparison.Ordinal);
            if (Handle(kind)) continue;
            if (IsWaiting && paused) PauseWaiting();
            break;
        }
    }

    /// <summary>Answers whoever wants the vCPU settled; where a device has yet to answer, its answer leads here again.</summary>
    private void Settle()
    {
        if (_settling is not { } asker) return;
        CompletePending();
        if (IsWaiting) return;
        _settling = null;
        asker.Tell(new VcpuProtocol.Settled(_vcpu.Id));
    }

    private void OnReset()
    {
        if (AwaitsReply) GiveUpAccess();
        _settling = null;
        BecomePaused();
        Sender.Tell(new UnitProtocol.Done(Self.Path.Name));
    }

    private InspectNode Inspect() => new(Self.Path.Name, new SortedDictionary<string, string>(Registers(), StringComparer.Ordinal)
    {
        ["state"] = _state,
        ["exits"] = $"{_exits}",
        ["waits"] = $"{_parked}",
        ["overdue"] = $"{_overdueCount}",
        ["held"] = $"{_held}",
        ["rescued"] = $"{_seat.Rescues}",
        ["kicks"] = $"{_dispatcher.Gate.Kicks}",
        ["retired"] = $"{_vcpu.RetiredInstructions}",
        ["counters"] = _vcpu.Counters ?? "none",
        ["exit"] = $"{_vcpu.Exit}",
        ["mailbox"] = $"{((ActorCell)Context).NumberOfMessages}",
    });

    // ---- Faults of a plan: the vCPU stays out of the guest for a while.

    private int _holds;
    private long _held;

    private void OnHold(VcpuProtocol.Hold hold)
    {
        if (hold.Vcpu == _vcpu.Id) HoldFor(hold.For);
    }

    private void HoldFor(TimeSpan time)
    {
        _holds++;
        _held++;
        Context.System.Scheduler.ScheduleTellOnce(time, Self, HoldOver.Instance, ActorRefs.NoSender);
    }

    private void OnHoldOver()
    {
        if (--_holds == 0 && !_tokenOut && string.Equals(_state, "running", StringComparison.Ordinal)) TellToken();
    }

    private void OnSlow(VcpuProtocol.Slow slow)
    {
        if (slow.Vcpu != _vcpu.Id) return;
        OnSlowTurn(new SlowTurn(slow.Factor, (int)Math.Clamp(slow.For / s_slowTurn, 1, int.MaxValue)));
    }

    private void OnSlowTurn(SlowTurn turn)
    {
        if (turn.Left == 0) return;
        HoldFor(s_slowTurn * (1 - (1 / turn.Factor)));
        Context.System.Scheduler.ScheduleTellOnce(s_slowTurn, Self, turn with { Left = turn.Left - 1 }, ActorRefs.NoSender);
    }

    private static readonly TimeSpan s_slowTurn = TimeSpan.FromMilliseconds(20);

    private sealed record HoldOver { public static readonly HoldOver Instance = new(); }
    private sealed record SlowTurn(double Factor, int Left);
    private sealed record ReplyOverdue(BusAccess Access) : INotInfluenceReceiveTimeout;
}

/// <summary>What a vCPU needs of its VM.</summary>
/// <param name="Vm">Hears of halts and ends.</param>
/// <param name="Bus">Takes accesses.</param>
/// <param name="Alarms">Rung by vCPU 0.</param>
/// <param name="Run">Whether the guest may be entered.</param>
/// <param name="ReplyDeadline">The longest wait for a device.</param>
/// <param name="Meters">Where each vCPU can be found by whoever reads its counters; null where nobody does.</param>
/// <param name="Alone">True where the machine has one vCPU.</param>
/// <param name="Exact">True under virtual time: what happens is not to depend on the host's threads.</param>
public sealed record VcpuLinks(IActorRef Vm, IActorRef Bus, AlarmClock Alarms, RunFlag Run, TimeSpan ReplyDeadline,
    VmGauges? Meters = null, bool Alone = false, bool Exact = false);
