using System.Buffers.Binary;
using System.Text;
using ActorVmm.Devices.Virtio.Block;
using ActorVmm.Devices.Virtio.Mmio;
using ActorVmm.Testing.Virtio;
using Xunit;
using static ActorVmm.Devices.Virtio.Block.BlockRequestType;

namespace ActorVmm.Devices.Tests.Virtio.Block;

public sealed class BlockDeviceTests
{
    [Fact]
    public void What_is_written_is_read_back_and_lies_on_the_disk()
    {
        using var rig = new BlockRig().Started();
        var data = BlockRig.Pattern(8 * 512);
        Assert.Equal((BlockStatus.Ok, 1u), Short(rig.Guest.Do(rig.Guest.AddOut(Out, 3, data))));
        Assert.Equal(data, rig.Disk.Content[(3 * 512)..(11 * 512)]);
        var (status, length, read) = rig.Guest.Do(rig.Guest.AddIn(In, 3, 8 * 512));
        Assert.Equal((BlockStatus.Ok, (8u * 512) + 1), (status, length));
        Assert.Equal(data, read);
        Assert.Equal((1, 1, 4096, 4096), (rig.Counters.Reads, rig.Counters.Writes, rig.Counters.ReadBytes, rig.Counters.WrittenBytes));
    }

    [Fact]
    public void The_configuration_space_says_what_the_disk_can()
    {
        using var rig = new BlockRig(new ScriptedDisk(64) { BlockSize = 1024 }, new BlockSettings { Queues = 3, QueueSize = 128 }).Started();
        var config = rig.Driver.ReadConfig(0, 64);
        Assert.Equal(64UL, BinaryPrimitives.ReadUInt64LittleEndian(config));
        Assert.Equal(126u, U32(12)); // seg_max
        Assert.Equal(1024u, U32(20)); // blk_size
        Assert.Equal((2, 4), (config[24], U16(26))); // physical blocks of 4 KiB
        Assert.Equal(3, U16(34)); // num_queues
        Assert.Equal((BlockDevice.MaxRangeSectors, (uint)BlockDevice.MaxRanges, 2u), (U32(36), U32(40), U32(44)));
        Assert.Equal((BlockDevice.MaxRangeSectors, (uint)BlockDevice.MaxRanges, 1), (U32(48), U32(52), config[56]));
        Assert.Equal(3, rig.Driver.Rings.Count);
        rig.Virtio.Write(0x100, 8, 5);
        Assert.Equal(config, rig.Driver.ReadConfig(0, 64)); // read-only
        Assert.Equal(new byte[8], rig.Driver.ReadConfig(60, 8));

        uint U32(int at) => BinaryPrimitives.ReadUInt32LittleEndian(config.AsSpan(at));
        ushort U16(int at) => BinaryPrimitives.ReadUInt16LittleEndian(config.AsSpan(at));
    }

    [Theory]
    [InlineData(false, false, false, BlockFeatures.WriteZeroes)]
    [InlineData(false, true, true, BlockFeatures.WriteZeroes | BlockFeatures.Flush | BlockFeatures.Discard)]
    [InlineData(true, true, true, BlockFeatures.ReadOnly | BlockFeatures.Flush)]
    public void Features_follow_the_disk(bool readOnly, bool flushes, bool discards, BlockFeatures expected)
    {
        using var rig = new BlockRig(new ScriptedDisk(8) { ReadOnly = readOnly, Flushes = flushes, Discards = discards });
        const BlockFeatures always = BlockFeatures.SegMax | BlockFeatures.BlockSize | BlockFeatures.Topology;
        Assert.Equal(expected | always, (BlockFeatures)rig.Virtio.Device.Features);
        Assert.Equal(2u, rig.Driver.Read(MmioRegister.DeviceId));
    }

