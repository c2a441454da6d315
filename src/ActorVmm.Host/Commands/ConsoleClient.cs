using System.Net.WebSockets;
using System.Text.Json;
using System.Threading.Channels;
using ActorVmm.Host.Api;
using ActorVmm.Host.Client;
using ActorVmm.Host.Terminal;

namespace ActorVmm.Host.Commands;

/// <summary>
/// <c>console</c>: this terminal on a VM's console, through the host. Leaving leaves the VM running. With input from a file or pipe its
/// bytes are typed, and the end of the input detaches when the console has been quiet for a moment. For machines, what is printed comes as
/// <c>logs --json</c> gives it: a JSON string per line of the console.
/// </summary>
internal sealed class ConsoleClient(ConsoleDescriptors descriptors)
{
    private const string Help = "Ctrl-A X  detach (the VM runs on)\r\nCtrl-A A  send Ctrl-A to the guest\r\nCtrl-A H  this help\r\n";
    private static readonly TimeSpan s_quiet = TimeSpan.FromSeconds(1);

    public async Task RunAsync(HostClient host, string name, long? replay, bool json, CancellationToken cancel)
    {
        var interactive = Libc.IsTerminal(descriptors.Input);
        using var socket = await host.ConsoleAsync(name, replay, cancel).ConfigureAwait(false);
        using var over = CancellationTokenSource.CreateLinkedTokenSource(cancel);
        if (interactive) await descriptors.Errors.WriteLineAsync($"Attached to {name}: Ctrl-A X detaches.").ConfigureAwait(false);
        string why;
        using (var terminal = interactive ? TerminalMode.Enter(descriptors.Input) : null)
        using (terminal is null ? null : new SignalGuard(terminal, over.Cancel, descriptors.Exit))
        {
            var typed = Channel.CreateBounded<byte[]>(16);
            var reader = new Thread(() => Pump(typed.Writer, interactive)) { IsBackground = true, Name = "console-input" };
            reader.Start();
            var printing = new Printing(socket, descriptors.Output, json);
            var output = printing.RunAsync(over.Token);
            var input = TypeAsync(socket, typed.Reader, over.Token);
            var first = await Task.WhenAny(output, input).ConfigureAwait(false);
            if (first == input && !interactive) await printing.QuietAsync(s_quiet, output).ConfigureAwait(false);
            await over.CancelAsync().ConfigureAwait(false);
            why = await EndOf(output).ConfigureAwait(false);
            await EndOf(input).ConfigureAwait(false);
            await CloseAsync(socket).ConfigureAwait(false);
        }

        if (interactive) await descriptors.Errors.WriteLineAsync($"\nDetached from {name}{(why.Length > 0 ? ": " + why : "")}.")
            .ConfigureAwait(false);
    }

    private void Pump(ChannelWriter<byte[]> into, bool interactive)
    {
        var keys = interactive ? new EscapeKeys() : null;
        Span<byte> typed = stackalloc byte[1024];
        Span<byte> guest = stackalloc byte[2 * 1024];
        int got;
        while ((got = Libc.Read(descriptors.Input, typed)) > 0)
        {
            var rest = typed[..got];
            while (rest.Length > 0)
            {
                var (used, count, request) = (rest.Length, rest.Length, EscapeRequest.None);
                if (keys is null) rest.CopyTo(guest);
                else request = keys.Filter(rest, guest, out used, out count);
                if (count > 0 && !Write(into, guest[..count].ToArray())) return;
                rest = rest[used..];
                if (request == EscapeRequest.Help) descriptors.Errors.Write("\r\n" + Help);
                if (request != EscapeRequest.Leave) continue;
                into.TryComplete();
                return;
            }
        }

        into.TryComplete();
    }

    private static bool Write(ChannelWriter<byte[]> into, byte[] bytes)
    {
        while (!into.TryWrite(bytes))
            if (!into.WaitToWriteAsync().AsTask().GetAwaiter().GetResult()) return false;
        return true;
    }

    private static async Task TypeAsync(WebSocket socket, ChannelReader<byte[]> typed, CancellationToken cancel)
    {
        await foreach (var bytes in typed.ReadAllAsync(cancel).ConfigureAwait(false))
            await socket.SendAsync(bytes.AsMemory(), WebSocketMessageType.Binary, endOfMessage: true, cancel).ConfigureAwait(false);
    }

    private static async Task<string> EndOf(Task task)
    {
        try
        {
            await task.ConfigureAwait(false);
            return task is Task<string> { Result: var why } ? why : "";
        }
        catch (Exception gone) when (gone is OperationCanceledException or WebSocketException or IOException)
        {
            return gone is OperationCanceledException ? "" : "the host has gone";
        }
    }

    private static async Task CloseAsync(ClientWebSocket socket)
    {
        if (socket.State is not (WebSocketState.Open or WebSocketState.CloseReceived)) return;
        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(1));
        try { await socket.CloseOutputAsync(WebSocketCloseStatus.NormalClosure, "", patience.Token).ConfigureAwait(false); }
        catch (Exception gone) when (gone is OperationCanceledException or WebSocketException or IOException) { /* it is over anyway */ }
    }

    /// <summary>What comes from the guest, on its way to the terminal.</summary>
    private sealed class Printing(WebSocket socket, int fd, bool json)
    {
        private readonly LineSplitter _lines = new();
        private long _last = System.Diagnostics.Stopwatch.GetTimestamp();

        public async Task<string> RunAsync(CancellationToken cancel)
        {
            try
            {
                return await PrintAsync(cancel).ConfigureAwait(false);
            }
            finally
            {
                if (json && _lines.Rest is { Length: > 0 } rest) PrintLine(rest); // a prompt, mostly
            }
        }

        private async Task<string> PrintAsync(CancellationToken cancel)
        {
            var buffer = new byte[16 << 10];
            while (true)
            {
                var got = await socket.ReceiveAsync(buffer.AsMemory(), cancel).ConfigureAwait(false);
                if (got.MessageType == WebSocketMessageType.Close) return socket.CloseStatusDescription ?? "";
                Volatile.Write(ref _last, System.Diagnostics.Stopwatch.GetTimestamp());
                if (!Print(buffer.AsSpan(0, got.Count))) return "nobody reads the output any more";
            }
        }

        private bool Print(ReadOnlySpan<byte> bytes)
        {
            if (!json) return Libc.WriteAll(fd, bytes);
            foreach (var line in _lines.Take(bytes))
                if (!PrintLine(line)) return false;
            return true;
        }

        private bool PrintLine(string line) =>
            Libc.WriteAll(fd, [.. JsonSerializer.SerializeToUtf8Bytes(line, ApiJson.Default.String), (byte)'\n']);

        public async Task QuietAsync(TimeSpan quiet, Task over)
        {
            while (!over.IsCompleted && System.Diagnostics.Stopwatch.GetElapsedTime(Volatile.Read(ref _last)) is var past && past < quiet)
                await Task.WhenAny(over, Task.Delay(quiet - past + TimeSpan.FromMilliseconds(1))).ConfigureAwait(false);
        }
    }
}
