using Akka.Dispatch;

namespace ActorVmm.Actors.Dispatch;

/// <summary>
/// Marks a thread as one that runs the mailboxes of the devices it talks to (a vCPU's thread), and holds its trampoline: mailboxes that
/// became due while another one runs. They run after it, from the outermost call, so the stack does not grow with the length of a chain.
/// </summary>
/// <param name="interrupted">True where the thread is wanted elsewhere (a kick): it then stops helping with other senders' messages.</param>
public sealed class CallerRunsContext(Func<bool> interrupted)
{
    /// <summary>
    /// A mailbox that still has messages after its throughput is run again while the own answer is outstanding, at most this often per exit.
    /// The thread must not become a worker of a busy device.
    /// </summary>
    internal const int HelpLimit = 64;

    /// <summary>
    /// What others queued in a mailbox while this thread ran it, this thread runs as well, at most this often: a hop to the pool costs more
    /// than the work (a bell that rings while the device sends), and its idle workers spin on the processors that vCPUs need.
    /// </summary>
    internal const int FollowUpLimit = 2;

    [ThreadStatic] private static CallerRunsContext? s_current;

    private readonly Queue<IRunnable> _due = new(capacity: 16);
    private readonly Turn _turn = new();
    private IRunnable? _mailbox;
    private int _help;
    private int _followUps;

    /// <summary>The context of this thread; null on pool threads.</summary>
    public static CallerRunsContext? Current => s_current;

    /// <summary>True where the message being dispatched right now may run its receiver inline.</summary>
    internal bool Armed { get; set; }

    /// <summary>True inside an inline run.</summary>
    internal bool Running { get; set; }

    /// <summary>
    /// True once this thread came back from a mailbox after it had been given up: another thread has its vCPU, and it may touch nothing.
    /// Only this thread.
    /// </summary>
    internal bool IsAbandoned { get; private set; }

    /// <summary>
    /// Under virtual time: what a device that this thread runs is told meanwhile, by itself above all, this thread runs as well, however much
    /// and whoever wants the thread. Anything else would leave the instruction at which it happens to the host.
    /// </summary>
    public bool IsExact { get; set; }

    /// <summary>Asks whether the answer that this thread waits for is still outstanding; null where it waits for none.</summary>
    public Func<bool>? Outstanding { get; set; }

    /// <summary>Runs <paramref name="body"/> with this context on the current thread (which it owns for its life).</summary>
    public void Bind(Action body)
    {
        ArgumentNullException.ThrowIfNull(body);
        var before = s_current;
        s_current = this;
        try { body(); }
        finally { s_current = before; }
    }

    /// <summary>Forgets how much help was given; called once per exit.</summary>
    public void BeginExit() => _help = 0;

    /// <summary>Consumes the permission to run inline: the end of a run registers the mailbox again, and that must not recurse.</summary>
    /// <param name="mailbox">What is to run.</param>
    internal bool TakeArmed(IRunnable mailbox)
    {
        if (Armed) { Armed = false; return true; }
        if (!Running) return false;
        var follows = ReferenceEquals(mailbox, _mailbox);
        if (follows && IsExact) return true;
        if (follows && _followUps < FollowUpLimit && !interrupted())
        {
            _followUps++;
            return true;
        }
        return Outstanding is { } outstanding && _help++ < HelpLimit && outstanding() && !interrupted();
    }

    /// <summary>An inline run begins with this mailbox.</summary>
    internal void Enter(IRunnable mailbox)
    {
        Running = true;
        _mailbox = mailbox;
        _followUps = 0;
        _turn.Enter();
    }

    /// <summary>The inline run goes on with another mailbox.</summary>
    internal void GoOn(IRunnable mailbox) => _mailbox = mailbox;

    /// <summary>The inline run ends.</summary>
    internal void Leave()
    {
        Running = false;
        if (_turn.TryLeave()) _turn.End();
        else IsAbandoned = true;
    }

    /// <summary>
    /// Gives this thread up if it is inside <paramref name="mailbox"/> and does not come out of it. True: it never will again, and its vCPU
    /// may be run by another thread. Any thread.
    /// </summary>
    internal bool TryAbandon(IRunnable mailbox)
    {
        var sample = _turn.Sample;
        return ReferenceEquals(Volatile.Read(ref _mailbox), mailbox) && _turn.TryFence(sample);
    }

    internal bool HasDue => _due.Count != 0;

    internal void Push(IRunnable mailbox) => _due.Enqueue(mailbox);

    internal bool TryPop(out IRunnable? mailbox) => _due.TryDequeue(out mailbox);
}
