using ActorVmm.Devices.Faults;
using ActorVmm.Devices.Virtio.Block;
using ActorVmm.Memory;
using ActorVmm.Testing.Devices;
using ActorVmm.Testing.Virtio;
using Xunit;

namespace ActorVmm.Devices.Tests.Faults;

/// <summary>Each fault of a disk as the device sees it, on a disk that answers at once and on one that answers later.</summary>
public sealed class FaultyDiskTests
{
    private const int SectorSize = DiskRequest.SectorSize;

    private readonly ManualClock _clock = new();
    private readonly FaultEngineTests.RecordingTrace _trace = new();
    private readonly ScriptedDisk _inner = new(64);
    private readonly List<(ulong At, Action Action)> _timers = [];
    private int _slot;

    private FaultyDisk Disk(params FaultRule[] rules)
    {
        var engine = new FaultEngine(new FaultPlan(3, rules), _clock, _trace);
        return new FaultyDisk(_inner, engine.Site(FaultFamily.Disk, "blk0"), (at, action) => _timers.Add((at, action)));
    }

    private static FaultRule Rule(FaultKind kind) => new() { Kind = kind, Name = "r" };

    /// <summary>Starts a request and has it finished, whichever way the disk takes.</summary>
    private DiskRequest Do(FaultyDisk disk, DiskOperation operation, ulong sector, HostScratch? data = null, bool late = false, bool flag = false)
    {
        var request = new DiskRequest(_slot++);
        request.Set(operation, sector, flag: flag);
        if (data is not null)
        {
            // In two pieces that do not end at a sector.
            request.Add(data.Segment.Slice(0, 300));
            request.Add(data.Segment.Slice(300, data.Segment.Length - 300));
        }

        _inner.Hold = late;
        if (disk.Start(request)) return request;
        DiskRequest? done = null;
        for (var round = 0; round < 2 && done is null; round++) // a flush first writes the cache back
        {
            while (_inner.Held.Count > 0) _inner.Finish(_inner.Held[^1]);
            _ = disk.TryTakeCompleted(out done);
        }

        Assert.Same(request, done);
        return request;
    }

    private static HostScratch Bytes(byte value, int sectors = 2)
    {
        var scratch = new HostScratch(sectors * SectorSize);
        scratch.Bytes.Fill(value);
        return scratch;
    }

    private byte[] Content(int sector, int sectors = 2) => _inner.Content[(sector * SectorSize)..((sector + sectors) * SectorSize)];

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Without_a_rule_everything_is_passed_on(bool late)
    {
        var disk = Disk();
        Assert.Equal(DiskStatus.Ok, Do(disk, DiskOperation.Write, 4, Bytes(7), late).Status);
        Assert.All(Content(4), value => Assert.Equal(7, value));
        var read = Bytes(0);
        Do(disk, DiskOperation.Read, 4, read, late);
        Assert.Equal(Content(4), read.Bytes);
        Do(disk, DiskOperation.Flush, 0, late: late);
        Assert.Empty(_trace.Firings);
        Assert.Equal((0L, 3L), (disk.Outstanding, disk.Finished));
    }

    [Theory]
    [InlineData(FaultKind.BlockEio, DiskStatus.IoError)]
    [InlineData(FaultKind.BlockEnospc, DiskStatus.NoSpace)]
    public void A_write_fails_and_has_not_happened(FaultKind kind, DiskStatus status)
    {
        var disk = Disk(Rule(kind) with { Nth = 2, Direction = "write" });
        Do(disk, DiskOperation.Write, 0, Bytes(1));
        Assert.Equal(status, Do(disk, DiskOperation.Write, 0, Bytes(2)).Status);
        Assert.All(Content(0), value => Assert.Equal(1, value));
        Assert.Equal(DiskStatus.Ok, Do(disk, DiskOperation.Write, 0, Bytes(3)).Status);
        Assert.Equal($"answered {status}", Assert.Single(_trace.Firings).Outcome);
    }

    [Fact]
    public void A_full_disk_stays_full_for_good_where_no_time_is_said()
    {
        var disk = Disk(Rule(FaultKind.BlockDiskFull) with { Nth = 2 });
        Assert.Equal(DiskStatus.Ok, Do(disk, DiskOperation.Write, 0, Bytes(1)).Status);
        for (var time = 0; time < 3; time++)
        {
            Assert.Equal(DiskStatus.NoSpace, Do(disk, DiskOperation.Write, 0, Bytes(2)).Status);
            _clock.Advance(1_000_000_000_000);
        }

        Assert.All(Content(0), value => Assert.Equal(1, value));
    }

