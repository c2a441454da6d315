using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using ActorVmm.Host.Api;
using ActorVmm.Host.Client;

namespace ActorVmm.Host.Commands;

/// <summary><c>top</c>: what the VMs have done since the last look.</summary>
internal sealed class TopView(TextWriter output, bool isLive)
{
    public async Task RunAsync(HostClient host, int iterations, TimeSpan period, bool json, CancellationToken cancel)
    {
        var before = await LookAsync(host, cancel).ConfigureAwait(false);
        for (var i = 0; iterations == 0 || i < iterations; i++)
        {
            await Task.Delay(period, cancel).ConfigureAwait(false);
            var now = await LookAsync(host, cancel).ConfigureAwait(false);
            var rows = now.Vms.Select(vm =>
                new TopRow(vm, before.Vms.FirstOrDefault(old => string.Equals(old.Name, vm.Name, StringComparison.Ordinal)),
                    now.At - before.At))
                .OrderByDescending(row => row.CpuPercent).ToArray();
            if (json) await output.WriteLineAsync(new JsonArray([.. rows.Select(Json)]).ToJsonString()).ConfigureAwait(false);
            else await output.WriteAsync((isLive ? "\x1b[H\x1b[2J" : "") + Table(rows)).ConfigureAwait(false);
            await output.FlushAsync(cancel).ConfigureAwait(false);
            before = now;
        }
    }

    /// <summary>What the API says of a VM, and what only two looks tell.</summary>
    private static JsonNode Json(TopRow row)
    {
        var vm = JsonSerializer.SerializeToNode(row.Vm, ApiJson.Default.VmView)!;
        vm["cpuPercent"] = Math.Round(row.CpuPercent, 1);
        vm["exitsPerSecond"] = Math.Round(row.ExitsPerSecond);
        return vm;
    }

    private static string Table(IReadOnlyList<TopRow> rows) => Output.Table(
        ["NAME", "STATE", "CPU", "EXITS/s", "MEMORY", "UPTIME", "RESTARTS", "DEVICE RESTARTS"],
        rows.Select(row => (IReadOnlyList<string>)
        [
            row.Vm.Name, row.Vm.State,
            string.Create(CultureInfo.InvariantCulture, $"{row.CpuPercent:F1}%"),
            string.Create(CultureInfo.InvariantCulture, $"{row.ExitsPerSecond:F0}"),
            Output.Memory(row.Vm), row.Vm.UptimeSeconds is { } up ? Output.Age(up) : "-",
            row.Vm.Restarts.ToString(CultureInfo.InvariantCulture), row.Vm.DeviceRestarts.ToString(CultureInfo.InvariantCulture),
        ]));

    private static async Task<(IReadOnlyList<VmView> Vms, TimeSpan At)> LookAsync(HostClient host, CancellationToken cancel) =>
        (await host.CallAsync(HttpMethod.Get, "/vms", ApiJson.Default.IReadOnlyListVmView, cancel: cancel).ConfigureAwait(false),
            System.Diagnostics.Stopwatch.GetElapsedTime(0));

    private sealed record TopRow(VmView Vm, VmView? Before, TimeSpan Elapsed)
    {
        // A run that began meanwhile counts from zero.
        private bool SameRun => Before is not null && Before.Runs == Vm.Runs;

        public double CpuPercent => 100 * Math.Max(0, Vm.CpuSeconds - (SameRun ? Before!.CpuSeconds : 0)) / Elapsed.TotalSeconds;

        public double ExitsPerSecond => Math.Max(0, Vm.Exits - (SameRun ? Before!.Exits : 0)) / Elapsed.TotalSeconds;
    }
}
