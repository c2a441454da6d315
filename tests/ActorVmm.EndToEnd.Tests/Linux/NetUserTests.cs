using System.Net;
using System.Net.Sockets;
using ActorVmm.Actors;
using ActorVmm.Backends.UserNet;
using ActorVmm.EndToEnd.Tests.Harness;
using ActorVmm.Host.Guests;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.EndToEnd.Tests.Linux;

/// <summary>Linux's own network driver and stack on the user-mode network.</summary>
[Collection(LinuxGuests.Name)]
public sealed class NetUserTests(ITestOutputHelper output)
{
    internal static readonly GuestImageOptions WithNet = new() { Modules = ["pvpanic-mmio", "virtio_mmio", "virtio_net"] };

    [Fact]
    public async Task A_guest_has_an_address_by_dhcp_pings_the_gateway_resolves_downloads_and_is_reached()
    {
        await using var server = new FileServer();
        using var names = new UdpClient(new IPEndPoint(IPAddress.Loopback, 0));
        var answering = AnswerNamesAsync(names);
        var settings = new UserNetSettings
        {
            NameServer = (IPEndPoint)names.Client.LocalEndPoint!,
            Forwards = [PortForward.Parse($"tcp:{FreePort()}-80", out _)!],
        };
        await using var guest = await StartAsync(new NetSpec { Id = "eth0", Backend = new NetBackend.User(settings) }, output);
        await guest.TellAsync(async () =>
        {
            var shell = guest.Shell;
            await shell.LogInAsync();
            Assert.Contains("inet 10.0.2.15/24", await shell.RunAsync("ip addr show eth0"), StringComparison.Ordinal);
            Assert.Contains("3 packets received", await shell.RunAsync("ping -c 3 10.0.2.2"), StringComparison.Ordinal);
            Assert.Contains("10.1.2.3", await shell.RunAsync("nslookup -type=a one.example"), StringComparison.Ordinal);
            const int Length = 16_000_000;
            Assert.Equal(FileServer.Sha256(FileServer.Content(Length)) + "  -", await shell.RunAsync(
                $"wget -q -O - http://10.0.2.2:{server.Port}/{Length} | sha256sum"));

            await shell.RunAsync("mkdir -p /tmp/www && echo from the guest > /tmp/www/hello && httpd -p 80 -h /tmp/www");
            using var client = new HttpClient { Timeout = TimeSpan.FromSeconds(90) };
            Assert.Equal("from the guest\n", await client.GetStringAsync(
                new Uri($"http://127.0.0.1:{settings.Forwards[0].HostPort}/hello")));
            output.WriteLine((await guest.Vm.InspectAsync()).ToString());
        });
        names.Dispose();
        await answering;
    }

    internal static async Task<RunningGuest> StartAsync(NetSpec net, ITestOutputHelper output, string more = "actorvmm.net=dhcp", int vcpus = 1)
    {
        var image = await GuestImage.PrepareAsync(new GuestCache(), WithNet);
        return await RunningGuest.StartAsync(RunningGuest.Spec(image, vcpus, more: $"reboot=k {more}") with { Nets = [net] }, output);
    }

    private static int FreePort()
    {
        using var socket = new TcpListener(IPAddress.Loopback, 0);
        socket.Start();
        return ((IPEndPoint)socket.LocalEndpoint).Port;
    }

    // Every name is 10.1.2.3.
    private static async Task AnswerNamesAsync(UdpClient socket)
    {
        try
        {
            while (true)
            {
                var query = await socket.ReceiveAsync();
                byte[] answer = [.. query.Buffer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 1, 2, 3];
                answer[2] |= 0x84;
                answer[7] = 1;
                await socket.SendAsync(answer, query.RemoteEndPoint);
            }
        }
        catch (Exception ended) when (ended is ObjectDisposedException or SocketException) { }
    }
}
