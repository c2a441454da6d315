using System.Text;
using System.Text.Json;
using ActorVmm.Actors.Fleet;
using ActorVmm.Host.Api;
using ActorVmm.Host.Fleet;
using ActorVmm.Testing;
using Akka.Actor;
using Microsoft.AspNetCore.Http;

namespace ActorVmm.Host.Tests.Api;

/// <summary>The whole pipeline, without a network, under bodies and paths that nobody would send.</summary>
public sealed class ApiFuzzTests : IDisposable
{
    private readonly TemporaryDirectory _here = new();

    public void Dispose() => _here.Dispose();

    [Fact]
    public async Task Fuzzed_requests_get_an_answer_and_refusals_the_one_shape()
    {
        var count = Nightly.Count(always: 200_000, nightly: 2_000_000);
        using var system = ActorSystem.Create("fuzz", "akka.loglevel = OFF");
        var fleet = new VmFleet(system, new FakeVmHost(), new FleetLimits(MaxVms: 40));
        var state = new HostState(fleet, new HypervisorCatalog(("soft", () => new FakeHypervisor("soft"))), new ConsoleShelf(4 << 10, directory: null, Serilog.Core.Logger.None));
        await using var api = ApiServer.Build(state, new ApiListeners(null, null, null), Serilog.Core.Logger.None);
        var pipeline = api.Pipeline;
        var body = Encoding.UTF8.GetBytes($$"""{"name":"a1","kernel":{"path":"{{_here.Path}}/vmlinuz","cmdline":"x"},"memory":{"size-mib":16},"vcpus":{"count":1},"hypervisor":"soft","restart":{"policy":"always","back-off":"1s","limit":3},"stop":{"method":"both","deadline":"1s"},"on-reset":"stop","start":"manual"}""");
        var rule = Encoding.UTF8.GetBytes("""{"kind":"block-latency","device":"blk0","delay":"50ms","for":"10s","every":3,"probability":0.5}""");
        string[] paths = ["/vms", "/vms", "/vms", "/vms/a1", "/vms/a1/start", "/vms/a1/stop", "/vms/a1/kill", "/host", "/inspect",
            "/vms/%00/start", "/events", "/vms/a1/logs", "/vms/a1/faults"];
        // Lanes, because most of a call's time is the way to an actor and back.
        const int Lanes = 16;
        var worst = await Task.WhenAll(Enumerable.Range(0, Lanes).Select(lane => Task.Run(() => LaneAsync(new Random(lane), count / Lanes))));
        Assert.All(worst, status => Assert.InRange(status, 400, 499));
        await system.Terminate();

        async Task<int> LaneAsync(Random random, long calls)
        {
            var highest = 0;
            for (var i = 0L; i < calls; i++)
            {
                var http = new DefaultHttpContext { RequestServices = api.Services };
                http.Request.Method = random.Next(10) switch { 0 => "GET", 1 => "DELETE", 2 => "PUT", _ => "POST" };
                var path = paths[random.Next(paths.Length)];
                http.Request.Path = Uri.UnescapeDataString(path);
                if (path == "/events") http.Request.QueryString = new QueryString("?after=" + random.NextInt64(1_000_000_000));
                if (random.Next(4) == 0) http.Request.QueryString =
                    new QueryString("?deadline=0s&force=" + (char)random.Next(33, 126) + "&path=a1&after=x&lines=-1&start=" + random.Next(3));
                if (random.Next(50) == 0) http.Request.QueryString = new QueryString("?force=true");
                http.Request.Body = new MemoryStream(Mutate(random, path.EndsWith("/faults", StringComparison.Ordinal) ? rule : body));
                using var answer = new MemoryStream();
                http.Response.Body = answer;
                await pipeline(http).WaitAsync(TimeSpan.FromSeconds(60));
                highest = Math.Max(highest, http.Response.StatusCode);
                Assert.True(http.Response.StatusCode < 500,
                    $"{http.Request.Method} {http.Request.Path}: {http.Response.StatusCode} {Encoding.UTF8.GetString(answer.ToArray())}");
                if (http.Response.StatusCode < 400) continue;
                using var error = JsonDocument.Parse(answer.ToArray());
                Assert.NotEmpty(error.RootElement.GetProperty("error").GetProperty("message").GetString()!);
            }

            return highest;
        }
    }

    private static byte[] Mutate(Random random, byte[] bytes)
    {
        if (random.Next(20) == 0) return bytes;
        var text = bytes.ToList();
        for (var n = random.Next(3); n >= 0; n--)
        {
            var at = random.Next(text.Count);
            switch (random.Next(4))
            {
                case 0: text[at] = (byte)random.Next(256); break;
                case 1: text.Insert(at, (byte)"{}[]\",:01-.e\\"[random.Next(13)]); break;
                case 2: text.RemoveRange(at, Math.Min(random.Next(1, 9), text.Count - at)); break;
                default: text.InsertRange(at, text.GetRange(at, Math.Min(9, text.Count - at))); break;
            }
        }

        return [.. text];
    }
}
