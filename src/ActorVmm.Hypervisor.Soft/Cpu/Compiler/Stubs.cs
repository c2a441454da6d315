namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>
/// The pieces of machine code that all blocks share: into compiled code, out of it, and across pages. Compiled code is entered by a jump
/// from a handler of tier 0 (or the run loop's call), as if it were a handler, and is left by a jump to one; it keeps nothing on the stack,
/// so that a handler, the garbage collector and an exception find the run loop's frame right above.
/// </summary>
internal sealed unsafe class Stubs
{
    /// <summary>Bytes from where a block is entered by a jump to its body: the budget check.</summary>
    public const int HeadBytes = 7 + 3 + 4 + 6;

    // The System V x64 convention: what a callee must bring back.
    private static readonly Host[] CalleeSaved = [Host.Rbx, Host.R12, Host.R13, Host.R14, Host.R15, Host.Rbp];

    /// <summary>RDI = state, RAX = body of the block at RIP: notes it in the jump cache and runs it.</summary>
    public byte* EnterBlock { get; private init; }

    /// <summary>RDI = state, RAX = where to go on within the block whose start is RIP.</summary>
    public byte* Resume { get; private init; }

    /// <summary>RDX = op: stores all registers and runs the op's handler.</summary>
    public byte* Leave { get; private init; }

    /// <summary>The same for an op whose handler is in <see cref="CpuState.Handler"/>, because the op itself leads back into compiled code.</summary>
    public byte* LeaveDisplaced { get; private init; }

    /// <summary>
    /// RDX = where to go on with the guest's flags in the host's, from whatever form the state has them in; where that form is a rare one,
    /// five bytes before RDX instead, where a jump leaves to tier 0.
    /// </summary>
    public byte* RestoreFlags { get; private init; }

    /// <summary>RAX = target: goes there through the code TLB and the block table, or leaves.</summary>
    public byte* Dispatch { get; private init; }

    /// <summary>Goes on at address 0, with the page of it noted.</summary>
    public byte* ToZero { get; private init; }

    public static Stubs Emit(Emitter e)
    {
        var resume = e.Here;
        EmitEnter(e, note: false);
        var enter = e.Here;
        EmitEnter(e, note: true);
        var leave = e.Here;
        EmitLeave(e, displaced: false);
        var leaveDisplaced = e.Here;
        EmitLeave(e, displaced: true);
        var dispatch = e.Here;
        EmitDispatch(e, leave);
        var restore = EmitRestoreFlags(e);
        var toZero = e.Here;
        e.Alu(6, 4, Host.Rax, Host.Rax);
        e.JumpTo(dispatch);
        return new Stubs
        {
            RestoreFlags = restore, EnterBlock = enter, Resume = resume, Leave = leave, LeaveDisplaced = leaveDisplaced, Dispatch = dispatch,
            ToZero = toZero,
        };
    }

    private static HostAddress FromStart(int offset) => new(Host.Rdi, offset);

    private static void EmitEnter(Emitter e, bool note)
    {
        // RDI, RSI and RAX are arguments; the guest's registers come last.
        e.Load(8, Host.Rcx, FromStart(RegisterMap.Rip));
        e.Move(8, Host.Rdx, Host.Rcx);
        e.AluImmediate(4, 8, Host.Rdx, -4096);
        e.Store(8, FromStart(RegisterMap.Page), Host.Rdx);
        if (note)
        {
            EmitHash(e, Host.Rcx, Host.Rdx);
            e.Alu(0, 8, Host.Rdx, FromStart(RegisterMap.JumpCache));
            e.Store(8, new HostAddress(Host.Rdx), Host.Rcx);
            e.Lea(Host.Rcx, new HostAddress(Host.Rax, -HeadBytes));
            e.Store(8, new HostAddress(Host.Rdx, 8), Host.Rcx);
        }
        for (var i = 0; i < CalleeSaved.Length; i++) e.Store(8, FromStart(RegisterMap.Saved + 8 * i), CalleeSaved[i]);
        e.Lea(RegisterMap.State, FromStart(RegisterMap.Bias));
        for (var guest = 0; guest < 16; guest++)
            if (RegisterMap.Of(guest) != Host.None) e.Load(8, RegisterMap.Of(guest), RegisterMap.Slot(guest));
        e.Load(8, RegisterMap.Budget, RegisterMap.At(RegisterMap.BudgetOffset));
        e.JumpRegister(Host.Rax);
    }

