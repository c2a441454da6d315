using Akka.Actor;
using ActorVmm.Actors.Dispatch;
using ActorVmm.Devices.Serial;

namespace ActorVmm.Actors.Host.Vm.Devices.Serial;

/// <summary>
/// <c>devices/serial0</c>: the console. Input is pulled, never pushed: after each message the port is offered as much as it wants, and what
/// it has not taken stays outside. Under virtual time a scripted console therefore enters at the same instruction in every run.
/// </summary>
public sealed class SerialActor : DeviceActor<SerialState>
{
    private readonly SerialPort _port;
    private readonly SerialInput _input;

    public static Props Props(DeviceSlot slot, Checkpoint<SerialState> checkpoint, SerialInput input, int gsi) =>
        Made.By(() => new SerialActor(slot, checkpoint, input, gsi));

    public SerialActor(DeviceSlot slot, Checkpoint<SerialState> checkpoint, SerialInput input, int gsi)
        : this(slot, checkpoint, input, BuildPort(slot, gsi))
    {
    }

    private SerialActor(DeviceSlot slot, Checkpoint<SerialState> checkpoint, SerialInput input, SerialPort port)
        : base(slot, checkpoint, port)
    {
        _port = port;
        _input = input;
    }

    /// <inheritdoc/>
    protected override void OnReceive(object message)
    {
        // Nothing to do by itself: every message ends by pulling what the port wants.
        if (message is not InputAvailable) base.OnReceive(message);
    }

    /// <inheritdoc/>
    protected override void AfterMessage()
    {
        if (IsFrozen) return; // a port that is reset and restored wants input in between, and would forget it
        while (_port.InputWanted is > 0 and var wanted && _input.Peek(wanted) is { Length: > 0 } bytes)
        {
            var taken = _port.Receive(bytes);
            if (taken == 0) break;
            _input.Take(taken);
        }
    }

    /// <inheritdoc/>
    protected override void AfterEffects() => _input.Commit();

    /// <inheritdoc/>
    protected override void Describe(IDictionary<string, string> values)
    {
        values["port"] = _port.ToString();
        values["input-error"] = _input.LastError ?? "none";
        values["input-taken"] = $"{_input.Taken}";
    }

    /// <inheritdoc/>
    protected override void PreRestart(Exception reason, object message)
    {
        // What the failed instance took, and no checkpoint holds, is offered again.
        _input.Rollback();
        base.PreRestart(reason, message);
    }

    /// <inheritdoc/>
    protected override void PostRestart(Exception reason)
    {
        base.PostRestart(reason);
        // What crashed may have been the word that input waits. It is not said twice, and an idle guest makes no access that would pull.
        Self.Tell(InputAvailable.Instance);
    }

    private static SerialPort BuildPort(DeviceSlot slot, int gsi)
    {
        ArgumentNullException.ThrowIfNull(slot);
        return new SerialPort(slot.Effects.InterruptLine(gsi), slot.Effects.Console, new MachineTime(slot.Clock));
    }
}

/// <summary>
/// Console input may be waiting. Told by the event loop, or on a vCPU's own thread by a script that answers what it reads.
/// </summary>
public sealed class InputAvailable : ISyncExit
{
    public static readonly InputAvailable Instance = new();

    /// <inheritdoc/>
    public void Undeliverable() { /* Nobody is left to read. */ }
}

/// <summary>
/// Console input on its way into the port: bytes taken from the source stay here until a checkpoint holds them, so that a crash of the port
/// loses none. Outlives the actor.
/// </summary>
/// <param name="source">Where bytes come from.</param>
public sealed class SerialInput(IConsoleInput source)
{
    private readonly byte[] _bytes = new byte[64];
    private int _start;
    private int _offered;
    private int _end;
    private long _taken;

    /// <summary>Bytes that the guest's port has taken. Any thread.</summary>
    public long Taken => Volatile.Read(ref _taken);

    /// <summary>Why the source last gave nothing. Any thread.</summary>
    public string? LastError { get; private set; }

    /// <summary>Up to <paramref name="wanted"/> bytes that have not been taken yet; empty where none wait.</summary>
    public ReadOnlySpan<byte> Peek(int wanted)
    {
        if (_offered == _end)
        {
            if (_start > 0)
            {
                _bytes.AsSpan(_start, _end - _start).CopyTo(_bytes);
                (_offered, _end, _start) = (_offered - _start, _end - _start, 0);
            }

            try { _end += source.Take(_bytes.AsSpan(_end, Math.Min(wanted, _bytes.Length - _end))); }
            catch (Exception cause) { LastError = cause.Message; /* a source that fails gives nothing; the port lives on */ }
        }

        return _bytes.AsSpan(_offered, Math.Min(wanted, _end - _offered));
    }

    /// <summary>The port took <paramref name="count"/> bytes.</summary>
    public void Take(int count) => _offered += count;

    /// <summary>A checkpoint holds what the port took.</summary>
    public void Commit()
    {
        Volatile.Write(ref _taken, _taken + (_offered - _start));
        _start = _offered;
    }

    /// <summary>The port that took them is gone: the bytes since the last checkpoint are offered again.</summary>
    public void Rollback() => _offered = _start;
}
