using ActorVmm.Hypervisor;

namespace ActorVmm.Testing.Actors;

/// <summary>
/// A guest as an iterator: each <c>yield return</c> is one exit, made by a method of <see cref="ScriptedVcpu"/>; the answer to a read is in
/// <see cref="ScriptedVcpu.Answer"/> afterwards. Running one allocates nothing per exit.
/// </summary>
public delegate IEnumerator<VcpuExitKind> GuestScript(ScriptedVcpu cpu);

/// <summary>A vCPU that plays a <see cref="GuestScript"/>. Its end is a halt with interrupts off.</summary>
public sealed class ScriptedVcpu : IVcpu
{
    // What the script yields for states that are not exits: the vCPU stays inside Run.
    private const VcpuExitKind WaitsForInterrupt = (VcpuExitKind)(-1);
    private const VcpuExitKind Computes = (VcpuExitKind)(-2);
    private const VcpuExitKind WaitsForInit = (VcpuExitKind)(-3);

    private readonly ScriptedMachine _machine;
    private GuestScript _script;
    private IEnumerator<VcpuExitKind>? _guest;
    private VcpuExitKind _stay;
    private bool _kicked;
    private bool _interrupted;
    private bool _inside;
    private bool _continues;
    private ulong _retired;

    internal ScriptedVcpu(ScriptedMachine machine, int id, GuestScript script)
    {
        _machine = machine;
        _script = script;
        Id = id;
    }

    public int Id { get; }
    public VcpuExit Exit { get; } = new();
    public ulong RetiredInstructions => Volatile.Read(ref _retired);

    /// <summary>How often <see cref="Run"/> was entered.</summary>
    public long Runs { get; private set; }

    /// <summary>Kicks that arrived.</summary>
    public long Kicks { get; private set; }

    /// <summary>Threads that were inside <see cref="Run"/> at the same time as another: must stay 0.</summary>
    public int Intruders { get; private set; }

    /// <summary>The answer to the last read.</summary>
    public ulong Answer => Exit.Data;

    /// <summary>True while a thread is inside <see cref="Run"/>.</summary>
    public bool IsInside
    {
        get { lock (_machine.Sync) return _inside; }
    }

    public VcpuExitKind Out(ushort port, byte value) => Set(VcpuExitKind.PortWrite, port, 1, value);
    public VcpuExitKind Out(ushort port, int size, ulong value) => Set(VcpuExitKind.PortWrite, port, size, value);
    public VcpuExitKind In(ushort port, int size = 1) => Set(VcpuExitKind.PortRead, port, size, 0xDEAD_BEEF_DEAD_BEEF);
    public VcpuExitKind Store(ulong address, int size, ulong value) => Set(VcpuExitKind.MmioWrite, address, size, value);
    public VcpuExitKind Load(ulong address, int size) => Set(VcpuExitKind.MmioRead, address, size, 0xDEAD_BEEF_DEAD_BEEF);
    public VcpuExitKind TripleFault() => VcpuExitKind.Shutdown;
    public VcpuExitKind Fail(string detail) { Exit.Detail = detail; return VcpuExitKind.Failed; }

    /// <summary>The access is the first half of a read-modify-write: the next exit belongs to the same instruction.</summary>
    public VcpuExitKind AndOn(VcpuExitKind access)
    {
        _continues = true;
        return access;
    }

    /// <summary>HLT with interrupts on: until any interrupt line rises, or at once where one has since the last wait.</summary>
    public VcpuExitKind WaitForInterrupt() => WaitsForInterrupt;

    /// <summary>Computes without an exit: only a kick or an alarm gets out, and it goes on computing.</summary>
    public VcpuExitKind ComputeForever() => Computes;

    /// <summary>An application processor that nobody has started.</summary>
    public VcpuExitKind WaitForInit() => WaitsForInit;

    /// <summary>CLI; HLT.</summary>
    public VcpuExitKind HaltForever() => VcpuExitKind.Halted;

    /// <summary>Throws inside <see cref="Run"/>, as a broken hypervisor handle does.</summary>
    public VcpuExitKind Break(string message) => throw new HypervisorException(message);

    public VcpuExitKind Run()
    {
        lock (_machine.Sync)
        {
            if (_inside) Intruders++;
            _inside = true;
            Runs++;
        }

        try { return RunInside(); }
        finally { lock (_machine.Sync) _inside = false; }
    }

    public void Kick()
    {
        lock (_machine.Sync)
        {
            Kicks++;
            _kicked = true;
            Monitor.PulseAll(_machine.Sync);
        }
    }

    public VcpuExitKind CompletePending()
    {
        if (!_continues) return VcpuExitKind.None;
        _continues = false;
        return _guest!.MoveNext() ? _guest.Current : VcpuExitKind.Halted;
    }

    /// <summary>Called by <see cref="GetState"/>, on its thread.</summary>
    public Action? Asked { get; set; }

    public VcpuState GetState()
    {
        Asked?.Invoke();
        return ScriptedState.Of(_stay switch
        {
            WaitsForInit => VcpuActivity.WaitForInit,
            VcpuExitKind.None when Id != 0 && _retired == 0 => VcpuActivity.WaitForInit, // as at reset: its script has not begun
            VcpuExitKind.Halted or WaitsForInterrupt => VcpuActivity.Halted,
            _ => VcpuActivity.Running,
        }, interruptsOn: _stay != VcpuExitKind.Halted);
    }

    public void SetState(VcpuState state) { }

    internal void Reset(GuestScript script)
    {
        _script = script;
        _guest = null;
        _stay = VcpuExitKind.None;
        _interrupted = false;
        _continues = false;
        Volatile.Write(ref _retired, 0);
    }

    internal Place TakePlace() => new(_guest, _stay, _interrupted, _retired);

    internal void GoTo(Place place)
    {
        (_guest, _stay, _interrupted) = (place.Guest, place.Stay, place.Interrupted);
        Volatile.Write(ref _retired, place.Retired);
    }

    /// <summary>Where in its script a vCPU is.</summary>
    internal sealed record Place(IEnumerator<VcpuExitKind>? Guest, VcpuExitKind Stay, bool Interrupted, ulong Retired);

    /// <summary>An interrupt line rose. The machine's lock is held.</summary>
    internal void Interrupt() => _interrupted = true;

    private VcpuExitKind RunInside()
    {
        _guest ??= _script(this);
        while (true)
        {
            lock (_machine.Sync)
            {
                if (_kicked) { _kicked = false; return VcpuExitKind.Kicked; }
                if (Id == 0 && _machine.TakeAlarm()) return VcpuExitKind.Alarm;
                if (_stay == WaitsForInterrupt && _interrupted) (_stay, _interrupted) = (VcpuExitKind.None, false);
                if (_stay != VcpuExitKind.None) { _machine.Idle(this); continue; }
            }

            _continues = false;
            var kind = _guest.MoveNext() ? _guest.Current : VcpuExitKind.Halted;
            Volatile.Write(ref _retired, _retired + 1);
            _machine.Tick();
            if (kind is WaitsForInterrupt or Computes or WaitsForInit) { _stay = kind; continue; }
            if (kind == VcpuExitKind.Halted) _stay = kind;
            return kind;
        }
    }

    private VcpuExitKind Set(VcpuExitKind kind, ulong address, int size, ulong data)
    {
        Exit.Kind = kind;
        Exit.Address = address;
        Exit.Size = size;
        Exit.Data = data;
        return kind;
    }
}
