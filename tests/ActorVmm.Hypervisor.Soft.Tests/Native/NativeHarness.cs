using ActorVmm.Hypervisor.Soft.Tests.Differential;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Soft.Tests.Native;

/// <summary>
/// The machine code around native cases. A raw <c>clone</c> makes a child that never touches the runtime: it installs its own signal
/// handlers and runs case after case. Every case ends with an exception (INT3 if nothing else); the handler saves the interrupted state
/// from the signal frame, puts the next case's state into the frame, and returns into it by <c>rt_sigreturn</c>. So all of the state, RSP
/// and flags included, is loaded and saved by the kernel, and a fault costs no more than a normal end. The parent's signals stay untouched.
/// </summary>
internal static class NativeHarness
{
    public const ulong Code = 0x2200_0000;
    public const ulong Control = Code + 0x1000;
    public const ulong AltStack = Control + 0x1000;
    public const int AltStackSize = 0xE000;
    public const int Size = 0x10000;

    // Control page.
    public const int Current = 0, Remaining = 8, StackT = 16, Action = 48, Mask = 80, RestorerEntry = 0xC00, HandlerEntry = 0x800;

    // One slot per case; slot 0 takes the state of the trap that starts the run.
    public const ulong Slots = 0x2300_0000;
    public const int InGpr = 0, OutGpr = 192, InFx = 384, OutFx = 896, InMemory = 2048, OutMemory = InMemory + Layout.ScratchSize;
    public const int SlotSize = OutMemory + Layout.ScratchSize;

    // struct sigcontext inside struct ucontext (arch/x86/include/uapi/asm/sigcontext.h).
    public const int SavedRegisters = 18, SavedWords = 23;
    private const int Context = 40, FpState = 224;

    private const int SysRtSigaction = 13, SysRtSigprocmask = 14, SysRtSigreturn = 15, SysAlarm = 37, SysClone = 56;
    private const int SysSigaltstack = 131, SysExitGroup = 231;
    private const int SigIll = 4, SigTrap = 5, SigBus = 7, SigFpe = 8, SigSegv = 11, SigAlrm = 14;

    /// <summary>Seconds after which a child that does not end is killed by its own alarm.</summary>
    private const int Deadline = 60;

    /// <summary>Writes code and tables into the mapped area. Entry: <see cref="Code"/>: <c>long run()</c>, the child's pid.</summary>
    public static void Emit(Span<byte> area)
    {
        Assemble(Code, EmitRun).CopyTo(area);
        Assemble(Code + HandlerEntry, EmitHandler).CopyTo(area[HandlerEntry..]);
        Assemble(Code + RestorerEntry, EmitRestorer).CopyTo(area[RestorerEntry..]);

        var control = area[(int)(Control - Code)..];
        BitConverter.TryWriteBytes(control[StackT..], AltStack); // stack_t: sp, flags, size
        BitConverter.TryWriteBytes(control[(StackT + 16)..], (ulong)AltStackSize);
        const ulong saSigInfo = 4, saOnStack = 0x0800_0000, saRestorer = 0x0400_0000;
        BitConverter.TryWriteBytes(control[Action..], Code + HandlerEntry); // kernel sigaction: handler, flags, restorer, mask
        BitConverter.TryWriteBytes(control[(Action + 8)..], saSigInfo | saOnStack | saRestorer);
        BitConverter.TryWriteBytes(control[(Action + 16)..], Code + RestorerEntry);
        var open = new[] { SigIll, SigTrap, SigBus, SigFpe, SigSegv, SigAlrm }
            .Aggregate(0UL, (mask, signal) => mask | (1UL << (signal - 1)));
        BitConverter.TryWriteBytes(control[Mask..], ~open);
    }

    private static void EmitRun(Assembler a)
    {
        var child = a.CreateLabel();
        a.mov(eax, SysClone);
        a.xor(edi, edi); // no flags and no exit signal: the runtime never hears of this child
        a.xor(esi, esi);
        a.xor(edx, edx);
        a.xor(r10d, r10d);
        a.xor(r8d, r8d);
        a.syscall();
        a.test(rax, rax);
        a.jz(child);
        a.ret();

        a.Label(ref child);
        a.mov(eax, SysAlarm);
        a.mov(edi, Deadline);
        a.syscall();
        a.mov(eax, SysSigaltstack);
        a.mov(rdi, Control + StackT);
        a.xor(esi, esi);
        a.syscall();
        foreach (var signal in new[] { SigIll, SigTrap, SigBus, SigFpe, SigSegv })
        {
            a.mov(eax, SysRtSigaction);
            a.mov(edi, signal);
            a.mov(rsi, Control + Action);
            a.xor(edx, edx);
            a.mov(r10d, 8);
            a.syscall();
        }
        a.mov(eax, SysRtSigprocmask);
        a.mov(edi, 2); // SIG_SETMASK
        a.mov(rsi, Control + Mask);
        a.xor(edx, edx);
        a.mov(r10d, 8);
        a.syscall();
        a.mov(rsi, Layout.ReadOnlyPage); // present from now on, so that a write reports a protection fault
        a.mov(al, __byte_ptr[rsi]);
        a.int3();
        a.ud2();
    }

    private static void EmitHandler(Assembler a)
    {
        var finished = a.CreateLabel();
        a.mov(r12, rdx); // ucontext
        a.mov(rbx, Control);
        a.mov(r13, __qword_ptr[rbx + Current]);
        Copy(a, () => { a.lea(rdi, __[r13 + OutGpr]); a.lea(rsi, __[r12 + Context]); }, SavedWords);
        Copy(a, () => { a.lea(rdi, __[r13 + OutFx]); a.mov(rsi, __qword_ptr[r12 + FpState]); }, 64);
        Copy(a, () => { a.lea(rdi, __[r13 + OutMemory]); a.mov(rsi, Layout.Scratch); }, Layout.ScratchSize / 8);
        a.cmp(__qword_ptr[rbx + Remaining], 0);
        a.je(finished);
        a.dec(__qword_ptr[rbx + Remaining]);
        a.add(r13, SlotSize);
        a.mov(__qword_ptr[rbx + Current], r13);
        Copy(a, () => { a.lea(rdi, __[r12 + Context]); a.lea(rsi, __[r13 + InGpr]); }, SavedRegisters);
        // Up to XMM15; what follows in the frame is the kernel's own.
        Copy(a, () => { a.mov(rdi, __qword_ptr[r12 + FpState]); a.lea(rsi, __[r13 + InFx]); }, 52);
        Copy(a, () => { a.mov(rdi, Layout.Scratch); a.lea(rsi, __[r13 + InMemory]); }, Layout.ScratchSize / 8);
        a.ret();

        a.Label(ref finished);
        a.mov(eax, SysExitGroup);
        a.xor(edi, edi);
        a.syscall();
        a.ud2();
    }

    private static void EmitRestorer(Assembler a)
    {
        a.mov(eax, SysRtSigreturn);
        a.syscall();
        a.ud2();
    }

    private static void Copy(Assembler a, Action pointers, int words)
    {
        pointers();
        a.mov(ecx, words);
        a.rep.movsq();
    }

    private static byte[] Assemble(ulong at, Action<Assembler> emit)
    {
        var assembler = new Assembler(64);
        emit(assembler);
        using var stream = new MemoryStream();
        assembler.Assemble(new StreamCodeWriter(stream), at);
        return stream.ToArray();
    }
}
