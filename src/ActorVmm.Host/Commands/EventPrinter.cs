using System.Globalization;
using System.Text;
using System.Text.Json;
using ActorVmm.Actors.Fleet;
using ActorVmm.Host.Api;

namespace ActorVmm.Host.Commands;

/// <summary>Prints events: one line each, for people or as JSON.</summary>
internal sealed class EventPrinter(TextWriter output, bool json)
{
    private readonly StringBuilder _partial = new();

    /// <summary>Takes a piece of a stream of server-sent events.</summary>
    public async Task TakeAsync(ReadOnlyMemory<byte> piece)
    {
        _partial.Append(Encoding.UTF8.GetString(piece.Span));
        var text = _partial.ToString();
        var end = text.LastIndexOf('\n') + 1;
        _partial.Clear().Append(text, end, text.Length - end);
        foreach (var line in text[..end].Split('\n'))
        {
            if (!line.StartsWith("data: ", StringComparison.Ordinal)) continue;
            await PrintAsync(JsonSerializer.Deserialize(line.AsSpan(6), ApiJson.Default.FleetEvent)!, line[6..]).ConfigureAwait(false);
        }

        await output.FlushAsync().ConfigureAwait(false);
    }

    /// <summary>Prints an array of events.</summary>
    public async Task PrintAllAsync(string array)
    {
        using var all = JsonDocument.Parse(array);
        foreach (var e in all.RootElement.EnumerateArray())
            await PrintAsync(e.Deserialize(ApiJson.Default.FleetEvent)!, e.GetRawText()).ConfigureAwait(false);
    }

    private Task PrintAsync(FleetEvent e, string raw) => output.WriteLineAsync(json
        ? raw
        : string.Create(CultureInfo.InvariantCulture,
            $"{e.At:yyyy-MM-dd HH:mm:ss.fff}  {(e.Vm.Length == 0 ? "-" : e.Vm),-16}  {e.Kind,-16}  {e.Detail}").TrimEnd());
}
