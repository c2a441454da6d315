using System.Text;

namespace ActorVmm.Host.Commands;

/// <summary>Lines of UTF-8 text that comes in pieces, without their ends; a character may be cut anywhere. A line of more than
/// <see cref="MaxLine"/> characters comes in parts.</summary>
internal sealed class LineSplitter
{
    /// <summary>Characters of a line that are waited for.</summary>
    public const int MaxLine = 64 << 10;

    private readonly Decoder _decoder = Encoding.UTF8.GetDecoder();
    private readonly StringBuilder _line = new();

    /// <summary>What has come since the last end of a line.</summary>
    public string Rest => _line.ToString();

    /// <summary>Takes a piece; the lines that are whole with it.</summary>
    public IReadOnlyList<string> Take(ReadOnlySpan<byte> piece)
    {
        var lines = new List<string>();
        Span<char> text = new char[Encoding.UTF8.GetMaxCharCount(piece.Length)];
        text = text[.._decoder.GetChars(piece, text, flush: false)];
        foreach (var c in text)
        {
            if (c == '\n' || _line.Length >= MaxLine)
            {
                lines.Add(_line.ToString().TrimEnd('\r'));
                _line.Clear();
            }

            if (c != '\n') _line.Append(c);
        }

        return lines;
    }
}
