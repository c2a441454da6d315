using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>Instructions that take or leave the flags as a whole, and those on CF and DF alone.</summary>
internal sealed unsafe partial class BlockCompiler
{
    /// <summary>Where an image of the flags is kept, OF is its bit 11.</summary>
    private const int OverflowBit = 11;

    /// <summary>
    /// Makes all six of the host's flags the guest's, as tier 0 defines those that the manual does not. Uses RAX, RCX and RDX; leaves where
    /// their form in the state is a rare one.
    /// </summary>
    private void PrepareImage()
    {
        var exact = _flags is { Known: true, OnlyCarry: false, Form: CompiledForm.Compare or CompiledForm.Subtract or CompiledForm.Add or
            CompiledForm.Logic or CompiledForm.Negate or CompiledForm.Image or CompiledForm.Raw };
        if (exact && _hostFlags && _hostCarry) return;
        if (exact)
        {
            Recreate(condition: 0);
            return;
        }
        LoseHostFlags();
        StoreFlags();
        FlagsUnknown();
        RestoreUnknown();
    }

    /// <summary>The host's flags from the image in the state. Uses RAX and RCX.</summary>
    private void RestoreImage()
    {
        _e.Load(4, Host.Rax, RegisterMap.At(RegisterMap.FlagA));
        Stubs.EmitImageToFlags(_e);
    }

    /// <summary>
    /// The host's flags become the guest's, all of them, as an image. Its instructions write a few only: even where nobody sees those, the
    /// others may be wanted.
    /// </summary>
    private void SetWholeImage()
    {
        StoreImage();
        SetFlags(CompiledForm.Raw, 1, default, default, default);
    }

    /// <summary>PUSHFQ.</summary>
    private bool PushFlags()
    {
        PrepareImage();
        _e.Byte(0x9C); // PUSHFQ
        _e.Byte(0x58); // POP RAX
        LoseHostFlags();
        _e.AluImmediate(AluAnd, 4, Host.Rax, (int)Flags.Arithmetic);
        _e.Load(4, Host.Rdx, RegisterMap.At(RegisterMap.SystemFlags));
        _e.AluImmediate(AluAnd, 4, Host.Rdx, unchecked((int)~(Flags.Rf | Flags.Vm)));
        _e.Alu(AluOr, 4, Host.Rdx, Host.Rax);
        _e.AluImmediate(AluOr, 4, Host.Rdx, 2);
        _e.Store(8, RegisterMap.At(RegisterMap.Transfer), Host.Rdx);
        ProbePush();
        _e.Load(8, Host.Rdx, RegisterMap.At(RegisterMap.Transfer));
        _e.Store(8, new HostAddress(Host.Rax), Host.Rdx);
        MoveStack(-8);
        return true;
    }

    /// <summary>
    /// POPFQ where it changes the arithmetic flags alone, or sets or clears IF in ring 0 with no interrupt waiting.
    /// </summary>
    private bool PopFlags()
    {
        LoseHostFlags();
        StoreFlags();
        _e.AluImmediate(AluCmp, 4, RegisterMap.At(RegisterMap.InterruptWaiting), 0);
        BailIf(5);
        _e.Move(8, Host.Rax, StackPointer);
        Probe(8, write: false);
        _e.Load(4, Host.Rax, new HostAddress(Host.Rax));
        // What differs from the flags in force, arithmetic ones aside: nothing, or IF where CPL allows that.
        _e.Move(4, Host.Rdx, Host.Rax);
        _e.Alu(AluXor, 4, Host.Rdx, RegisterMap.At(RegisterMap.SystemFlags));
        _e.AluImmediate(AluAnd, 4, Host.Rdx, (int)(Flags.Tf | Flags.If | Flags.Df | Flags.Iopl | Flags.Nt | Flags.Ac | Flags.Id));
        var same = _e.JumpIf(4);
        _e.AluImmediate(AluCmp, 4, Host.Rdx, (int)Flags.If);
        BailIf(5);
        _e.AluImmediate(AluCmp, 4, RegisterMap.At(RegisterMap.Cpl), 0);
        BailIf(5);
        _e.Alu(AluXor, 4, RegisterMap.At(RegisterMap.SystemFlags), Host.Rdx);
        _e.Bind(same);
        _e.AluImmediate(AluAnd, 4, Host.Rax, (int)Flags.Arithmetic);
        _e.Store(8, RegisterMap.At(RegisterMap.FlagA), Host.Rax);
        MoveStack(8);
        SetFlags(CompiledForm.Raw, 1, default, default, default);
        _hostFlags = _hostCarry = false;
        return true;
    }

