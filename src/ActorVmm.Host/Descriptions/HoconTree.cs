using System.Globalization;
using System.Text;

namespace ActorVmm.Host.Descriptions;

/// <summary>
/// HOCON to <see cref="Node"/>s, with line and column: comments, dotted and quoted keys, <c>=</c> <c>:</c> or a brace after a key, commas
/// or new lines, unquoted, quoted and triple-quoted strings, merging of objects; the last value of a key wins.
/// </summary>
/// <remarks>
/// Operator settings (akka.hocon) go through Akka's own parser. Descriptions do not: that parser takes a missing brace or quote for the end
/// of the file and drops what follows, knows no line numbers, and overflows the stack on <c>a = ${a}</c>; a description must be taken
/// whole or refused. The two agree on every well-formed file without substitutions (there is a test). Substitutions, <c>include</c>
/// and <c>+=</c> are refused by name.
/// </remarks>
internal sealed class HoconTree
{
    private const string Special = "$\"{}[]:=,+#`^?!@*&\\";
    private readonly string _text;
    private readonly ErrorList _errors;
    private int _at;
    private int _line = 1;
    private int _lineStart;

    private HoconTree(string text, ErrorList errors) => (_text, _errors) = (text, errors);

    /// <exception cref="DescriptionException">Not HOCON; the error has line and column.</exception>
    public static Node Parse(string text, ErrorList errors) => new HoconTree(text, errors).Root();

    private int Column => _at - _lineStart + 1;
    private bool End => _at >= _text.Length;
    private char Now => End ? '\0' : _text[_at];

    private Node Root()
    {
        SkipBlank();
        var braces = !End && Now == '{';
        Node root;
        if (braces)
        {
            root = Object(depth: 1);
        }
        else
        {
            root = new Node { Kind = NodeKind.Object, Line = 1, Column = 1 };
            Fields(root, close: null, depth: 1);
        }
        SkipBlank();
        if (!End)
            throw Fail($"'{Printable(Now)}' after the end of the description; is there a closing brace too many?");
        return root;
    }

    private Node Object(int depth)
    {
        if (depth > Node.MaxDepth)
            throw Fail(string.Create(CultureInfo.InvariantCulture, $"nested deeper than {Node.MaxDepth}"));
        var node = new Node { Kind = NodeKind.Object, Line = _line, Column = Column };
        Next();
        Fields(node, '}', depth);
        return node;
    }

    private void Fields(Node into, char? close, int depth)
    {
        while (true)
        {
            SkipSeparators();
            if (End)
            {
                if (close is not null)
                    throw Fail(string.Create(CultureInfo.InvariantCulture, $"the '{{' of line {into.Line} is not closed"));
                return;
            }
            if (Now == close)
            {
                Next();
                return;
            }
            Field(into, depth);
            RequireSeparator(close);
        }
    }

    private void Field(Node into, int depth)
    {
        var (line, column) = (_line, Column);
        var path = KeyPath();
        SkipSpaces();
        if (path is ["include"] && Now is not ('=' or ':' or '{'))
            throw Fail("'include' is not supported in a VM description: put the keys into this file, or give them with --set",
                line, column);
        if (Now == '+' && Peek(1) == '=')
            throw Fail("'+=' is not supported in a VM description: write the whole value", line, column);
        Node value;
        if (Now == '{')
        {
            value = Object(depth + path.Count);
        }
        else if (Now is '=' or ':')
        {
            Next();
            SkipBlank();
            value = Value(depth + path.Count);
        }
        else
        {
            throw Fail($"key '{string.Join('.', path)}' has no value: write key = value or key {{ ... }}", line, column);
        }
        if (depth + path.Count > Node.MaxDepth)
            throw Fail(string.Create(CultureInfo.InvariantCulture, $"nested deeper than {Node.MaxDepth}"), line, column);
        Put(into, path, value, line, column);
    }

    /// <summary>Puts a value at a path: objects merge, anything else replaces.</summary>
    public static void Put(Node into, IReadOnlyList<string> path, Node value, int line, int column)
    {
        for (var i = 0; i < path.Count - 1; i++)
        {
            if (into.Find(path[i]) is not { Kind: NodeKind.Object } next)
            {
                next = new Node { Kind = NodeKind.Object, Line = line, Column = column, Source = value.Source };
                Replace(into, path[i], next, line, column);
            }
            into = next;
        }
        if (value.Kind == NodeKind.Object && into.Find(path[^1]) is { Kind: NodeKind.Object } existing)
        {
            foreach (var member in value.Members)
                Put(existing, [member.Name], member.Value, member.Line, member.Column);
        }
        else
        {
            Replace(into, path[^1], value, line, column);
        }
    }

    private static void Replace(Node into, string name, Node value, int line, int column)
    {
        into.Members.RemoveAll(member => string.Equals(member.Name, name, StringComparison.Ordinal));
        into.Members.Add(new(name, value, line, column));
    }

    private List<string> KeyPath()
    {
        var path = new List<string>();
        while (true)
        {
            SkipSpaces();
            if (Now == '"')
            {
                path.Add(Quoted());
            }
            else
            {
                var start = _at;
                while (!End && Now is not ('.' or ' ' or '\t' or '\n' or '\r') && !Special.Contains(Now) && !char.IsControl(Now))
                    Next();
                if (_at == start)
                    throw Fail(End ? "a key is missing" : $"'{Printable(Now)}' where a key was expected");
                path.Add(_text[start.._at]);
            }
            SkipSpaces();
            if (Now != '.')
                return path;
            Next();
        }
    }

