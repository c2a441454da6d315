using Akka.Actor;
using ActorVmm.Actors.Host.Vm.Bus;
using ActorVmm.Actors.Host.Vm.Devices.Virtio;
using ActorVmm.Actors.Host.Vm.Faults;
using ActorVmm.Backends.Polling;
using ActorVmm.Hypervisor;

namespace ActorVmm.Actors.Host.Vm.Devices;

/// <summary>One device to be put into a VM.</summary>
/// <param name="Name">Its actor name below <c>devices</c>.</param>
/// <param name="Props">Makes its actor; evaluated anew at each restart, so what outlives a restart is passed in, never built
/// inside.</param>
/// <param name="Ranges">Where it answers.</param>
public sealed record DeviceUnit(string Name, Props Props, params IReadOnlyList<AddressRange> Ranges)
{
    /// <summary>What the watchdog looks at; null for a device that nobody watches.</summary>
    public DeviceSlot? Slot { get; init; }

    /// <summary>
    /// All that the device does to the outside goes through its effects: it touches neither guest memory nor a backend inside a handler. Only
    /// then can a handler that never returns be fenced off, and another instance take its place; otherwise the VM ends.
    /// </summary>
    public bool RegistersOnly { get; init; }
}

/// <summary>What devices are made of: the machine's ports.</summary>
/// <param name="Machine">Interrupt lines, clock, RAM.</param>
/// <param name="Alarms">Deadlines.</param>
/// <param name="Target">Where effects end up.</param>
/// <param name="Console">The outside of <c>serial0</c>.</param>
/// <param name="BootUnixNanoseconds">Wall clock at machine time 0.</param>
public sealed record DeviceParts(IMachine Machine, AlarmClock Alarms, IEffectTarget Target, VmConsole Console, ulong BootUnixNanoseconds)
{
    /// <summary>Whose devices these are, for traces.</summary>
    public string VmName { get; init; } = "";

    /// <summary>The VM's faults; null where none can be injected.</summary>
    public VmFaults? Faults { get; init; }

    private readonly List<DeviceSlot> _slots = [];

    /// <summary>The slots given out so far: their counters are read from outside while the VM runs.</summary>
    public IReadOnlyList<DeviceSlot> Slots => _slots;

    /// <summary>Watches descriptors (doorbells, taps) for devices.</summary>
    public required EventPoller Poller { get; init; }

    /// <summary>The virtio slots made so far; each is disposed by its actor.</summary>
    internal List<VirtioSlot> Virtio { get; } = [];

    /// <summary>The devices will never be actors: their backends are let go.</summary>
    internal void Abandon() => Virtio.ForEach(static slot => slot.Dispose());

    /// <summary>What outlives the actor of one device.</summary>
    public DeviceSlot Slot(string name)
    {
        var slot = new DeviceSlot(name, new EffectBuffer(Target), Alarms);
        if (FaultHooks.Compiled) Faults?.Attach(slot);
        _slots.Add(slot);
        return slot;
    }
}
