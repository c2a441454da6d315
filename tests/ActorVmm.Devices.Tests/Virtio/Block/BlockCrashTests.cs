using ActorVmm.Devices.Virtio.Block;
using ActorVmm.Devices.Virtio.Queue;
using ActorVmm.Testing.Virtio;
using Xunit;

namespace ActorVmm.Devices.Tests.Virtio.Block;

/// <summary>A block device that fails between any two steps of its requests: each is answered once, and the disk holds what was written.</summary>
public sealed class BlockCrashTests
{
    public static TheoryData<CrashPoint, int, bool> EveryPoint()
    {
        var all = new TheoryData<CrashPoint, int, bool>();
        foreach (var point in Enum.GetValues<CrashPoint>())
            foreach (var after in (int[])[0, 1, 3])
                foreach (var hold in (bool[])[false, true])
                    all.Add(point, after, hold);
        return all;
    }

    [Theory]
    [MemberData(nameof(EveryPoint))]
    public void Each_request_is_answered_once_and_does_what_it_should(CrashPoint point, int after, bool hold)
    {
        using var rig = new BlockRig(new ScriptedDisk(64) { Hold = hold }, new BlockSettings { QueueSize = 64 }).Started();
        var crash = new CrashAt(point, after);
        rig.Virtio.Ledger.CrashHook = point == CrashPoint.Resubmitting ? new Both(new CrashAt(CrashPoint.RequestTaken), crash) : crash;
        // Taken and handed out again, it has then failed twice: that one request is answered with an error, and not tried any more.
        var poisoned = point == CrashPoint.Resubmitting && after == 0;
        for (var round = 0; round < 4; round++)
        {
            List<BlockJob> jobs = [];
            for (var i = 0; i < 4; i++)
            {
                var sector = (ulong)((4 * round) + i);
                jobs.Add(rig.Guest.AddOut(BlockRequestType.Out, sector, BlockRig.Pattern(512, (int)sector + 1)));
            }
            jobs.Add(rig.Guest.AddOut(BlockRequestType.WriteZeroes, 0, BlockDriver.Ranges((40, 2, 0), (50, 1, 0))));
            rig.Driver.Kick(0);
            for (var turn = 0; turn < 8 && rig.Virtio.Mmio.Queue(0).InFlight > 0; turn++)
            {
                // The disk finishes the newest first; what an old instance left there was forgotten when the new one began.
                while (rig.Disk.Held.Count > 0) rig.Disk.Finish(rig.Disk.Held[^1]);
                rig.Virtio.Backend();
            }
            Assert.Equal(jobs.Select(job => (uint)job.Head).Order(), rig.Driver.Rings[0].Collect().Select(used => used.Head).Order());
            for (var i = 0; i < jobs.Count; i++)
                Assert.Equal(poisoned && round == 0 && i == 0 ? BlockStatus.IoError : BlockStatus.Ok, rig.Guest.Status(jobs[i]));
            rig.Driver.HandleInterrupt();
        }
        for (var sector = poisoned ? 1 : 0; sector < 16; sector++)
            Assert.Equal(BlockRig.Pattern(512, sector + 1), rig.Disk.Content[(sector * 512)..((sector + 1) * 512)]);
        Assert.True(crash.Crashes == 1 || (point == CrashPoint.Resubmitting && after > 0), $"{point} was not reached {after + 1} times");
    }

    [Fact]
    public void A_request_on_which_the_device_fails_twice_is_an_io_error()
    {
        using var rig = new BlockRig().Started();
        rig.Virtio.Ledger.CrashHook = new CrashAt(CrashPoint.RequestDone, times: 2);
        var job = rig.Guest.AddIn(BlockRequestType.In, 0, 512);
        rig.Driver.Kick(0);
        rig.Virtio.Backend();
        Assert.Single(rig.Driver.Rings[0].Collect());
        Assert.Equal(BlockStatus.IoError, rig.Guest.Status(job));
    }

    private sealed class Both(ICrashHook first, ICrashHook second) : ICrashHook
    {
        public void Reached(CrashPoint point, int queue, ushort head)
        {
            first.Reached(point, queue, head);
            second.Reached(point, queue, head);
        }
    }
}