    private Node Value(int depth)
    {
        var (line, column) = (_line, Column);
        if (End)
            throw Fail("a value is missing");
        if (Now == '{')
            return Object(depth);
        if (Now == '[')
            return Array(depth);
        var text = new StringBuilder();
        var quoted = false;
        while (!End && Now is not ('\n' or '\r' or ',' or '}' or ']' or '#') && !(Now == '/' && Peek(1) == '/'))
        {
            if (Now == '"')
            {
                quoted = true;
                text.Append(Quoted());
            }
            else if (Now == '$' && Peek(1) == '{')
            {
                throw Fail("substitutions (${...}) are not supported in a VM description: write the value, or give it with --set");
            }
            else if (Now is ' ' or '\t')
            {
                var start = _at;
                SkipSpaces();
                var ends = End || Now is '\n' or '\r' or ',' or '}' or ']' or '#' || (Now == '/' && Peek(1) == '/');
                if (!ends)
                    text.Append(_text, start, _at - start); // spaces between two pieces belong to the value
            }
            else if (Special.Contains(Now) || char.IsControl(Now))
            {
                throw Fail($"'{Printable(Now)}' in an unquoted value: put the value in double quotes");
            }
            else
            {
                text.Append(Now);
                Next();
            }
        }
        if (text.Length == 0 && !quoted)
            throw Fail("a value is missing", line, column);
        var written = text.ToString();
        var isNull = !quoted && string.Equals(written, "null", StringComparison.Ordinal);
        return new Node { Kind = isNull ? NodeKind.Null : NodeKind.Text, Line = line, Column = column, Text = written };
    }

    private Node Array(int depth)
    {
        if (depth >= Node.MaxDepth)
            throw Fail(string.Create(CultureInfo.InvariantCulture, $"nested deeper than {Node.MaxDepth}"));
        var node = new Node { Kind = NodeKind.Array, Line = _line, Column = Column };
        Next();
        while (true)
        {
            SkipSeparators();
            if (End)
                throw Fail(string.Create(CultureInfo.InvariantCulture, $"the '[' of line {node.Line} is not closed"));
            if (Now == ']')
            {
                Next();
                return node;
            }
            node.Items.Add(Value(depth + 1));
            RequireSeparator(']');
        }
    }

    private string Quoted()
    {
        var (line, column) = (_line, Column);
        if (string.CompareOrdinal(_text, _at, "\"\"\"", 0, 3) == 0)
        {
            var from = _at + 3;
            var to = _text.IndexOf("\"\"\"", from, StringComparison.Ordinal);
            if (to < 0)
                throw Fail("a triple-quoted string is not closed", line, column);
            while (_at < to + 3)
                Next();
            return _text[from..to];
        }
        Next();
        var text = new StringBuilder();
        while (Now != '"' || End)
        {
            if (End || Now is '\n' or '\r')
                throw Fail("a string is not closed", line, column);
            if (Now == '\\')
                text.Append(Escape());
            else
                text.Append(Now);
            Next();
        }
        Next();
        return text.ToString();
    }

    // Leaves the position on the last character of the escape.
    private char Escape()
    {
        Next();
        switch (Now)
        {
            case 'n': return '\n';
            case 't': return '\t';
            case 'r': return '\r';
            case 'b': return '\b';
            case 'f': return '\f';
            case '"' or '\\' or '/': return Now;
            case 'u' when _at + 4 < _text.Length
                && ushort.TryParse(_text.AsSpan(_at + 1, 4), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var code):
                _at += 4;
                return (char)code;
            default:
                throw Fail("an escape in a string that JSON does not know");
        }
    }

    private void RequireSeparator(char? close)
    {
        SkipSpaces();
        if (!End && Now is not (',' or '\n' or '\r' or '#') && Now != close && !(Now == '/' && Peek(1) == '/'))
            throw Fail($"'{Printable(Now)}' where a comma, a new line or a closing bracket was expected");
    }

    private void SkipSeparators()
    {
        do
            SkipBlank();
        while (TrySkip(','));
    }

    private bool TrySkip(char c)
    {
        if (End || Now != c)
            return false;
        Next();
        return true;
    }

    /// <summary>Skips spaces, new lines and comments.</summary>
    private void SkipBlank()
    {
        while (!End)
        {
            if (Now == '#' || (Now == '/' && Peek(1) == '/'))
            {
                while (!End && Now != '\n')
                    Next();
            }
            else if (Now is ' ' or '\t' or '\r' or '\n' or '\uFEFF')
            {
                Next();
            }
            else
            {
                return;
            }
        }
    }

    private void SkipSpaces()
    {
        while (Now is ' ' or '\t')
            Next();
    }

    private char Peek(int ahead) => _at + ahead < _text.Length ? _text[_at + ahead] : '\0';

    private void Next()
    {
        if (Now == '\n')
        {
            _line++;
            _lineStart = _at + 1;
        }
        _at++;
    }

    private static char Printable(char c) => char.IsControl(c) || char.IsSurrogate(c) ? '?' : c;

    private DescriptionException Fail(string reason) => Fail(reason, _line, Column);

    private DescriptionException Fail(string reason, int line, int column) =>
        new([new DescriptionError(_errors.Source, line, column, "", null, "not HOCON: " + reason)]);
}
