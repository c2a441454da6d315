using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Block;
using ActorVmm.Memory;
using ActorVmm.Testing.Virtio;
using Xunit;
using static ActorVmm.Devices.Virtio.Block.BlockRequestType;

namespace ActorVmm.Devices.Tests.Virtio.Block;

/// <summary>Requests that a well-meaning driver never makes: answered with an error, and nothing is written.</summary>
public sealed class HostileDriverTests
{
    private const ulong Sectors = 64;

    // Name, type, sector, device-readable data, device-writable data, expected.
    public static TheoryData<string, BlockRequestType, ulong, int, int, BlockStatus> Requests => new()
    {
        { "read past the end", In, Sectors, 0, 512, BlockStatus.IoError },
        { "read that begins on the disk and ends after it", In, Sectors - 1, 0, 1024, BlockStatus.IoError },
        { "read whose end wraps", In, ulong.MaxValue, 0, 512, BlockStatus.IoError },
        { "read whose byte offset wraps", In, 1UL << 55, 0, 512, BlockStatus.IoError },
        { "read of a part of a sector", In, 0, 0, 511, BlockStatus.IoError },
        { "read of nothing", In, 0, 0, 0, BlockStatus.IoError },
        { "read with data for the device", In, 0, 512, 512, BlockStatus.IoError },
        { "write past the end", Out, Sectors, 512, 0, BlockStatus.IoError },
        { "write whose end wraps", Out, ulong.MaxValue - 1, 1024, 0, BlockStatus.IoError },
        { "write of a part of a sector", Out, 0, 513, 0, BlockStatus.IoError },
        { "write of nothing", Out, 0, 0, 0, BlockStatus.IoError },
        { "write with room for data", Out, 0, 512, 512, BlockStatus.IoError },
        { "flush with data", Flush, 0, 512, 0, BlockStatus.IoError },
        { "name into too little room", GetId, 0, 0, 19, BlockStatus.IoError },
        { "name with data for the device", GetId, 0, 1, 20, BlockStatus.IoError },
        { "unknown type", (BlockRequestType)2, 0, 0, 512, BlockStatus.Unsupported },
        { "unknown type of all ones", (BlockRequestType)uint.MaxValue, 0, 512, 0, BlockStatus.Unsupported },
        { "discard without ranges", Discard, 0, 0, 0, BlockStatus.IoError },
        { "discard with half a range", Discard, 0, 8, 0, BlockStatus.IoError },
        { "discard of too many ranges", Discard, 0, 16 * 17, 0, BlockStatus.IoError },
        { "zeroes with room for data", WriteZeroes, 0, 16, 512, BlockStatus.IoError },
    };

    [Theory]
    [MemberData(nameof(Requests))]
    public void A_request_that_makes_no_sense_gets_an_error_and_changes_nothing(
        string what, BlockRequestType type, ulong sector, int readable, int writable, BlockStatus expected)
    {
        using var rig = new BlockRig().Started();
        Array.Fill(rig.Disk.Content, (byte)0x5A);
        rig.Disk.Performed = [];
        var header = rig.Driver.Readable(BlockDriver.Header(type, sector));
        var room = rig.Driver.Writable((uint)writable + 1);
        Fill(rig, room, BlockDriver.Unanswered);
        List<GuestBuffer> parts = [header];
        if (readable > 0) parts.Add(rig.Driver.Readable(new byte[readable]));
        parts.Add(room);
        rig.Driver.Rings[0].Add([.. parts]);
        rig.Driver.Kick(0);
        var used = Assert.Single(rig.Driver.Rings[0].Collect());
        var bytes = rig.Driver.Bytes(room);
        Assert.True(expected == (BlockStatus)bytes[^1], what);
        Assert.Equal(writable == 0 ? 1u : 0u, used.Written);
        Assert.All(bytes[..^1], value => Assert.Equal(BlockDriver.Unanswered, value));
        Assert.Empty(rig.Disk.Performed);
        Assert.Equal(1, rig.Counters.Malformed);
        Assert.Null(rig.Virtio.LastFailure);
    }

    public static TheoryData<string, BlockRequestType, ulong, uint, uint, BlockStatus> BadRanges => new()
    {
        { "beyond the end", Discard, Sectors, 1, 0, BlockStatus.IoError },
        { "beyond the end", WriteZeroes, Sectors - 1, 2, 0, BlockStatus.IoError },
        { "wrapping", WriteZeroes, ulong.MaxValue, 2, 0, BlockStatus.IoError },
        { "empty", Discard, 0, 0, 0, BlockStatus.IoError },
        { "longer than allowed", WriteZeroes, 0, BlockDevice.MaxRangeSectors + 1, 0, BlockStatus.IoError },
        { "discard with unmap", Discard, 0, 1, 1, BlockStatus.Unsupported },
        { "unknown flag", WriteZeroes, 0, 1, 2, BlockStatus.Unsupported },
        { "unknown flag", Discard, 0, 1, 0x8000_0000, BlockStatus.Unsupported },
    };

    [Theory]
    [MemberData(nameof(BadRanges))]
    public void One_bad_range_spoils_them_all(
        string what, BlockRequestType type, ulong sector, uint sectors, uint flags, BlockStatus expected)
    {
        using var rig = new BlockRig().Started();
        rig.Disk.Performed = [];
        var ranges = BlockDriver.Ranges((0, 1, 0), (sector, sectors, flags));
        Assert.True(expected == rig.Guest.Do(rig.Guest.AddOut(type, 0, ranges)).Status, what);
        Assert.Empty(rig.Disk.Performed);
    }

