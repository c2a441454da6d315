using ActorVmm.Hypervisor;
using ActorVmm.Memory;

namespace ActorVmm.Testing.Actors;

/// <summary>A hypervisor whose guests are C# iterators: the actors above it are the real ones.</summary>
public sealed class ScriptedHypervisor(params GuestScript[] scripts) : IHypervisor
{
    private int _live;

    public string Name => "scripted";

    /// <summary>Machines created and not yet disposed.</summary>
    public int LiveMachines => Volatile.Read(ref _live);

    /// <summary>The machine created last.</summary>
    public ScriptedMachine? Machine { get; private set; }

    /// <summary>Its machines make doorbells.</summary>
    public bool HasDoorbells { get; init; }

    /// <summary>Its machines' clocks can be moved ahead, as the software CPU's can.</summary>
    public bool HasMovableClock { get; init; }

    /// <summary>What a step lasts under virtual time.</summary>
    public ulong NanosecondsPerStep { get; init; } = 1;

    /// <summary>Thrown by <see cref="CreateMachine"/> where set.</summary>
    public Exception? Refusal { get; init; }

    public ProbeReport Probe() => new(Name, Usable: false, [], "runs C# iterators, not guests");

    public IMachine CreateMachine(MachineOptions options)
    {
        if (Refusal is { } refusal) throw refusal;
        Interlocked.Increment(ref _live);
        return Machine = new ScriptedMachine(options, scripts, () => Interlocked.Decrement(ref _live))
        {
            HasDoorbells = HasDoorbells, HasMovableClock = HasMovableClock, NanosecondsPerStep = NanosecondsPerStep,
        };
    }
}

/// <summary>The machine under scripted vCPUs. Its clock moves by <see cref="Advance"/>, or under virtual time by retired steps.</summary>
public sealed class ScriptedMachine : IMachine, IMachineClock
{
    private readonly GuestScript[] _scripts;
    private readonly ScriptedVcpu[] _vcpus;
    private readonly Action _disposed;
    private readonly List<(int Gsi, bool Level)> _lines = [];
    private readonly List<ScriptedDoorbell> _doorbells = [];
    private readonly MachineOptions _options;
    private (MachineState? State, ScriptedVcpu.Place[] Places) _saved;
    private ulong _now;
    private ulong _alarm = ulong.MaxValue;

    internal ScriptedMachine(MachineOptions options, GuestScript[] scripts, Action disposed)
    {
        _options = options;
        _scripts = scripts;
        _disposed = disposed;
        _vcpus = [.. Enumerable.Range(0, options.VcpuCount).Select(id => new ScriptedVcpu(this, id, ScriptOf(id)))];
    }

    internal object Sync { get; } = new();

    public GuestMemory Memory => _options.Memory;
    public IReadOnlyList<IVcpu> Vcpus => _vcpus;
    public IReadOnlyList<ScriptedVcpu> Scripted => _vcpus;
    public IMachineClock Clock => this;
    public ClockMode Mode => _options.Clock;
    public bool IsDisposed { get; private set; }
    public int Resets { get; private set; }

    /// <summary>Called by <see cref="Save"/> and <see cref="Reset"/> before they are done, on their thread.</summary>
    public Action? Rebuilding { get; set; }

    public int ClockPauses { get; private set; }

    public ulong Nanoseconds
    {
        get { lock (Sync) return _now; }
    }

    /// <summary>The alarm that is set; <see cref="ulong.MaxValue"/> where none is.</summary>
    public ulong Alarm
    {
        get { lock (Sync) return _alarm; }
    }

    /// <summary>Every level change so far.</summary>
    public IReadOnlyList<(int Gsi, bool Level)> Lines
    {
        get { lock (Sync) return [.. _lines]; }
    }

    /// <summary>Doorbells can be made, as under KVM.</summary>
    public bool HasDoorbells { get; init; }

    /// <summary>See <see cref="ScriptedHypervisor.HasMovableClock"/>.</summary>
    public bool HasMovableClock { get; init; }

    /// <summary>See <see cref="ScriptedHypervisor.NanosecondsPerStep"/>.</summary>
    public ulong NanosecondsPerStep { get; init; } = 1;

    /// <summary>The doorbells that are registered now.</summary>
    public IReadOnlyList<ScriptedDoorbell> Doorbells
    {
        get { lock (Sync) return [.. _doorbells]; }
    }