    [Fact]
    public void The_name_is_twenty_bytes_padded_with_zeroes()
    {
        using var rig = new BlockRig(new ScriptedDisk(8) { Id = "rootfs" }).Started();
        var (status, length, name) = rig.Guest.Do(rig.Guest.AddIn(GetId, 0, 20));
        Assert.Equal((BlockStatus.Ok, 21u), (status, length));
        Assert.Equal("rootfs" + new string('\0', 14), Encoding.ASCII.GetString(name));
        using var longName = new BlockRig(new ScriptedDisk(8) { Id = "a-name-of-more-than-20-bytes" }).Started();
        Assert.Equal("a-name-of-more-than-", Encoding.ASCII.GetString(longName.Guest.Do(longName.Guest.AddIn(GetId, 0, 20)).Data));
    }

    [Fact]
    public void A_flush_reaches_the_disk_after_the_writes_before_it()
    {
        using var rig = new BlockRig().Started();
        rig.Disk.Performed = [];
        rig.Guest.Do(rig.Guest.AddOut(Out, 0, new byte[512]));
        Assert.Equal(BlockStatus.Ok, rig.Guest.Do(rig.Guest.AddOut(Flush, 0, [])).Status);
        Assert.Equal([(DiskOperation.Write, 0, false), (DiskOperation.Flush, 0, false)], rig.Disk.Performed);
    }

    [Fact]
    public void Without_flush_each_write_is_durable_by_itself()
    {
        using var rig = new BlockRig().Started(0);
        rig.Disk.Performed = [];
        rig.Guest.Do(rig.Guest.AddOut(Out, 5, new byte[512]));
        Assert.Equal([(DiskOperation.Write, 5, true)], rig.Disk.Performed);
    }

    [Fact]
    public void Zeroes_and_discards_take_several_ranges()
    {
        using var rig = new BlockRig().Started();
        Array.Fill(rig.Disk.Content, (byte)0xFF);
        rig.Disk.Performed = [];
        var ranges = BlockDriver.Ranges((1, 2, 0), (10, 1, 1));
        Assert.Equal((BlockStatus.Ok, 1u), Short(rig.Guest.Do(rig.Guest.AddOut(WriteZeroes, 0, ranges))));
        Assert.Equal([(DiskOperation.WriteZeroes, 1, false), (DiskOperation.WriteZeroes, 10, true)], rig.Disk.Performed);
        Assert.Equal(3 * 512, rig.Disk.Content.Count(value => value == 0));
        Assert.Equal(BlockStatus.Ok, rig.Guest.Do(rig.Guest.AddOut(Discard, 0, BlockDriver.Ranges((63, 1, 0)))).Status);
        Assert.Equal((DiskOperation.Discard, 63UL, false), rig.Disk.Performed[^1]);
    }

    [Theory]
    [InlineData(DiskStatus.IoError, BlockStatus.IoError)]
    [InlineData(DiskStatus.NoSpace, BlockStatus.IoError)]
    [InlineData(DiskStatus.Unsupported, BlockStatus.Unsupported)]
    public void Errors_of_the_host_reach_the_guest_and_the_device_lives_on(DiskStatus disk, BlockStatus expected)
    {
        using var rig = new BlockRig().Started();
        rig.Disk.Fails = disk;
        var (status, length, _) = rig.Guest.Do(rig.Guest.AddIn(In, 0, 512));
        Assert.Equal((expected, 0u), (status, length)); // no byte before the status was written
        Assert.Equal((expected, 1u), Short(rig.Guest.Do(rig.Guest.AddOut(Out, 0, new byte[512]))));
        rig.Disk.Fails = null;
        Assert.Equal(BlockStatus.Ok, rig.Guest.Do(rig.Guest.AddIn(In, 0, 512)).Status);
        Assert.Equal(2, rig.Counters.Errors);
    }

