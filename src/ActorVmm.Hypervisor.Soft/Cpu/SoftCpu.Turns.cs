namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>This CPU as one of several under virtual time, see <see cref="TurnOrder"/>.</summary>
internal sealed unsafe partial class SoftCpu
{
    private TurnOrder? _turns;

    /// <summary>What the other vCPUs had retired when this one's turn began; none of them moves meanwhile.</summary>
    public ulong RetiredByOthers { get; private set; }

    /// <summary>Instructions that make up machine time under virtual time.</summary>
    public ulong Elapsed => Retired + RetiredByOthers;

    /// <summary>Count of own instructions at which the turn ends.</summary>
    public ulong TurnEnd { get; private set; }

    /// <summary>Has something to execute, without waiting for time. Asked by the holder of the turn, while this CPU is not.</summary>
    public bool CanRun
    {
        get
        {
            if (Activity == VcpuActivity.Running || Volatile.Read(ref _initRequested) != 0) return true;
            if (Activity != VcpuActivity.Halted) return Volatile.Read(ref _startupVector) >= 0;
            if (Interlocked.Exchange(ref _interruptRequested, 0) != 0) _s->InterruptWaiting = 1;
            return WakesFromHalt();
        }
    }

    /// <summary>Halted in a way that an interrupt ends.</summary>
    public bool CanBeInterrupted => Activity == VcpuActivity.Halted && (_s->SystemFlags & Flags.If) != 0;

    public void JoinTurns(TurnOrder turns) => _turns = turns;

    public void BeginTurn(ulong retiredByOthers)
    {
        RetiredByOthers = retiredByOthers;
        TurnEnd = Retired + TurnOrder.Quantum;
    }

    /// <summary>Lets a thread that waits in here look again.</summary>
    public void Wake() => _wake.Set();

    /// <summary>Returns with the turn, or with false after a kick.</summary>
    private bool AwaitTurn(TurnOrder turns)
    {
        while (!turns.Holds(this))
        {
            Volatile.Write(ref _inGuest, 0);
            if (Interlocked.Exchange(ref _kicked, 0) != 0) return false;
            _wake.Wait();
            _wake.Reset();
        }
        return true;
    }

    /// <summary>The holder has nothing to run: hands over, or gives when the first of all has to act (never: nothing of the guest's will).</summary>
    private bool PassOn(TurnOrder turns, ref ulong deadline)
    {
        if (turns.PassOn(this)) return true;
        deadline = turns.AnyAlive ? Math.Min(deadline, turns.HaltedDeadline(this)) : ulong.MaxValue;
        return false;
    }
}
