using Akka.Actor;
using ActorVmm.Actors.Dispatch;
using ActorVmm.Actors.Host.Vm.Bus;
using ActorVmm.Actors.Host.Vm.Faults;
using ActorVmm.Backends.Polling;
using ActorVmm.Devices;
using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Mmio;
using ActorVmm.Hypervisor;
using ActorVmm.Memory;

namespace ActorVmm.Actors.Host.Vm.Devices.Virtio;

/// <summary>
/// What stays in place while a virtio device's actor is restarted: the ledger of its requests, its doorbells, and the bell by which its
/// backend calls. Backends (files, taps) are made beside it and outlive the actor as well.
/// </summary>
public sealed class VirtioSlot
{
    private readonly IMachine _machine;
    private readonly EventPoller _poller;
    private readonly DoorbellRang[] _rung;
    private readonly List<IDisposable> _doorbells = [];
    private readonly List<IDisposable> _owned = [];
    private IActorRef _actor = ActorRefs.Nobody;
    private int _bell;
    private bool _wired;

    /// <param name="parts">The machine's ports.</param>
    /// <param name="place">Name, window and interrupt.</param>
    /// <param name="queueSizes">The largest size of each queue.</param>
    public VirtioSlot(DeviceParts parts, VirtioPlace place, IReadOnlyList<ushort> queueSizes)
    {
        ArgumentNullException.ThrowIfNull(parts);
        ArgumentNullException.ThrowIfNull(place);
        _machine = parts.Machine;
        _poller = parts.Poller;
        Place = place;
        Base = parts.Slot(place.Name);
        Ledger = new VirtioLedger(queueSizes);
        if (FaultHooks.Compiled) parts.Faults?.Attach(place.Name, Ledger);
        Clock = new MachineTime(parts.Machine.Clock, parts.BootUnixNanoseconds);
        parts.Virtio.Add(this);
        _rung = [.. queueSizes.Select(static (_, queue) => new DoorbellRang(queue))];
    }

    /// <summary>Name, window and interrupt.</summary>
    public VirtioPlace Place { get; }

    /// <summary>What every device keeps.</summary>
    public DeviceSlot Base { get; }

    /// <summary>Queues, requests in flight, state of the device type.</summary>
    public VirtioLedger Ledger { get; }

    /// <summary>Registers.</summary>
    public Checkpoint<VirtioRegisters> Checkpoint { get; } = new();

    /// <summary>Machine time, for rate limits.</summary>
    public IClock Clock { get; }

    /// <summary>Guest RAM.</summary>
    public GuestMemory Memory => _machine.Memory;

    /// <summary>Doorbells that ring without an exit, one per queue; 0 where the hypervisor has none or the driver is not there.</summary>
    public int Doorbells => _doorbells.Count;

    /// <summary>Queues that the driver broke since power-on.</summary>
    internal long Faults { get; set; }

    /// <summary>Why there are none although the hypervisor has them; null where there are.</summary>
    public string? DoorbellError { get; private set; }

    /// <summary>
    /// What an operator may ask of this device while it runs (<see cref="DiskUpdate"/>, say): done on the device's thread, with the present
    /// instance; the answer is null, or why it cannot be. Null for a device that nothing can be asked of.
    /// </summary>
    public Func<IVirtioDevice, object, string?>? Control { get; set; }

    /// <summary>
    /// The backend's bell: <see cref="IVirtioDevice.OnBackend"/> is called soon, once for however many rings came before. Any thread.
    /// </summary>
    public void Ring()
    {
        if (Interlocked.Exchange(ref _bell, 1) == 0) _actor.Tell(BackendRang.Instance);
    }

    /// <summary>Gives a backend to this slot: it is disposed when the device stops for good, and not when it is restarted.</summary>
    public void Own(IDisposable backend)
    {
        lock (_owned) _owned.Add(backend);
    }

