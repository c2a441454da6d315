using System.Numerics;
using Akka.Actor;
using Akka.Event;
using ActorVmm.Actors.Dispatch;
using ActorVmm.Actors.Host.Vm.Bus;
using ActorVmm.Actors.Host.Vm.Faults;
using ActorVmm.Devices;
using ActorVmm.Devices.Faults;

namespace ActorVmm.Actors.Host.Vm.Devices;

/// <summary>
/// The actor shell that every device shares. It guarantees that each access is answered whatever the device does, stores the checkpoint
/// after each message that succeeded and only then lets its effects out, and resumes from the checkpoint after a failure: the failed access
/// is tried once more by the fresh device, so that the guest sees nothing.
/// </summary>
/// <typeparam name="TState">The device's guest-visible state.</typeparam>
public abstract class DeviceActor<TState> : UntypedActor
{
    private readonly DeviceSlot _slot;
    private readonly EffectBuffer _effects;
    private readonly Turn _turn;
    private readonly IBusDevice _device;
    private readonly IDeviceState<TState> _state;
    private readonly ITimedDevice? _timed;
    private readonly Checkpoint<TState> _checkpoint;

    /// <param name="slot">What outlives this actor.</param>
    /// <param name="checkpoint">The state that outlives this actor.</param>
    /// <param name="device">A fresh device: it takes over the checkpoint.</param>
    protected DeviceActor(DeviceSlot slot, Checkpoint<TState> checkpoint, IBusDevice device)
    {
        ArgumentNullException.ThrowIfNull(slot);
        ArgumentNullException.ThrowIfNull(checkpoint);
        _slot = slot;
        _effects = slot.Effects;
        _turn = slot.Turn;
        _device = device;
        _state = (IDeviceState<TState>)device;
        _timed = device as ITimedDevice;
        _checkpoint = checkpoint;
        Log = Context.GetLogger();

        if (slot.Stored is null) _effects.Discard();
        if (checkpoint.Exists) _state.State = checkpoint.Last;
    }

    /// <summary>What outlives this actor.</summary>
    protected DeviceSlot Slot => _slot;

    /// <summary>The log of this device.</summary>
    protected ILoggingAdapter Log { get; }

    /// <inheritdoc/>
    protected override void PreStart()
    {
        Slot.Attach(Self, ((ActorCell)Context).Mailbox!);
        Settle();
    }

    /// <summary>The children of a device, if it has any, live on; nothing else of the failed instance is used again.</summary>
    protected override void PreRestart(Exception reason, object message) { }

    /// <inheritdoc/>
    protected override void PostRestart(Exception reason)
    {
        // The ring of an alarm that the failure swallowed does not come again by itself.
        Slot.AlarmSpent();
        Settle();
        AnswerStored();
        Slot.CountRestart();
        if (Slot.Owed is not null) Self.Tell(Redeliver.Instance, Self);
    }

    /// <inheritdoc/>
    protected override void PostStop()
    {
        if (_turn.IsFenced) return; // the slot is another's
        Slot.SetDeadline(null);
        while (Slot.Stalled?.TryDequeue(out var waiting) == true) (waiting.Message as ISyncExit)?.Undeliverable();
        while (Slot.Frozen?.TryDequeue(out var waiting) == true) (waiting.Message as ISyncExit)?.Undeliverable();
        AnswerStored();
        // Stopped for good: what is still owed is answered as an empty slot would.
        Slot.Owed?.CompleteOpenBus(AccessOutcome.Faulted);
        Slot.Owed = null;
    }

    /// <inheritdoc/>
    protected override bool AroundReceive(Receive receive, object message)
    {
        var faults = FaultHooks.Compiled ? _slot.Faults : null;
        if (faults is not null && Stalls(faults, receive, message)) return true;
        if (_slot.Frozen is { } frozen && !_turn.IsFenced && !PassesFrozen(message))
        {
            frozen.Enqueue((message, Sender));
            return true;
        }

        if (_slot.Owed is not null && !_turn.IsFenced) RepayFirst(receive, message);
        return message is Redeliver || (faults is null ? Handle<NoHooks>(receive, message) : Handle<Hooks>(receive, message));
    }

