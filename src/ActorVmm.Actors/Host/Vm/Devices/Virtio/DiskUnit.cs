using ActorVmm.Backends.Disks;
using ActorVmm.Devices;
using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Block;

namespace ActorVmm.Actors.Host.Vm.Devices.Virtio;

/// <summary>Asks a running virtio device to change. Answered with <see cref="DeviceUpdated"/>.</summary>
/// <param name="What"><see cref="DiskUpdate"/> for a disk, <see cref="NetUpdate"/> for a network interface.</param>
public sealed record DeviceUpdate(object What);

/// <summary>The change is made, or was refused.</summary>
/// <param name="Device">Actor name.</param>
/// <param name="Refusal">Why not; null where it was made.</param>
public sealed record DeviceUpdated(string Device, string? Refusal);

/// <summary>A change of a disk while its VM runs (Firecracker's PATCH of a drive).</summary>
/// <param name="Path">Another file in place of the present one; the same path looks at the size again; null leaves it.</param>
/// <param name="Limits">New limits; null leaves them.</param>
public sealed record DiskUpdate(string? Path = null, RateLimiterChange? Limits = null);

/// <summary>What outlives the instances of one block device: the disk, its counters, and its settings as they are now.</summary>
/// <param name="file">The backend.</param>
/// <param name="disk">The backend, or what stands before it.</param>
/// <param name="spec">What was asked for.</param>
/// <param name="clock">Machine time.</param>
internal sealed class DiskUnit(FileDisk file, IDisk disk, DiskSpec spec, IClock clock)
{
    private BlockSettings _settings = new() { Queues = spec.Queues, QueueSize = (ushort)spec.QueueSize, RateLimit = spec.Limits };

    public BlockCounters Counters { get; } = new();

    /// <summary>A fresh instance.</summary>
    public BlockDevice Make() => new(disk, _settings, clock, Counters);

    /// <summary>Changes the running device.</summary>
    /// <returns>Null, or why it cannot be.</returns>
    public string? Update(IVirtioDevice device, object what)
    {
        if (what is not DiskUpdate update) return "a disk knows no such change";
        try
        {
            if (update.Path is { } path) file.ChangeTo(path);
        }
        catch (DiskException cannot)
        {
            return cannot.Message;
        }
        if (update.Limits is not { } change) return null;
        var limits = change.ApplyTo(_settings.RateLimit);
        _settings = _settings with { RateLimit = limits };
        ((BlockDevice)device).RateLimit = limits;
        return null;
    }
}
