using System.Runtime.InteropServices;

namespace ActorVmm.Hypervisor.Kvm.Native;

/// <summary>How the signal of a kick takes a thread out of KVM_RUN.</summary>
internal enum KickMethod
{
    /// <summary>
    /// A handler that does nothing: a leaf function of the C library. Whatever the moment, the kernel meets <c>immediate_exit</c> or the
    /// signal. Costs nothing per exit.
    /// </summary>
    Handler,

    /// <summary>
    /// Blocked in the thread, unblocked only inside KVM_RUN (KVM_SET_SIGNAL_MASK), taken back with <c>sigtimedwait</c>: no handler runs. For
    /// C libraries without that function. Costs the kernel two changes of the mask per exit.
    /// </summary>
    Mask,
}

/// <summary>The signal that takes a thread out of KVM_RUN, without native code of ours. SIGRTMIN itself is the runtime's.</summary>
internal static unsafe class KickSignal
{
    /// <summary>SIGRTMIN + 8 as the C library counts (its SIGRTMIN is 34).</summary>
    public const int Number = 42;

    private const int SIG_BLOCK = 0, SIG_UNBLOCK = 1;
    private const nint SIG_IGN = 1;
    private const ulong Bit = 1UL << (Number - 1);

    // abs: reads its argument's register and writes the result's, and nothing else; both are restored when the handler returns.
    private const string HarmlessFunction = "abs";

    [ThreadStatic] private static int t_thread;

    /// <summary>What this process can do; decided once, with the disposition of the signal.</summary>
    /// <remarks>
    /// A kick may race with the end of its thread, and the number be given to another: the handler, or ignoring it, does no harm there. A
    /// thread that blocks the signal still gets it, because the kernel never ignores a blocked one.
    /// </remarks>
    public static KickMethod Method { get; } = Install();

    /// <summary>This thread's number; cheap after the first time.</summary>
    public static int Thread => t_thread != 0 ? t_thread : t_thread = Libc.GetTid();

    /// <summary>Makes this thread one that can be kicked.</summary>
    /// <returns>The signals to block inside KVM_RUN, as the kernel's 8-byte set; the thread's own without the kick.</returns>
    public static ulong Prepare(KickMethod method)
    {
        // SAFETY: two full-size sigset_t (128 bytes each).
        var set = stackalloc ulong[16];
        var old = stackalloc ulong[16];
        for (var i = 0; i < 16; i++) set[i] = old[i] = 0;
        set[0] = Bit;
        // Unblocked, too, must be said: whoever started this process may have blocked everything.
        var error = Libc.PthreadSigmask(method == KickMethod.Handler ? SIG_UNBLOCK : SIG_BLOCK, set, old);
        if (error != 0) throw KvmError.Of("pthread_sigmask", error);
        return old[0] & ~Bit;
    }

    /// <summary>Sends the signal. A thread that has ended is no error.</summary>
    public static void Send(int thread) => _ = Libc.TgKill(Environment.ProcessId, thread, Number);

    /// <summary>Takes a pending, blocked signal of this thread away; false where none was pending.</summary>
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

    private static KickMethod Install()
    {
        if (NativeLibrary.TryLoad("libc", typeof(KickSignal).Assembly, searchPath: null, out var libc)
            && NativeLibrary.TryGetExport(libc, HarmlessFunction, out var harmless))
        {
            // struct sigaction of both C libraries on x86-64: the handler, a sigset_t of 128 bytes (empty), the flags; the restorer is theirs.
            // SAFETY: 160 bytes are more than its 152; the call reads them and keeps no pointer.
            var action = stackalloc ulong[20];
            for (var i = 0; i < 20; i++) action[i] = 0;
            action[0] = (ulong)harmless;
            action[17] = Libc.SA_RESTART | Libc.SA_ONSTACK;
            if (Libc.SigAction(Number, action, null) == 0) return KickMethod.Handler;
        }

        if (Libc.Signal(Number, SIG_IGN) == -1) throw KvmError.Of("signal", Marshal.GetLastPInvokeError());
        return KickMethod.Mask;
    }
}