    [Theory]
    [InlineData(Out, 512)]
    [InlineData(Discard, 16)]
    [InlineData(WriteZeroes, 16)]
    public void A_read_only_disk_is_not_changed(BlockRequestType type, int bytes)
    {
        using var rig = new BlockRig(new ScriptedDisk(64) { ReadOnly = true }).Started();
        rig.Disk.Performed = [];
        var data = type == Out ? new byte[bytes] : BlockDriver.Ranges((0, 1, 0));
        Assert.Equal(BlockStatus.IoError, rig.Guest.Do(rig.Guest.AddOut(type, 0, data)).Status);
        Assert.Empty(rig.Disk.Performed);
        Assert.Equal(BlockStatus.Ok, rig.Guest.Do(rig.Guest.AddIn(In, 0, 512)).Status);
    }

    [Theory]
    [InlineData(Flush)]
    [InlineData(Discard)]
    [InlineData(WriteZeroes)]
    public void What_was_not_negotiated_is_not_supported(BlockRequestType type)
    {
        using var rig = new BlockRig().Started(0);
        rig.Disk.Performed = [];
        var data = type == Flush ? [] : BlockDriver.Ranges((0, 1, 0));
        Assert.Equal(BlockStatus.Unsupported, rig.Guest.Do(rig.Guest.AddOut(type, 0, data)).Status);
        Assert.Empty(rig.Disk.Performed);
    }

    [Fact]
    public void A_header_that_is_too_short_or_in_writable_memory_is_an_error()
    {
        using var rig = new BlockRig().Started();
        rig.Driver.Rings[0].Add(rig.Driver.Readable(new byte[15]), rig.Driver.Writable(513));
        rig.Driver.Rings[0].Add(rig.Driver.Writable(16), rig.Driver.Writable(512), rig.Driver.Writable(1));
        rig.Driver.Kick(0);
        Assert.Equal(2, rig.Driver.Rings[0].Collect().Count);
        Assert.Equal(2, rig.Counters.Malformed);
    }

    [Fact]
    public void Without_a_byte_for_the_status_the_request_comes_back_with_length_0()
    {
        using var rig = new BlockRig().Started();
        rig.Driver.Rings[0].Add(rig.Driver.Readable(BlockDriver.Header(Out, 0)), rig.Driver.Readable(new byte[512]));
        rig.Driver.Kick(0);
        Assert.Equal(0u, Assert.Single(rig.Driver.Rings[0].Collect()).Written);
        Assert.Equal(0, rig.Counters.Writes);
    }

    [Fact]
    public void Buffers_may_be_cut_anywhere()
    {
        using var rig = new BlockRig().Started();
        var data = BlockRig.Pattern(1024);
        byte[] request = [.. BlockDriver.Header(Out, 7), .. data];
        int[] cuts = [0, 1, 15, 17, 500, 1030, request.Length];
        List<GuestBuffer> parts = [.. cuts.Zip(cuts.Skip(1)).Select(cut => rig.Driver.Readable(request.AsSpan(cut.First, cut.Second - cut.First)))];
        parts.Add(rig.Driver.Writable(1));
        rig.Driver.Rings[0].Add([.. parts]);
        rig.Driver.Kick(0);
        Assert.Equal(1u, Assert.Single(rig.Driver.Rings[0].Collect()).Written);
        Assert.Equal(data, rig.Disk.Content[(7 * 512)..(9 * 512)]);

        GuestBuffer[] room = [rig.Driver.Writable(100), rig.Driver.Writable(1), rig.Driver.Writable(924)]; // the status is in the last one
        rig.Driver.Rings[0].Add([rig.Driver.Readable(BlockDriver.Header(In, 7)), .. room]);
        rig.Driver.Kick(0);
        Assert.Equal(1025u, Assert.Single(rig.Driver.Rings[0].Collect()).Written);
        byte[] read = [.. room.SelectMany(rig.Driver.Bytes)];
        Assert.Equal([.. data, 0], read);
    }

    [Fact]
    public void A_request_that_names_the_same_memory_over_and_over_is_bounded()
    {
        using var rig = new BlockRig().Started();
        rig.Disk.Sectors = ulong.MaxValue; // the disk's size is not what stops it
        var big = new GuestBuffer(new GuestAddress(0), 8 << 20, Writable: true);
        rig.Driver.Rings[0].Add(
            [rig.Driver.Readable(BlockDriver.Header(In, 0)), .. Enumerable.Repeat(big, 200), rig.Driver.Writable(1)]);
        rig.Disk.Performed = [];
        rig.Driver.Kick(0);
        Assert.Single(rig.Driver.Rings[0].Collect());
        Assert.Empty(rig.Disk.Performed);
    }

    [Fact]
    public void A_queue_broken_by_its_driver_does_not_stop_the_others()
    {
        using var rig = new BlockRig(settings: new BlockSettings { Queues = 2 }).Started(VirtioFeatures.Version1);
        rig.Driver.Rings[0].SetAvailable(0, 9999);
        rig.Driver.Rings[0].SetAvailableIndex(1);
        rig.Driver.Ring(0);
        Assert.True(rig.Driver.Status.HasFlag(ActorVmm.Devices.Virtio.Mmio.DeviceStatus.NeedsReset));
        Assert.Equal(BlockStatus.Ok, rig.Guest.Do(rig.Guest.AddIn(In, 0, 512, queue: 1)).Status);
    }

    private static void Fill(BlockRig rig, GuestBuffer buffer, byte value) =>
        rig.Virtio.Memory.TryWrite(buffer.Address, Enumerable.Repeat(value, (int)buffer.Length).ToArray());
}
