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

    private static async Task<InspectNode> AskAsync(IActorRef unit, TimeSpan deadline)
    {
        try
        {
            var answer = await unit.Ask<UnitProtocol.Inspected>(UnitProtocol.Inspect.Instance, deadline).ConfigureAwait(false);
            return answer.Node;
        }
        catch (Exception late) when (late is AskTimeoutException or OperationCanceledException or TimeoutException)
        {
            return InspectNode.Unresolved(unit.Path.Name);
        }
    }
}
