namespace ActorVmm.Actors.Dispatch;

/// <summary>
/// One thread's turn inside code that may never come back (a device's handler), and the fence that a watchdog puts behind it. The thread pays
/// three plain stores and a load per turn; what the fence needs on top of that, a barrier in every thread, is paid by the watchdog alone.
/// </summary>
/// <remarks>
/// The turn is <c>4 n + phase</c>. Leaving writes the phase and then reads the fence; fencing writes the fence, has every thread pass a
/// barrier, and then reads the phase. So either the watchdog sees that the thread has come back, or the thread sees the fence.
/// </remarks>
public sealed class Turn
{
    private const int Open = 0;
    private const int Suspected = 1;
    private const int Shut = 2;
    private const int PhaseMask = 3;
    private const int Inside = 1;

    private readonly Lock _deciding = new();
    private long _turn;
    private int _fence;

    /// <summary>The number and phase of the turn: the same twice while inside means that the thread has not moved. Any thread.</summary>
    public long Sample => Volatile.Read(ref _turn);

    /// <summary>True once <see cref="TryFence"/> has succeeded: whoever comes back is to leave everything as it is.</summary>
    public bool IsFenced => Volatile.Read(ref _fence) == Shut;

    /// <summary>True where <paramref name="sample"/> was taken inside.</summary>
    public static bool IsInside(long sample) => (sample & PhaseMask) == Inside;

    /// <summary>The thread enters.</summary>
    internal void Enter() => Volatile.Write(ref _turn, _turn + 1);

    /// <summary>The thread is back; false where it was given up meanwhile, and somebody else has taken its place.</summary>
    internal bool TryLeave()
    {
        Volatile.Write(ref _turn, _turn + 1);
        return Volatile.Read(ref _fence) == Open || AwaitDecision();
    }

    /// <summary>What follows a successful <see cref="TryLeave"/> is done.</summary>
    internal void End() => Volatile.Write(ref _turn, _turn + 2);

    /// <summary>Gives the thread up if it is still where it was when <paramref name="sample"/> was taken. Any thread.</summary>
    internal bool TryFence(long sample)
    {
        if (!IsInside(sample)) return false;
        lock (_deciding)
        {
            if (_fence == Shut) return false;
            Volatile.Write(ref _fence, Suspected);
            Interlocked.MemoryBarrierProcessWide();
            var stuck = Volatile.Read(ref _turn) == sample;
            Volatile.Write(ref _fence, stuck ? Shut : Open);
            return stuck;
        }
    }

    private bool AwaitDecision()
    {
        lock (_deciding) return _fence == Open;
    }
}
