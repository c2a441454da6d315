using ActorVmm.Devices.Faults;
using ActorVmm.Devices.Virtio.Net;
using ActorVmm.Memory;
using ActorVmm.Testing.Devices;
using ActorVmm.Testing.Virtio;
using Xunit;

namespace ActorVmm.Devices.Tests.Faults;

/// <summary>Each fault of a network, from the guest and to it.</summary>
public sealed class FaultyPacketsTests
{
    private readonly ManualClock _clock = new();
    private readonly FaultEngineTests.RecordingTrace _trace = new();
    private readonly ScriptedPackets _inner = new();
    private readonly List<(ulong At, Action Action)> _timers = [];
    private readonly HostScratch _buffer = new(PacketLimits.MaxPacket);
    private readonly FaultEngine[] _engine = new FaultEngine[1];

    private FaultyPackets Port(params FaultRule[] rules)
    {
        _engine[0] = new FaultEngine(new FaultPlan(5, rules), _clock, _trace);
        return new FaultyPackets(_inner, _engine[0].Site(FaultFamily.Packets, "net0"), (at, action) => _timers.Add((at, action)));
    }

    private static FaultRule Rule(FaultKind kind) => new() { Kind = kind, Name = "r" };

    private static byte[] Frame(byte tag) => [.. Enumerable.Repeat(tag, 60)];

    private void Send(FaultyPackets port, params byte[] tags)
    {
        foreach (var tag in tags)
        {
            var scratch = new HostScratch(PacketHeader.Length + 60);
            Frame(tag).CopyTo(scratch.Bytes[PacketHeader.Length..]);
            port.Send(0, [scratch.Segment.Slice(0, 5), scratch.Segment.Slice(5, scratch.Bytes.Length - 5)]);
        }
    }

    private byte[] SentTags() => [.. _inner.Sent.Select(packet => packet.Bytes[^1])];

    private byte[] Receive(FaultyPackets port)
    {
        var tags = new List<byte>();
        while (port.Receive(0, [_buffer.Segment.Slice(0, 20), _buffer.Segment.Slice(20, 2000)]) is > 0 and var count) tags.Add(_buffer.Bytes[count - 1]);
        return [.. tags];
    }

    /// <summary>Machine time moves, and whoever asked to be called is.</summary>
    private void Advance(ulong nanoseconds)
    {
        _clock.Advance(nanoseconds);
        foreach (var (at, action) in _timers.ToArray())
            if (at <= _clock.Nanoseconds) action();
    }

    private void Arrive(params byte[] tags) { foreach (var tag in tags) _inner.Arrive(Frame(tag)); }

    [Fact]
    public void Without_a_rule_packets_pass_both_ways()
    {
        var port = Port();
        Send(port, 1, 2, 3);
        Arrive(4, 5);
        Assert.Equal([1, 2, 3], SentTags());
        Assert.Equal([4, 5], Receive(port));
        Assert.Empty(_trace.Firings);
        Assert.True(port.LinkUp);
    }

    [Fact]
    public void A_lost_packet_is_lost_in_the_direction_that_was_meant()
    {
        var port = Port(Rule(FaultKind.NetLoss) with { Nth = 2, Direction = "rx" });
        Send(port, 1, 2, 3);
        Arrive(4, 5, 6);
        Assert.Equal([1, 2, 3], SentTags());
        Assert.Equal([4, 6], Receive(port));
        Assert.Equal(("lost", "rx"), (Assert.Single(_trace.Firings).Outcome, _trace.Firings[0].Happening.Direction));
    }

    [Fact]
    public void A_packet_comes_twice()
    {
        var port = Port(Rule(FaultKind.NetDuplicate) with { Nth = 2 });
        Send(port, 1, 2, 3);
        Assert.Equal([1, 2, 2, 3], SentTags());
        port = Port(Rule(FaultKind.NetDuplicate) with { Nth = 1 });
        Arrive(4, 5);
        Assert.Equal([4, 4, 5], Receive(port));
    }

    [Fact]
    public void A_packet_comes_after_the_next_one_and_does_not_wait_for_ever()
    {
        var port = Port(Rule(FaultKind.NetReorder) with { Every = 3 });
        Send(port, 1, 2, 3, 4, 5, 6);
        Assert.Equal([1, 2, 4, 3, 5], SentTags());
        Advance(10_000_000);
        Receive(port); // the device looks at its port
        Assert.Equal([1, 2, 4, 3, 5, 6], SentTags());

        port = Port(Rule(FaultKind.NetReorder) with { Nth = 1 });
        Arrive(7, 8);
        Assert.Equal([8, 7], Receive(port));
    }

    [Fact]
    public void A_late_packet_comes_at_its_machine_time()
    {
        var port = Port(Rule(FaultKind.NetDelay) with { Nth = 1, Delay = 500 });
        var rung = 0;
        port.OnReady(() => rung++);
        Arrive(1, 2);
        Assert.Equal([2], Receive(port));
        Advance(499);
        Assert.Equal(0, rung);
        Assert.Empty(Receive(port));
        Advance(1);
        Assert.Equal(1, rung);
        Assert.Equal([1], Receive(port));
    }

    [Fact]
    public void A_corrupted_packet_has_one_wrong_bit_behind_its_header()
    {
        var port = Port(Rule(FaultKind.NetCorruption) with { Nth = 1 });
        Send(port, 0);
        var packet = Assert.Single(_inner.Sent).Bytes;
        Assert.Equal(1, packet.AsSpan(PacketHeader.Length).ToArray().Sum(value => System.Numerics.BitOperations.PopCount(value)));
        Assert.Equal(PacketHeader.Length + 60, packet.Length);
    }

    [Fact]
    public void A_slow_line_takes_its_time_and_drops_what_it_cannot_hold()
    {
        var port = Port(Rule(FaultKind.NetBandwidth) with { Amount = 60_000, For = 10_000_000_000 }); // 1 ms per packet
        Send(port, 1, 2, 3);
        Assert.Empty(_inner.Sent);
        Advance(2_000_000);
        Receive(port);
        Assert.Equal([1, 2], SentTags());
        Advance(1_000_000);
        Receive(port);
        Assert.Equal([1, 2, 3], SentTags());

        Send(port, [.. Enumerable.Repeat<byte>(9, 2000)]); // 120 kB at once
        Advance(5_000_000_000);
        Receive(port);
        Assert.InRange(_inner.Sent.Count, 1000, 1300);
        Assert.Contains(_trace.Firings, firing => firing.Outcome == "lost: the line is full");
    }

    [Fact]
    public void A_cable_that_is_out_lets_nothing_pass_and_says_so()
    {
        var port = Port();
        var rung = 0;
        port.OnReady(() => rung++);
        port.SetLink(up: false);
        Assert.False(port.LinkUp);
        Send(port, 1);
        Arrive(2);
        Assert.Empty(Receive(port));
        port.SetLink(up: true);
        Assert.Equal(2, rung);
        Assert.True(port.LinkUp);
        Send(port, 3);
        Assert.Equal([3], SentTags());
        Assert.Empty(Receive(port)); // what came meanwhile is gone
    }

    [Fact]
    public void Healing_lets_out_what_waits()
    {
        var port = Port(Rule(FaultKind.NetDelay) with { Delay = 1_000_000_000_000 });
        Arrive(1, 2);
        Assert.Empty(Receive(port));
        _engine[0].Heal();
        Arrive(3);
        Assert.Equal([1, 2, 3], Receive(port));
    }
}