    [Fact]
    public void A_full_disk_stays_full_for_its_time_and_can_be_read()
    {
        var disk = Disk(Rule(FaultKind.BlockDiskFull) with { Nth = 1, For = 100 });
        Assert.Equal(DiskStatus.NoSpace, Do(disk, DiskOperation.Write, 0, Bytes(1)).Status);
        Assert.Equal(DiskStatus.NoSpace, Do(disk, DiskOperation.Write, 9, Bytes(1)).Status);
        Assert.Equal(DiskStatus.Ok, Do(disk, DiskOperation.Read, 0, Bytes(1)).Status);
        _clock.Advance(100);
        Assert.Equal(DiskStatus.Ok, Do(disk, DiskOperation.Write, 0, Bytes(1)).Status);
    }

    [Fact]
    public void A_late_request_waits_for_its_machine_time()
    {
        var woken = 0;
        var disk = Disk(Rule(FaultKind.BlockLatency) with { Nth = 1, Delay = 500 });
        disk.Wake = () => woken++;
        var request = new DiskRequest(0);
        var data = Bytes(5);
        request.Set(DiskOperation.Write, 0);
        request.Add(data.Segment);

        Assert.False(disk.Start(request));
        Assert.False(disk.TryTakeCompleted(out _));
        Assert.Equal((1L, 0L), (disk.Outstanding, disk.Finished));
        var (at, wake) = Assert.Single(_timers);
        Assert.Equal(500UL, at);
        _clock.Advance(500);
        wake();
        Assert.Equal(1, woken);
        Assert.True(disk.TryTakeCompleted(out var done));
        Assert.Same(request, done);
        Assert.All(Content(0), value => Assert.Equal(5, value));
    }

