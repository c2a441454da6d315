using System.Runtime.InteropServices;
using ActorVmm.Hypervisor.Kvm.Native;

namespace ActorVmm.Hypervisor.Kvm;

/// <summary>
/// One vCPU of the kernel. <see cref="Run"/> is KVM_RUN with everything that must not be seen outside: signals, SIPI's EAGAIN, batches of
/// string I/O, halts that nobody will end. It allocates nothing.
/// </summary>
internal sealed unsafe partial class KvmVcpu : IVcpu, IDisposable
{
    private readonly KvmMachine _machine;
    private readonly KvmFile _file;
    private readonly KvmRunMapping _page;
    private readonly VcpuExit _exit = new();

    private int _kick;      // somebody asked for Kicked; whoever swaps it to 0 reports it
    private int _poke;      // somebody (halt watch, alarm) wants Run to look at the machine's state
    private int _thread;    // the thread inside KVM_RUN, or 0
    private int _runThread; // the thread whose signal mask the kernel has for this vCPU
    private long _runs;     // entries, so that the halt watch sees a vCPU that does not move
    private bool _haltReported;
    private bool _completionDue; // KVM_RUN must be entered once more to finish the last access

    public KvmVcpu(KvmMachine machine, int id, KvmFile file, KvmRunMapping page)
    {
        _machine = machine;
        _file = file;
        _page = page;
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
        var pending = StorePieceAndTakeNext();
        if (pending != VcpuExitKind.None) return pending;

        PrepareThread();
        while (true)
        {
            // The order matters: publish the thread, then look for a kick. A kick after the look finds the thread and signals it, and the
            // signal, blocked here, ends KVM_RUN at once; a kick before it is seen here.
            Interlocked.Exchange(ref _thread, _runThread);
            if (Volatile.Read(ref _kick) != 0)
            {
                Volatile.Write(ref _thread, 0);
                if (Interlocked.Exchange(ref _kick, 0) != 0) return Report(VcpuExitKind.Kicked);
                continue;
            }
            if (Volatile.Read(ref _poke) != 0)
            {
                Volatile.Write(ref _thread, 0);
                Interlocked.Exchange(ref _poke, 0);
                if (AnswerPoke() is var kind and not VcpuExitKind.None) return kind;
                continue;
            }

            _runs++;
            var result = Libc.Ioctl(_file, KvmApi.KVM_RUN, (nuint)0);
            var errno = result < 0 ? Marshal.GetLastPInvokeError() : 0;
            Volatile.Write(ref _thread, 0);

            if (result < 0)
            {
                // EINTR: a kick, a poke, or a signal whose cause was served before it came; the loop's head tells which.
                if (errno == Libc.EINTR) { _completionDue = false; KickSignal.Take(); continue; }
                // EAGAIN: an AP has just received its SIPI; the next entry executes it.
                if (errno == Libc.EAGAIN) continue;
                return Fail(KvmFailure.OfErrno(this, errno, _page));
            }

            _completionDue = false;
            var exit = Describe();
            if (exit == VcpuExitKind.None) continue;
            _haltReported = false;
            return exit;
        }
    }

    /// <inheritdoc/>
    public void Kick()
    {
        if (Interlocked.Exchange(ref _kick, 1) != 0) return; // asked already and not yet reported
        Signal();
    }

    /// <inheritdoc/>
    /// <remarks>
    /// Where the same instruction then makes another access (the store of a read-modify-write, the second half of a 16-byte access), the
    /// kernel has it ready: the next <see cref="Run"/> of this vCPU presents it before the guest goes on.
    /// </remarks>
    public void CompletePending()
    {
        PrepareThread();
        StoreReply();
        if (PiecesLeft > 0) CompleteBatchEarly();
        else if (_completionDue) EnterWithoutGuest();
        _pieces = _piece = 0;
    }

    /// <summary>Makes Run look at alarms and halts soon. Any thread.</summary>
    internal void Poke()
    {
        Volatile.Write(ref _poke, 1);
        Signal();
    }

    /// <summary>The number of entries, and whether the vCPU is inside KVM_RUN now. Any thread.</summary>
    internal (long Runs, bool Inside) Progress => (Volatile.Read(ref _runs), Volatile.Read(ref _thread) != 0);

    private void Signal()
    {
        Interlocked.MemoryBarrier();
        var thread = Volatile.Read(ref _thread);
        if (thread != 0) KickSignal.Send(thread);
    }

    /// <summary>A vCPU may be run by another thread than last time: the kernel needs the signal mask of the one that runs it.</summary>
    private void PrepareThread()
    {
        var thread = KickSignal.Enter();
        if (thread == _runThread) return;
        // struct kvm_signal_mask: u32 length, then the kernel's 8-byte set.
        Span<byte> mask = stackalloc byte[12];
        MemoryMarshal.Write(mask, 8u);
        MemoryMarshal.Write(mask[4..], KickSignal.RunMask);
        _file.Call(KvmApi.KVM_SET_SIGNAL_MASK, mask, nameof(KvmApi.KVM_SET_SIGNAL_MASK));
        _runThread = thread;
    }

    /// <summary>Lets KVM finish the last access; immediate_exit keeps the guest from running on.</summary>
    private void EnterWithoutGuest()
    {
        ref var immediate = ref _page.Field<byte>(RunPage.ImmediateExit);
        Volatile.Write(ref immediate, 1);
        var result = Libc.Ioctl(_file, KvmApi.KVM_RUN, (nuint)0);
        var errno = result < 0 ? Marshal.GetLastPInvokeError() : 0;
        Volatile.Write(ref immediate, 0);
        _completionDue = false;
        // Success here means that the same instruction wants another access (a 16-byte load, a read-modify-write): it is pending in the
        // page.
        if (result >= 0) { _resumedExit = true; return; }
        if (errno is not (Libc.EINTR or Libc.EAGAIN)) throw KvmError.Of(nameof(KvmApi.KVM_RUN), errno);
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
        _page.Dispose();
        _file.Dispose();
    }
}