    /// <inheritdoc/>
    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case AlarmRang: OnAlarm(); break;
            case BackendOverdue overdue: throw overdue.Cause; // a failure like another: the next instance begins what is under way again
            case DevicesProtocol.Freeze: Slot.Frozen ??= new Queue<(object Message, IActorRef Sender)>(); break;
            case DevicesProtocol.Thaw: OnThaw(); break;
            case UnitProtocol.Start or UnitProtocol.Stop: Sender.Tell(new UnitProtocol.Done(Slot.Name)); break;
            case UnitProtocol.Reset: OnReset(); break;
            case UnitProtocol.Save: Sender.Tell(new UnitProtocol.Saved(Slot.Name, _checkpoint.Last)); break;
            case UnitProtocol.Restore restore: OnRestore(restore); break;
            case UnitProtocol.Inspect: Sender.Tell(new UnitProtocol.Inspected(Inspect())); break;
            default: Unhandled(message); break;
        }
    }

    /// <summary>Called instead of everything else where a fault swallowed the message.</summary>
    protected virtual void NeverArrived(object message) { }

    /// <summary>Called after a message was handled and before its checkpoint is stored: what the device does of its own accord.</summary>
    protected virtual void AfterMessage() { }

    /// <summary>Called when the effects of a message have left.</summary>
    protected virtual void AfterEffects() { }

    /// <summary>Adds what is worth seeing about this device.</summary>
    protected virtual void Describe(IDictionary<string, string> values) { }

    private ulong OnAccess(BusAccess access)
    {
        if (!access.IsWrite) return _device.Read(access.Offset, access.Size);
        _device.Write(access.Offset, access.Size, access.Data);
        return 0;
    }

    private void OnAlarm()
    {
        Slot.AlarmSpent();
        _timed?.Advance(Slot.Clock.Nanoseconds);
    }

    private void OnReset()
    {
        _device.Reset();
        Sender.Tell(new UnitProtocol.Done(Slot.Name));
    }

    private void OnRestore(UnitProtocol.Restore restore)
    {
        if (restore.State is TState state)
        {
            _state.State = state;
            Sender.Tell(new UnitProtocol.Done(Slot.Name));
            return;
        }

        Sender.Tell(new UnitProtocol.Done(Slot.Name,
            $"a {restore.State?.GetType().Name ?? "missing state"} is not the state of {Slot.Name}"));
    }

    // ---- Between being saved and being restored.

    /// <summary>True between <see cref="DevicesProtocol.Freeze"/> and <see cref="DevicesProtocol.Thaw"/>: nothing is taken from outside.</summary>
    protected bool IsFrozen => _slot.Frozen is not null;

    private static bool PassesFrozen(object message) => message is DevicesProtocol.Freeze or DevicesProtocol.Thaw or BackendOverdue or Redeliver
        || message.GetType().DeclaringType == typeof(UnitProtocol);

    private void OnThaw()
    {
        var waiting = Slot.Frozen;
        Slot.Frozen = null;
        while (waiting?.TryDequeue(out var next) == true) Self.Tell(next.Message, next.Sender);
    }

    private InspectNode Inspect()
    {
        var values = new SortedDictionary<string, string>(StringComparer.Ordinal)
        {
            ["state"] = $"{_checkpoint.Last}",
            ["handled"] = $"{Slot.Handled}",
            ["failures"] = $"{Slot.Failures}",
            ["restarts"] = $"{Slot.Restarts}",
            ["restart-pause"] = $"{Slot.Pauses}",
            ["last-error"] = Slot.LastError ?? "none",
            ["mailbox"] = $"{((ActorCell)Context).NumberOfMessages}",
        };
        Describe(values);
        return new InspectNode(Slot.Name, values);
    }

    /// <summary>The access that a failure left behind goes before <paramref name="next"/>.</summary>
    private void RepayFirst(Receive receive, object next)
    {
        var owed = Slot.Owed!;
        Slot.Owed = null;
        try
        {
            if (FaultHooks.Compiled && _slot.Faults is not null) Handle<Hooks>(receive, owed);
            else Handle<NoHooks>(receive, owed);
        }
        catch
        {
            // The failure must reach the supervisor; the message at hand has not been tried, and waits for the next instance.
            if (next is not Redeliver) Self.Tell(next, Sender);
            throw;
        }
    }

    /// <summary>
    /// One message. Where no plan concerns the device the hooks are not in the machine code at all: what they keep across the handler would
    /// cost each exit more than asking for them does.
    /// </summary>
    private bool Handle<THooks>(Receive receive, object message) where THooks : struct, IHooks
    {
        var access = message as BusAccess;
        ulong answer = 0; // leaves last, after the effects
        if (_turn.IsFenced) return true;
        var faults = THooks.Are && _slot.Faults is { } armed && HandlerFaults.Concerns(message) ? armed : null;
        var stored = false;
        _turn.Enter();
        try
        {
            // Accesses are not part of any behaviour: they go to the device without the way through OnReceive.
            if (faults?.Enter(message) == false) NeverArrived(message);
            else if (access is not null) answer = OnAccess(access);
            else if (!base.AroundReceive(receive, message)) { _ = _turn.TryLeave(); _turn.End(); return false; }
            faults?.At(FaultPoints.Handled, message);
            // From here on nothing may wait: whoever watches takes this instance for alive.
            if (!_turn.TryLeave()) return true; // it came back too late: another instance has its place, and nothing of this leaves
            AfterMessage();
            _checkpoint.Store(_state);
            if (faults is not null)
            {
                stored = true;
                faults.At(FaultPoints.Stored, message);
                LetEffectsOut();
                faults.At(FaultPoints.EffectsOut, message);
            }
        }
        catch (Exception cause)
        {
            if (Turn.IsInside(_turn.Sample) && !_turn.TryLeave()) return true;
            Slot.CountFailure();
            Slot.LastError = $"{cause.GetType().Name}: {cause.Message}";
            if (stored) KeepStored(access, answer);
            else
            {
                _effects.Discard();
                if (access is not null) Failed(access);
            }

            _turn.End();
            throw;
        }

        LetEffectsOut();
        _slot.CountHandled();
        _turn.End();
        if (access is null) return true;
        access.CountUse();
        // A failure after the answer would be charged to the vCPU's next access, so nothing may follow it.
        access.Complete(answer);
        return true;
    }

    /// <summary>A failure after the checkpoint loses nothing: what is stored has happened, and its effects and answer follow.</summary>
    private void KeepStored(BusAccess? access, ulong answer)
    {
        _slot.Stored = (access, answer);
        AfterEffects(); // what the device took from outside is in the checkpoint
    }

    private void AnswerStored()
    {
        if (_slot.Stored is not var (access, answer)) return;
        _slot.Stored = null;
        access?.CountUse();
        access?.Complete(answer);
    }

    /// <summary>
    /// True where the mailbox stands still: the message waits in its place. Who waits for an answer does so as an actor, so a vCPU stays
    /// controllable; and it is told as an answer that comes late, by the clock of the host.
    /// </summary>
    private bool Stalls(HandlerFaults faults, Receive receive, object message)
    {
        if (message is StallOver)
        {
            var waiting = Slot.Stalled;
            Slot.Stalled = null;
            // Told again in their order: each is a message of its own, which may fail by itself.
            while (waiting?.TryDequeue(out var next) == true) Self.Tell(next.Message, next.Sender);
            return true;
        }

        if (!HandlerFaults.Concerns(message)) return false;
        if (Slot.Stalled is { } queue)
        {
            queue.Enqueue((message, Sender));
            return true;
        }

        if (faults.Stall(message) is not { } time) return false;
        Slot.Stalled = new Queue<(object Message, IActorRef Sender)>([(message, Sender)]);
        Context.System.Scheduler.ScheduleTellOnce(time, Self, StallOver.Instance, ActorRefs.NoSender);
        return true;
    }

    private void Failed(BusAccess access)
    {
        access.Failures++;
        if (access.Failures == 1)
        {
            Slot.Owed = access;
            return;
        }

        Log.Warning("{0} failed twice on the same access to offset 0x{1:x}; it reads as all ones", Slot.Name, access.Offset);
        access.CompleteOpenBus(AccessOutcome.Faulted);
    }

    private void Settle()
    {
        _checkpoint.Store(_state);
        LetEffectsOut();
    }

    private void LetEffectsOut()
    {
        if (_effects.Any && !_effects.Commit()) ReportEffectFailure();
        AfterEffects();
        if (_timed is not null) Slot.SetDeadline(_timed.Deadline);
    }

    private void ReportEffectFailure()
    {
        Slot.LastError = $"effect: {_effects.LastFailure!.Message}";
        // A console that is gone fails for every byte: the log hears of the 1st, 2nd, 4th, 8th, ...
        if (BitOperations.IsPow2(_effects.FailureCount))
            Log.Warning("an effect of {0} failed (so far {1}): {2}", Slot.Name, _effects.FailureCount, _effects.LastFailure.Message);
    }

    /// <summary>Whether a plan may concern the device; known when the code is compiled.</summary>
    private interface IHooks { static abstract bool Are { get; } }

    private readonly struct NoHooks : IHooks { public static bool Are => false; }

    private readonly struct Hooks : IHooks { public static bool Are => true; }

    /// <summary>A mailbox that stood still is served again.</summary>
    private sealed record StallOver { public static readonly StallOver Instance = new(); }

    /// <summary>Nudges a restarted device to handle what is owed although nobody else tells it anything.</summary>
    private sealed class Redeliver : ISyncExit
    {
        public static readonly Redeliver Instance = new();

        public void Undeliverable() { /* PostStop answers what is owed. */ }
    }
}

/// <summary>Told by the watchdog: the backend has not answered for too long.</summary>
/// <param name="Cause">What was seen.</param>
internal sealed record BackendOverdue(DeviceHungException Cause);