    private static void EmitLeave(Emitter e, bool displaced)
    {
        // A handler takes its op in RSI, which is a guest register until it is stored: the op arrives in RDX.
        for (var guest = 0; guest < 16; guest++)
        {
            var host = RegisterMap.Of(guest);
            if (host != Host.None) e.Store(8, RegisterMap.Slot(guest), host);
        }
        e.Store(8, RegisterMap.At(RegisterMap.BudgetOffset), RegisterMap.Budget);
        e.Move(8, Host.Rsi, Host.Rdx);
        e.Lea(Host.Rdi, new HostAddress(RegisterMap.State, -RegisterMap.Bias));
        for (var i = 0; i < CalleeSaved.Length; i++) e.Load(8, CalleeSaved[i], FromStart(RegisterMap.Saved + 8 * i));
        e.AluImmediate(7, 4, FromStart(RegisterMap.MxcsrInHost), 0);
        var own = e.JumpIf(4);
        e.Memory(4, 0x0FAE, (Host)3, FromStart(RegisterMap.Mxcsr)); // STMXCSR
        e.Memory(4, 0x0FAE, (Host)2, FromStart(RegisterMap.HostMxcsr)); // LDMXCSR
        e.StoreImmediate(4, FromStart(RegisterMap.MxcsrInHost), 0);
        e.Bind(own);
        e.AluImmediate(7, 4, FromStart(RegisterMap.FlagKind), CompiledFlags.First);
        var fix = e.JumpIf(3);
        e.JumpMemory(displaced ? FromStart(RegisterMap.Handler) : new HostAddress(Host.Rsi));
        e.Bind(fix);
        e.JumpMemory(FromStart(displaced ? RegisterMap.FixFlagsThenHandler : RegisterMap.FixFlags));
    }

    private static byte* EmitRestoreFlags(Emitter e)
    {
        var pieces = stackalloc byte*[RestoredKinds];
        var rare = e.Here;
        e.AluImmediate(5, 8, Host.Rdx, 5);
        e.JumpRegister(Host.Rdx);
        for (var kind = 0; kind < RestoredKinds; kind++)
        {
            var start = e.Here;
            pieces[kind] = EmitRestore(e, kind, rare) ? start : rare;
        }
        var tableRun = e.Here;
        for (var kind = 0; kind < RestoredKinds; kind++) e.Distance(pieces[kind] - tableRun);
        var entry = e.Here;
        e.Load(4, Host.Rax, RegisterMap.At(RegisterMap.FlagKind));
        e.AluImmediate(7, 4, Host.Rax, RestoredKinds);
        e.JumpIfTo(3, rare);
        e.MoveImmediate(Host.Rcx, (long)tableRun);
        e.Memory(8, 0x63, Host.Rax, new HostAddress(Host.Rcx, 0, Host.Rax, 2));
        e.Alu(0, 8, Host.Rax, Host.Rcx);
        e.JumpRegister(Host.Rax);
        return entry;
    }

    /// <summary>Kinds from 0 that <see cref="RestoreFlags"/> looks at: tier 0's, then compiled code's.</summary>
    private const int RestoredKinds = CompiledFlags.First + 4 * ((int)CompiledForm.Bits + 1);

    /// <summary>Bits of RFLAGS in EAX into the host's flags. Uses RCX.</summary>
    public static void EmitImageToFlags(Emitter e)
    {
        e.Move(4, Host.Rcx, Host.Rax);
        e.Shift(5, 4, Host.Rcx, 11);
        e.AluImmediate(4, 4, Host.Rcx, 1);
        e.Byte(0x88); // MOV AH, AL
        e.Byte(0xC4);
        e.AluImmediate(0, 1, Host.Rcx, 0x7F); // overflows where the bit was set
        e.AhToFlags();
    }

