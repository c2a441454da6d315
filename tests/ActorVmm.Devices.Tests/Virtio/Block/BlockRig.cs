using ActorVmm.Devices.Virtio.Block;
using ActorVmm.Testing.Devices;
using ActorVmm.Testing.Virtio;

namespace ActorVmm.Devices.Tests.Virtio.Block;

/// <summary>A block device on a scripted disk, with a driver.</summary>
internal sealed class BlockRig : IDisposable
{
    public const ulong AllFeatures = ulong.MaxValue;

    public BlockRig(ScriptedDisk? disk = null, BlockSettings? settings = null)
    {
        Disk = disk ?? new ScriptedDisk(64);
        Virtio = new VirtioRig<BlockDevice>(() => new BlockDevice(Disk, settings ?? new(), Clock, Counters));
        Guest = new BlockDriver(Virtio.Driver);
    }

    public ScriptedDisk Disk { get; }
    public ManualClock Clock { get; } = new();
    public BlockCounters Counters { get; } = new();
    public VirtioRig<BlockDevice> Virtio { get; }
    public BlockDriver Guest { get; }
    public VirtioDriver Driver => Virtio.Driver;

    /// <summary>With every feature but IN_ORDER.</summary>
    public BlockRig Started(ulong features = AllFeatures & ~(1UL << 35))
    {
        Driver.Start(features);
        return this;
    }

    public static byte[] Pattern(int bytes, int seed = 1)
    {
        var pattern = new byte[bytes];
        new Random(seed).NextBytes(pattern);
        return pattern;
    }

    public void Dispose() => Virtio.Dispose();
}
