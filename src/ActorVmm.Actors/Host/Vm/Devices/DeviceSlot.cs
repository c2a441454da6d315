using Akka.Actor;
using ActorVmm.Actors.Dispatch;
using ActorVmm.Actors.Host.Vm.Bus;
using ActorVmm.Actors.Host.Vm.Faults;
using ActorVmm.Devices;
using ActorVmm.Hypervisor;

namespace ActorVmm.Actors.Host.Vm.Devices;

/// <summary>What the guest can see of a device, as of the last message that succeeded. Outlives the actor.</summary>
/// <typeparam name="TState">The device's state, a value.</typeparam>
public sealed class Checkpoint<TState>
{
    private TState _last = default!;

    /// <summary>False until the first device was built: it then is at power-on.</summary>
    public bool Exists { get; private set; }

    /// <summary>The state to resume from.</summary>
    public TState Last => _last;

    /// <summary>Takes the state after a successful message: one copy, from the device straight into its place.</summary>
    public void Store(IDeviceState<TState> device)
    {
        ArgumentNullException.ThrowIfNull(device);
        device.CopyState(ref _last);
        Exists = true;
    }
}

/// <summary>
/// What stays in place while a device's actor is restarted: its effects on their way out, the access it still owes an answer, its counters,
/// and its place in the alarm clock. Touched only by the actor, except where a member says otherwise.
/// </summary>
public sealed class DeviceSlot
{
    private readonly AlarmClock _alarms;
    private readonly int _alarm;
    private ulong _deadline = ulong.MaxValue;
    private HandlerFaults? _faults;
    private long _handled;
    private long _failures;
    private long _restarts;

    /// <param name="name">The device's actor name.</param>
    /// <param name="effects">Where its effects leave.</param>
    /// <param name="alarms">The machine's alarm clock.</param>
    public DeviceSlot(string name, EffectBuffer effects, AlarmClock alarms)
    {
        ArgumentNullException.ThrowIfNull(alarms);
        Name = name;
        Effects = effects;
        _alarms = alarms;
        _alarm = alarms.Register();
    }

    public string Name { get; }

    /// <summary>Where the device's ports lead; effects leave when the checkpoint is stored.</summary>
    public EffectBuffer Effects { get; private set; }

    /// <summary>The turn of the instance that has the slot. Any thread.</summary>
    internal Turn Turn { get; private set; } = new();

    /// <summary>The mailbox of the actor that has the slot. Any thread.</summary>
    internal Akka.Dispatch.Mailbox? Mailbox { get; private set; }

    /// <summary>Machine time.</summary>
    public IMachineClock Clock => _alarms.Clock;

    /// <summary>The device's backend, for the watchdog; null where it has none that could hang.</summary>
    public IBackendProgress? Backend { get; set; }

    /// <summary>What the device has done for its guest, besides answering accesses. Any thread may ask.</summary>
    internal Func<DeviceWork>? Work { get; set; }

    /// <summary>Faults of the device's actor; null unless a plan has rules for it.</summary>
    internal HandlerFaults? Faults
    {
        get => Volatile.Read(ref _faults);
        set => Volatile.Write(ref _faults, value);
    }

    /// <summary>
    /// An access whose checkpoint was stored when the instance failed, and its answer: its effects leave and it is answered with the next
    /// instance; it is not tried again.
    /// </summary>
    internal (BusAccess? Access, ulong Answer)? Stored { get; set; }

    /// <summary>Messages that wait while the mailbox stands still; null where it does not.</summary>
    internal Queue<(object Message, IActorRef Sender)>? Stalled { get; set; }

    /// <summary>Messages that wait while the device is frozen; null where it is not.</summary>
    internal Queue<(object Message, IActorRef Sender)>? Frozen { get; set; }

    /// <summary>An access that failed once: it is the first message that the restarted device handles.</summary>
    internal BusAccess? Owed { get; set; }

    /// <summary>The last failure, for people. Any thread.</summary>
    public string? LastError { get; internal set; }

    /// <summary>Messages handled. Any thread.</summary>
    public long Handled => Volatile.Read(ref _handled);

    /// <summary>Exceptions that left a handler. Any thread.</summary>
    public long Failures => Volatile.Read(ref _failures);

    /// <summary>Restarts. Any thread.</summary>
    public long Restarts => Volatile.Read(ref _restarts);

    /// <summary>How long the device was away, each time.</summary>
    internal RestartPauses Pauses { get; } = new();

    internal void CountHandled() => Volatile.Write(ref _handled, _handled + 1);

    internal void CountFailure()
    {
        Interlocked.Increment(ref _failures);
        Pauses.Failed();
    }

    internal void CountRestart()
    {
        Interlocked.Increment(ref _restarts);
        Pauses.Restarted();
    }

    /// <summary>Names the actor that the alarm clock wakes.</summary>
    internal void Attach(IActorRef device, Akka.Dispatch.Mailbox mailbox)
    {
        Mailbox = mailbox;
        _alarms.Attach(_alarm, device);
    }

    /// <summary>
    /// The instance that had the slot is fenced, and may still hold what it was given: the next one gets its own. What the old one has not
    /// stored, and has not let out, never was.
    /// </summary>
    internal void Renew()
    {
        Effects = Effects.Successor();
        Turn = new Turn();
        Owed = null; // the vCPU asks again by itself
        _deadline = ulong.MaxValue;
    }

    /// <summary>Asks to be woken at <paramref name="deadline"/>. Free where it has not changed.</summary>
    internal void SetDeadline(ulong? deadline)
    {
        var at = deadline ?? ulong.MaxValue;
        if (at != _deadline) MoveDeadline(at);
    }

    private void MoveDeadline(ulong at)
    {
        _deadline = at;
        _alarms.Set(_alarm, at);
    }

    /// <summary>The alarm rang and is spent.</summary>
    internal void AlarmSpent() => _deadline = ulong.MaxValue;
}
