using ActorVmm.Devices;
using ActorVmm.Devices.Power;

namespace ActorVmm.Actors.Host.Vm.Devices;

/// <summary>Where the effects of a VM's devices end up.</summary>
public interface IEffectTarget
{
    /// <summary>Bytes for the console.</summary>
    void WriteConsole(ReadOnlySpan<byte> bytes);

    /// <summary>A level on an interrupt input.</summary>
    void SetInterruptLine(int gsi, bool level);

    /// <summary>The guest asks for the end of the run.</summary>
    void Signal(PowerEvent signal);
}

/// <summary>
/// Holds what a device does to the outside until its checkpoint is stored: line levels in their order, bytes, power signals. A crash before
/// the checkpoint then repeats nothing, and one after it loses nothing. Reused for every message; nothing is allocated once it has grown to
/// the size of the device's largest message.
/// </summary>
/// <param name="target">Where effects go when they leave.</param>
public sealed class EffectBuffer(IEffectTarget target)
{
    private volatile IEffectTarget _target = target;
    private readonly List<Line> _lines = [];
    private byte[] _bytes = new byte[64];
    private int _byteCount;
    private (Line Line, bool Level)[] _levels = new (Line, bool)[8];
    private int _levelCount;
    private PowerEvent? _signal;

    /// <summary>Effects that their target refused: a closed console, say. That is not the device's fault, so the device lives on.</summary>
    public long FailureCount { get; private set; }

    /// <summary>The last of them.</summary>
    public Exception? LastFailure { get; private set; }

    /// <summary>The interrupt input <paramref name="gsi"/> as the device's port.</summary>
    public IInterruptLine InterruptLine(int gsi)
    {
        // A restarted device asks again and must meet the same line, with the level that the machine has seen.
        foreach (var known in _lines)
            if (known.Gsi == gsi) return known;
        var line = new Line(this, gsi);
        _lines.Add(line);
        return line;
    }

    /// <summary>The console as the device's port.</summary>
    public IByteSink Console => field ??= new Sink(this);

    /// <summary>The machine's power supply as the device's port; the first request of a message counts.</summary>
    public IPowerControl Power => field ??= new Supply(this);

    /// <summary>True where an effect waits.</summary>
    public bool Any => _byteCount != 0 || _levelCount != 0 || _signal is not null;

    /// <summary>The checkpoint is stored: effects leave. Never throws; false where a target refused one of them.</summary>
    public bool Commit()
    {
        var failures = FailureCount;
        Flush();
        return FailureCount == failures;
    }

    /// <summary>
    /// A buffer for the next instance of a device whose handler never came back: the same lines at the levels that the machine has seen, and
    /// nothing of what waits in this one. Only while nobody can commit this one any more.
    /// </summary>
    internal EffectBuffer Successor()
    {
        var next = new EffectBuffer(_target) { FailureCount = FailureCount, LastFailure = LastFailure };
        foreach (var line in _lines.ToArray()) next._lines.Add(line.For(next));
        return next;
    }

    /// <summary>Puts something between the effects and their target, from the next effect on. Any thread.</summary>
    internal void Wrap(Func<IEffectTarget, IEffectTarget> wrap) => _target = wrap(_target);

    /// <summary>Forgets the effects of a message that failed.</summary>
    public void Discard()
    {
        _byteCount = 0;
        _levelCount = 0;
        _signal = null;
        foreach (var line in _lines) line.Forget();
    }

    private void Flush()
    {
        // Each effect is struck off before it leaves, and a target that throws keeps no other effect from leaving.
        for (var i = 0; i < _levelCount; i++)
        {
            var (line, level) = _levels[i];
            line.Emitted(level);
            try { _target.SetInterruptLine(line.Gsi, level); }
            catch (Exception cause) { Failed(cause); }
        }

        _levelCount = 0;
        if (_byteCount > 0)
        {
            var count = _byteCount;
            _byteCount = 0;
            try { _target.WriteConsole(_bytes.AsSpan(0, count)); }
            catch (Exception cause) { Failed(cause); }
        }

        if (_signal is { } signal)
        {
            _signal = null;
            try { _target.Signal(signal); }
            catch (Exception cause) { Failed(cause); }
        }
    }

    private void Failed(Exception cause)
    {
        FailureCount++;
        LastFailure = cause;
    }

    private void Push(Line line, bool level)
    {
        if (_levelCount == _levels.Length) Array.Resize(ref _levels, 2 * _levelCount);
        _levels[_levelCount++] = (line, level);
    }

    private void Push(ReadOnlySpan<byte> bytes)
    {
        while (_bytes.Length - _byteCount < bytes.Length) Array.Resize(ref _bytes, 2 * _bytes.Length);
        bytes.CopyTo(_bytes.AsSpan(_byteCount));
        _byteCount += bytes.Length;
    }

    private sealed class Line(EffectBuffer effects, int gsi) : IInterruptLine
    {
        private bool _level;
        private bool _emitted;

        public int Gsi { get; } = gsi;

        public void Drive(bool level)
        {
            if (level == _level) return;
            _level = level;
            effects.Push(this, level);
        }

        public Line For(EffectBuffer next) => new(next, Gsi) { _level = _emitted, _emitted = _emitted };
        public void Emitted(bool level) => _emitted = level;
        public void Forget() => _level = _emitted;
    }

    private sealed class Supply(EffectBuffer effects) : IPowerControl
    {
        public void Request(PowerEvent powerEvent) => effects._signal ??= powerEvent;
    }

    private sealed class Sink(EffectBuffer effects) : IByteSink
    {
        public void Write(ReadOnlySpan<byte> bytes) => effects.Push(bytes);
    }
}
