using System.Buffers.Binary;
using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Mmio;
using ActorVmm.Devices.Virtio.Net;
using ActorVmm.Testing.Virtio;
using Xunit;

namespace ActorVmm.Devices.Tests.Virtio.Net;

/// <summary>The network device as its driver sees it.</summary>
public sealed class NetDeviceTests
{
    private static readonly MacAddress s_other = new(0x02_AC_00_00_00_99);

    [Fact]
    public void Configuration_space_names_address_status_pairs_and_mtu()
    {
        using var rig = new NetRig(new NetOptions { Mac = NetRig.Mac, Mtu = 1400, Pairs = 3 });
        rig.Start(ulong.MaxValue & ~VirtioFeatures.RingReset);
        Assert.Equal([0x02, 0xac, 0, 0, 0, 1, 1, 0, 3, 0, 1400 & 255, 1400 >> 8, 0, 0], rig.Driver.ReadConfig(0, 14));
        Assert.Equal(1u, rig.Driver.Read(MmioRegister.DeviceId));
        Assert.Equal(7, rig.Driver.Rings.Count);
    }

    [Fact]
    public void Configuration_space_is_read_only()
    {
        using var rig = new NetRig().Start();
        rig.Rig.Write((ulong)MmioRegister.Config, 1, 0xff);
        Assert.Equal(0x02, rig.Driver.ReadConfig(0, 1)[0]);
    }

    [Theory]
    [InlineData(PacketOffloads.None, 0ul)]
    [InlineData(PacketOffloads.Checksum, NetFeatures.Checksum | NetFeatures.GuestChecksum)]
    [InlineData(PacketOffloads.Checksum | PacketOffloads.Tcp4,
        NetFeatures.Checksum | NetFeatures.GuestChecksum | NetFeatures.HostTso4 | NetFeatures.GuestTso4)]
    [InlineData((PacketOffloads)31, NetRig.AllOffloads)]
    public void Only_what_the_outside_can_do_is_offered(PacketOffloads can, ulong offered)
    {
        using var rig = new NetRig(packets: new ScriptedPackets { SendOffloads = can, ReceiveOffloads = can });
        Assert.Equal(offered, rig.Driver.Offered & NetRig.AllOffloads);
    }

    [Fact]
    public void What_is_masked_takes_what_needs_it_along()
    {
        using var rig = new NetRig(new NetOptions { Mac = NetRig.Mac, Features = ~(NetFeatures.Checksum | NetFeatures.ControlQueue) });
        Assert.Equal(0ul, rig.Driver.Offered & (NetFeatures.Checksum | NetFeatures.HostTso4 | NetFeatures.HostTso6 | NetFeatures.HostEcn
            | NetFeatures.HostUfo | NetFeatures.ControlQueue | NetFeatures.ControlReceive | NetFeatures.ControlMac));
        Assert.NotEqual(0ul, rig.Driver.Offered & NetFeatures.GuestTso4);
    }

    [Theory]
    [InlineData(NetFeatures.GuestTso4)]
    [InlineData(NetFeatures.HostTso6)]
    [InlineData(NetFeatures.ControlReceive)]
    [InlineData(NetFeatures.HostEcn | NetFeatures.Checksum)]
    public void Features_without_what_they_need_are_refused(ulong features)
    {
        using var rig = new NetRig();
        Assert.Throws<InvalidOperationException>(() => rig.Driver.Negotiate(features));
    }

    [Fact]
    public void The_outside_is_told_what_the_driver_takes_and_no_more()
    {
        using var rig = new NetRig();
        rig.Start(NetFeatures.Checksum | NetFeatures.GuestChecksum | NetFeatures.GuestTso4 | NetFeatures.HostTso6);
        Assert.Equal((PacketOffloads.Checksum | PacketOffloads.Tcp4, 1), rig.Packets.Configured[^1]);
        rig.Driver.Write(MmioRegister.Status, 0);
        Assert.Equal((PacketOffloads.None, 1), rig.Packets.Configured[^1]);
    }

    [Theory]
    [InlineData]
    [InlineData(12)]
    [InlineData(5, 13, 20, 40)]
    [InlineData(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14)]
    public void A_packet_is_sent_as_it_is_however_its_buffers_are_cut(params int[] cuts)
    {
        using var rig = new NetRig().Start();
        var packet = NetRig.Packet(NetRig.Frame(100));
        rig.Send(packet, cuts);
        packet[10] = 1; // the count of buffers is the device's
        Assert.Equal(packet, Assert.Single(rig.Packets.Sent).Bytes);
        Assert.Equal(new UsedBuffer(0, 0), Assert.Single(rig.Tx.Collect()));
        Assert.Equal(InterruptCause.UsedBuffer, rig.Driver.HandleInterrupt());
    }

