using System.Buffers.Binary;
using ActorVmm.Devices.Virtio.Mmio;
using ActorVmm.Devices.Virtio.Net;
using ActorVmm.Devices.Virtio.Queue;
using ActorVmm.Testing.Virtio;
using Xunit;

namespace ActorVmm.Devices.Tests.Virtio.Net;

/// <summary>A network device that fails between any two steps of its requests: what had been received is neither lost nor doubled.</summary>
public sealed class NetCrashTests
{
    private static readonly int[] s_lengths = [60, 500, 61, 300, 100, 62];

    /// <summary>All but the second failure on one buffer, which is given back empty, its packet lost.</summary>
    public static TheoryData<CrashPoint, int, bool> EveryPoint()
    {
        var all = new TheoryData<CrashPoint, int, bool>();
        foreach (var point in Enum.GetValues<CrashPoint>().Where(point => point != CrashPoint.Resubmitting))
            foreach (var after in (int[])[0, 1, 2, 4])
                foreach (var merge in (bool[])[false, true])
                    all.Add(point, after, merge);
        return all;
    }

    /// <summary>With merged buffers, a packet lies in up to four of them.</summary>
    [Theory]
    [MemberData(nameof(EveryPoint))]
    public void Each_packet_arrives_once_whole_and_in_order(CrashPoint point, int after, bool merge)
    {
        using var net = new NetRig().Start(NetFeatures.Mac | NetFeatures.Status | (merge ? NetFeatures.MergeBuffers : 0), size: 64);
        var buffers = new Dictionary<uint, GuestBuffer>();
        for (var i = 0; i < 32; i++)
        {
            var buffer = net.Driver.Writable(merge ? 140u : 2048u);
            buffers[(uint)net.Rx.Add(buffer)] = buffer;
        }

        var crash = new CrashAt(point, after);
        net.Rig.Ledger.CrashHook = crash;
        var frames = s_lengths.Select(length => NetRig.Frame(length)).ToArray();
        foreach (var frame in frames) net.Packets.Arrive(frame);
        net.Rx.Publish();
        net.Driver.Ring(0);
        for (var turn = 0; turn < 6; turn++) net.Backend();

        var used = net.Rx.Collect();
        var received = new List<byte[]>();
        for (var at = 0; at < used.Count;)
        {
            var count = BinaryPrimitives.ReadUInt16LittleEndian(net.Driver.Bytes(buffers[used[at].Head]).AsSpan(PacketHeader.BufferCountOffset));
            Assert.InRange(count, 1, merge ? 4 : 1);
            var packet = used.GetRange(at, count).SelectMany(part => net.Driver.Bytes(buffers[part.Head]).Take((int)part.Written));
            received.Add([.. packet.Skip(PacketHeader.Length)]);
            at += count;
        }

        Assert.Equal(frames, received);
        // One publication and one interrupt may be all that there is.
        var once = point is CrashPoint.ElementsWritten or CrashPoint.IndexPublished or CrashPoint.PublicationRecorded or CrashPoint.InterruptDecided;
        Assert.True(crash.Crashes == 1 || (once && after > 0), $"{point} was not reached {after + 1} times");
    }

    /// <summary>What the driver was told last outlives the device: a fresh one compares with it, and not with what is.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_cable_that_is_moved_while_the_device_fails_is_noticed_by_the_driver(bool up)
    {
        using var net = new NetRig().Start();
        net.Control.SetPlugged(!up);
        net.Backend();
        Assert.Equal(up ? InterruptCause.ConfigChange : InterruptCause.None, net.Driver.HandleInterrupt());
        net.Control.SetPlugged(up);
        net.Rig.Restart(); // with the bell unheard
        net.Backend();
        Assert.Equal(InterruptCause.ConfigChange, net.Driver.HandleInterrupt());
        Assert.Equal(up ? 1 : 0, net.Driver.ReadConfig(6, 1)[0]);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Buffers_that_wait_for_packets_are_not_held_against_by_failures_meanwhile(bool merge)
    {
        using var net = new NetRig().Start(NetFeatures.Mac | NetFeatures.Status | (merge ? NetFeatures.MergeBuffers : 0), size: 64);
        var buffers = net.Post(8, 2048);
        for (var turn = 0; turn < 5; turn++)
        {
            net.Rig.Restart();
            net.Backend();
            Assert.False(net.Rig.Ledger.IsRepeating); // nobody tries anything for the second time
        }

        Assert.Empty(net.Rx.Collect());
        for (var turn = 0; turn < 5; turn++)
        {
            net.Packets.Arrive(NetRig.Frame(60 + turn));
            net.Backend();
            Assert.Equal(NetRig.Frame(60 + turn), net.Driver.Bytes(buffers[turn])[PacketHeader.Length..(PacketHeader.Length + 60 + turn)]);
            Assert.Equal((uint)(PacketHeader.Length + 60 + turn), Assert.Single(net.Rx.Collect()).Written);
            net.Rig.Restart();
        }

        Assert.Equal(0, net[NetCounter.Suspect]);
    }
}
