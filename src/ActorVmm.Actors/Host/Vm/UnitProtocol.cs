namespace ActorVmm.Actors.Host.Vm;

/// <summary>
/// What every unit of a VM answers: vCPUs, devices, bus, event loop. Commands are answered by <see cref="Done"/> (or the record named
/// there) to the sender; <see cref="Inspect"/> is answered in every state.
/// </summary>
public static class UnitProtocol
{
    /// <summary>Make ready. Answered by <see cref="Done"/> once the unit serves accesses.</summary>
    public sealed record Start { public static readonly Start Instance = new(); }

    /// <summary>Let go of what lies outside the VM (console, file, tap); the state is kept.</summary>
    public sealed record Stop { public static readonly Stop Instance = new(); }

    /// <summary>Back to power-on.</summary>
    public sealed record Reset { public static readonly Reset Instance = new(); }

    /// <summary>Answer <see cref="Saved"/>; changes nothing.</summary>
    public sealed record Save { public static readonly Save Instance = new(); }

    /// <summary>Take over a state that <see cref="Save"/> gave. A state of another unit's type is refused.</summary>
    public sealed record Restore(object? State);

    /// <summary>Answer <see cref="Inspected"/>.</summary>
    public sealed record Inspect { public static readonly Inspect Instance = new(); }

    /// <summary>The command was carried out, or <paramref name="Refusal"/> says why not.</summary>
    public sealed record Done(string Unit, string? Refusal = null);

    /// <summary>The state of a unit; null where it has none of its own.</summary>
    public sealed record Saved(string Unit, object? State);

    /// <summary>What a unit says about itself.</summary>
    public sealed record Inspected(InspectNode Node);
}

/// <summary>One unit in the tree that <c>Inspect</c> shows; its place in the tree is its actor path.</summary>
/// <param name="Name">The actor's name.</param>
/// <param name="Values">Counters, registers, states.</param>
/// <param name="Children">The units below.</param>
public sealed record InspectNode(string Name, IReadOnlyDictionary<string, string> Values, IReadOnlyList<InspectNode>? Children = null)
{
    private const string State = "state", NoAnswer = "unresolved";

    /// <summary>A unit that did not answer in time.</summary>
    public static InspectNode Unresolved(string name) => new(name, new Dictionary<string, string>(StringComparer.Ordinal) { [State] = NoAnswer });

    /// <summary>It did not answer in time: what is below it is not known.</summary>
    public bool IsUnresolved => Children is null && Values.TryGetValue(State, out var state) && state == NoAnswer;

    /// <summary>The tree as indented lines.</summary>
    public override string ToString()
    {
        var text = new System.Text.StringBuilder();
        Append(text, depth: 0);
        return text.ToString();
    }

    private void Append(System.Text.StringBuilder text, int depth)
    {
        text.Append(' ', 2 * depth).Append(Name).Append('\n');
        foreach (var (key, value) in Values) text.Append(' ', 2 * depth + 2).Append(key).Append(" = ").Append(value).Append('\n');
        foreach (var child in Children ?? []) child.Append(text, depth + 1);
    }
}