    [Fact]
    public void Headers_that_the_features_do_not_allow_are_dropped_and_counted()
    {
        using var rig = new NetRig().Start(NetFeatures.Checksum | NetFeatures.HostTso4);
        var frame = NetRig.Frame(200);
        var good = new PacketHeader(PacketFlags.NeedsChecksum, GsoType.Tcp4, 54, 100, 34, 16);
        foreach (var bad in (PacketHeader[])
        [
            good with { GsoType = GsoType.Tcp6 }, good with { GsoType = GsoType.Udp }, good with { GsoType = (GsoType)9 },
            good with { GsoType = GsoType.Tcp4 | GsoType.Ecn }, good with { GsoSize = 0 }, good with { Flags = PacketFlags.None },
            good with { ChecksumStart = 199 }, good with { ChecksumStart = 65535, ChecksumOffset = 65535 },
        ])
            rig.Send(NetRig.Packet(frame, bad));
        Assert.Equal(8, rig[NetCounter.SentBadHeader]);
        Assert.Empty(rig.Packets.Sent);
        rig.Send(NetRig.Packet(frame, good));
        rig.Send(NetRig.Packet(frame, new PacketHeader(PacketFlags.DataValid, GsoType.None, 0, 0, 0, 0)));
        Assert.Equal(2, rig.Packets.Sent.Count);
        Assert.Equal(0, rig.Packets.Sent[1].Bytes[0]); // what means nothing here does not go on
        Assert.Equal(10, rig.Tx.Collect().Count);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(11)]
    [InlineData(25)]
    [InlineData(PacketLimits.MaxPacket + 1)]
    [InlineData(200_000)]
    public void Packets_too_short_or_too_long_are_dropped_never_cut(int length)
    {
        using var rig = new NetRig().Start();
        rig.Send(new byte[Math.Max(length, 1)]);
        Assert.Empty(rig.Packets.Sent);
        Assert.Equal(1, rig[NetCounter.SentBadLength]);
        Assert.Single(rig.Tx.Collect());
        rig.Send(NetRig.Packet(NetRig.Frame(14)));
        rig.Send(NetRig.Packet(NetRig.Frame(PacketLimits.MaxPacket - 12)));
        Assert.Equal(2, rig.Packets.Sent.Count);
    }

    [Fact]
    public void A_frame_longer_than_the_mtu_is_dropped()
    {
        using var rig = new NetRig(new NetOptions { Mac = NetRig.Mac, Mtu = 500 });
        rig.Start(NetFeatures.Mtu | NetFeatures.Checksum | NetFeatures.HostTso4);
        rig.Send(NetRig.Packet(NetRig.Frame(518)));
        rig.Send(NetRig.Packet(NetRig.Frame(519)));
        rig.Send(NetRig.Packet(NetRig.Frame(5000), new PacketHeader(PacketFlags.NeedsChecksum, GsoType.Tcp4, 54, 446, 34, 16)));
        Assert.Equal([530, 5012], rig.Packets.Sent.Select(static sent => sent.Bytes.Length));
        Assert.Equal(1, rig[NetCounter.SentBadLength]);
    }

    [Fact]
    public void A_source_that_is_not_the_devices_is_dropped_where_that_is_checked()
    {
        using var rig = new NetRig(new NetOptions { Mac = NetRig.Mac, SpoofCheck = true });
        rig.Start();
        rig.Send(NetRig.Packet(NetRig.Frame(60, from: s_other)));
        rig.Send(NetRig.Packet(NetRig.Frame(60)));
        Assert.Equal((1, 1L), (rig.Packets.Sent.Count, rig[NetCounter.SentSpoofed]));
    }

    [Fact]
    public void What_was_checked_is_what_is_sent_although_the_driver_changes_it_meanwhile()
    {
        using var rig = new NetRig(new NetOptions { Mac = NetRig.Mac, SpoofCheck = true });
        rig.Start();
        var buffer = rig.Driver.Readable(NetRig.Packet(NetRig.Frame(60)));
        rig.Packets.BeforeSend = () => s_other.CopyTo(Span(rig, buffer)[18..]);
        rig.Tx.Add(buffer);
        rig.Tx.Publish();
        rig.Driver.Ring(1);
        Assert.Equal(NetRig.Mac, MacAddress.From(rig.Packets.Sent[0].Bytes.AsSpan(18)));

        static Span<byte> Span(NetRig rig, GuestBuffer at)
        {
            Assert.True(rig.Driver.Memory.TrySliceForWrite(at.Address, (int)at.Length, out var bytes));
            return bytes;
        }
    }

    [Fact]
    public void A_packet_that_the_outside_refuses_is_counted_and_the_next_one_goes()
    {
        using var rig = new NetRig().Start();
        rig.Packets.Answer = PacketSent.Dropped;
        rig.Send(NetRig.Packet(NetRig.Frame(60)));
        rig.Packets.Answer = PacketSent.Done;
        rig.Send(NetRig.Packet(NetRig.Frame(60)));
        Assert.Equal((1L, 1L), (rig[NetCounter.SentRefused], rig[NetCounter.Sent]));
        Assert.Equal(2, rig.Tx.Collect().Count);
    }