    /// <summary>Lets machine time pass.</summary>
    public void Advance(ulong nanoseconds)
    {
        lock (Sync)
        {
            _now += nanoseconds;
            Monitor.PulseAll(Sync);
        }
    }

    public bool TryAdvance(ulong nanoseconds)
    {
        if (HasMovableClock) Advance(nanoseconds);
        return HasMovableClock;
    }

    public void SetAlarm(ulong nanoseconds)
    {
        lock (Sync)
        {
            _alarm = nanoseconds;
            Monitor.PulseAll(Sync);
        }
    }

    public void SetInterruptLine(int gsi, bool level)
    {
        lock (Sync)
        {
            if (_lines.Count < 10_000) _lines.Add((gsi, level));
            if (level) foreach (var vcpu in _vcpus) vcpu.Interrupt();
            Monitor.PulseAll(Sync);
        }
    }

    public void SendMsi(ulong address, uint data) { }
    public void SendNmi(int vcpu) { }

    public IDoorbell? TryCreateDoorbell(DoorbellAddress address)
    {
        if (!HasDoorbells) return null;
        var doorbell = new ScriptedDoorbell(address, gone => { lock (Sync) _doorbells.Remove(gone); });
        lock (Sync) _doorbells.Add(doorbell);
        return doorbell;
    }

    public void PauseClock() => ClockPauses++;
    public void ResumeClock() => ClockPauses--;

    public MachineState Save()
    {
        var state = new MachineState("scripted", Nanoseconds, new Dictionary<string, byte[]>(StringComparer.Ordinal),
            [.. _vcpus.Select(vcpu => vcpu.GetState())]);
        _saved = (state, [.. _vcpus.Select(vcpu => vcpu.TakePlace())]);
        Rebuilding?.Invoke();
        return state;
    }

    /// <summary>Only the state saved last: a script cannot be taken back to an earlier place.</summary>
    public void Restore(MachineState state)
    {
        if (!ReferenceEquals(_saved.State, state)) throw new HypervisorException("a script goes on only where it was saved last");
        for (var id = 0; id < _vcpus.Length; id++) _vcpus[id].GoTo(_saved.Places[id]);
    }

    public void Reset()
    {
        Resets++;
        Rebuilding?.Invoke();
        foreach (var vcpu in _vcpus) vcpu.Reset(ScriptOf(vcpu.Id));
    }

    public void Dispose()
    {
        if (IsDisposed) throw new InvalidOperationException("disposed twice");
        lock (Sync)
        {
            if (_vcpus.Any(vcpu => vcpu.IsInside)) throw new InvalidOperationException("disposed under a running vCPU");
        }

        IsDisposed = true;
        _disposed();
    }

    /// <summary>One step was retired.</summary>
    internal void Tick()
    {
        if (Mode != ClockMode.Virtual) return;
        lock (Sync) _now += NanosecondsPerStep;
    }

    /// <summary>
    /// Nothing to execute: under virtual time the clock jumps to the next alarm, otherwise the thread waits. The lock is held.
    /// </summary>
    internal void Idle(ScriptedVcpu vcpu)
    {
        if (Mode == ClockMode.Virtual && vcpu.Id == 0 && _alarm != ulong.MaxValue) _now = Math.Max(_now, _alarm);
        else Monitor.Wait(Sync);
    }

    /// <summary>The lock is held.</summary>
    internal bool TakeAlarm()
    {
        if (_alarm > _now) return false;
        _alarm = ulong.MaxValue;
        return true;
    }

    private GuestScript ScriptOf(int id) => _scripts[Math.Min(id, _scripts.Length - 1)];
}

/// <summary>A plausible architectural state, for those who ask a scripted vCPU.</summary>
internal static class ScriptedState
{
    public static VcpuState Of(VcpuActivity activity, bool interruptsOn)
    {
        var segment = new SegmentState(0, 0, 0xFFFF, Type: 3, Present: true, Dpl: 0, System: false, Long: false, Db: false, Granularity: false);
        var table = new TableRegister(0, 0xFFFF);
        return new VcpuState
        {
            General = new GeneralRegisters { Rflags = interruptsOn ? 0x202UL : 0x2UL },
            Special = new SpecialRegisters
            {
                Cs = segment, Ds = segment, Es = segment, Fs = segment, Gs = segment, Ss = segment, Tr = segment, Ldt = segment,
                Gdt = table, Idt = table,
            },
            Xsave = new byte[576],
            Lapic = new byte[1024],
            Activity = activity,
        };
    }
}
