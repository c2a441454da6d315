using System.Runtime.InteropServices;
using ActorVmm.Hypervisor.Kvm.Native;

namespace ActorVmm.Hypervisor.Kvm;

/// <summary>
/// One vCPU of the kernel. <see cref="Run"/> is KVM_RUN with everything that must not be seen outside: signals, SIPI's EAGAIN, batches of
/// string I/O, halts that nobody will end. It allocates nothing.
/// </summary>
internal sealed unsafe partial class KvmVcpu : IVcpu, IDisposable
{
    private const int Kicked = 1; // somebody asked for Kicked; whoever takes it reports it
    private const int Poked = 2;  // somebody (halt watch, alarm) wants Run to look at the machine's state

    private readonly KvmMachine _machine;
    private readonly KvmFile _file;
    private readonly KvmRunMapping _page;
    private readonly int _fd;       // of _file, which lives as long as this
    private readonly byte* _run;    // of _page, which lives as long as this
    private readonly VcpuExit _exit = new();
    private readonly KickMethod _method;
    private readonly Lock _signalling = new(); // between those who kick and the end; never taken by Run

    private int _attention;  // Kicked, Poked
    private int _thread;     // the thread inside KVM_RUN, or 0
    private int _runThread;  // the thread that was prepared to run this vCPU
    private long _runs;      // entries, so that the halt watch sees a vCPU that does not move
    private bool _haltReported;
    private bool _completionDue; // KVM_RUN must be entered once more to finish the last access
    private bool _disposed;

    public KvmVcpu(KvmMachine machine, int id, KvmFile file, KvmRunMapping page, KickMethod method)
    {
        _machine = machine;
        _file = file;
        _page = page;
        _fd = file.Fd;
        _run = page.Base;
        _method = method;
        Id = id;
    }

    /// <inheritdoc/>
    public int Id { get; }

    /// <inheritdoc/>
    public VcpuExit Exit => _exit;

    /// <inheritdoc/>
    public ulong RetiredInstructions => 0;

    internal KvmFile File => _file;

    internal KvmRunMapping Page => _page;

    /// <inheritdoc/>
    public VcpuExitKind Run()
    {
        if (_pieces != 0 && StorePieceAndTakeNext() is var next and not VcpuExitKind.None) return next;

        var thread = KickSignal.Thread;
        if (thread != _runThread) PrepareThread(thread);
        while (true)
        {
            if (Volatile.Read(ref _attention) != 0 && AnswerAttention() is var asked and not VcpuExitKind.None) return asked;

            // Whoever calls us out sets immediate_exit, fences, and looks for the thread. Here it is the other way round: the thread is
            // published, and then the kernel looks at immediate_exit. In between it has taken the vCPU's mutex, and a locked instruction is
            // the fence. So either the kernel sees the byte, or the thread is seen and gets its signal, after the byte was set: if the
            // signal comes before KVM_RUN, the byte ends it.
            Volatile.Write(ref _thread, thread);
            _runs++;
            var result = Libc.IoctlBare(_fd, KvmApi.KVM_RUN, 0);
            if (result < 0)
            {
                var errno = Marshal.GetLastSystemError();
                Volatile.Write(ref _thread, 0);
                if (!MayRunAgain(errno)) return Fail(KvmFailure.OfErrno(this, errno, _page));
                continue;
            }

            Volatile.Write(ref _thread, 0);
            _completionDue = false;
            var exit = Describe();
            if (exit == VcpuExitKind.None) continue;
            _haltReported = false;
            return exit;
        }
    }

    /// <inheritdoc/>
    public void Kick() => Call(Kicked);

    /// <inheritdoc/>
    public VcpuExitKind CompletePending()
    {
        PrepareThread(KickSignal.Thread);
        if (_piece < _pieces)
        {
            StoreReply();
            if (_isMmio && PiecesLeft > 0) return TakePiece();
            if (PiecesLeft > 0) CompleteBatchEarly();
            _pieces = _piece = 0;
        }

        // Several rounds where the same instruction goes on: the store of a read-modify-write, the second half of 16 bytes.
        return _completionDue && EnterWithoutGuest() ? Describe() : VcpuExitKind.None;
    }

    /// <summary>Makes Run look at alarms and halts soon. Any thread.</summary>
    internal void Poke() => Call(Poked);

    /// <summary>The number of entries, and whether the vCPU is inside KVM_RUN now. Any thread.</summary>
    internal (long Runs, bool Inside) Progress => (Volatile.Read(ref _runs), Volatile.Read(ref _thread) != 0);

    private void Call(int why)
    {
        if ((Interlocked.Or(ref _attention, why) & why) != 0) return; // asked already and not yet answered
        lock (_signalling)
        {
            if (_disposed) return;
            Volatile.Write(ref _run[RunPage.ImmediateExit], 1);
            Interlocked.MemoryBarrier();
            var thread = Volatile.Read(ref _thread);
            if (thread != 0) KickSignal.Send(thread);
        }
    }