    [Theory]
    [InlineData(0ul, 1)]
    [InlineData(NetFeatures.MergeBuffers, 1)]
    public void A_packet_is_received_with_its_header_and_a_count_of_one(ulong features, ushort count)
    {
        using var rig = new NetRig().Start(features);
        var buffers = rig.Post(2, 1600);
        var frame = NetRig.Frame(1000);
        rig.Packets.Arrive(frame, new PacketHeader(PacketFlags.DataValid, GsoType.None, 0, 0, 0, 0));
        rig.Backend();
        Assert.Equal(new UsedBuffer(0, 1012), Assert.Single(rig.Rx.Collect()));
        var got = rig.Driver.Bytes(buffers[0]);
        Assert.Equal(frame, got[12..1012]);
        Assert.Equal((2, count), (got[0], BinaryPrimitives.ReadUInt16LittleEndian(got.AsSpan(10))));
        Assert.Equal(InterruptCause.UsedBuffer, rig.Driver.HandleInterrupt());
    }

    [Fact]
    public void A_large_packet_fills_several_merged_buffers()
    {
        using var rig = new NetRig().Start(NetFeatures.MergeBuffers | NetFeatures.GuestChecksum | NetFeatures.GuestTso4);
        var buffers = rig.Post(60, 1500);
        var frame = NetRig.Frame(60_000);
        rig.Packets.Arrive(frame);
        rig.Packets.Arrive(NetRig.Frame(100));
        rig.Backend();
        var used = rig.Rx.Collect();
        Assert.Equal(42, used.Count); // 60012 bytes in 41 buffers, and one more packet
        Assert.All(used.Take(40), static one => Assert.Equal(1500u, one.Written));
        Assert.Equal([12u, 112u], used.Skip(40).Select(static one => one.Written));
        var whole = buffers.Take(41).SelectMany(rig.Driver.Bytes).ToArray();
        Assert.Equal(41, BinaryPrimitives.ReadUInt16LittleEndian(whole.AsSpan(10)));
        Assert.Equal(frame, whole[12..60_012]);
        Assert.Equal(NetRig.Frame(100), rig.Driver.Bytes(buffers[41])[12..112]);
    }

    [Fact]
    public void A_packet_that_does_not_fit_yet_waits_for_buffers_and_is_whole_then()
    {
        using var rig = new NetRig().Start(NetFeatures.MergeBuffers | NetFeatures.GuestChecksum | NetFeatures.GuestTso4);
        var first = rig.Post(3, 1000);
        var frame = NetRig.Frame(9000);
        rig.Packets.Arrive(frame);
        rig.Backend();
        Assert.Empty(rig.Rx.Collect());
        var more = rig.Post(7, 1000);
        Assert.Equal(10, rig.Rx.Collect().Count);
        Assert.Equal(frame, first.Concat(more).SelectMany(rig.Driver.Bytes).ToArray()[12..9012]);
        Assert.Equal(0, rig[NetCounter.ReceivedNoRoom]);
    }

    [Fact]
    public void A_driver_that_fills_its_queue_little_by_little_loses_no_large_packet()
    {
        using var rig = new NetRig().Start(NetFeatures.MergeBuffers | NetFeatures.GuestChecksum | NetFeatures.GuestTso4);
        var buffers = rig.Post(5, 1500).ToList();
        rig.Packets.Arrive(NetRig.Frame(60_000));
        rig.Backend();
        for (var i = 0; i < 4; i++)
        {
            Assert.Empty(rig.Rx.Collect());
            buffers.AddRange(rig.Post(9, 1500)); // each time with a ring
        }
        Assert.Equal(41, rig.Rx.Collect().Count);
        Assert.Equal(NetRig.Frame(60_000), buffers.SelectMany(rig.Driver.Bytes).ToArray()[12..60_012]);
        Assert.Equal(0, rig[NetCounter.ReceivedNoRoom]);
    }

    /// <summary>
    /// Linux fills a queue up only when half of 64 buffers are gone: with one of 64 entries, 33 may be all that it has there, and all that it
    /// will have there until one of them is completed. By its event index a driver shows that it has done what it wants to do.
    /// </summary>
    [Theory]
    [InlineData(VirtioFeatures.EventIndex, 1)]
    [InlineData(0ul, 20)]
    public void A_packet_that_waits_for_buffers_a_driver_does_not_add_is_let_go_in_time(ulong transport, int looks)
    {
        using var rig = new NetRig().Start(Large, size: 64, transport);
        rig.Post(33, 1536);
        rig.Packets.Arrive(NetRig.Frame(60_000));
        rig.Packets.Arrive(NetRig.Frame(100));
        rig.Backend();
        for (var look = 0; look < looks; look++)
        {
            Assert.Equal(0, rig[NetCounter.ReceivedNoRoom]);
            rig.Driver.Ring(0); // in vain, and no reason to wait longer
            rig.Clock.Nanoseconds = rig.Rig.Mmio.Deadline!.Value;
            rig.Rig.Mmio.Advance(rig.Clock.Nanoseconds);
        }
        rig.Backend();
        Assert.Equal(1, rig[NetCounter.ReceivedNoRoom]);
        Assert.Equal(112u, Assert.Single(rig.Rx.Collect()).Written);
        Assert.Null(rig.Rig.Mmio.Deadline);
    }

