using ActorVmm.Devices.Virtio.Queue;
using ActorVmm.Memory;

namespace ActorVmm.Devices.Virtio;

/// <summary>
/// What the transport gives to the device type behind it. Belongs to the device's thread. Used elements, their interrupt and the config
/// interrupt leave when the device returns to the transport, once for all that it did in between.
/// </summary>
public interface IVirtioPort
{
    /// <summary>Guest RAM.</summary>
    GuestMemory Memory { get; }

    /// <summary>What was negotiated; 0 before FEATURES_OK.</summary>
    ulong Features { get; }

    /// <summary>Queue <paramref name="index"/>, 0 to the number of queues less one. The same object for the life of the device.</summary>
    VirtQueue Queue(int index);

    /// <summary>Configuration space has changed: a new generation, and a config interrupt once the driver is there (virtio 1.2
    /// §2.5).</summary>
    void ConfigChanged();

    /// <summary>
    /// Takes what <see cref="IVirtioDevice.SaveState"/> gives as the state that a restarted device resumes from. To be called after each
    /// change of that state, and before the request that made it is completed.
    /// </summary>
    void StateChanged();

    /// <summary>The device cannot go on until the driver resets it: DEVICE_NEEDS_RESET and a config interrupt (virtio 1.2
    /// §2.1.2).</summary>
    /// <param name="why">For people.</param>
    void NeedsReset(string why);
}
