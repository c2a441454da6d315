using System.Globalization;

namespace ActorVmm.Host.Descriptions;

/// <summary>What a <see cref="Node"/> holds.</summary>
internal enum NodeKind
{
    Null,
    Boolean,
    Number,
    String,

    /// <summary>Text whose type is what its key asks for: every HOCON scalar, and every <c>--set</c> value.</summary>
    Text,
    Array,
    Object,
}

/// <summary>One key of an object, with where the key stands.</summary>
internal sealed record Member(string Name, Node Value, int Line, int Column);

/// <summary>
/// A value of a description with its place: JSON and HOCON become the same tree, so that the rules above it are written once. Duplicates
/// are kept (JSON) because the rules say which of them are errors.
/// </summary>
internal sealed class Node
{
    public const int MaxDepth = 64;

    public required NodeKind Kind { get; init; }

    /// <summary>Line and column, both from 1; 0 where the value comes from the command line.</summary>
    public int Line { get; init; }
    public int Column { get; init; }

    /// <summary>The scalar as it was written (strings unescaped).</summary>
    public string Text { get; init; } = "";
    public List<Member> Members { get; } = [];
    public List<Node> Items { get; } = [];

    /// <summary>Where the value comes from when it is not the file: <c>--set ...</c>.</summary>
    public string? Source { get; init; }

    public Node? Find(string name) => Members.FindLast(member => string.Equals(member.Name, name, StringComparison.Ordinal))?.Value;

    /// <summary>The value for a message: short, on one line.</summary>
    public string Show()
    {
        var text = Kind switch
        {
            NodeKind.Null => "null",
            NodeKind.Array => string.Create(CultureInfo.InvariantCulture, $"an array of {Items.Count}"),
            NodeKind.Object => "an object",
            NodeKind.String => $"\"{Text}\"",
            _ => Text.Length == 0 ? "\"\"" : Text,
        };
        text = string.Concat(text.Select(c => char.IsControl(c) || char.IsSurrogate(c) ? '?' : c));
        return text.Length > 60 ? text[..57] + "..." : text;
    }
}