    [Fact]
    public void A_packet_waits_for_the_buffers_of_a_driver_that_is_behind()
    {
        using var rig = new NetRig().Start(Large, size: 64);
        var buffers = rig.Post(34, 1536);
        rig.Packets.Arrive(NetRig.Frame(100));
        rig.Packets.Arrive(NetRig.Frame(60_000));
        rig.Backend(); // the first is published, and the driver has not looked yet
        for (var look = 0; look < 5; look++)
        {
            rig.Clock.Nanoseconds = rig.Rig.Mmio.Deadline!.Value;
            rig.Rig.Mmio.Advance(rig.Clock.Nanoseconds);
        }
        Assert.Equal(0, rig[NetCounter.ReceivedNoRoom]);
        Assert.Equal(112u, Assert.Single(rig.Rx.Collect()).Written);
        var more = rig.Post(20, 1536);
        Assert.Equal(40, rig.Rx.Collect().Count);
        Assert.Equal(NetRig.Frame(60_000), buffers.Skip(1).Concat(more).SelectMany(rig.Driver.Bytes).ToArray()[12..60_012]);
        Assert.Equal(0, rig[NetCounter.ReceivedNoRoom]);
    }

    [Fact]
    public void A_packet_that_waits_for_buffers_of_a_queue_that_then_breaks_rings_no_alarm_for_ever()
    {
        using var rig = new NetRig().Start(Large, size: 64);
        rig.Post(5, 1500);
        rig.Packets.Arrive(NetRig.Frame(60_000));
        rig.Backend();
        rig.Rx.SetAvailable(5, 999);
        rig.Rx.SetAvailableIndex(6);
        rig.Driver.Ring(0);
        for (var look = 0; look < 20; look++)
        {
            rig.Clock.Nanoseconds = rig.Rig.Mmio.Deadline!.Value;
            rig.Rig.Mmio.Advance(rig.Clock.Nanoseconds);
        }
        Assert.Null(rig.Rig.Mmio.Deadline);
    }

    private const ulong Large = NetFeatures.MergeBuffers | NetFeatures.GuestChecksum | NetFeatures.GuestTso4;

    [Fact]
    public void A_packet_that_never_fits_is_dropped_and_the_next_one_comes()
    {
        using var rig = new NetRig().Start(NetFeatures.MergeBuffers | NetFeatures.GuestChecksum | NetFeatures.GuestTso4, size: 8);
        rig.Post(8, 1000);
        rig.Packets.Arrive(NetRig.Frame(9000));
        rig.Packets.Arrive(NetRig.Frame(100));
        rig.Backend();
        Assert.Equal(112u, Assert.Single(rig.Rx.Collect()).Written);
        Assert.Equal(1, rig[NetCounter.ReceivedNoRoom]);
    }

    [Fact]
    public void Without_merging_a_packet_larger_than_its_buffer_is_dropped_never_cut()
    {
        using var rig = new NetRig().Start();
        var buffers = rig.Post(4, 600);
        rig.Packets.Arrive(NetRig.Frame(589));
        rig.Packets.Arrive(NetRig.Frame(588));
        rig.Backend();
        Assert.Equal(600u, Assert.Single(rig.Rx.Collect()).Written);
        Assert.Equal(NetRig.Frame(588), rig.Driver.Bytes(buffers[0])[12..]);
        Assert.Equal(1, rig[NetCounter.ReceivedNoRoom]);
    }

    [Theory]
    [InlineData(0ul)]
    [InlineData(NetFeatures.MergeBuffers)]
    public void Receive_buffers_that_are_too_short_or_not_writable_are_given_back_empty(ulong features)
    {
        using var rig = new NetRig().Start(features);
        rig.Rx.Add(rig.Driver.Writable(11));
        rig.Rx.Add(rig.Driver.Readable(new byte[2000]));
        rig.Rx.Add(rig.Driver.Readable(new byte[10]), rig.Driver.Writable(2000));
        var good = rig.Post(1, 2000)[0];
        rig.Packets.Arrive(NetRig.Frame(300));
        rig.Backend();
        Assert.Equal([0u, 0u, 0u, 312u], rig.Rx.Collect().Select(static used => used.Written));
        Assert.Equal(NetRig.Frame(300), rig.Driver.Bytes(good)[12..312]);
        Assert.Equal(3, rig[NetCounter.BadBuffers]);
    }