    /// <summary>ZF, SF and PF of RAX, CF from the low bit of A and OF from that of B; AF is zero.</summary>
    private static void EmitBitsToFlags(Emitter e, int bytes)
    {
        e.Test(bytes, Host.Rax, Host.Rax);
        e.FlagsToAh();
        e.Load(1, Host.Rcx, RegisterMap.At(RegisterMap.FlagA));
        e.AluImmediate(4, 1, Host.Rcx, 1);
        e.Byte(0x80); // AND AH, ~(AF | CF)
        e.Byte(0xE4);
        e.Byte(0xEE);
        e.Byte(0x08); // OR AH, CL
        e.Byte(0xCC);
        e.Load(1, Host.Rcx, RegisterMap.At(RegisterMap.FlagB));
        e.AluImmediate(4, 1, Host.Rcx, 1);
        e.AluImmediate(0, 1, Host.Rcx, 0x7F);
        e.AhToFlags();
    }

    private static bool EmitRestore(Emitter e, int kind, byte* rare)
    {
        var (a, b, r) = (RegisterMap.At(RegisterMap.FlagA), RegisterMap.At(RegisterMap.FlagB), RegisterMap.At(RegisterMap.FlagR));
        var form = (CompiledForm)((kind - CompiledFlags.First) >> 2);
        var bytes = 1 << ((kind - CompiledFlags.First) & 3);
        switch (kind)
        {
            case (int)FlagKind.Logic:
                (form, bytes) = (CompiledForm.Logic, 8);
                break;
            case (int)FlagKind.Sub:
                // With a borrow, the operands alone do not give the flags.
                e.Load(8, Host.Rax, a);
                e.Move(8, Host.Rcx, Host.Rax);
                e.Alu(5, 8, Host.Rcx, b);
                e.Alu(7, 8, Host.Rcx, r);
                e.JumpIfTo(5, rare);
                (form, bytes) = (CompiledForm.Compare, 8);
                break;
            case (int)FlagKind.Add:
                // With a carry, likewise.
                e.Load(8, Host.Rax, a);
                e.Alu(0, 8, Host.Rax, b);
                e.Alu(7, 8, Host.Rax, r);
                e.JumpIfTo(5, rare);
                (form, bytes) = (CompiledForm.Add, 8);
                break;
            case (int)FlagKind.Raw:
                form = CompiledForm.Raw;
                break;
            case (int)FlagKind.Bits:
                (form, bytes) = (CompiledForm.Bits, 8);
                break;
            case < CompiledFlags.First:
                return false;
        }
        switch (form)
        {
            case CompiledForm.Raw or CompiledForm.Image:
                e.Load(4, Host.Rax, a);
                EmitImageToFlags(e);
                e.JumpRegister(Host.Rdx);
                return true;
            case CompiledForm.Bits:
                e.Load(8, Host.Rax, r);
                EmitBitsToFlags(e, bytes);
                e.JumpRegister(Host.Rdx);
                return true;
            case > CompiledForm.Negate:
                return false;
        }
        e.Load(8, Host.Rax, form == CompiledForm.Compare ? a : r);
        switch (form)
        {
            case CompiledForm.Compare:
                e.Alu(7, bytes, Host.Rax, b);
                break;
            case CompiledForm.Subtract:
                e.Alu(0, bytes, Host.Rax, b);
                e.Alu(5, bytes, Host.Rax, b);
                break;
            case CompiledForm.Add:
                e.Alu(5, bytes, Host.Rax, b);
                e.Alu(0, bytes, Host.Rax, b);
                break;
            case CompiledForm.Negate:
                e.Unary(0xF6, 3, bytes, Host.Rax);
                e.Unary(0xF6, 3, bytes, Host.Rax);
                break;
            default:
                e.Test(bytes, Host.Rax, Host.Rax);
                break;
        }
        e.JumpRegister(Host.Rdx);
        return true;
    }

