using System.Net.WebSockets;
using ActorVmm.Actors.Fleet;
using ActorVmm.Host.Fleet;

namespace ActorVmm.Host.Api;

/// <summary>
/// One viewer on a VM's console: what the guest prints goes out as binary frames, what comes in is typed. Leaving stops nothing.
/// </summary>
internal sealed class ConsoleSession(ConsoleHub hub, ManagedVm vm, WebSocket socket)
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(2);

    /// <param name="replay">How many of the latest bytes come first.</param>
    /// <param name="cancel">Ends the session.</param>
    public async Task RunAsync(long replay, CancellationToken cancel)
    {
        using var over = CancellationTokenSource.CreateLinkedTokenSource(cancel);
        var ended = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        using var registration = over.Token.Register(() => ended.TrySetResult());
        var from = replay == long.MaxValue ? hub.LatestFrom : Math.Max(0, hub.Total - Math.Max(0, replay));
        // A cancelled operation breaks a WebSocket: only the waiting in between is cancelled, so that there can be a farewell.
        var sending = hub.FollowAsync(from,
            piece => socket.SendAsync(piece, WebSocketMessageType.Binary, endOfMessage: true, CancellationToken.None).AsTask(),
                follow: true, over.Token);
        var receiving = ReceiveAsync(over.Token);
        await Task.WhenAny(sending, receiving, ended.Task).ConfigureAwait(false);
        await over.CancelAsync().ConfigureAwait(false);
        if (await EndsAsync(sending).ConfigureAwait(false)) await CloseAsync().ConfigureAwait(false);
        if (!await EndsAsync(receiving).ConfigureAwait(false)) socket.Abort();
    }

    /// <summary>Waits a moment for the end of a task, however it ends; false where it does not come.</summary>
    private static async Task<bool> EndsAsync(Task task)
    {
        try
        {
            await task.WaitAsync(s_patience).ConfigureAwait(false);
            return true;
        }
        catch (TimeoutException)
        {
            _ = task.ContinueWith(static late => _ = late.Exception, TaskScheduler.Default); // nobody else will look
            return false;
        }
        catch (Exception gone) when (gone is OperationCanceledException or WebSocketException or IOException)
        {
            return true; // the viewer has gone, or the VM
        }
    }

    private async Task CloseAsync()
    {
        if (socket.State is not (WebSocketState.Open or WebSocketState.CloseReceived)) return;
        using var patience = new CancellationTokenSource(s_patience);
        try
        {
            var why = vm.Removed.IsCompleted ? "the VM has been removed" : "";
            await socket.CloseOutputAsync(WebSocketCloseStatus.NormalClosure, why, patience.Token).ConfigureAwait(false);
        }
        catch (Exception gone) when (gone is OperationCanceledException or WebSocketException or IOException) { /* the viewer has gone */ }
    }

    private async Task ReceiveAsync(CancellationToken cancel)
    {
        var buffer = new byte[4096];
        while (true)
        {
            var got = await socket.ReceiveAsync(buffer.AsMemory(), CancellationToken.None).ConfigureAwait(false);
            if (got.MessageType == WebSocketMessageType.Close) return;
            // Keys for a guest that does not run would reach the next one.
            if (vm.Status.State is VmState.Running or VmState.Paused or VmState.Stopping)
                await hub.TypeAsync(buffer.AsMemory(0, got.Count), cancel).ConfigureAwait(false);
        }
    }
}
