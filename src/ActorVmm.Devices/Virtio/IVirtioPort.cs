using ActorVmm.Memory;

namespace ActorVmm.Devices.Virtio;

/// <summary>The transport as its device sees it.</summary>
public interface IVirtioPort
{
    /// <summary>Guest RAM.</summary>
    GuestMemory Memory { get; }

    /// <summary>Configuration space changed: the generation counts up and the driver is interrupted.</summary>
    void ConfigChanged();
}