    [Fact]
    public void A_request_that_hangs_is_answered_by_nobody_and_forgotten_with_the_rest()
    {
        var disk = Disk(Rule(FaultKind.BlockHang) with { Nth = 1 });
        var request = new DiskRequest(0);
        request.Set(DiskOperation.Flush, 0);
        Assert.False(disk.Start(request));
        Assert.False(disk.TryTakeCompleted(out _));
        Assert.Equal(1, disk.Outstanding);
        disk.Abandon();
        Assert.Equal(0, disk.Outstanding);
        Assert.Equal("never answered", Assert.Single(_trace.Firings).Outcome);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_torn_write_happens_in_part_and_is_answered_as_done(bool late)
    {
        var disk = Disk(Rule(FaultKind.BlockTornWrite) with { Nth = 1, Amount = 600 });
        Assert.Equal(DiskStatus.Ok, Do(disk, DiskOperation.Write, 8, Bytes(9, 3), late).Status);
        Assert.All(Content(8, 1), value => Assert.Equal(9, value));
        Assert.All(Content(9), value => Assert.Equal(0, value));
        Assert.Equal("1 of 3 sectors written", Assert.Single(_trace.Firings).Outcome);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_misdirected_write_happens_elsewhere(bool late)
    {
        var disk = Disk(Rule(FaultKind.BlockMisdirectedWrite) with { Nth = 1, Amount = 10 });
        Assert.Equal(DiskStatus.Ok, Do(disk, DiskOperation.Write, 8, Bytes(9), late).Status);
        Assert.All(Content(8), value => Assert.Equal(0, value));
        Assert.All(Content(18), value => Assert.Equal(9, value));
        Assert.Equal("written to sector 18", Assert.Single(_trace.Firings).Outcome);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_read_brings_one_bit_that_the_disk_does_not_have(bool late)
    {
        var disk = Disk(Rule(FaultKind.BlockReadCorruption) with { Nth = 1 });
        var data = Bytes(0);
        Do(disk, DiskOperation.Read, 8, data, late);
        Assert.Equal(1, data.Bytes.ToArray().Sum(value => System.Numerics.BitOperations.PopCount(value)));
        Assert.Single(_trace.Firings);
        var again = Bytes(1);
        Do(disk, DiskOperation.Read, 8, again, late);
        Assert.All(again.Bytes.ToArray(), value => Assert.Equal(0, value));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_volatile_cache_is_read_back_made_durable_by_a_flush_and_lost_without(bool late)
    {
        var disk = Disk(Rule(FaultKind.BlockVolatileCache));
        Do(disk, DiskOperation.Write, 8, Bytes(9), late);
        Do(disk, DiskOperation.Write, 30, Bytes(4, 1), late);
        Assert.All(Content(8), value => Assert.Equal(0, value)); // not on the disk
        var read = Bytes(0, 4);
        Do(disk, DiskOperation.Read, 7, read, late);
        Assert.Equal([.. Enumerable.Repeat<byte>(0, SectorSize), .. Enumerable.Repeat<byte>(9, 2 * SectorSize), .. Enumerable.Repeat<byte>(0, SectorSize)],
            read.Bytes.ToArray());
        Assert.Equal(3, disk.VolatileSectors);

        Assert.Equal(DiskStatus.Ok, Do(disk, DiskOperation.Flush, 0, late: late).Status);
        Assert.Equal(0, disk.VolatileSectors);
        Assert.All(Content(8), value => Assert.Equal(9, value));
        Assert.All(Content(30, 1), value => Assert.Equal(4, value));

        Do(disk, DiskOperation.Write, 8, Bytes(6), late, flag: true); // forced unit access goes through
        Assert.All(Content(8), value => Assert.Equal(6, value));
    }

    [Fact]
    public void A_flush_whose_write_back_fails_says_so_and_keeps_what_is_not_durable()
    {
        var disk = Disk(Rule(FaultKind.BlockVolatileCache));
        Do(disk, DiskOperation.Write, 8, Bytes(9));
        _inner.Fails = DiskStatus.IoError;
        Assert.Equal(DiskStatus.IoError, Do(disk, DiskOperation.Flush, 0).Status);
        Assert.Equal(2, disk.VolatileSectors);
        _inner.Fails = null;
        Assert.Equal(DiskStatus.Ok, Do(disk, DiskOperation.Flush, 0).Status);
        Assert.All(Content(8), value => Assert.Equal(9, value));
    }

    [Fact]
    public void A_write_that_is_torn_in_the_cache_is_whole_again_with_the_next_flush()
    {
        var disk = Disk(Rule(FaultKind.BlockVolatileCache) with { Nth = 1 }, Rule(FaultKind.BlockTornWrite) with { Name = "t", Amount = 512 });
        Do(disk, DiskOperation.Write, 8, Bytes(9));
        Assert.All(Content(8, 1), value => Assert.Equal(9, value));
        Assert.All(Content(9, 1), value => Assert.Equal(0, value)); // lost, if the power fails now
        Do(disk, DiskOperation.Write, 20, Bytes(5)); // not cached: whole
        Assert.All(Content(20), value => Assert.Equal(5, value));
        Do(disk, DiskOperation.Flush, 0);
        Assert.All(Content(8), value => Assert.Equal(9, value));
    }

    [Fact]
    public void A_dropped_flush_leaves_the_cache_volatile()
    {
        var disk = Disk(Rule(FaultKind.BlockVolatileCache), Rule(FaultKind.BlockDroppedFlush) with { Name = "d" });
        Do(disk, DiskOperation.Write, 8, Bytes(9));
        Assert.Equal(DiskStatus.Ok, Do(disk, DiskOperation.Flush, 0).Status);
        Assert.Equal(2, disk.VolatileSectors);
        Assert.All(Content(8), value => Assert.Equal(0, value));
        Assert.Equal("dropped; 2 sectors stay volatile", _trace.Firings[^1].Outcome);
    }

    [Fact]
    public void Random_requests_through_the_cache_read_what_was_written_whatever_the_order_of_answers()
    {
        var disk = Disk(Rule(FaultKind.BlockVolatileCache) with { Probability = 0.6 });
        var model = new byte[64];
        var random = new Random(11);
        for (var step = 0; step < 3000; step++)
        {
            var (sector, late) = (random.Next(62), random.Next(2) == 0);
            switch (random.Next(5))
            {
                case 0 or 1:
                    var value = (byte)random.Next(256);
                    Do(disk, DiskOperation.Write, (ulong)sector, Bytes(value), late);
                    (model[sector], model[sector + 1]) = (value, value);
                    break;
                case 2: Do(disk, DiskOperation.Flush, 0, late: late); break;
                default:
                    var read = Bytes(0);
                    Do(disk, DiskOperation.Read, (ulong)sector, read, late);
                    Assert.Equal((model[sector], model[sector + 1]), (read.Bytes[5], read.Bytes[SectorSize + 5]));
                    break;
            }
        }
    }
}
