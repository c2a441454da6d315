using ActorVmm.Backends.UserNet;
using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Net;

namespace ActorVmm.Actors;

/// <summary>A network interface (virtio-net).</summary>
public sealed record NetSpec
{
    /// <summary>The user's name for it.</summary>
    public required string Id { get; init; }

    /// <summary>What it is connected to.</summary>
    public required NetBackend Backend { get; init; }

    /// <summary>Its address; null: derived from the names of VM and device.</summary>
    public MacAddress? Mac { get; init; }

    /// <summary>The largest IP packet, in bytes: 68 to 65535; null: the guest's choice.</summary>
    public int? Mtu { get; init; }

    /// <summary>Pairs of queues, 1 to 16; a user-mode network has one.</summary>
    public int Pairs { get; init; } = 1;

    /// <summary>Entries of each queue, a power of two from 4 to 1024.</summary>
    public int QueueSize { get; init; } = 256;

    /// <summary>Bytes and packets per time that the guest receives; off for no limit.</summary>
    public RateLimiterSpec ReceiveLimits { get; init; }

    /// <summary>Bytes and packets per time that the guest sends.</summary>
    public RateLimiterSpec TransmitLimits { get; init; }

    /// <summary>Drops what the guest sends from another address than the device's.</summary>
    public bool SpoofCheck { get; init; }

    /// <summary>Features that are offered at most (<see cref="NetFeatures"/>).</summary>
    public ulong Features { get; init; } = ulong.MaxValue;
}

/// <summary>What a network interface of a VM is connected to.</summary>
public abstract record NetBackend
{
    private NetBackend() { }

    /// <summary>Whether packets may come from outside of this process; where not, a run under virtual time repeats.</summary>
    public virtual bool HasOutside => true;

    /// <summary>A tap interface of the host, there or made.</summary>
    /// <param name="Name">Its name.</param>
    public sealed record Tap(string Name) : NetBackend;

    /// <summary>A network in this process, which takes no privilege.</summary>
    /// <param name="Settings">What it is like.</param>
    public sealed record User(UserNetSettings Settings) : NetBackend
    {
        /// <inheritdoc/>
        public override bool HasOutside => !Settings.Restrict || Settings.Resolves || Settings.Forwards.Count > 0;
    }

    /// <summary>The caller's own.</summary>
    /// <param name="Open">Makes it when the VM is built; it is disposed with the VM.</param>
    public sealed record Own(Func<IPacketPort> Open) : NetBackend
    {
        /// <inheritdoc/>
        public override bool HasOutside => false; // the caller knows
    }
}