    [Fact]
    public void Packets_wait_outside_until_there_are_buffers()
    {
        using var rig = new NetRig().Start();
        rig.Packets.Arrive(NetRig.Frame(60));
        rig.Backend();
        Assert.Equal(1, rig.Packets.Waiting());
        rig.Post(1, 2000);
        Assert.Single(rig.Rx.Collect());
    }

    [Fact]
    public void A_flood_is_served_in_parts_and_the_device_asks_to_go_on()
    {
        using var rig = new NetRig().Start(NetFeatures.MergeBuffers);
        rig.Post(200, 1600);
        for (var i = 0; i < 200; i++) rig.Packets.Arrive(NetRig.Frame(60));
        rig.Rig.Backend();
        Assert.InRange(rig.Rx.Collect().Count, 1, 199);
        Assert.True(rig.AskedAgain);
        rig.Backend();
        Assert.Equal(0, rig.Packets.Waiting());
    }

    [Fact]
    public void The_driver_says_what_it_wants_to_receive()
    {
        using var rig = new NetRig().Start(NetFeatures.ControlQueue | NetFeatures.ControlReceive | NetFeatures.ControlReceiveExtra);
        var group = new MacAddress(0x01_00_5e_00_00_01);
        Assert.True(Arrives(rig, s_other)); // before it says anything
        Assert.Equal(0, rig.Command(0, 0, 0));
        Assert.False(Arrives(rig, s_other));
        Assert.True(Arrives(rig, NetRig.Mac));
        Assert.True(Arrives(rig, MacAddress.Broadcast));
        Assert.False(Arrives(rig, group));
        Assert.Equal(0, rig.Command(1, 0, [1, 0, 0, 0, 2, 0xac, 0, 0, 0, 0x99, 1, 0, 0, 0, 1, 0, 0x5e, 0, 0, 1]));
        Assert.True(Arrives(rig, s_other));
        Assert.True(Arrives(rig, group));
        Assert.Equal(0, rig.Command(1, 0, new byte[8]));
        Assert.False(Arrives(rig, group));
        Assert.Equal(0, rig.Command(0, 1, 1));
        Assert.True(Arrives(rig, group));
        Assert.Equal(0, rig.Command(0, 3, 1));
        Assert.False(Arrives(rig, group));
        Assert.Equal(0, rig.Command(0, 5, 1));
        Assert.False(Arrives(rig, MacAddress.Broadcast));
        Assert.Equal(0, rig.Command(0, 2, 1));
        Assert.True(Arrives(rig, s_other));
        // More than the table holds lets all of that kind in.
        Assert.Equal(0, rig.Command(0, 2, 0));
        Assert.Equal(0, rig.Command(1, 0, [40, 0, 0, 0, .. new byte[240], 0, 0, 0, 0]));
        Assert.True(Arrives(rig, s_other));
    }

    [Fact]
    public void The_driver_sets_its_address_and_a_restarted_device_knows_it()
    {
        using var rig = new NetRig(new NetOptions { Mac = NetRig.Mac, SpoofCheck = true });
        rig.Start(NetFeatures.ControlQueue | NetFeatures.ControlMac);
        Assert.Equal(0, rig.Command(1, 1, [2, 0xac, 0, 0, 0, 0x99]));
        rig.Rig.Restart();
        rig.Send(NetRig.Packet(NetRig.Frame(60, from: s_other)));
        Assert.Single(rig.Packets.Sent);
        Assert.Equal(1, rig.Command(1, 1, [3, 0, 0, 0, 0, 1])); // a group is nobody's address
        rig.Driver.Write(MmioRegister.Status, 0);
        Assert.Equal(NetRig.Mac, rig.Device.Mac);
    }

    [Fact]
    public void Pairs_are_switched_on_by_command_and_serve_both_ways()
    {
        using var rig = new NetRig(new NetOptions { Mac = NetRig.Mac, Pairs = 2 });
        rig.Start(NetFeatures.ControlQueue | NetFeatures.MultiQueue);
        Assert.Equal(1, rig.Command(4, 0, 3, 0));
        Assert.Equal(1, rig.Command(4, 0, 0, 0));
        Assert.Equal(0, rig.Command(4, 0, 2, 0));
        Assert.Equal(2, rig.Packets.Configured[^1].Pairs);
        rig.Driver.Rings[2].Add(rig.Driver.Writable(2000));
        rig.Driver.Rings[2].Publish();
        rig.Packets.Arrive(NetRig.Frame(70), pair: 1);
        rig.Driver.Ring(2);
        Assert.Equal(82u, Assert.Single(rig.Driver.Rings[2].Collect()).Written);
        rig.Driver.Rings[3].Add(rig.Driver.Readable(NetRig.Packet(NetRig.Frame(60))));
        rig.Driver.Rings[3].Publish();
        rig.Driver.Ring(3);
        Assert.Equal(1, Assert.Single(rig.Packets.Sent).Pair);
    }

