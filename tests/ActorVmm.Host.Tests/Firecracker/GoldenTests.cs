using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using ActorVmm.Host.Firecracker;

namespace ActorVmm.Host.Tests.Firecracker;

/// <summary>The contract of Firecracker's API, request by request: <c>golden.json</c> beside this file.</summary>
public sealed class GoldenTests : IDisposable
{
    private static readonly JsonArray s_scenes = JsonNode.Parse(
        File.ReadAllText(Path.Combine(Repository.Root, "tests/ActorVmm.Host.Tests/Firecracker/golden.json")))!.AsArray();

    private readonly TemporaryDirectory _here = new();

    public void Dispose() => _here.Dispose();

    public static TheoryData<string> Scenes => [.. s_scenes.Select(scene => scene!["scene"]!.GetValue<string>())];

    [Fact]
    public void There_are_at_least_150_pairs() => Assert.True(s_scenes.Sum(scene => scene!["exchanges"]!.AsArray().Count) >= 150);

    [Theory, MemberData(nameof(Scenes))]
    public async Task Replies_are_as_the_contract_says(string name)
    {
        _here.Write("disk", "");
        var scene = s_scenes.Single(scene => scene!["scene"]!.GetValue<string>() == name)!;
        var state = scene["state"]!.GetValue<string>();
        var vm = new FakeMicrovm
        {
            IsConfigurable = state != "Hosted", State = state == "Hosted" ? MicrovmState.NotStarted : Enum.Parse<MicrovmState>(state),
        };
        using var metrics = new FirecrackerMetrics(TimeProvider.System);
        var api = new FirecrackerApi(vm, metrics, _here.Path);
        foreach (var exchange in scene["exchanges"]!.AsArray())
        {
            var request = exchange!["request"]!.GetValue<string>().Split(' ', 2);
            var body = exchange["body"]?.GetValue<string>();
            var reply = await api.HandleAsync(new MicroRequest(request[0], request[1], body is null ? null : Encoding.UTF8.GetBytes(body)));
            var said = $"{exchange["request"]} {body} -> {reply.Status} {reply.Body}";
            Assert.True(exchange["status"]!.GetValue<int>() == reply.Status, said);
            Assert.True((exchange["deprecated"] is not null) == reply.Deprecated, said);
            if (exchange["prefix"]?.GetValue<string>() is { } prefix)
            {
                var fault = JsonNode.Parse(reply.Body!)!["fault_message"]!.GetValue<string>();
                Assert.True(fault.StartsWith(prefix, StringComparison.Ordinal) && fault.Length > prefix.Length, said);
            }
            else if (exchange["reply"] is { } expected)
            {
                Assert.True(JsonNode.DeepEquals(expected, JsonNode.Parse(reply.Body!)), $"{said}\nexpected {expected.ToJsonString()}");
            }
            else
            {
                Assert.Null(reply.Body);
            }
        }
    }

    [Fact]
    public async Task A_body_that_is_fuzzed_never_crashes_it_and_a_refusal_has_the_one_shape()
    {
        var count = ActorVmm.Testing.Nightly.Wanted ? 2_000_000 : 200_000;
        var random = new Random(20);
        var vm = new FakeMicrovm();
        using var metrics = new FirecrackerMetrics(TimeProvider.System);
        var api = new FirecrackerApi(vm, metrics, _here.Path);
        var seeds = s_scenes.SelectMany(scene => scene!["exchanges"]!.AsArray())
            .Select(exchange => (Request: exchange!["request"]!.GetValue<string>().Split(' ', 2),
                Body: exchange["body"]?.GetValue<string>() ?? "{}"))
            .Where(seed => seed.Request[0] != "GET").ToArray();
        for (var i = 0; i < count; i++)
        {
            var (request, body) = seeds[random.Next(seeds.Length)];
            var bytes = Mutate(random, Encoding.UTF8.GetBytes(body));
            if (vm.State != MicrovmState.NotStarted && random.Next(50) == 0) vm.State = MicrovmState.NotStarted;
            var reply = await api.HandleAsync(new MicroRequest(request[0], request[1], bytes));
            if (reply.Status == 204) continue;
            Assert.Equal(400, reply.Status);
            using var fault = JsonDocument.Parse(reply.Body!);
            Assert.True(fault.RootElement.GetProperty("fault_message").GetString()!.Length > 0);
        }
    }

    private static byte[] Mutate(Random random, byte[] bytes)
    {
        var text = bytes.ToList();
        for (var n = random.Next(4); n >= 0 && text.Count > 0; n--)
        {
            var at = random.Next(text.Count);
            switch (random.Next(5))
            {
                case 0: text[at] = (byte)random.Next(256); break;
                case 1: text.RemoveAt(at); break;
                case 2: text.Insert(at, (byte)"{}[]\",:0159-.eEtrufalsn\\ "[random.Next(25)]); break;
                case 3: text.InsertRange(at, text.GetRange(at, Math.Min(8, text.Count - at))); break;
                default: text.RemoveRange(at, Math.Min(random.Next(1, 8), text.Count - at)); break;
            }
        }

        return [.. text];
    }
}
