using System.Text;
using System.Text.RegularExpressions;

namespace ActorVmm.EndToEnd.Tests.Harness;

/// <summary>
/// What a guest has printed, and a place in it up to which a test has read. Waiting costs nothing: the output itself wakes whoever waits.
/// </summary>
public sealed class ConsoleTranscript
{
    private readonly Lock _gate = new();
    private readonly List<byte> _bytes = [];
    private readonly StringBuilder _text = new();
    private TaskCompletionSource _grown = NewSignal();
    private string? _ended;
    private int _read;

    /// <summary>All output so far, byte for byte.</summary>
    public byte[] Bytes
    {
        get
        {
            lock (_gate) return [.. _bytes];
        }
    }

    /// <summary>All output so far as text; every byte is one character.</summary>
    public string Text
    {
        get
        {
            lock (_gate) return _text.ToString();
        }
    }

    /// <summary>Called for all output, on the thread that brings it.</summary>
    public void Append(ReadOnlySpan<byte> bytes)
    {
        TaskCompletionSource grown;
        lock (_gate)
        {
            _bytes.AddRange(bytes);
            _text.Append(Encoding.Latin1.GetString(bytes));
            (grown, _grown) = (_grown, NewSignal());
        }
        grown.TrySetResult();
    }

    /// <summary>No more output will come, because of <paramref name="why"/>; whoever still waits is told so.</summary>
    public void End(string why)
    {
        TaskCompletionSource grown;
        lock (_gate)
        {
            _ended ??= why;
            (grown, _grown) = (_grown, NewSignal());
        }
        grown.TrySetResult();
    }

    /// <summary>Waits until <paramref name="text"/> appears after what was read before, and reads up to its end.</summary>
    /// <returns>What stands before it.</returns>
    /// <exception cref="TimeoutException">It did not appear in time, or cannot any more.</exception>
    public async Task<string> ExpectAsync(string text, TimeSpan deadline) =>
        (await ExpectAsync(new Regex(Regex.Escape(text), RegexOptions.None, TimeSpan.FromSeconds(5)), deadline)).Before;

    /// <summary>Waits until <paramref name="pattern"/> matches after what was read before, and reads up to the end of the match.</summary>
    /// <exception cref="TimeoutException">It did not appear in time, or cannot any more.</exception>
    public async Task<(string Before, Match Match)> ExpectAsync(Regex pattern, TimeSpan deadline)
    {
        using var late = new CancellationTokenSource(deadline);
        while (true)
        {
            Task grown;
            lock (_gate)
            {
                var rest = _text.ToString(_read, _text.Length - _read);
                var match = pattern.Match(rest);
                if (match.Success)
                {
                    _read += match.Index + match.Length;
                    return (rest[..match.Index], match);
                }
                if (_ended is not null) throw Absent($"the guest has ended ({_ended})", pattern);
                grown = _grown.Task;
            }
            try
            {
                await grown.WaitAsync(late.Token);
            }
            catch (OperationCanceledException)
            {
                throw Absent($"it did not appear within {deadline.TotalSeconds:0.#} s", pattern);
            }
        }
    }

    /// <summary>The last <paramref name="lines"/> lines.</summary>
    public string Tail(int lines = 40) => string.Join('\n', Text.Split('\n').TakeLast(lines));

    private TimeoutException Absent(string why, Regex pattern) =>
        new($"expected \"{pattern}\" on the console, but {why}; last output:\n{Tail()}");

    private static TaskCompletionSource NewSignal() => new(TaskCreationOptions.RunContinuationsAsynchronously);
}
