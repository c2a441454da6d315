using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Numerics;
using ActorVmm.Devices.Virtio.Net;
using ActorVmm.Testing.Native;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.Backends.Tests.Taps;

/// <summary>
/// Bulk transfers between a driver on a ring and sockets of the kernel's, through a real tap, with every combination of offloads that the
/// specification allows (virtio 1.2 §5.1.3.1).
/// </summary>
public sealed class OffloadTests(ITestOutputHelper output) : IDisposable
{
    private const int Bytes = 100_000;
    private readonly SemaphoreSlim _ready = new(0);

    public void Dispose() => _ready.Dispose();

    [SkippableFact]
    public async Task Every_combination_of_offloads_carries_bytes_whole_both_ways_and_leaves_no_more_undone_than_it_may()
    {
        using var network = PrivateNetwork.Create();
        network.AddTap("t0");
        network.Ip("addr add 10.9.0.1/24 dev t0");
        network.Ip("-6 addr add fd00:9::1/64 dev t0 nodad");
        network.Ip("neigh replace 10.9.0.2 lladdr 02:00:00:00:00:09 dev t0 nud permanent");
        network.Ip("-6 neigh replace fd00:9::2 lladdr 02:00:00:00:00:09 dev t0 nud permanent");
        var mac = network.Run(static () => File.ReadAllText("/sys/class/net/t0/address")).Trim().Split(':')
            .Select(static part => byte.Parse(part, NumberStyles.HexNumber, CultureInfo.InvariantCulture)).ToArray();
        using var port = network.Open("t0");
        using var four = network.Run(static () => Listen("10.9.0.1"));
        using var six = network.Run(static () => Listen("fd00:9::1"));
        using var datagrams = network.Run(static () =>
        {
            var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp) { ReceiveTimeout = 20_000 };
            socket.Bind(new IPEndPoint(IPAddress.Parse("10.9.0.1"), 0));
            return socket;
        });
        var content = new byte[Bytes];
        new Random(4).NextBytes(content);
        var combinations = Combinations();
        Assert.Equal(450, combinations.Count); // 15 for what is sent, 15 for what is received, merged or not
        var (partial, uncut, merged) = (0, 0, 0);
        ushort guestPort = 20_000;
        foreach (var features in combinations)
        {
            using var nic = new RingGuestNic(port, _ready, features);
            try
            {
                await CarryAsync(nic, mac, four, "10.9.0.2", guestPort++, content, datagrams);
                await CarryAsync(nic, mac, six, "fd00:9::2", guestPort++, content, null);
            }
            catch (Exception failure) when (failure is not OutOfMemoryException)
            {
                throw new InvalidOperationException($"features 0x{features:x}, {nic}: {failure.Message}", failure);
            }
            // The kernel makes use of each leave that it has: else this would be a test of one combination.
            Assert.Equal(nic.Has(NetFeatures.GuestChecksum), nic.Partial > 0);
            Assert.Equal(nic.Has(NetFeatures.GuestTso4 | NetFeatures.GuestTso6), nic.Uncut > 0);
            (partial, uncut, merged) = (partial + nic.Partial, uncut + nic.Uncut, merged + nic.Merged);
        }
        Assert.True(merged > 0);
        output.WriteLine($"{combinations.Count} combinations; received: {partial} packets with partial checksums, {uncut} uncut, {merged} merged");
    }

    /// <summary>The features that leave something undone, in every choice that is consistent.</summary>
    internal static List<ulong> Combinations()
    {
        var all = RingGuestNic.Offloads | NetFeatures.MergeBuffers;
        var bits = Enumerable.Range(0, 64).Select(static bit => 1UL << bit).Where(bit => (all & bit) != 0).ToArray();
        return [.. Enumerable.Range(0, 1 << BitOperations.PopCount(all))
            .Select(choice => bits.Where((_, i) => (choice >> i & 1) != 0).Aggregate(0UL, static (sum, bit) => sum | bit))
            .Where(NetFeatures.AreConsistent)];
    }

    private static async Task CarryAsync(
        RingGuestNic nic, byte[] mac, Socket listener, string own, ushort ownPort, byte[] content, Socket? datagrams)
    {
        var peer = Task.Run(async () =>
        {
            using var socket = await listener.AcceptAsync().ConfigureAwait(false);
            var got = new byte[content.Length];
            for (var at = 0; at < got.Length;)
            {
                var count = await socket.ReceiveAsync(got.AsMemory(at)).ConfigureAwait(false);
                if (count == 0) break;
                at += count;
            }
            await socket.SendAsync(content).ConfigureAwait(false);
            socket.Shutdown(SocketShutdown.Send);
            return (got, await socket.ReceiveAsync(new byte[1]).ConfigureAwait(false));
        });
        var tcp = new RingGuestTcp(nic, mac, new IPEndPoint(IPAddress.Parse(own), ownPort), (IPEndPoint)listener.LocalEndPoint!);
        tcp.Send(content);
        Assert.True(content.AsSpan().SequenceEqual(tcp.ReceiveToEnd()), "what came is not what was sent");
        var (received, end) = await peer.WaitAsync(TimeSpan.FromSeconds(90));
        Assert.True(content.AsSpan().SequenceEqual(received), "what the host got is not what was sent");
        Assert.Equal(0, end);
        if (datagrams is null) return;
        tcp.SendDatagram(((IPEndPoint)datagrams.LocalEndPoint!).Port, content.AsSpan(0, 9_000));
        var datagram = new byte[10_000];
        Assert.Equal(9_000, datagrams.Receive(datagram));
        Assert.True(content.AsSpan(0, 9_000).SequenceEqual(datagram.AsSpan(0, 9_000)), "the datagram is not what was sent");
    }

    private static Socket Listen(string address)
    {
        var endPoint = new IPEndPoint(IPAddress.Parse(address), 0);
        var socket = new Socket(endPoint.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
        socket.Bind(endPoint);
        socket.Listen();
        return socket;
    }
}