    private static int Offset(void* start, void* field) => (int)((byte*)field - (byte*)start);

    /// <summary>Leaves in <paramref name="hash"/> the byte index of an address in the jump cache.</summary>
    public static void EmitHash(Emitter e, Host address, Host hash)
    {
        e.Registers(4, 0x8B, hash, address);
        e.Shift(5, 4, hash, 10);
        e.Alu(6, 4, hash, address);
        e.AluImmediate(4, 4, hash, JumpCache.HashMask);
    }

    private static void EmitDispatch(Emitter e, byte* leave)
    {
        // SAFETY: no access, only the distances of fields from the start of the struct.
        Block aBlock;
        var block = &aBlock;
        // RAX = target. Its page in the code TLB ...
        e.Store(8, RegisterMap.At(RegisterMap.Rip), Host.Rax);
        e.Registers(4, 0x8B, Host.Rdx, Host.Rax);
        e.Shift(5, 4, Host.Rdx, 8);
        e.AluImmediate(4, 4, Host.Rdx, (Mem.TlbSize - 1) << 4);
        e.Alu(0, 8, Host.Rdx, RegisterMap.At(RegisterMap.TlbCode));
        e.Move(8, Host.Rcx, Host.Rax);
        e.AluImmediate(4, 8, Host.Rcx, -4096);
        e.Alu(7, 8, Host.Rcx, new HostAddress(Host.Rdx));
        var missed = e.JumpIf(5);
        e.Store(8, RegisterMap.At(RegisterMap.Page), Host.Rcx);
        e.Alu(0, 8, Host.Rax, new HostAddress(Host.Rdx, 8));
        // ... gives the physical address, and BlockCache.Hash of it the chain of blocks.
        e.Move(8, Host.Rdx, Host.Rax);
        e.Shift(5, 8, Host.Rdx, 14);
        e.Alu(6, 4, Host.Rdx, Host.Rax);
        e.AluImmediate(6, 4, Host.Rdx, (int)CodeMode.Bits64);
        e.Registers(4, 0x0FB7, Host.Rdx, Host.Rdx);
        e.Load(8, Host.Rcx, RegisterMap.At(RegisterMap.BlockHash));
        e.Load(8, Host.Rcx, new HostAddress(Host.Rcx, 0, Host.Rdx, 3));
        var again = e.Here;
        e.Test(8, Host.Rcx, Host.Rcx);
        var none = e.JumpIf(4);
        e.Alu(7, 8, Host.Rax, new HostAddress(Host.Rcx, Offset(block, &block->Physical)));
        var other = e.JumpIf(5);
        e.AluImmediate(7, 4, new HostAddress(Host.Rcx, Offset(block, &block->Mode)), (int)CodeMode.Bits64);
        var otherMode = e.JumpIf(5);
        e.Load(8, Host.Rcx, new HostAddress(Host.Rcx, Offset(block, &block->Code)));
        e.Test(8, Host.Rcx, Host.Rcx);
        var notCompiled = e.JumpIf(4);
        e.Load(8, Host.Rax, RegisterMap.At(RegisterMap.Rip));
        EmitHash(e, Host.Rax, Host.Rdx);
        e.Alu(0, 8, Host.Rdx, RegisterMap.At(RegisterMap.JumpCache));
        e.Store(8, new HostAddress(Host.Rdx), Host.Rax);
        e.Store(8, new HostAddress(Host.Rdx, 8), Host.Rcx);
        e.JumpRegister(Host.Rcx);
        e.Bind(other);
        e.Bind(otherMode);
        e.Load(8, Host.Rcx, new HostAddress(Host.Rcx, Offset(block, &block->HashNext)));
        e.JumpTo(again);
        e.Bind(missed);
        e.Bind(none);
        e.Bind(notCompiled);
        e.Load(8, Host.Rdx, RegisterMap.At(RegisterMap.DispatchOp));
        e.JumpTo(leave);
    }

}
