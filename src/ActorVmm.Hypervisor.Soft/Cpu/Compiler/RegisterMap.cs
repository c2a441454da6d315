namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>
/// Which host register holds what while compiled code runs. RBP is the state (with a bias that brings its hot part into reach of 8-bit
/// displacements), R15 the budget, RAX, RCX and RDX are free, RSP is the host's; the other ten hold guest registers, everywhere the same, so
/// that code can jump from block to block. The six guest registers without one live in the state.
/// </summary>
internal static unsafe class RegisterMap
{
    /// <summary>RBP is the address of the state plus this.</summary>
    public const int Bias = 160;

    public const Host State = Host.Rbp, Budget = Host.R15;

    private static readonly Host[] Hosts =
    [
        // RAX RCX RDX RBX RSP RBP RSI RDI
        Host.Rbx, Host.Rsi, Host.Rdi, Host.R8, Host.R9, Host.R10, Host.R11, Host.R12,
        // R8 R9 R10 R11 R12 R13 R14 R15
        Host.R13, Host.None, Host.None, Host.None, Host.R14, Host.None, Host.None, Host.None,
    ];

    /// <summary>The host register of a guest register, or None.</summary>
    public static Host Of(int guest) => Hosts[guest];

    /// <summary>Where the state keeps what lies at a byte offset.</summary>
    public static HostAddress At(int offset) => new(State, offset - Bias);

    /// <summary>A guest register's place in the state.</summary>
    public static HostAddress Slot(int guest) => At(guest * 8);

    // Offsets of fields in the state.
    public static readonly int Rip, BudgetOffset, Attention, FlagA, FlagB, FlagR,
        FlagKind, FlagCarry, OldFlagA, OldFlagB, OldFlagR, OldFlagKind,
        OldFlagCarry, FlagRotated, OldFlagRotated, SystemFlags, Page, JumpCache, TlbRead, TlbWrite,
        TlbCode, Cpl, Transfer, BlockHash, ExitOp, Saved,
        FixFlags, FixFlagsThenHandler, Handler, InterruptWaiting, DispatchOp, Xmm, Mxcsr, MxcsrInHost,
        HostMxcsr, Cr0, Cr4, LockBuffer, Selectors;

    static RegisterMap()
    {
        // SAFETY: no access, only the distances of fields from the start of the struct.
        CpuState state;
        var s = &state;
        Rip = (int)((byte*)&s->Rip - (byte*)s);
        BudgetOffset = (int)((byte*)&s->Budget - (byte*)s);
        Attention = (int)((byte*)&s->Attention - (byte*)s);
        FlagA = (int)((byte*)&s->FlagA - (byte*)s);
        FlagB = (int)((byte*)&s->FlagB - (byte*)s);
        FlagR = (int)((byte*)&s->FlagR - (byte*)s);
        FlagKind = (int)((byte*)&s->FlagKind - (byte*)s);
        FlagCarry = (int)((byte*)&s->FlagCarry - (byte*)s);
        OldFlagA = (int)((byte*)&s->OldFlagA - (byte*)s);
        OldFlagB = (int)((byte*)&s->OldFlagB - (byte*)s);
        OldFlagR = (int)((byte*)&s->OldFlagR - (byte*)s);
        OldFlagKind = (int)((byte*)&s->OldFlagKind - (byte*)s);
        OldFlagCarry = (int)((byte*)&s->OldFlagCarry - (byte*)s);
        SystemFlags = (int)((byte*)&s->SystemFlags - (byte*)s);
        Page = (int)((byte*)&s->Page - (byte*)s);
        JumpCache = (int)((byte*)&s->JumpCache - (byte*)s);
        TlbRead = (int)((byte*)&s->TlbRead - (byte*)s);
        TlbWrite = (int)((byte*)&s->TlbWrite - (byte*)s);
        TlbCode = (int)((byte*)&s->TlbCode - (byte*)s);
        Cpl = (int)((byte*)&s->Cpl - (byte*)s);
        Transfer = (int)((byte*)&s->Transfer - (byte*)s);
        BlockHash = (int)((byte*)&s->BlockHash - (byte*)s);
        ExitOp = (int)((byte*)&s->ExitOp - (byte*)s);
        Saved = (int)((byte*)s->Saved - (byte*)s);
        FixFlagsThenHandler = (int)((byte*)&s->FixFlagsThenHandler - (byte*)s);
        Handler = (int)((byte*)&s->Handler - (byte*)s);
        InterruptWaiting = (int)((byte*)&s->InterruptWaiting - (byte*)s);
        FlagRotated = (int)((byte*)&s->FlagRotated - (byte*)s);
        OldFlagRotated = (int)((byte*)&s->OldFlagRotated - (byte*)s);
        FixFlags = (int)((byte*)&s->FixFlags - (byte*)s);
        DispatchOp = (int)((byte*)&s->DispatchOp - (byte*)s);
        Xmm = (int)((byte*)s->Xmm - (byte*)s);
        if (Xmm % 16 != 0) throw new InvalidOperationException($"the vector registers lie at {Xmm}, not aligned");
        Mxcsr = (int)((byte*)&s->Mxcsr - (byte*)s);
        MxcsrInHost = (int)((byte*)&s->MxcsrInHost - (byte*)s);
        HostMxcsr = (int)((byte*)&s->HostMxcsr - (byte*)s);
        Selectors = (int)((byte*)&s->Es.Selector - (byte*)s);
        LockBuffer = (int)((byte*)&s->LockBuffer - (byte*)s);
        Cr0 = (int)((byte*)&s->Cr0 - (byte*)s);
        Cr4 = (int)((byte*)&s->Cr4 - (byte*)s);
    }
}