    /// <summary>Somebody wants the vCPU outside. None: nothing is to be reported.</summary>
    private VcpuExitKind AnswerAttention()
    {
        // First the byte, then (and the exchange is a fence) who asked: who asks in between sets the byte again, and that costs one KVM_RUN
        // that returns at once.
        Volatile.Write(ref _run[RunPage.ImmediateExit], 0);
        var asked = Interlocked.Exchange(ref _attention, 0);
        if ((asked & Kicked) != 0)
        {
            if ((asked & Poked) != 0) Call(Poked); // answered by the next Run
            return Report(VcpuExitKind.Kicked);
        }
        return (asked & Poked) != 0 ? AnswerPoke() : VcpuExitKind.None;
    }

    /// <summary>After a KVM_RUN that failed: false where the failure is one.</summary>
    private bool MayRunAgain(int errno)
    {
        // EAGAIN: an AP has just received its SIPI; the next entry executes it.
        if (errno == Libc.EAGAIN) return true;
        if (errno != Libc.EINTR) return false;
        // A kick, a poke, or a signal or an immediate_exit whose cause was served before; the loop's head tells which. The kernel finishes the
        // last access before it looks whether it may enter.
        _completionDue = false;
        if (_method == KickMethod.Mask) KickSignal.Take();
        if (Volatile.Read(ref _attention) == 0) ClearImmediateExit();
        return true;
    }

    /// <summary>The guest may be entered again, unless somebody has called meanwhile.</summary>
    private void ClearImmediateExit()
    {
        Volatile.Write(ref _run[RunPage.ImmediateExit], 0);
        Interlocked.MemoryBarrier();
        if (Volatile.Read(ref _attention) != 0) Volatile.Write(ref _run[RunPage.ImmediateExit], 1);
    }

    /// <summary>A vCPU may be run by another thread than last time.</summary>
    private void PrepareThread(int thread)
    {
        if (thread == _runThread) return;
        var blocked = KickSignal.Prepare(_method);
        if (_method == KickMethod.Mask)
        {
            // struct kvm_signal_mask: u32 length, then the kernel's 8-byte set.
            Span<byte> mask = stackalloc byte[12];
            MemoryMarshal.Write(mask, 8u);
            MemoryMarshal.Write(mask[4..], blocked);
            _file.Call(KvmApi.KVM_SET_SIGNAL_MASK, mask, nameof(KvmApi.KVM_SET_SIGNAL_MASK));
        }
        _runThread = thread;
    }

    /// <summary>Lets KVM finish the last access; immediate_exit keeps the guest from running on.</summary>
    /// <returns>True where the same instruction wants another access: it is described in the page.</returns>
    private bool EnterWithoutGuest()
    {
        Volatile.Write(ref _run[RunPage.ImmediateExit], 1);
        var result = Libc.IoctlBare(_fd, KvmApi.KVM_RUN, 0);
        var errno = result < 0 ? Marshal.GetLastSystemError() : 0;
        ClearImmediateExit();
        _completionDue = false;
        if (result >= 0) return true;
        return errno is Libc.EINTR or Libc.EAGAIN ? false : throw KvmError.Of(nameof(KvmApi.KVM_RUN), errno);
    }

    private VcpuExitKind AnswerPoke()
    {
        if (Id == 0 && _machine.ClockImplementation.TakeDueAlarm()) return Report(VcpuExitKind.Alarm);
        if (!_haltReported && IsHaltedForGood())
        {
            _haltReported = true;
            return Report(VcpuExitKind.Halted);
        }
        return VcpuExitKind.None;
    }

    /// <summary>In-kernel HLT never exits (kvm/api.rst §5): a halt with interrupts off is found by looking.</summary>
    private bool IsHaltedForGood()
    {
        uint state = 0;
        _file.Call(KvmApi.KVM_GET_MP_STATE, ref state, nameof(KvmApi.KVM_GET_MP_STATE));
        if ((VcpuActivity)state != VcpuActivity.Halted) { _haltReported = false; return false; }
        var regs = new KvmRegs();
        _file.Call(KvmApi.KVM_GET_REGS, ref regs, nameof(KvmApi.KVM_GET_REGS));
        return (regs.Rflags & 0x200) == 0;
    }

    private VcpuExitKind Report(VcpuExitKind kind)
    {
        _exit.Detail = null;
        return _exit.Kind = kind;
    }

    private VcpuExitKind Fail(string detail)
    {
        _exit.Detail = detail;
        return _exit.Kind = VcpuExitKind.Failed;
    }

    public void Dispose()
    {
        lock (_signalling) _disposed = true; // nobody writes to the page any more
        _page.Dispose();
        _file.Dispose();
    }
}