    [Fact]
    public void Many_requests_are_in_flight_and_are_answered_in_the_order_of_the_disk()
    {
        using var rig = new BlockRig(new ScriptedDisk(64) { Hold = true }).Started();
        var jobs = Enumerable.Range(0, 32).Select(i => rig.Guest.AddOut(Out, (ulong)i, BlockRig.Pattern(512, i))).ToArray();
        rig.Driver.Kick(0);
        Assert.Equal(32, rig.Disk.Held.Count);
        Assert.Empty(rig.Driver.Rings[0].Collect());
        var order = Enumerable.Range(0, 32).OrderBy(i => (i * 7) % 32).ToArray();
        var requests = rig.Disk.Held.ToArray();
        foreach (var i in order) rig.Disk.Finish(requests[i]);
        rig.Virtio.Backend();
        Assert.True(rig.Virtio.Line.Asserted);
        Assert.Equal(order.Select(i => (uint)jobs[i].Head), rig.Driver.Rings[0].Collect().Select(used => used.Head));
        Assert.All(jobs, job => Assert.Equal(BlockStatus.Ok, rig.Guest.Status(job)));
        for (var i = 0; i < 32; i++) Assert.Equal(BlockRig.Pattern(512, i), rig.Disk.Content[(i * 512)..((i + 1) * 512)]);
    }

    [Fact]
    public void A_new_size_is_a_config_interrupt_and_a_new_generation()
    {
        using var rig = new BlockRig().Started();
        var generation = rig.Driver.Read(MmioRegister.ConfigGeneration);
        rig.Disk.Sectors = 32;
        rig.Virtio.Backend();
        Assert.True(rig.Driver.HandleInterrupt().HasFlag(InterruptCause.ConfigChange));
        Assert.NotEqual(generation, rig.Driver.Read(MmioRegister.ConfigGeneration));
        Assert.Equal(32UL, BinaryPrimitives.ReadUInt64LittleEndian(rig.Driver.ReadConfig(0, 8)));
        Assert.Equal(BlockStatus.IoError, rig.Guest.Do(rig.Guest.AddIn(In, 32, 512)).Status);
        rig.Virtio.Backend();
        Assert.Equal(InterruptCause.None, rig.Driver.HandleInterrupt());
    }

    [Fact]
    public void A_size_that_changed_while_the_device_was_down_is_still_announced()
    {
        using var rig = new BlockRig().Started();
        rig.Disk.Sectors = 32;
        rig.Virtio.Backend();
        rig.Driver.HandleInterrupt();
        rig.Disk.Sectors = 16;
        rig.Virtio.Restart();
        rig.Virtio.Backend();
        Assert.True(rig.Driver.HandleInterrupt().HasFlag(InterruptCause.ConfigChange));
        Assert.Equal(16UL, BinaryPrimitives.ReadUInt64LittleEndian(rig.Driver.ReadConfig(0, 8)));
    }

    [Fact]
    public void A_reset_forgets_what_is_in_flight()
    {
        using var rig = new BlockRig(new ScriptedDisk(64) { Hold = true }).Started();
        rig.Guest.AddIn(In, 0, 512);
        rig.Driver.Kick(0);
        Assert.Single(rig.Disk.Held);
        rig.Driver.Start();
        Assert.Empty(rig.Disk.Held);
        rig.Disk.Hold = false;
        Assert.Equal(BlockStatus.Ok, rig.Guest.Do(rig.Guest.AddIn(In, 0, 512)).Status);
    }

    [Fact]
    public void The_reset_of_one_queue_leaves_the_requests_of_the_others()
    {
        using var rig = new BlockRig(new ScriptedDisk(64) { Hold = true }, new BlockSettings { Queues = 2 }).Started();
        rig.Guest.AddOut(Out, 1, BlockRig.Pattern(512, 1));
        rig.Driver.Kick(0);
        var other = rig.Guest.AddOut(Out, 2, BlockRig.Pattern(512, 2), queue: 1);
        rig.Driver.Kick(1);
        rig.Driver.Write(MmioRegister.QueueSel, 0);
        rig.Driver.Write(MmioRegister.QueueReset, 1);
        var held = Assert.Single(rig.Disk.Held);
        Assert.Equal(2UL, held.Sector);
        rig.Disk.Finish(held);
        rig.Virtio.Backend();
        Assert.Equal((uint)other.Head, Assert.Single(rig.Driver.Rings[1].Collect()).Head);
        Assert.Equal(BlockStatus.Ok, rig.Guest.Status(other));
        Assert.Equal(new byte[512], rig.Disk.Content[512..1024]);
    }

    private static (BlockStatus, uint) Short((BlockStatus Status, uint Length, byte[] Data) answer) => (answer.Status, answer.Length);
}
