using System.Globalization;
using System.Text;

namespace ActorVmm.Host.Descriptions;

/// <summary>One thing that is wrong with a description.</summary>
/// <param name="Source">The file, or the option the value came with.</param>
/// <param name="Line">From 1; 0 where there is none.</param>
/// <param name="Column">From 1; 0 where there is none.</param>
/// <param name="Key">Dotted path of the key, or an empty string for the file as a whole.</param>
/// <param name="Value">The value as written, or null where it is missing.</param>
/// <param name="Reason">What is wrong, and what is allowed or what to do.</param>
public sealed record DescriptionError(string Source, int Line, int Column, string Key, string? Value, string Reason)
{
    /// <summary>One line: <c>vm.json:3:19: machine-config.vcpu_count = 33: allowed is a whole number from 1 to 32</c>.</summary>
    public override string ToString()
    {
        var line = new StringBuilder(Source);
        if (Line > 0)
            line.Append(CultureInfo.InvariantCulture, $":{Line}:{Column}");
        line.Append(": ");
        if (Key.Length > 0)
            line.Append(Key).Append(Value is null ? "" : " = " + Value).Append(": ");
        line.Append(Reason);
        // Names and values come from the file: nothing in them may move the reader's cursor.
        for (var i = 0; i < line.Length; i++)
        {
            if (char.IsControl(line[i]) || char.IsSurrogate(line[i]))
                line[i] = '?';
        }
        return line.ToString();
    }
}

/// <summary>A description that cannot be used. Every error that was found is in <see cref="Errors"/>.</summary>
public sealed class DescriptionException : Exception
{
    /// <param name="errors">At least one.</param>
    public DescriptionException(IReadOnlyList<DescriptionError> errors) : base(string.Join(Environment.NewLine, errors)) => Errors = errors;
    public DescriptionException(string message) : base(message) { }
    public DescriptionException(string message, Exception inner) : base(message, inner) { }
    public DescriptionException() { }

    /// <summary>What is wrong, in the order of the file.</summary>
    public IReadOnlyList<DescriptionError> Errors { get; } = [];
}

/// <summary>Collects errors while a description is read, so that one run of <c>check</c> shows them all.</summary>
internal sealed class ErrorList(string source)
{
    private readonly List<DescriptionError> _errors = [];

    public string Source => source;
    public bool Any => _errors.Count > 0;

    public void Add(Node node, string key, string reason) =>
        _errors.Add(new(node.Source ?? source, node.Line, node.Column, key, node.Show(), reason));

    public void AddAt(int line, int column, string key, string reason) => _errors.Add(new(source, line, column, key, null, reason));

    public void AddUnknown(string from, Member member, string key, string reason) =>
        _errors.Add(new(from, member.Line, member.Column, key, null, reason));

    /// <summary>Takes over what was found in another file that this one names.</summary>
    public void Include(IReadOnlyList<DescriptionError> others) => _errors.AddRange(others);

    public IReadOnlyList<DescriptionError> All => _errors;

    public void ThrowIfAny()
    {
        if (Any)
            throw new DescriptionException(_errors.Count > 50 ? _errors.GetRange(0, 50) : _errors);
    }
}
