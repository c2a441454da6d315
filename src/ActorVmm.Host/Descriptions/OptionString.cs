using System.Globalization;

namespace ActorVmm.Host.Descriptions;

/// <summary>A flag that cannot be used; the message says why.</summary>
public sealed class OptionException : Exception
{
    public OptionException(string message) : base(message) { }
    public OptionException(string message, Exception inner) : base(message, inner) { }
    public OptionException() { }
}

/// <summary>
/// The value of one vmm-reference flag: <c>key=value,key=value</c>. Stray commas are skipped, each piece is split at its first <c>=</c>,
/// keys are lower-cased, the last of two equal keys wins, and an empty value is none. Each look-up consumes its key.
/// </summary>
internal sealed class OptionString
{
    private readonly Dictionary<string, string> _pairs = new(StringComparer.Ordinal);
    private readonly string _what;

    /// <param name="what">What the flag describes, for messages: <c>kernel</c>, <c>memory</c>, ...</param>
    /// <param name="text">The flag's value.</param>
    public OptionString(string what, string text)
    {
        _what = what;
        foreach (var piece in text.Split(',', StringSplitOptions.RemoveEmptyEntries))
        {
            var equals = piece.IndexOf('=', StringComparison.Ordinal);
            var key = equals < 0 ? piece : piece[..equals];
            _pairs[key.ToLowerInvariant()] = equals < 0 ? "" : piece[(equals + 1)..];
        }
    }

    /// <summary>A string, or null where the key is missing or empty.</summary>
    public string? Text(string key) => _pairs.Remove(key, out var value) && value.Length > 0 ? value : null;

    /// <summary>A string that has to be there.</summary>
    public string Required(string key) => Text(key) ?? throw Invalid($"Missing required argument: {key}");

    /// <summary>A decimal number, or null where the key is missing or empty.</summary>
    /// <param name="key">Which.</param>
    /// <param name="most">The largest value of its type.</param>
    /// <param name="nonZero">Whether 0 is refused.</param>
    public ulong? Number(string key, ulong most, bool nonZero = false)
    {
        if (Text(key) is not { } text)
            return null;
        // A plus sign is accepted, as it is there.
        var digits = text.Length > 1 && text[0] == '+' ? text[1..] : text;
        if (!digits.All(char.IsAsciiDigit))
            throw Fails(key, "invalid digit found in string");
        if (!ulong.TryParse(digits, NumberStyles.None, CultureInfo.InvariantCulture, out var value) || value > most)
            throw Fails(key, "number too large to fit in target type");
        return nonZero && value == 0 ? throw Fails(key, "number would be zero for non-zero type") : value;
    }

    /// <summary>Refuses what no look-up asked for.</summary>
    public void RequireAllConsumed()
    {
        if (_pairs.Count > 0)
            throw Invalid($"Unknown arguments found: '{string.Join(", ", _pairs.Keys)}'");
    }

    /// <summary>An error about this flag.</summary>
    public OptionException Invalid(string reason) => new($"Invalid input for {_what}: {reason}");

    private OptionException Fails(string key, string reason) => Invalid($"Param '{key}', parsing failed: {reason}");
}
