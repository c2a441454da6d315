using System.Buffers.Binary;
using ActorVmm.Devices.Virtio.Block;

namespace ActorVmm.Testing.Virtio;

/// <summary>One request of a guest's block driver, and where its answer will be.</summary>
public sealed record BlockJob(int Queue, int Head, GuestBuffer Header, GuestBuffer Data, GuestBuffer Status);

/// <summary>The block part of a guest's driver: makes requests as Linux's virtio_blk does, or in any other cut.</summary>
/// <param name="driver">The transport's part; started.</param>
public sealed class BlockDriver(VirtioDriver driver)
{
    /// <summary>What the status byte holds until the device writes it.</summary>
    public const byte Unanswered = 0x77;

    public VirtioDriver Driver { get; } = driver;

    public static byte[] Header(BlockRequestType type, ulong sector)
    {
        var bytes = new byte[16];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, (uint)type);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(8), sector);
        return bytes;
    }

    /// <summary>The ranges of a discard or of zeroes.</summary>
    public static byte[] Ranges(params (ulong Sector, uint Sectors, uint Flags)[] ranges)
    {
        ArgumentNullException.ThrowIfNull(ranges);
        var bytes = new byte[16 * ranges.Length];
        for (var i = 0; i < ranges.Length; i++)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(16 * i), ranges[i].Sector);
            BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan((16 * i) + 8), ranges[i].Sectors);
            BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan((16 * i) + 12), ranges[i].Flags);
        }
        return bytes;
    }

    /// <summary>Adds a request that brings data with it.</summary>
    public BlockJob AddOut(BlockRequestType type, ulong sector, ReadOnlySpan<byte> data, int queue = 0) =>
        Add(queue, Driver.Readable(Header(type, sector)), Driver.Readable(data));

    /// <summary>Adds a request that fetches data.</summary>
    public BlockJob AddIn(BlockRequestType type, ulong sector, uint length, int queue = 0) =>
        Add(queue, Driver.Readable(Header(type, sector)), Driver.Writable(length));

    /// <summary>Adds a request of these parts; a part of length 0 is left out.</summary>
    public BlockJob Add(int queue, GuestBuffer header, GuestBuffer data)
    {
        var status = Driver.Writable(1);
        Driver.Memory.TryWrite(status.Address, Unanswered);
        var head = data.Length == 0 ? Driver.Rings[queue].Add(header, status) : Driver.Rings[queue].Add(header, data, status);
        return new BlockJob(queue, head, header, data, status);
    }

    /// <summary>The status byte; <see cref="Unanswered"/> where the device has not written it.</summary>
    public BlockStatus Status(BlockJob job)
    {
        ArgumentNullException.ThrowIfNull(job);
        return (BlockStatus)Driver.Bytes(job.Status)[0];
    }

    /// <summary>Publishes, rings, and takes the answer to the only request in flight.</summary>
    public (BlockStatus Status, uint Length, byte[] Data) Do(BlockJob job)
    {
        ArgumentNullException.ThrowIfNull(job);
        Driver.Kick(job.Queue);
        if (!Driver.Rings[job.Queue].TryCollect(out var used) || used.Head != job.Head)
            throw new InvalidOperationException("the request was not answered");
        Driver.HandleInterrupt();
        return (Status(job), used.Written, job.Data.Length == 0 ? [] : Driver.Bytes(job.Data));
    }
}
