using System.Diagnostics;
using System.Globalization;
using ActorVmm.EndToEnd.Tests.Harness;
using ActorVmm.Testing;
using ActorVmm.Testing.Guests;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.EndToEnd.Tests.Fleet;

/// <summary>The API of a host process under many clients, each with a connection of its own: no call fails, and nothing stays behind.</summary>
public sealed class ApiLoadTests(ITestOutputHelper output) : IDisposable
{
    private const int Vms = 16;

    private readonly DirectoryInfo _here = Directory.CreateTempSubdirectory("actorvmm-load-");

    public void Dispose() => _here.Delete(recursive: true);

    [SkippableFact]
    public async Task A_thousand_clients_for_a_minute_see_no_error_and_leave_nothing_behind()
    {
        Skip.IfNot(Nightly.Wanted, Nightly.Reason);
        await RunAsync(clients: 1000, TimeSpan.FromSeconds(60), again: true);
    }

    [Fact]
    public Task Two_hundred_clients_with_twenty_calls_each_see_no_error() => RunAsync(clients: 200, time: null, calls: 20);

    private async Task RunAsync(int clients, TimeSpan? time, int calls = int.MaxValue, bool again = false)
    {
        var kernel = Path.Combine(_here.FullName, "tiny");
        await File.WriteAllBytesAsync(kernel, HaltingKernel.Elf());
        await using var host = HostProcess.Start($$"""
            vms { vm { count = {{Vms}}, kernel.path = "{{kernel}}", memory.size-mib = 2, hypervisor = soft, stop.deadline = 100ms } }
            """);
        await host.UntilAsync("running", Vms);
        await CallAllAsync(host, clients: 50, calls: 20, until: null); // what is made once is made, and code is compiled
        var before = await AtRestAsync(host, goal: null);
        var clock = Stopwatch.StartNew();
        var (done, errors) = await CallAllAsync(host, clients, calls, End(time));
        var seconds = clock.Elapsed.TotalSeconds;
        var peak = Footprint.Of(host.Process.Id);
        var after = await AtRestAsync(host, goal: before);
        output.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{clients} clients, {Vms} VMs, {seconds:F1} s: {done} calls, {done / seconds:F0} per second, {errors.Count} errors"));
        output.WriteLine($"before {before}");
        output.WriteLine($"when the last client has gone {peak}");
        output.WriteLine($"after {after}");
        Assert.Empty(errors);
        if (again)
        {
            // The first time, the heap grows to what so many connections take; what a second time adds would be lost.
            (_, errors) = await CallAllAsync(host, clients, calls, End(time));
            var second = await AtRestAsync(host, goal: before);
            output.WriteLine($"after as many once more {second}");
            Assert.Empty(errors);
            Assert.InRange(second.ResidentMib, 0, after.ResidentMib + 16);
            after = second;
        }
        Assert.True(done >= clients, $"{done} calls");
        // Connections are gone; a thread of the pool and what the collector has not yet given back may stay.
        Assert.InRange(after.Descriptors, 0, before.Descriptors + 4);
        Assert.InRange(after.Threads, 0, before.Threads + 16);
        host.Signal("TERM");
        Assert.Equal(0, await host.EndAsync());
    }

    private static long? End(TimeSpan? time) =>
        time is { } span ? Stopwatch.GetTimestamp() + (long)(span.TotalSeconds * Stopwatch.Frequency) : null;

    private static async Task<(long Done, List<string> Errors)> CallAllAsync(HostProcess host, int clients, int calls, long? until)
    {
        var done = 0L;
        var errors = new List<string>();
        await Task.WhenAll(Enumerable.Range(0, clients).Select(async number =>
        {
            var random = new Random(number);
            using var http = host.Http(connections: 1);
            for (var i = 0; i < calls && (until is not { } end || Stopwatch.GetTimestamp() < end); i++)
            {
                var name = $"vm-{random.Next(Vms)}";
                var (method, path) = random.Next(8) switch
                {
                    0 => (HttpMethod.Get, "/vms"), 1 => (HttpMethod.Get, $"/vms/{name}/logs"), 2 => (HttpMethod.Post, $"/vms/{name}/pause"),
                    3 => (HttpMethod.Post, $"/vms/{name}/resume"), 4 => (HttpMethod.Get, "/host"), 5 => (HttpMethod.Get, $"/inspect?path={name}/devices/serial0"),
                    _ => (HttpMethod.Get, $"/vms/{name}"),
                };
                try
                {
                    using var request = new HttpRequestMessage(method, path);
                    using var answer = await http.SendAsync(request);
                    var text = await answer.Content.ReadAsStringAsync();
                    if (answer.IsSuccessStatusCode) Interlocked.Increment(ref done);
                    else Add($"{method} {path}: {(int)answer.StatusCode} {text}");
                }
                catch (Exception failure) when (failure is HttpRequestException or IOException or OperationCanceledException)
                {
                    Add($"{method} {path}: {failure.Message}");
                }
            }
        }));
        return (done, errors);

        void Add(string error)
        {
            lock (errors) errors.Add(error);
        }
    }

    /// <summary>Waits until the connections of the clients that have gone are closed.</summary>
    private static async Task<Footprint> AtRestAsync(HostProcess host, Footprint? goal)
    {
        var last = Footprint.Of(host.Process.Id);
        var same = 0;
        await HostProcess.EventuallyAsync(() =>
        {
            var now = Footprint.Of(host.Process.Id);
            same = now.Descriptors == last.Descriptors ? same + 1 : 0;
            last = now;
            return Task.FromResult(goal is null ? same >= 10 : now.Descriptors <= goal.Descriptors + 4 && now.Threads <= goal.Threads + 16);
        }, () => $"{goal} again; it is {last}");
        return last;
    }

    /// <summary>What a process has of the kernel (proc(5)).</summary>
    private sealed record Footprint(int Descriptors, int Threads, int ResidentMib)
    {
        public static Footprint Of(int process)
        {
            var status = File.ReadAllLines(string.Create(CultureInfo.InvariantCulture, $"/proc/{process}/status"));
            int Number(string key) => int.Parse(status.Single(line => line.StartsWith(key, StringComparison.Ordinal)).AsSpan(key.Length)
                .Trim().ToString().Split(' ')[0], CultureInfo.InvariantCulture);
            return new Footprint(Directory.GetFileSystemEntries($"/proc/{process}/fd").Length, Number("Threads:"), Number("VmRSS:") / 1024);
        }
    }
}
