using System.Runtime.InteropServices;

namespace ActorVmm.Hypervisor.Kvm.Native;

/// <summary>
/// The signal that takes a thread out of KVM_RUN without native code: blocked in the thread, unblocked only inside KVM_RUN
/// (KVM_SET_SIGNAL_MASK), and taken back with <c>sigtimedwait</c>, so no handler ever runs. SIGRTMIN itself is the runtime's.
/// </summary>
internal static unsafe class KickSignal
{
    /// <summary>SIGRTMIN + 8 as the C library counts (its SIGRTMIN is 34).</summary>
    public const int Number = 42;

    private const int SIG_BLOCK = 0;
    private const nint SIG_IGN = 1;
    private const ulong Bit = 1UL << (Number - 1);

    [ThreadStatic] private static int t_thread;
    [ThreadStatic] private static ulong t_runMask;

    // A kick may race with the end of its thread, and the number be given to a thread that does not block the signal. Ignored there, it
    // does no harm; a thread that blocks it still gets it, because the kernel never ignores a blocked signal.
    private static readonly nint s_previous = Libc.Signal(Number, SIG_IGN);

    /// <summary>Blocks the signal in this thread and returns the thread's number; cheap after the first time.</summary>
    public static int Enter()
    {
        if (t_thread == 0) Prepare();
        return t_thread;
    }

    /// <summary>The signals blocked inside KVM_RUN on this thread: the thread's own, without the kick. As the kernel's 8-byte
    /// set.</summary>
    public static ulong RunMask => t_runMask;

    /// <summary>Sends the signal. A thread that has ended is no error.</summary>
    public static void Send(int thread) => _ = Libc.TgKill(Environment.ProcessId, thread, Number);

    /// <summary>Takes a pending signal of this thread away; false where none was pending.</summary>
    public static bool Take()
    {
        // SAFETY: the C library's sigset_t is 128 bytes, of which it reads all; the timeout is {0, 0}: never waits.
        var set = stackalloc ulong[16];
        set[0] = Bit;
        for (var i = 1; i < 16; i++) set[i] = 0;
        var timeout = stackalloc long[2];
        timeout[0] = 0;
        timeout[1] = 0;
        return Libc.SigTimedWait(set, null, timeout) == Number;
    }

    private static void Prepare()
    {
        if (s_previous == -1) throw KvmError.Of("signal", Marshal.GetLastPInvokeError());
        // SAFETY: two full-size sigset_t (128 bytes each).
        var set = stackalloc ulong[16];
        var old = stackalloc ulong[16];
        for (var i = 0; i < 16; i++) set[i] = old[i] = 0;
        set[0] = Bit;
        var error = Libc.PthreadSigmask(SIG_BLOCK, set, old);
        if (error != 0) throw KvmError.Of("pthread_sigmask", error);
        t_runMask = old[0] & ~Bit;
        t_thread = Libc.GetTid();
    }
}