    /// <summary>LAHF.</summary>
    private bool FlagsToAh()
    {
        BeforeWrite(0);
        PrepareImage();
        _e.FlagsToAh();
        _e.Byte(0x88); // MOV BH, AH: the guest's RAX is the host's RBX
        _e.Byte(0xE7);
        return true;
    }

    /// <summary>SAHF: OF stays.</summary>
    private bool AhToFlags()
    {
        PrepareImage();
        _e.SetIf(0, Host.Rcx);
        _e.Registers(4, 0x0FB6, Host.Rcx, Host.Rcx, 2);
        LoseHostFlags();
        _e.Shift(4, 4, Host.Rcx, OverflowBit);
        _e.Registers(4, 0x0FB6, Host.Rax, (Host)7); // MOVZX EAX, BH
        _e.Alu(AluOr, 4, Host.Rax, Host.Rcx);
        _e.Store(8, RegisterMap.At(RegisterMap.FlagA), Host.Rax);
        SetFlags(CompiledForm.Raw, 1, default, default, default);
        _hostFlags = _hostCarry = false;
        return true;
    }

    /// <summary>CLC and STC.</summary>
    private bool SetCarry(bool set)
    {
        LoseHostFlags();
        StoreFlags();
        _e.AluImmediate(AluOr, 4, RegisterMap.At(RegisterMap.FlagKind), CompiledFlags.CarryKept);
        _e.StoreImmediate(1, RegisterMap.At(RegisterMap.FlagCarry), set ? 1 : 0);
        _flags = new Pending { Known = true, OnlyCarry = true };
        return true;
    }

    /// <summary>CMC.</summary>
    private bool ComplementCarry()
    {
        PrepareImage();
        _e.Byte(0xF5);
        SetWholeImage();
        return true;
    }

    /// <summary>CLD and STD.</summary>
    private bool SetDirection(bool set)
    {
        LoseHostFlags();
        var flags = RegisterMap.At(RegisterMap.SystemFlags);
        if (set) _e.AluImmediate(AluOr, 4, flags, (int)Flags.Df);
        else _e.AluImmediate(AluAnd, 4, flags, unchecked((int)~Flags.Df));
        return true;
    }

    /// <summary>RCL and RCR by one.</summary>
    private bool RotateThroughCarry(in Instruction i, int kind)
    {
        if (!IsRegister(i, 0) || IsHighByte(i.Op0Register) || IsRegister(i, 1) || i.GetImmediate(1) != 1) return ShiftAny(i, kind);
        var (bytes, to) = (SizeOf(i, 0), Number(i.Op0Register));
        BeforeWrite(to);
        PrepareImage();
        var into = OpenDestination(to);
        _e.Shift(kind, bytes, into, 1);
        CloseDestination(to, bytes, into);
        SetWholeImage();
        return true;
    }

    /// <summary>CMPXCHG8B and CMPXCHG16B: ZF alone changes.</summary>
    private bool CompareExchangePair(in Instruction i)
    {
        var bytes = i.Mnemonic == Mnemonic.Cmpxchg16b ? 16 : 8;
        BeforeWrite(0);
        BeforeWrite(2);
        AccessVector(i, bytes, write: true, unaligned: bytes == 8);
        _e.Store(8, RegisterMap.At(RegisterMap.Transfer), Host.Rax);
        PrepareImage();
        // The host's instruction wants the guest's registers of the same names. Moves only, or the flags would be lost.
        var (rax, rcx, rdx, rbx) = (RegisterMap.Of(0), RegisterMap.Of(1), RegisterMap.Of(2), RegisterMap.Of(3));
        _e.Move(8, Host.Rax, rax);
        _e.Move(8, Host.Rdx, rdx);
        _e.Move(8, Host.Rcx, rcx);
        _e.Load(8, rcx, RegisterMap.At(RegisterMap.Transfer));
        _e.Move(8, rax, rbx);
        _e.Memory(bytes == 16 ? 8 : 4, 0x0FC7, (Host)1, new HostAddress(rcx), prefix: LockPrefix);
        _e.Move(8, rcx, Host.Rcx);
        _e.Move(8, rax, Host.Rax);
        _e.Move(8, rdx, Host.Rdx);
        SetWholeImage();
        return true;
    }
}
