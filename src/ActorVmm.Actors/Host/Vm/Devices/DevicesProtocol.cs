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

    /// <summary>Command: devices that wait for an operator get a fresh budget and resume from their checkpoints.</summary>
    public sealed record Retry { public static readonly Retry Instance = new(); }

    /// <summary>Command: somebody presses a key that asks the guest to end in order.</summary>
    public sealed record Press(PowerKey Key);

    /// <summary>Command: take a device off the bus for good.</summary>
    public sealed record Unplug(string Device);
}
