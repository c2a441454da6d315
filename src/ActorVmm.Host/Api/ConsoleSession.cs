using System.Net.WebSockets;
using ActorVmm.Actors.Fleet;
using ActorVmm.Host.Fleet;

namespace ActorVmm.Host.Api;

/// <summary>
/// One viewer on a VM's console: what the guest prints goes out as binary frames, what comes in is typed. Leaving stops nothing.
/// </summary>
internal sealed class ConsoleSession(ConsoleHub hub, ManagedVm vm, WebSocket socket)
{
    /// <param name="replay">How many of the latest bytes come first.</param>
    /// <param name="cancel">Ends the session.</param>
    public async Task RunAsync(long replay, CancellationToken cancel)
    {
        using var over = CancellationTokenSource.CreateLinkedTokenSource(cancel);
        var from = replay == long.MaxValue ? hub.LatestFrom : Math.Max(0, hub.Total - Math.Max(0, replay));
        var sending = hub.FollowAsync(from,
            piece => socket.SendAsync(piece, WebSocketMessageType.Binary, endOfMessage: true, over.Token).AsTask(), follow: true, over.Token);
        var receiving = ReceiveAsync(over.Token);
        await Task.WhenAny(sending, receiving).ConfigureAwait(false);
        await over.CancelAsync().ConfigureAwait(false);
        try
        {
            await Task.WhenAll(sending, receiving).ConfigureAwait(false);
        }
        catch (Exception gone) when (gone is OperationCanceledException or WebSocketException or IOException) { /* the viewer, or the VM */ }

        if (socket.State is not (WebSocketState.Open or WebSocketState.CloseReceived)) return;
        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(2));
        try
        {
            var why = vm.Removed.IsCompleted ? "the VM has been removed" : "";
            await socket.CloseOutputAsync(WebSocketCloseStatus.NormalClosure, why, patience.Token).ConfigureAwait(false);
        }
        catch (Exception gone) when (gone is OperationCanceledException or WebSocketException or IOException) { /* the same */ }
    }

    private async Task ReceiveAsync(CancellationToken cancel)
    {
        var buffer = new byte[4096];
        while (true)
        {
            var got = await socket.ReceiveAsync(buffer.AsMemory(), cancel).ConfigureAwait(false);
            if (got.MessageType == WebSocketMessageType.Close) return;
            // Keys for a guest that does not run would reach the next one.
            if (vm.Status.State is VmState.Running or VmState.Paused or VmState.Stopping)
                await hub.TypeAsync(buffer.AsMemory(0, got.Count), cancel).ConfigureAwait(false);
        }
    }
}
