using System.Text;
using ActorVmm.Actors;
using ActorVmm.Devices;

namespace ActorVmm.Testing.Actors;

/// <summary>The outside of a guest's console: remembers what it prints, and types what it is told.</summary>
public sealed class ScriptedConsole : IByteSink, IConsoleInput
{
    private readonly Lock _lock = new();
    private readonly List<byte> _output = [];
    private readonly Queue<byte> _input = new();
    private readonly List<(string Seen, string Type)> _replies = [];
    private Action _available = static () => { };

    /// <summary>Both ends as a VM takes them.</summary>
    public VmConsole Console => new(this, this);

    /// <summary>Thrown by the sink where set: a terminal that has gone.</summary>
    public Exception? Broken { get; set; }

    /// <summary>What the guest has printed so far.</summary>
    public string Output
    {
        get { lock (_lock) return Encoding.Latin1.GetString([.. _output]); }
    }

    /// <summary>Types at once.</summary>
    public void Type(string text)
    {
        Action available;
        lock (_lock)
        {
            foreach (var value in Encoding.Latin1.GetBytes(text)) _input.Enqueue(value);
            available = _available;
        }

        available();
    }

    /// <summary>Types <paramref name="text"/> once the guest has printed <paramref name="seen"/>.</summary>
    public ScriptedConsole WhenSeen(string seen, string text)
    {
        lock (_lock) _replies.Add((seen, text));
        return this;
    }

    public void Write(ReadOnlySpan<byte> bytes)
    {
        if (Broken is { } broken) throw broken;
        string? type = null;
        lock (_lock)
        {
            _output.AddRange(bytes);
            if (_replies.Count > 0 && Encoding.Latin1.GetString([.. _output]).Contains(_replies[0].Seen, StringComparison.Ordinal))
            {
                type = _replies[0].Type;
                _replies.RemoveAt(0);
            }
        }

        if (type is not null) Type(type);
    }

    public int Take(Span<byte> into)
    {
        lock (_lock)
        {
            var count = 0;
            while (count < into.Length && _input.TryDequeue(out var value)) into[count++] = value;
            return count;
        }
    }

    public void OnAvailable(Action available)
    {
        lock (_lock) _available = available;
    }
}

/// <summary>Loads nothing: a scripted vCPU needs no kernel. Counts, and fails where told to.</summary>
public sealed class NoKernel : IGuestLoader
{
    private int _loads;

    public int Loads => Volatile.Read(ref _loads);
    public Exception? Failure { get; init; }

    /// <summary>Called with the number of the load, from 1, before it ends.</summary>
    public Action<int>? Loading { get; init; }

    public IReadOnlyList<string> Load(VmSpec spec, ActorVmm.Hypervisor.IMachine machine)
    {
        var number = Interlocked.Increment(ref _loads);
        Loading?.Invoke(number);
        return Failure is null ? [] : throw Failure;
    }
}