    [Fact]
    public void Without_several_queues_the_control_queue_is_the_third()
    {
        using var rig = new NetRig(new NetOptions { Mac = NetRig.Mac, Pairs = 2 });
        rig.Start(NetFeatures.ControlQueue | NetFeatures.ControlReceive);
        var ring = rig.Driver.Rings[2];
        var ack = rig.Driver.Writable(1);
        ring.Add(rig.Driver.Readable([0, 0]), rig.Driver.Readable([0]), ack);
        ring.Publish();
        rig.Driver.Ring(2);
        Assert.Single(ring.Collect());
        Assert.Equal(1, rig[NetCounter.Commands]);
        Assert.Equal(0, rig.Driver.Bytes(ack)[0]);
    }

    [Fact]
    public void What_is_taken_uncut_changes_by_command_within_what_was_negotiated()
    {
        const ulong Negotiated = NetFeatures.GuestChecksum | NetFeatures.GuestTso4;
        using var rig = new NetRig().Start(NetFeatures.ControlQueue | NetFeatures.ControlGuestOffloads | Negotiated);
        Assert.Equal(0, rig.Command(5, 0, BitConverter.GetBytes(NetFeatures.GuestChecksum)));
        Assert.Equal(PacketOffloads.Checksum, rig.Packets.Configured[^1].Receive);
        Assert.Equal(1, rig.Command(5, 0, BitConverter.GetBytes(NetFeatures.GuestChecksum | NetFeatures.GuestTso6)));
        Assert.Equal(1, rig.Command(5, 0, BitConverter.GetBytes(NetFeatures.GuestTso4)));
        Assert.Equal(0, rig.Command(5, 0, BitConverter.GetBytes(Negotiated)));
        Assert.Equal(PacketOffloads.Checksum | PacketOffloads.Tcp4, rig.Packets.Configured[^1].Receive);
    }

    [Fact]
    public void Malformed_and_unknown_commands_get_an_error_and_change_nothing()
    {
        using var rig = new NetRig().Start(NetFeatures.ControlQueue | NetFeatures.ControlReceive | NetFeatures.ControlMac);
        Assert.Equal(1, rig.Command(9, 0, 0));
        Assert.Equal(1, rig.Command(0, 77, 1));
        Assert.Equal(1, rig.Command(0, 2, 1));                                // not negotiated
        Assert.Equal(1, rig.Command(0, 0, 7));                                // neither on nor off
        Assert.Equal(1, rig.Command(1, 0, [255, 255, 255, 255, 1, 2, 3]));    // a count that lies
        Assert.Equal(1, rig.Command(1, 1, [1, 2]));                           // half an address
        Assert.Equal(1, rig.Command(4, 0, 1, 0));
        Assert.Equal(7, rig[NetCounter.BadCommands]);
        Assert.True(Arrives(rig, s_other));
        Assert.Equal(NetRig.Mac, rig.Device.Mac);
    }

    [Fact]
    public void The_cable_is_pulled_and_put_in_with_a_config_interrupt_each()
    {
        using var rig = new NetRig().Start();
        rig.Post(4, 2000);
        rig.Control.SetPlugged(false);
        rig.Packets.Arrive(NetRig.Frame(60));
        rig.Backend();
        Assert.Equal(InterruptCause.ConfigChange, rig.Driver.HandleInterrupt());
        Assert.Equal(0, rig.Driver.ReadConfig(6, 1)[0]);
        rig.Send(NetRig.Packet(NetRig.Frame(60)));
        Assert.Empty(rig.Packets.Sent);
        Assert.Empty(rig.Rx.Collect());
        Assert.Equal(2, rig[NetCounter.LinkDown]);
        rig.Driver.HandleInterrupt();
        rig.Control.SetPlugged(true);
        rig.Backend();
        Assert.Equal(InterruptCause.ConfigChange, rig.Driver.HandleInterrupt());
        Assert.Equal(1, rig.Driver.ReadConfig(6, 1)[0]);
        rig.Send(NetRig.Packet(NetRig.Frame(60)));
        Assert.Single(rig.Packets.Sent);
        Assert.True(Arrives(rig, NetRig.Mac));
    }

    [Fact]
    public void The_link_follows_the_outside()
    {
        using var rig = new NetRig().Start();
        rig.Packets.LinkUp = false;
        rig.Backend();
        Assert.Equal(InterruptCause.ConfigChange, rig.Driver.HandleInterrupt());
        rig.Control.SetPlugged(false);
        rig.Packets.LinkUp = true;
        rig.Backend();
        Assert.Equal(0, rig.Driver.ReadConfig(6, 1)[0]);
    }

