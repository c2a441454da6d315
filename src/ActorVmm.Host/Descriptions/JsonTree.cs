using System.Text;
using System.Text.Json;

namespace ActorVmm.Host.Descriptions;

/// <summary>
/// Strict JSON (RFC 8259) to <see cref="Node"/>s, with line and column, duplicates kept and numbers as written: the Firecracker contract
/// distinguishes <c>1</c> from <c>1.0</c> and calls a doubled key an error, which a document model would hide.
/// </summary>
internal static class JsonTree
{
    /// <exception cref="DescriptionException">Not JSON; the error has line and column.</exception>
    public static Node Parse(ReadOnlySpan<byte> utf8, ErrorList errors)
    {
        try
        {
            // Checked once for the whole file: the reader would only notice bad UTF-8 where it has to unescape.
            _ = new UTF8Encoding(false, throwOnInvalidBytes: true).GetCharCount(utf8);
        }
        catch (DecoderFallbackException bad)
        {
            var (line, column) = Place(utf8, Math.Max(0, bad.Index));
            errors.AddAt(line, column, "", "not JSON: the file is not valid UTF-8");
            errors.ThrowIfAny();
        }
        var reader = new Utf8JsonReader(utf8, new JsonReaderOptions { MaxDepth = Node.MaxDepth });
        try
        {
            reader.Read();
            var root = Value(ref reader, utf8);
            reader.Read(); // proves that nothing follows
            return root;
        }
        catch (Exception wrong) when (wrong is JsonException or InvalidOperationException)
        {
            // InvalidOperationException: an escape that is half of a surrogate pair has no text.
            var (line, column) = Place(utf8, (int)reader.TokenStartIndex);
            if (wrong is JsonException { LineNumber: { } l, BytePositionInLine: { } c })
                (line, column) = ((int)l + 1, (int)c + 1);
            errors.AddAt(line, column, "", "not JSON: " + Reason(wrong.Message));
            errors.ThrowIfAny();
            throw;
        }
    }

    private static Node Value(ref Utf8JsonReader reader, ReadOnlySpan<byte> utf8)
    {
        var (line, column) = Place(utf8, (int)reader.TokenStartIndex);
        switch (reader.TokenType)
        {
            case JsonTokenType.StartObject:
                var node = new Node { Kind = NodeKind.Object, Line = line, Column = column };
                while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
                {
                    var (keyLine, keyColumn) = Place(utf8, (int)reader.TokenStartIndex);
                    var name = reader.GetString()!;
                    reader.Read();
                    node.Members.Add(new(name, Value(ref reader, utf8), keyLine, keyColumn));
                }
                return node;
            case JsonTokenType.StartArray:
                var array = new Node { Kind = NodeKind.Array, Line = line, Column = column };
                while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
                    array.Items.Add(Value(ref reader, utf8));
                return array;
            case JsonTokenType.String:
                return new Node { Kind = NodeKind.String, Line = line, Column = column, Text = reader.GetString()! };
            case JsonTokenType.Number:
                return new Node { Kind = NodeKind.Number, Line = line, Column = column, Text = Encoding.UTF8.GetString(reader.ValueSpan) };
            case JsonTokenType.True or JsonTokenType.False:
                var text = reader.TokenType == JsonTokenType.True ? "true" : "false";
                return new Node { Kind = NodeKind.Boolean, Line = line, Column = column, Text = text };
            default:
                return new Node { Kind = NodeKind.Null, Line = line, Column = column };
        }
    }

    private static (int Line, int Column) Place(ReadOnlySpan<byte> utf8, int offset)
    {
        var before = utf8[..Math.Min(offset, utf8.Length)];
        var line = before.Count((byte)'\n') + 1;
        var start = before.LastIndexOf((byte)'\n') + 1;
        return (line, Encoding.UTF8.GetCharCount(before[start..]) + 1);
    }

    // The library's message ends with its own idea of line and byte position, counted from 0.
    private static string Reason(string message)
    {
        var cut = message.IndexOf(" LineNumber:", StringComparison.Ordinal);
        var reason = cut < 0 ? message : message[..cut];
        return string.Concat(reason.Select(c => char.IsControl(c) || char.IsSurrogate(c) ? '?' : c));
    }
}
