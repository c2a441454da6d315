using ActorVmm.Actors.Host.Vm.Devices;
using ActorVmm.Devices.Faults;
using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Block;
using ActorVmm.Devices.Virtio.Net;
using ActorVmm.Devices.Virtio.Rng;
using ActorVmm.Hypervisor;

namespace ActorVmm.Actors.Host.Vm.Faults;

/// <summary>
/// The faults of one VM as its units see them: the engine, timers in machine time, and the end at which everything that was made to hang is
/// let go. Outlives the actors.
/// </summary>
public sealed class VmFaults : IDisposable
{
    private readonly Lock _lock = new();
    private readonly PriorityQueue<Action, (ulong At, ulong Order)> _due = new();
    private readonly ManualResetEventSlim _ended = new();
    private readonly Dictionary<string, HandlerFaults> _handlers = new(StringComparer.Ordinal);
    private Action _rearm = static () => { };
    private ulong _order;

    /// <param name="engine">The plan at work.</param>
    /// <param name="machine">What machine faults are done to.</param>
    public VmFaults(FaultEngine engine, IMachine machine)
    {
        Engine = engine;
        Machine = machine;
    }

    public FaultEngine Engine { get; }

    public IMachine Machine { get; }

    /// <summary>Packet ports whose cable can be pulled, by device.</summary>
    public Dictionary<string, Action<bool>> Links { get; } = new(StringComparer.Ordinal);

    /// <summary>The earliest machine time that anything is to be done at.</summary>
    internal ulong Deadline
    {
        get { lock (_lock) return _due.TryPeek(out _, out var first) ? first.At : ulong.MaxValue; }
    }

    /// <summary>Puts the device's faults between its effects and their target, once there is a rule for them.</summary>
    internal void Attach(DeviceSlot slot)
    {
        var interrupts = Engine.Site(FaultFamily.Interrupt, slot.Name);
        var console = Engine.Site(FaultFamily.Console, slot.Name);
        interrupts.OnArmed(() => slot.Effects.Wrap(target => target as FaultyTarget ?? new FaultyTarget(target, this, interrupts, console)));
        console.OnArmed(() => slot.Effects.Wrap(target => target as FaultyTarget ?? new FaultyTarget(target, this, interrupts, console)));
        var handler = Engine.Site(FaultFamily.Handler, slot.Name);
        var mailbox = Engine.Site(FaultFamily.Mailbox, slot.Name);
        var both = new HandlerFaults(handler, mailbox, this);
        _handlers[slot.Name] = both;
        handler.OnArmed(() => slot.Faults = both);
        mailbox.OnArmed(() => slot.Faults = both);
    }

    /// <summary>Crash points of a virtio device's requests, once there is a rule for them; its slot is attached already.</summary>
    internal void Attach(string device, VirtioLedger ledger)
    {
        var handler = _handlers[device];
        handler.Repeats = () => ledger.IsRepeating;
        Engine.Site(FaultFamily.Handler, device).OnArmed(() => ledger.CrashHook = new QueueFaults(handler));
    }

    /// <summary>A disk with the plan's faults before it.</summary>
    public FaultyDisk Wrap(string device, IDisk disk) => new FaultyDisk(disk, Engine.Site(FaultFamily.Disk, device), At);

    /// <summary>A network's outside with the plan's faults before it.</summary>
    public IPacketPort Wrap(string device, IPacketPort port)
    {
        var faulty = new FaultyPackets(port, Engine.Site(FaultFamily.Packets, device), At);
        Links[device] = faulty.SetLink;
        Engine.Healed += () => faulty.SetLink(up: true);
        return faulty;
    }

    /// <summary>A source of entropy with the plan's faults before it.</summary>
    public IEntropySource Wrap(string device, IEntropySource source) => new FaultyEntropy(source, Engine.Site(FaultFamily.Entropy, device));

    /// <summary>Calls <paramref name="action"/> on vCPU 0's thread at a machine time; under virtual time at exactly that one. Any thread.</summary>
    public void At(ulong nanoseconds, Action action)
    {
        lock (_lock) _due.Enqueue(action, (nanoseconds, _order++));
        _rearm();
    }

    /// <summary>Waits in host time; false where the VM ends first.</summary>
    public bool Wait(TimeSpan time) => !_ended.Wait(time);

    /// <summary>Waits until the VM ends.</summary>
    public void WaitForEnd() => _ended.Wait(Timeout.InfiniteTimeSpan);

    /// <summary>The VM ends: nobody waits any longer, nothing is due.</summary>
    public void Dispose()
    {
        _rearm = static () => { };
        lock (_lock) _due.Clear();
        _ended.Set(); // never disposed: a hung thread may look at it at any time later
    }

    internal void OnRearm(Action rearm) => _rearm = rearm;

    /// <summary>Does what is due.</summary>
    internal void RunDue(ulong now)
    {
        while (true)
        {
            Action action;
            lock (_lock)
            {
                if (!_due.TryPeek(out _, out var first) || first.At > now) return;
                action = _due.Dequeue();
            }

            action();
        }
    }
}

/// <summary>Thrown on purpose, by a fault plan.</summary>
public sealed class InjectedFaultException : Exception
{
    public InjectedFaultException(string message) : base(message) { }
    public InjectedFaultException(string message, Exception inner) : base(message, inner) { }
    public InjectedFaultException() { }
}
