using Akka.Actor;

namespace ActorVmm.Actors.Host.Vm.Devices;

/// <summary>What <c>devices</c> says to its VM, and hears from it.</summary>
public static class DevicesProtocol
{
    /// <summary>
    /// Answer to <see cref="UnitProtocol.Start"/>: these are the devices, and the bus has been told of each. Each says itself when it is
    /// ready.
    /// </summary>
    public sealed record Ready(IReadOnlyDictionary<string, IActorRef> Devices);

    /// <summary>Event: a device is over its limit of restarts; under the policy <c>pause</c> it waits for <see cref="Retry"/>.</summary>
    public sealed record GaveUp(string Device, Exception Cause);

    /// <summary>
    /// Event: a handler has not come back. The device is fenced off; the thread that is inside <paramref name="Mailbox"/> is lost.
    /// </summary>
    /// <param name="Device">Its name.</param>
    /// <param name="Mailbox">The mailbox that the lost thread is in.</param>
    /// <param name="Cause">What the watchdog saw.</param>
    /// <param name="CanBeReplaced">False: it may still write to guest memory or a backend, so its VM has to end.</param>
    internal sealed record Hung(string Device, Akka.Dispatch.Mailbox Mailbox, DeviceHungException Cause, bool CanBeReplaced);

    /// <summary>Event: the bus leads to a new instance of a device that hung; who waits for <paramref name="Old"/> is to ask again.</summary>
    internal sealed record Replaced(IActorRef Old);

    /// <summary>Command: devices that wait for an operator get a fresh budget and resume from their checkpoints.</summary>
    public sealed record Retry { public static readonly Retry Instance = new(); }

    /// <summary>
    /// Command: <see cref="UnitProtocol.Restore"/> for the device of that name; a name that no device has is refused.
    /// </summary>
    public sealed record RestoreDevice(string Device, object? State);

    /// <summary>
    /// Command, before the devices are saved to be reset and restored: each answers the commands of its life cycle and keeps everything else
    /// for <see cref="Thaw"/>. What came from outside in between would be undone by the restore, although the guest's memory, or the one
    /// who typed, knows of it.
    /// </summary>
    public sealed record Freeze { public static readonly Freeze Instance = new(); }

    /// <summary>Command: what came since <see cref="Freeze"/> is handled, in its order.</summary>
    public sealed record Thaw { public static readonly Thaw Instance = new(); }

    /// <summary>Command: somebody presses a key that asks the guest to end in order.</summary>
    public sealed record Press(PowerKey Key);

    /// <summary>Command: take a device off the bus for good.</summary>
    public sealed record Unplug(string Device);
}

/// <summary>A device did not come back from a handler, or its backend not from a request.</summary>
public sealed class DeviceHungException : Exception
{
    public DeviceHungException(string message) : base(message) { }
    public DeviceHungException(string message, Exception inner) : base(message, inner) { }
    public DeviceHungException() { }
}
