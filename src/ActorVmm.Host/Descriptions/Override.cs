using System.Globalization;
using System.Text;

namespace ActorVmm.Host.Descriptions;

/// <summary><c>--set key=value</c>: replaces one value of a description before it is checked, so that all rules hold for it too.</summary>
internal static class Override
{
    /// <summary>Splits at the first <c>=</c>; false where the text is not <c>key=value</c> with a dotted key.</summary>
    public static bool TrySplit(string setting, out string[] path, out string value)
    {
        var equals = setting.IndexOf('=', StringComparison.Ordinal);
        path = equals < 0 ? [] : setting[..equals].Trim().Split('.');
        value = equals < 0 ? "" : setting[(equals + 1)..].Trim();
        return path.Length is > 0 and <= Node.MaxDepth && Array.TrueForAll(path, part => part.Length > 0);
    }

    /// <summary>Puts the value into the tree. A number in the key is an index into an array that is there.</summary>
    public static void Apply(Node root, string setting, ErrorList errors)
    {
        if (!TrySplit(setting, out var path, out var text))
        {
            errors.AddAt(0, 0, setting, "not an override; write --set key=value with a dotted key, e.g. --set vcpus.count=2");
            return;
        }
        var source = "--set " + setting;
        var value = Parse(text, source);
        var into = root;
        for (var i = 0; i < path.Length - 1; i++)
        {
            var next = Step(into, path[i]);
            if (next is null)
            {
                if (into.Kind != NodeKind.Object)
                {
                    Misses(errors, source, path, i);
                    return;
                }
                next = new Node { Kind = NodeKind.Object, Source = source };
                Set(into, path[i], next);
            }
            into = next;
        }
        if (into.Kind == NodeKind.Object)
            Set(into, path[^1], value);
        else if (TryIndex(into, path[^1], out var index))
            into.Items[index] = value;
        else
            Misses(errors, source, path, path.Length - 1);
    }

    private static void Misses(ErrorList errors, string source, string[] path, int at) =>
        errors.AddUnknown(source, new Member("", new Node { Kind = NodeKind.Null }, 0, 0), string.Join('.', path),
            $"there is nothing at '{string.Join('.', path[..at])}' that has a '{path[at]}'");

    private static Node? Step(Node node, string name)
    {
        if (TryIndex(node, name, out var index))
            return node.Items[index];
        return node.Find(name) is { Kind: NodeKind.Object or NodeKind.Array } next ? next : null;
    }

    private static bool TryIndex(Node node, string name, out int index)
    {
        index = 0;
        return node.Kind == NodeKind.Array
            && int.TryParse(name, NumberStyles.None, CultureInfo.InvariantCulture, out index) && index < node.Items.Count;
    }

    private static void Set(Node into, string name, Node value)
    {
        into.Members.RemoveAll(member => string.Equals(member.Name, name, StringComparison.Ordinal));
        into.Members.Add(new(name, value, 0, 0));
    }

    // Arrays and objects are JSON; null is null; anything else is text that its key types.
    private static Node Parse(string text, string source)
    {
        if (text is "null")
            return new Node { Kind = NodeKind.Null, Source = source };
        return text.StartsWith('[') || text.StartsWith('{')
            ? JsonTree.Parse(Encoding.UTF8.GetBytes(text), new ErrorList(source))
            : new Node { Kind = NodeKind.Text, Text = text, Source = source };
    }
}
