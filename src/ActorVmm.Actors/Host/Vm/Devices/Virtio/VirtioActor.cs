using System.Numerics;
using Akka.Actor;
using Akka.Event;
using ActorVmm.Actors.Dispatch;
using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Mmio;
using ActorVmm.Devices.Virtio.Queue;

namespace ActorVmm.Actors.Host.Vm.Devices.Virtio;

/// <summary>
/// <c>devices/blk0</c>, <c>net0</c>, <c>rng0</c>: a virtio device of any type. What it adds to every device's shell: doorbells that come
/// without an exit, the bell of the backend, and the work that a failed instance left behind, taken up at once.
/// </summary>
public sealed class VirtioActor : DeviceActor<VirtioRegisters>
{
    private readonly VirtioSlot _virtio;
    private readonly VirtioMmio _mmio;
    private readonly IVirtioDevice _type;
    private long _ignored;
    private long _faults;

    public static Props Props(VirtioSlot virtio, Func<IVirtioDevice> make) =>
        Made.By(() => new VirtioActor(virtio, make));

    public VirtioActor(VirtioSlot virtio, Func<IVirtioDevice> make) : this(virtio, Build(virtio, make)) { }

    private VirtioActor(VirtioSlot virtio, (IVirtioDevice Type, VirtioMmio Mmio) built) : base(virtio.Base, virtio.Checkpoint, built.Mmio)
    {
        _virtio = virtio;
        (_type, _mmio) = built;
    }

    /// <inheritdoc/>
    protected override void PreStart()
    {
        base.PreStart();
        _virtio.Attach(Self);
    }

    /// <inheritdoc/>
    protected override void PostRestart(Exception reason)
    {
        base.PostRestart(reason);
        // Not here: a device that fails while it takes up its work must fail in a message, and be restarted like any other.
        Self.Tell(TakeUp.Instance);
    }

    /// <inheritdoc/>
    protected override void PostStop()
    {
        base.PostStop();
        _virtio.Dispose();
    }

    /// <inheritdoc/>
    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case DoorbellRang rang: rang.Heard(); _mmio.OnDoorbell(rang.Queue); break;
            case BackendRang: _virtio.BellHeard(); _mmio.OnBackend(); break;
            // Bell and doorbells may have been heard by the instance that failed, or have rung for it in vain: the fresh one looks for itself,
            // and what rings from now on is another message.
            case TakeUp: _virtio.BellHeard(); _virtio.DoorbellsHeard(); _mmio.Resume(); _mmio.OnBackend(); break;
            case DeviceUpdate update: OnUpdate(update); break;
            case UnitProtocol.Save: Sender.Tell(new UnitProtocol.Saved(Slot.Name, _mmio.Save())); break;
            case UnitProtocol.Restore restore: OnRestore(restore); break;
            default: base.OnReceive(message); break;
        }
    }

    /// <inheritdoc/>
    protected override void NeverArrived(object message) => (message as DoorbellRang)?.Heard();

    /// <inheritdoc/>
    protected override void AfterEffects()
    {
        _virtio.Wire(_mmio.IsActive);
        if (_mmio.IgnoredAccesses != _ignored || _mmio.Faults != _faults) Report();
    }

    /// <inheritdoc/>
    protected override void Describe(IDictionary<string, string> values)
    {
        values["state"] = _mmio.ToString();
        values["type"] = _type.ToString() ?? "";
        values["gsi"] = $"{_virtio.Place.Slot.Gsi}";
        values["ignored"] = $"{_mmio.IgnoredAccesses}";
        values["notifications"] = $"{_mmio.Notifications}";
        values["doorbells"] = _virtio.DoorbellError ?? $"{_virtio.Doorbells / 2}";
        for (var queue = 0; queue < _mmio.QueueCount; queue++) values[$"queue-{queue}"] = $"{_mmio.Queue(queue)}";
    }

    /// <summary>What a driver does wrong is said at the 1st, 2nd, 4th, 8th, ... time: it may do so as often as it likes.</summary>
    private void Report()
    {
        if (_mmio.Faults > _faults) _virtio.Faults += _mmio.Faults - _faults;
        if (_mmio.Faults > _faults && BitOperations.IsPow2(_virtio.Faults))
        {
            for (var queue = 0; queue < _mmio.QueueCount; queue++)
                if (_mmio.Queue(queue).Fault is var fault and not QueueFault.None)
                    Log.Warning("the driver of {0} broke queue {1}: {2} (queues broken so far: {3})", Slot.Name, queue, fault,
                        _virtio.Faults);
        }

        if (BitOperations.IsPow2(_mmio.IgnoredAccesses) && _mmio.IgnoredAccesses > _ignored)
            Log.Debug("{0} has ignored {1} register accesses that mean nothing", Slot.Name, _mmio.IgnoredAccesses);
        (_ignored, _faults) = (_mmio.IgnoredAccesses, _mmio.Faults);
    }

    private void OnUpdate(DeviceUpdate update)
    {
        var refusal = _virtio.Control is { } control
            ? control(_type, update.What) : $"{Slot.Name} has nothing that could be changed while it runs";
        _mmio.OnBackend(); // what the change has set free is published now
        Sender.Tell(new DeviceUpdated(Slot.Name, refusal));
    }

    private void OnRestore(UnitProtocol.Restore restore)
    {
        var refusal = restore.State is VirtioState state ? _mmio.Restore(state) : "it is no state of a virtio device";
        Sender.Tell(new UnitProtocol.Done(Slot.Name, refusal));
        if (refusal is null) Self.Tell(TakeUp.Instance);
    }

    private static (IVirtioDevice, VirtioMmio) Build(VirtioSlot virtio, Func<IVirtioDevice> make)
    {
        ArgumentNullException.ThrowIfNull(virtio);
        ArgumentNullException.ThrowIfNull(make);
        var type = make();
        return (type, new VirtioMmio(type, virtio.Ledger, virtio.Memory, virtio.Base.Effects.InterruptLine(virtio.Place.Slot.Gsi)));
    }

    /// <summary>A fresh instance takes up the work of one that failed.</summary>
    private sealed class TakeUp : ISyncExit
    {
        public static readonly TakeUp Instance = new();

        public void Undeliverable() { /* Stopped in the meantime: there is nothing to take up. */ }
    }
}
