using System.Text;
using System.Text.Json;
using ActorVmm.Actors.Fleet;
using Microsoft.AspNetCore.Http;

namespace ActorVmm.Host.Api;

/// <summary>The journal as server-sent events (HTML standard §9.2), or as an array.</summary>
internal static class EventStream
{
    private static readonly TimeSpan s_heartbeat = TimeSpan.FromSeconds(15);

    public static async Task WriteAsync(HttpContext http, FleetJournal journal, long after, string? vm, bool follow)
    {
        if (!follow)
        {
            http.Response.ContentType = "application/json; charset=utf-8";
            var pieces = journal.ReadAfter(after).Where(e => Concerns(e, vm)).Select(e =>
                JsonSerializer.Serialize(e, ApiJson.Default.FleetEvent));
            await http.Response.WriteAsync($"[{string.Join(",\n", pieces)}]\n", http.RequestAborted).ConfigureAwait(false);
            return;
        }

        http.Response.ContentType = "text/event-stream";
        http.Response.Headers.CacheControl = "no-store";
        await http.Response.Body.FlushAsync(http.RequestAborted).ConfigureAwait(false);
        var events = journal.FollowAsync(after, http.RequestAborted).GetAsyncEnumerator(http.RequestAborted);
        try
        {
            while (true)
            {
                // A comment now and then lets a reader notice that the host has gone, and the host that the reader has.
                var next = events.MoveNextAsync().AsTask();
                while (await Task.WhenAny(next, Task.Delay(s_heartbeat, http.RequestAborted)).ConfigureAwait(false) != next)
                    await SendAsync(http, ":\n\n").ConfigureAwait(false);
                if (!await next.ConfigureAwait(false)) return;
                var e = events.Current;
                if (Concerns(e, vm))
                    await SendAsync(http,
                        $"id: {e.Number}\nevent: {e.Kind}\ndata: {JsonSerializer.Serialize(e, ApiJson.Default.FleetEvent)}\n\n")
                        .ConfigureAwait(false);
            }
        }
        catch (OperationCanceledException) { /* the reader has gone */ }
    }

    private static bool Concerns(FleetEvent e, string? vm) => vm is null || string.Equals(e.Vm, vm, StringComparison.Ordinal);

    private static async Task SendAsync(HttpContext http, string text)
    {
        http.RequestAborted.ThrowIfCancellationRequested();
        await http.Response.Body.WriteAsync(Encoding.UTF8.GetBytes(text), http.RequestAborted).ConfigureAwait(false);
        await http.Response.Body.FlushAsync(http.RequestAborted).ConfigureAwait(false);
    }
}