    [Fact]
    public void Packets_over_the_rate_wait_and_go_when_their_time_has_come()
    {
        var tenPerSecond = new RateLimiterSpec(default, new TokenBucketSpec(10, 0, 1000));
        using var rig = new NetRig(new NetOptions { Mac = NetRig.Mac, TransmitLimits = tenPerSecond, ReceiveLimits = tenPerSecond });
        rig.Start();
        rig.Post(30, 2000);
        for (var i = 0; i < 15; i++) rig.Packets.Arrive(NetRig.Frame(60 + i));
        for (var i = 0; i < 15; i++) rig.Send(NetRig.Packet(NetRig.Frame(60 + i)));
        rig.Backend();
        Assert.Equal((10, 10), (rig.Packets.Sent.Count, rig.Rx.Collect().Count));
        Assert.Equal(10, rig.Tx.Collect().Count);
        for (var i = 0; i < 5; i++)
        {
            rig.Clock.Nanoseconds = rig.Rig.Mmio.Deadline!.Value;
            rig.Rig.Mmio.Advance(rig.Clock.Nanoseconds);
        }
        Assert.Equal(1_000_000_000ul / 10 * 5, rig.Clock.Nanoseconds);
        Assert.Equal((15, 5), (rig.Packets.Sent.Count, rig.Rx.Collect().Count));
        Assert.Null(rig.Rig.Mmio.Deadline);
        Assert.Equal(60 + 14 + 12, rig.Packets.Sent[^1].Bytes.Length);
    }

    [Fact]
    public void What_waits_for_its_time_and_is_nobodys_any_more_leaves_no_deadline()
    {
        var onePerSecond = new RateLimiterSpec(default, new TokenBucketSpec(1, 0, 1000));
        using var rig = new NetRig(new NetOptions { Mac = NetRig.Mac, TransmitLimits = onePerSecond, ReceiveLimits = onePerSecond });
        rig.Start();
        rig.Post(4, 2000);
        for (var i = 0; i < 2; i++) rig.Packets.Arrive(NetRig.Frame(60));
        for (var i = 0; i < 2; i++) rig.Send(NetRig.Packet(NetRig.Frame(60)));
        rig.Backend();
        Assert.Equal(1_000_000_000ul, rig.Rig.Mmio.Deadline);
        rig.Control.SetPlugged(false); // what waits is dropped, in both directions
        rig.Clock.Nanoseconds = 1_000_000_000;
        rig.Rig.Mmio.Advance(rig.Clock.Nanoseconds);
        Assert.Equal(2, rig[NetCounter.LinkDown]);
        Assert.True(rig.Rig.Mmio.Deadline is not { } next || next > rig.Clock.Nanoseconds); // else the alarm would ring for it for ever
    }

    [Theory]
    [InlineData(0ul)]
    [InlineData(NetFeatures.MergeBuffers)]
    public void A_packet_that_the_rate_limit_holds_back_survives_a_restart(ulong features)
    {
        var onePerSecond = new RateLimiterSpec(default, new TokenBucketSpec(1, 0, 1000));
        using var rig = new NetRig(new NetOptions { Mac = NetRig.Mac, ReceiveLimits = onePerSecond });
        rig.Start(features);
        var buffers = rig.Post(4, 2000);
        for (var i = 0; i < 3; i++) rig.Packets.Arrive(NetRig.Frame(100 + i));
        rig.Backend();
        Assert.Equal(1, rig.Packets.Waiting()); // one is through, one is kept
        rig.Rig.Restart();
        rig.Backend();
        Assert.Single(rig.Rx.Collect());
        for (var i = 1; i < 3; i++)
        {
            rig.Clock.Nanoseconds = rig.Rig.Mmio.Deadline!.Value;
            rig.Rig.Mmio.Advance(rig.Clock.Nanoseconds);
            Assert.Equal((uint)(112 + i), Assert.Single(rig.Rx.Collect()).Written);
            Assert.Equal(NetRig.Frame(100 + i), rig.Driver.Bytes(buffers[i])[12..(112 + i)]);
            rig.Rig.Restart();
            rig.Backend();
        }
        Assert.Equal(3, rig[NetCounter.Received]);
    }

    [Fact]
    public void A_packet_that_waits_for_buffers_survives_a_restart_and_not_a_reset()
    {
        const ulong Features = NetFeatures.MergeBuffers | NetFeatures.GuestChecksum | NetFeatures.GuestTso4;
        using var rig = new NetRig().Start(Features);
        var first = rig.Post(3, 1000);
        rig.Packets.Arrive(NetRig.Frame(9000));
        rig.Backend();
        rig.Rig.Restart();
        rig.Backend();
        var more = rig.Post(7, 1000);
        Assert.Equal(10, rig.Rx.Collect().Count);
        Assert.Equal(NetRig.Frame(9000), first.Concat(more).SelectMany(rig.Driver.Bytes).ToArray()[12..9012]);

        rig.Post(3, 1000);
        rig.Packets.Arrive(NetRig.Frame(9000));
        rig.Backend();
        rig.Driver.Write(MmioRegister.Status, 0);
        rig.Start(Features);
        rig.Post(20, 1000);
        Assert.Empty(rig.Rx.Collect()); // what came for the driver before is not the next one's
    }

