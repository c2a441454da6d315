using System.Globalization;

namespace ActorVmm.Host.Descriptions;

/// <summary>Whether a key may be left out or be null.</summary>
internal enum Need
{
    /// <summary>Must be there, not null.</summary>
    Required,

    /// <summary>May be left out, but not null.</summary>
    Optional,

    /// <summary>May be left out or null, which mean the same.</summary>
    Nullable,
}

/// <summary>
/// Reads one object of a description key by key: types, limits and the null rule of each key are checked where it is asked for, and
/// <see cref="Finish"/> reports what nobody asked for. Errors are collected, not thrown; a bad key reads as its default.
/// </summary>
internal sealed class ObjectReader
{
    private readonly Node _node;
    private readonly string _path;
    private readonly ErrorList _errors;
    private readonly List<string> _known = [];

    public ObjectReader(Node node, string path, ErrorList errors) => (_node, _path, _errors) = (node, path, errors);

    public ErrorList Errors => _errors;

    public string PathOf(string key) => _path.Length == 0 ? key : $"{_path}.{key}";

    /// <summary>The value of a key that is there and not null, or null; its shape is checked against what is allowed there.</summary>
    public Node? Take(string key, Need need, string allowed)
    {
        _known.Add(key);
        Node? found = null;
        foreach (var member in _node.Members.Where(member => string.Equals(member.Name, key, StringComparison.Ordinal)))
        {
            if (found is not null)
                _errors.AddAt(member.Line, member.Column, PathOf(key), "given twice; keep one");
            found = member.Value;
        }
        if (found is null)
        {
            if (need == Need.Required)
                _errors.AddAt(_node.Line, _node.Column, PathOf(key), $"missing; required is {allowed}");
            return null;
        }
        if (found.Kind != NodeKind.Null)
            return found;
        if (need != Need.Nullable)
            _errors.Add(found, PathOf(key), $"may not be null; allowed is {allowed}");
        return null;
    }

    public string? String(string key, Need need, string allowed = "a string")
    {
        if (Take(key, need, allowed) is not { } node)
            return null;
        if (node.Kind is NodeKind.String or NodeKind.Text)
            return node.Text;
        _errors.Add(node, PathOf(key), $"allowed is {allowed}");
        return null;
    }

    public bool? Boolean(string key, Need need)
    {
        if (Take(key, need, "true or false") is not { } node)
            return null;
        if (node.Kind is NodeKind.Boolean or NodeKind.Text && node.Text is "true" or "false")
            return string.Equals(node.Text, "true", StringComparison.Ordinal);
        _errors.Add(node, PathOf(key), "allowed is true or false");
        return null;
    }

    /// <summary>A whole number written in decimal digits (in HOCON also <c>0x...</c>).</summary>
    public ulong? Integer(string key, Need need, ulong least, ulong most, string? also = null)
    {
        var allowed = most == ulong.MaxValue
            ? string.Create(CultureInfo.InvariantCulture, $"a whole number, {least} or more")
            : string.Create(CultureInfo.InvariantCulture, $"a whole number from {least} to {most}");
        allowed += also;
        if (Take(key, need, allowed) is not { } node)
            return null;
        if (node.Kind is NodeKind.Number or NodeKind.Text && TryInteger(node, out var value) && value >= least && value <= most)
            return value;
        _errors.Add(node, PathOf(key), $"allowed is {allowed}");
        return null;
    }

    private static bool TryInteger(Node node, out ulong value)
    {
        if (node.Kind == NodeKind.Text && node.Text.StartsWith("0x", StringComparison.OrdinalIgnoreCase))
            return ulong.TryParse(node.Text.AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out value);
        return ulong.TryParse(node.Text, NumberStyles.None, CultureInfo.InvariantCulture, out value);
    }

    /// <summary>One of some words.</summary>
    public string? Choice(string key, Need need, StringComparison comparison, params ReadOnlySpan<string> words)
    {
        var allowed = "one of " + string.Join(", ", words!);
        if (Take(key, need, allowed) is not { } node)
            return null;
        if (node.Kind is NodeKind.String or NodeKind.Text)
        {
            foreach (var word in words)
            {
                if (string.Equals(word, node.Text, comparison))
                    return word;
            }
        }
        _errors.Add(node, PathOf(key), $"allowed is {allowed}");
        return null;
    }

    public ObjectReader? Object(string key, Need need)
    {
        if (Take(key, need, "an object { ... }") is not { } node)
            return null;
        if (node.Kind == NodeKind.Object)
            return new ObjectReader(node, PathOf(key), _errors);
        _errors.Add(node, PathOf(key), "allowed is an object { ... }");
        return null;
    }

    public IReadOnlyList<Node> Array(string key, Need need)
    {
        if (Take(key, need, "an array [ ... ]") is not { } node)
            return [];
        if (node.Kind == NodeKind.Array)
            return node.Items;
        _errors.Add(node, PathOf(key), "allowed is an array [ ... ]");
        return [];
    }

    /// <summary>The objects of an array, each with its path <c>key[n]</c>.</summary>
    public IEnumerable<ObjectReader> Objects(string key, Need need)
    {
        var items = Array(key, need);
        for (var i = 0; i < items.Count; i++)
        {
            var path = string.Create(CultureInfo.InvariantCulture, $"{PathOf(key)}[{i}]");
            if (items[i].Kind == NodeKind.Object)
                yield return new ObjectReader(items[i], path, _errors);
            else
                _errors.Add(items[i], path, "allowed is an object { ... }");
        }
    }

    /// <summary>Adds an error about a key's value.</summary>
    public void Reject(string key, string reason)
    {
        if (_node.Find(key) is { } node)
            _errors.Add(node, PathOf(key), reason);
        else
            _errors.AddAt(_node.Line, _node.Column, PathOf(key), reason);
    }

    /// <summary>Adds an error about this object as a whole.</summary>
    public void RejectWhole(string reason) => _errors.Add(_node, _path, reason);

    /// <summary>Is the key there with a value?</summary>
    public bool Has(string key) => _node.Find(key) is { Kind: not NodeKind.Null };

    /// <summary>Refuses every key that nobody asked for, with the nearest known one.</summary>
    public void Finish()
    {
        foreach (var member in _node.Members.Where(member => !_known.Contains(member.Name, StringComparer.Ordinal)))
        {
            var nearest = Nearest.To(member.Name, _known);
            var hint = nearest is null ? $"known here: {string.Join(", ", _known)}" : $"did you mean {nearest}?";
            var source = member.Value.Source ?? _errors.Source;
            _errors.AddUnknown(source, member, PathOf(member.Name), $"unknown key; {hint}");
        }
    }
}