    /// <summary>The device for the rack; <paramref name="make"/> makes a fresh instance for each restart.</summary>
    public DeviceUnit Unit(Func<IVirtioDevice> make) =>
        new(Place.Name, VirtioActor.Props(this, make), AddressRange.Mmio(Place.Slot.Address.Value, Place.Slot.Size)) { Slot = Base };

    /// <summary>Stops for good: backends are let go.</summary>
    internal void Dispose()
    {
        Wire(active: false);
        IDisposable[] owned;
        lock (_owned)
        {
            owned = [.. _owned];
            _owned.Clear();
        }

        foreach (var backend in owned) backend.Dispose();
    }

    /// <summary>Names the actor; a bell that rang before is heard now.</summary>
    internal void Attach(IActorRef actor)
    {
        _actor = actor;
        if (Volatile.Read(ref _bell) != 0) actor.Tell(BackendRang.Instance);
    }

    /// <summary>The device is about to look at its backend: what rings from now on is another message.</summary>
    internal void BellHeard() => Interlocked.Exchange(ref _bell, 0);

    /// <summary>A fresh instance is about to look at all queues: a doorbell that the failed one had not heard counts as heard.</summary>
    internal void DoorbellsHeard()
    {
        foreach (var rung in _rung) rung.Heard();
    }

    /// <summary>Asks for a ring again, although the last one was heard by an instance that then failed.</summary>
    internal void RingAgain()
    {
        Interlocked.Exchange(ref _bell, 1);
        _actor.Tell(BackendRang.Instance);
    }

    /// <summary>
    /// Doorbells are there while the driver is: a write to QueueNotify with a queue's number then ends in an event file descriptor instead
    /// of an exit, where the hypervisor can do that. A host that refuses leaves the exits, which work as well.
    /// </summary>
    internal void Wire(bool active)
    {
        if (active == _wired) return;
        _wired = active;
        if (active) Connect();
        else Disconnect();
    }

    private void Connect()
    {
        var notify = Place.Slot.Address.Value + (ulong)MmioRegister.QueueNotify;
        try
        {
            for (var queue = 0; queue < _rung.Length; queue++)
            {
                var address = new DoorbellAddress(notify, IsPort: false, Size: 4, (ulong)queue);
                if (_machine.TryCreateDoorbell(address) is not { } doorbell) return;
                _doorbells.Add(doorbell);
                var (actor, rung) = (_actor, _rung[queue]);
                _doorbells.Add(_poller.Watch(doorbell.FileDescriptor, () => rung.Tell(actor)));
            }

            DoorbellError = null;
        }
        catch (Exception cause)
        {
            DoorbellError = cause.Message;
            Disconnect();
        }
    }

    private void Disconnect()
    {
        // The watch before its doorbell, which closes the descriptor.
        for (var i = _doorbells.Count - 1; i >= 0; i--)
        {
            try { _doorbells[i].Dispose(); }
            catch (Exception cause) { DoorbellError = cause.Message; /* the machine is being taken down: nothing is left to de-assign */ }
        }

        _doorbells.Clear();
    }
}

/// <summary>
/// The doorbell of a queue rang without an exit. One message per queue is under way at most, however often a guest rings while its device is
/// busy: the device looks at the queue after it has taken the message, so it sees all that was made available before.
/// </summary>
/// <param name="queue">Its index.</param>
public sealed class DoorbellRang(int queue) : ISyncExit
{
    private int _underWay;

    public int Queue { get; } = queue;

    /// <summary>Tells the device, unless it is being told already. Any thread.</summary>
    public void Tell(IActorRef device)
    {
        if (Interlocked.Exchange(ref _underWay, 1) == 0) device.Tell(this);
    }

    /// <summary>The device is about to look: what rings from now on is another message.</summary>
    public void Heard() => Interlocked.Exchange(ref _underWay, 0);

    /// <inheritdoc/>
    public void Undeliverable() => Heard();
}

/// <summary>The backend has something.</summary>
public sealed class BackendRang : ISyncExit
{
    public static readonly BackendRang Instance = new();

    /// <inheritdoc/>
    public void Undeliverable() { /* A device that is gone needs nothing. */ }
}
