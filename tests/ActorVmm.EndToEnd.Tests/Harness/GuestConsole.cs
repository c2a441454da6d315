using System.Text;
using ActorVmm.Actors;
using ActorVmm.Devices;

namespace ActorVmm.EndToEnd.Tests.Harness;

/// <summary>A serial console for tests: keeps all output, and holds input until the guest takes it, as fast as it likes.</summary>
public sealed class GuestConsole : IByteSink, IConsoleInput
{
    private readonly Lock _gate = new();
    private readonly Queue<byte> _input = new();
    private readonly string? _releaseOn;
    private Action? _available;
    private bool _held;
    private int _scanned;

    /// <param name="script">Input that is there from the start.</param>
    /// <param name="releaseOn">Holds the script back until the guest has printed this: an instant of the guest's own, not the host's.</param>
    public GuestConsole(string script = "", string? releaseOn = null)
    {
        foreach (var b in Encoding.UTF8.GetBytes(script)) _input.Enqueue(b);
        _releaseOn = releaseOn;
        _held = releaseOn is not null;
    }

    public ConsoleTranscript Transcript { get; } = new();

    /// <summary>Types <paramref name="text"/>. Any thread, never waits.</summary>
    public void Send(string text) => Send(Encoding.UTF8.GetBytes(text));

    /// <inheritdoc cref="Send(string)"/>
    public void Send(ReadOnlySpan<byte> bytes)
    {
        Action? available;
        lock (_gate)
        {
            foreach (var b in bytes) _input.Enqueue(b);
            available = _held ? null : _available;
        }
        available?.Invoke();
    }

    /// <inheritdoc/>
    public void Write(ReadOnlySpan<byte> bytes)
    {
        Transcript.Append(bytes);
        if (!Volatile.Read(ref _held)) return;
        var text = Transcript.Text;
        var from = Math.Max(0, _scanned - _releaseOn!.Length);
        _scanned = text.Length;
        if (text.IndexOf(_releaseOn, from, StringComparison.Ordinal) < 0) return;
        Action? available;
        lock (_gate)
        {
            _held = false;
            available = _available;
        }
        available?.Invoke();
    }

    /// <inheritdoc/>
    public int Take(Span<byte> into)
    {
        lock (_gate)
        {
            var count = 0;
            while (!_held && count < into.Length && _input.TryDequeue(out var b)) into[count++] = b;
            return count;
        }
    }

    /// <inheritdoc/>
    public void OnAvailable(Action available)
    {
        bool now;
        lock (_gate)
        {
            _available = available;
            now = !_held && _input.Count > 0;
        }
        if (now) available();
    }
}
