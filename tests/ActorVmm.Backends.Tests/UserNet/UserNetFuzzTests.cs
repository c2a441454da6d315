using System.Net;
using System.Net.Sockets;
using ActorVmm.Backends.UserNet;
using ActorVmm.Devices.Virtio.Net;
using ActorVmm.Testing;
using PacketDotNet;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.Backends.Tests.UserNet;

/// <summary>Frames of a guest that breaks every rule: sound ones with random changes, and random bytes.</summary>
public sealed class UserNetFuzzTests(ITestOutputHelper output)
{
    // Ten parts, so that the ten million of the nightly run can be had one by one.
    [SkippableTheory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    [InlineData(5)]
    [InlineData(6)]
    [InlineData(7)]
    [InlineData(8)]
    [InlineData(9)]
    public void Whatever_the_guest_sends_the_network_lives_and_its_memory_is_bounded(int part)
    {
        Skip.If(part > 0 && !Nightly.Wanted, Nightly.Reason);
        var executions = Nightly.Count(200_000, 1_000_000);
        var seed = Environment.GetEnvironmentVariable("ACTORVMM_SEED") is { Length: > 0 } given
            ? int.Parse(given, System.Globalization.CultureInfo.InvariantCulture)
            : Nightly.Wanted ? (Environment.ProcessId * 10) + part : 20260703;
        output.WriteLine($"seed {seed} (ACTORVMM_SEED repeats it)");
        var random = new Random(seed);
        // Nobody outside is ever asked: all that is sound goes to a name server of ours.
        using var server = new UdpClient(new IPEndPoint(IPAddress.Loopback, 0));
        using var guest = new GuestEnd(new UserNetSettings
        {
            Restrict = true, NameServer = (IPEndPoint)server.Client.LocalEndPoint!, MaxTcpFlows = 8, MaxUdpFlows = 8, BufferBudget = 1 << 20,
        });
        var seeds = Frames();
        var frame = new byte[2000];
        for (long done = 0; done < executions; done++)
        {
            var model = seeds[random.Next(seeds.Length)];
            var length = random.Next(8) == 0 ? random.Next(14, 2000) : model.Length;
            random.NextBytes(frame);
            model.AsSpan(0, Math.Min(length, model.Length)).CopyTo(frame);
            for (var changes = random.Next(4); changes > 0; changes--) frame[random.Next(length)] = (byte)random.Next(256);
            var header = random.Next(4) == 0
                ? default : new PacketHeader(PacketFlags.NeedsChecksum, (GsoType)random.Next(6), 54, (ushort)random.Next(2000), 34, 16);
            guest.Send(frame.AsSpan(0, length), header);
            if (random.Next(4) == 0) while (guest.Network.Receive(0, [s_room.Segment]) > 0) { }
        }
        output.WriteLine(string.Join(", ", guest.Network.Counters.Where(static counter => counter.Value != 0)));
        Assert.InRange(guest.Counter("tcp-open"), 0, 8);
        Assert.InRange(guest.Counter("udp-open"), 0, 8);
        foreach (var counter in (string[])["dropped-malformed", "dropped-bad-checksum", "dropped-foreign-source", "dropped-prohibited", "dropped-not-served",
            "udp-opened", "tcp-opened", "pings", "dhcp-answered"])
            Assert.True(guest.Counter(counter) > 0, $"the fuzzer reaches no {counter}");
    }

    private static readonly ActorVmm.Memory.HostScratch s_room = new(PacketLimits.MaxPacket);

    private static byte[][] Frames()
    {
        var arp = new ArpPacket(ArpOperation.Request, GuestEnd.Mac, GuestEnd.Gateway, GuestEnd.Mac, GuestEnd.Address);
        var dhcp = new byte[300];
        (dhcp[0], dhcp[1], dhcp[2]) = (1, 1, 6);
        ((byte[])[99, 130, 83, 99, 53, 1, 1, 50, 4, 10, 0, 2, 15, 255]).CopyTo(dhcp, 236);
        return
        [
            new EthernetPacket(GuestEnd.Mac, GuestEnd.Mac, EthernetType.Arp) { PayloadPacket = arp }.Bytes,
            Ip(GuestEnd.Dns, new UdpPacket(5000, 53) { PayloadData = new byte[40] }),
            Ip(GuestEnd.Gateway, new UdpPacket(5000, 53) { PayloadData = new byte[40] }),
            Ip(IPAddress.Broadcast, new UdpPacket(68, 67) { PayloadData = dhcp }),
            Ip(GuestEnd.Dns, new TcpPacket(6000, 53) { Synchronize = true, WindowSize = 1000 }),
            Ip(GuestEnd.Dns, new TcpPacket(6000, 53) { Acknowledgment = true, PayloadData = new byte[100] }),
            Ip(GuestEnd.Gateway, new TcpPacket(6000, 80) { Synchronize = true }),
            Ip(GuestEnd.Dns, new UdpPacket(5000, 53), from: IPAddress.Parse("192.0.2.1")),
            Ip(GuestEnd.Gateway, null, [8, 0, 0xf7, 0xfe, 0, 1, 0, 0]),
        ];
    }

    private static byte[] Ip(IPAddress to, Packet? payload, byte[]? raw = null, IPAddress? from = null)
    {
        var ip = new IPv4Packet(from ?? GuestEnd.Address, to);
        if (payload is not null) ip.PayloadPacket = payload;
        else (ip.PayloadData, ip.Protocol) = (raw, PacketDotNet.ProtocolType.Icmp);
        var frame = new EthernetPacket(GuestEnd.Mac, GuestEnd.Mac, EthernetType.IPv4) { PayloadPacket = ip };
        ip.UpdateCalculatedValues();
        (payload as UdpPacket)?.UpdateCalculatedValues();
        (payload as UdpPacket)?.UpdateUdpChecksum();
        (payload as TcpPacket)?.UpdateTcpChecksum();
        ip.UpdateIPChecksum();
        return frame.Bytes;
    }
}
