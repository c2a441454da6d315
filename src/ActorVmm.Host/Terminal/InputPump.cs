namespace ActorVmm.Host.Terminal;

/// <summary>
/// Reads a descriptor with plain read(2) on a thread of its own (epoll refuses files and <c>/dev/null</c>) and feeds the guest.
/// </summary>
internal sealed class InputPump
{
    /// <summary>Ctrl-D: what a terminal's user would press at the end, so that the guest's shell ends.</summary>
    public const byte EndOfTransmission = 0x04;

    /// <summary>With virtual time the whole script is read before the start; this is the longest one.</summary>
    public const int LongestScript = 64 << 20;

    private readonly int _fd;
    private readonly ConsoleQueue _queue;
    private readonly EscapeKeys? _keys;

    /// <param name="fd">What to read.</param>
    /// <param name="queue">Where it goes.</param>
    /// <param name="keys">For a terminal: our own key sequences. Null for a script, which goes to the guest as it is.</param>
    public InputPump(int fd, ConsoleQueue queue, EscapeKeys? keys) => (_fd, _queue, _keys) = (fd, queue, keys);

    /// <summary>A terminal's user asked for something.</summary>
    public Action<EscapeRequest>? Requested { get; set; }

    /// <summary>The terminal is gone (hang-up).</summary>
    public Action? Lost { get; set; }

    /// <summary>Starts the thread; it ends with its input, or with the process.</summary>
    public void Start() => new Thread(Run) { IsBackground = true, Name = "console-input" }.Start();

    private void Run()
    {
        if (_keys is null)
        {
            PumpScript();
            return;
        }
        Span<byte> typed = stackalloc byte[4096];
        Span<byte> guest = stackalloc byte[2 * 4096];
        int got;
        while ((got = Libc.Read(_fd, typed)) > 0)
            Typed(typed[..got], guest);
        Lost?.Invoke();
    }

    private void Typed(ReadOnlySpan<byte> typed, Span<byte> guest)
    {
        while (typed.Length > 0)
        {
            var request = _keys!.Filter(typed, guest, out var used, out var count);
            _queue.Feed(guest[..count]);
            typed = typed[used..];
            if (request != EscapeRequest.None)
                Requested?.Invoke(request);
        }
    }

    private void PumpScript()
    {
        Span<byte> chunk = stackalloc byte[16 << 10];
        var last = (byte)'\n';
        int got;
        while ((got = Libc.Read(_fd, chunk)) > 0)
        {
            last = chunk[got - 1];
            _queue.Feed(chunk[..got]);
        }
        _queue.Feed(Ending(last));
    }

    /// <summary>Reads a script to its end; null where it is longer than <see cref="LongestScript"/>.</summary>
    public static byte[]? ReadScript(int fd)
    {
        using var script = new MemoryStream();
        Span<byte> chunk = stackalloc byte[16 << 10];
        int got;
        while ((got = Libc.Read(fd, chunk)) > 0)
        {
            script.Write(chunk[..got]);
            if (script.Length > LongestScript)
                return null;
        }
        var last = script.Length == 0 ? (byte)'\n' : script.GetBuffer()[script.Length - 1];
        script.Write(Ending(last));
        return script.ToArray();
    }

    // A last line without its line end still counts, and Ctrl-D ends a shell only at the start of a line.
    private static ReadOnlySpan<byte> Ending(byte last) => last == (byte)'\n' ? [EndOfTransmission] : [(byte)'\n', EndOfTransmission];
}
