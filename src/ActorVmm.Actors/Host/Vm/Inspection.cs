using System.Globalization;
using Akka.Actor;

namespace ActorVmm.Actors.Host.Vm;

/// <summary>Asks units to describe themselves. One that does not answer is shown as unresolved, and holds nobody up.</summary>
internal static class Inspection
{
    public static async Task<UnitProtocol.Inspected> GatherAsync(
        string name, IEnumerable<IActorRef> units, TimeSpan deadline, IReadOnlyDictionary<string, string>? values = null)
    {
        var nodes = await Task.WhenAll(units.Select(unit => AskAsync(unit, deadline))).ConfigureAwait(false);
        return new UnitProtocol.Inspected(new InspectNode(name, values ?? new Dictionary<string, string>(StringComparer.Ordinal), nodes));
    }

    /// <summary>How many messages wait for an actor; null for a reference that has no mailbox here. Any thread.</summary>
    public static int? Depth(IActorRef unit) => unit is ActorRefWithCell { Underlying: { } cell } ? cell.NumberOfMessages : null;

    private static async Task<InspectNode> AskAsync(IActorRef unit, TimeSpan deadline)
    {
        // Looked at before the question joins the queue. A device counts by itself, from within.
        var waiting = Depth(unit);
        try
        {
            var answer = await unit.Ask<UnitProtocol.Inspected>(UnitProtocol.Inspect.Instance, deadline).ConfigureAwait(false);
            return waiting is { } count ? WithMailbox(answer.Node, count) : answer.Node;
        }
        catch (Exception late) when (late is AskTimeoutException or OperationCanceledException or TimeoutException)
        {
            return InspectNode.Unresolved(unit.Path.Name);
        }
    }

    private static InspectNode WithMailbox(InspectNode node, int waiting) => node.Values.ContainsKey("mailbox")
        ? node
        : node with
        {
            Values = new SortedDictionary<string, string>(node.Values.ToDictionary(StringComparer.Ordinal), StringComparer.Ordinal)
            {
                ["mailbox"] = waiting.ToString(CultureInfo.InvariantCulture),
            },
        };
}
