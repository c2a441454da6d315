using System.ComponentModel;
using System.Runtime.InteropServices;

namespace ActorVmm.Testing.Native;

/// <summary>
/// A kernel that refuses one system call with the error number of choice: a seccomp filter (seccomp(2)). The call really fails, in the
/// kernel, with nothing done; there is no way back for the thread.
/// </summary>
public static unsafe partial class RefusingKernel
{
    private const int PR_SET_NO_NEW_PRIVS = 38;
    private const int SYS_mmap = 9, SYS_ioctl = 16, SYS_seccomp = 317;
    private const int SECCOMP_SET_MODE_FILTER = 1, SECCOMP_FILTER_FLAG_TSYNC = 1;
    private const uint AUDIT_ARCH_X86_64 = 0xC000_003E;
    private const uint SECCOMP_RET_ALLOW = 0x7FFF_0000, SECCOMP_RET_ERRNO = 0x0005_0000;

    // struct seccomp_data: the call's number, the architecture, the instruction pointer, six arguments.
    private const uint Number = 0, Architecture = 4, Arguments = 16;

    [LibraryImport("libc", EntryPoint = "prctl", SetLastError = true)]
    private static partial int Prctl(int option, nuint a, nuint b, nuint c, nuint d);

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial nint Syscall(nint number, nuint a, nuint b, void* c);

    /// <summary>On a thread of its own, whose ioctl <paramref name="request"/> fails: what <paramref name="act"/> threw.</summary>
    public static Exception? WithoutIoctl(uint request, int errno, Action act) =>
        OnThread(() => Install(SYS_ioctl, argument: 1, request, errno, wholeProcess: false), act);

    /// <summary>On a thread of its own, whose mmap of <paramref name="length"/> bytes fails: what <paramref name="act"/> threw.</summary>
    public static Exception? WithoutMapping(uint length, int errno, Action act) =>
        OnThread(() => Install(SYS_mmap, argument: 1, length, errno, wholeProcess: false), act);

    /// <summary>For all threads of this process, and for ever.</summary>
    public static void RefuseIoctl(uint request, int errno) => Install(SYS_ioctl, argument: 1, request, errno, wholeProcess: true);

    private static Exception? OnThread(Action install, Action act)
    {
        Exception? thrown = null;
        var thread = new Thread(() =>
        {
            try
            {
                install();
                act();
            }
            catch (Exception any)
            {
                thrown = any;
            }
        });
        thread.Start();
        thread.Join();
        return thrown;
    }

    private static void Install(uint call, int argument, uint value, int errno, bool wholeProcess)
    {
        const ushort load = 0x20, jumpIfEqual = 0x15, end = 0x06; // BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
        Span<Instruction> program =
        [
            new(load, 0, 0, Architecture),
            new(jumpIfEqual, 0, 5, AUDIT_ARCH_X86_64),
            new(load, 0, 0, Number),
            new(jumpIfEqual, 0, 3, call),
            new(load, 0, 0, Arguments + (8 * (uint)argument)), // its lower half
            new(jumpIfEqual, 0, 1, value),
            new(end, 0, 0, SECCOMP_RET_ERRNO | (uint)errno),
            new(end, 0, 0, SECCOMP_RET_ALLOW),
        ];
        if (Prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) throw new Win32Exception(Marshal.GetLastPInvokeError(), "PR_SET_NO_NEW_PRIVS");
        fixed (Instruction* at = program)
        {
            // SAFETY: both structures live until the call has copied them.
            var filter = new Program { Length = (ushort)program.Length, Instructions = at };
            if (Syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, wholeProcess ? SECCOMP_FILTER_FLAG_TSYNC : 0u, &filter) != 0)
                throw new Win32Exception(Marshal.GetLastPInvokeError(), "seccomp");
        }
    }

    /// <summary><c>struct sock_filter</c>.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private readonly record struct Instruction(ushort Code, byte IfTrue, byte IfFalse, uint Operand);

    /// <summary><c>struct sock_fprog</c>.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct Program
    {
        public ushort Length;
        public Instruction* Instructions;
    }
}