    [Fact]
    public void Limits_change_at_run_time()
    {
        using var rig = new NetRig(new NetOptions
        {
            Mac = NetRig.Mac, TransmitLimits = new RateLimiterSpec(default, new TokenBucketSpec(1, 0, 1000)),
        });
        rig.Start();
        for (var i = 0; i < 5; i++) rig.Send(NetRig.Packet(NetRig.Frame(60)));
        Assert.Single(rig.Packets.Sent);
        rig.Control.SetLimits(null, RateLimiterSpec.Off);
        rig.Backend();
        Assert.Equal(5, rig.Packets.Sent.Count);
    }

    [Fact]
    public void A_restarted_device_goes_on_with_buffers_pairs_and_modes()
    {
        using var rig = new NetRig(new NetOptions { Mac = NetRig.Mac, Pairs = 2 });
        rig.Start(NetFeatures.ControlQueue | NetFeatures.MultiQueue | NetFeatures.ControlReceive | NetFeatures.MergeBuffers);
        rig.Command(4, 0, 2, 0);
        rig.Command(0, 0, 0);
        rig.Post(6, 1000);
        rig.Packets.Arrive(NetRig.Frame(500));
        rig.Backend();
        rig.Rig.Restart();
        rig.Backend();
        Assert.Equal(2, rig.Packets.Configured[^1].Pairs);
        rig.Packets.Arrive(NetRig.Frame(500, to: s_other));
        rig.Packets.Arrive(NetRig.Frame(501));
        rig.Backend();
        Assert.Equal([512u, 513u], rig.Rx.Collect().Select(static used => used.Written));
        rig.Driver.Write(MmioRegister.Status, 0);
        rig.Start(NetFeatures.MergeBuffers);
        rig.Post(2, 1000);
        Assert.True(Arrives(rig, s_other, post: false));
    }

    [Fact]
    public void A_queue_that_the_driver_breaks_leaves_the_other_working()
    {
        using var rig = new NetRig().Start();
        rig.Rx.SetAvailable(0, 999);
        rig.Rx.SetAvailableIndex(1);
        rig.Driver.Ring(0);
        Assert.True(rig.Driver.Status.HasFlag(DeviceStatus.NeedsReset));
        rig.Send(NetRig.Packet(NetRig.Frame(60)));
        Assert.Single(rig.Packets.Sent);
        rig.Packets.Arrive(NetRig.Frame(60));
        rig.Backend();
        Assert.Equal(0, rig.Rig.Restarts);
    }

    [Fact]
    public void One_queue_can_be_reset_alone()
    {
        using var rig = new NetRig();
        rig.Driver.Start(NetFeatures.MergeBuffers | VirtioFeatures.RingReset);
        rig.Post(4, 2000);
        rig.Packets.Arrive(NetRig.Frame(60));
        rig.Backend();
        rig.Driver.Write(MmioRegister.QueueSel, 0);
        rig.Driver.Write(MmioRegister.QueueReset, 1);
        rig.Packets.Arrive(NetRig.Frame(61));
        rig.Backend();
        Assert.Equal(1, rig.Packets.Waiting());
        rig.Rx.Clear();
        rig.Driver.SetUpQueue(0, rig.Rx);
        rig.Post(1, 2000);
        Assert.Equal(73u, Assert.Single(rig.Rx.Collect()).Written);
    }

    [Fact]
    public void Packets_cost_no_allocation()
    {
        using var rig = new NetRig().Start(NetFeatures.MergeBuffers | NetFeatures.Checksum | NetFeatures.GuestChecksum);
        rig.Packets.Forget = true;
        var packet = rig.Driver.Readable(NetRig.Packet(NetRig.Frame(1000)));
        void Round()
        {
            for (var i = 0; i < 64; i++) rig.Tx.Add(packet);
            rig.Tx.Publish();
            rig.Rig.Mmio.Write((ulong)MmioRegister.QueueNotify, 4, 1);
            while (rig.Tx.TryCollect(out _)) { }
        }
        for (var i = 0; i < 100; i++) Round();
        var before = GC.GetAllocatedBytesForCurrentThread();
        for (var i = 0; i < 100; i++) Round();
        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
        Assert.Equal(200 * 64, rig.Packets.SentCount);
    }

    private static bool Arrives(NetRig rig, MacAddress to, bool post = true)
    {
        rig.Rx.Collect();
        if (post) rig.Post(1, 2000);
        rig.Packets.Arrive(NetRig.Frame(64, to));
        rig.Backend();
        Assert.Equal(0, rig.Packets.Waiting());
        return rig.Rx.Collect().Count == 1;
    }
}
