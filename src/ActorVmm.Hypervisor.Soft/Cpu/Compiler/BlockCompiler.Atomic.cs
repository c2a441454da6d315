using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>Atomic access to memory, as the host's own locked instructions on the page that the TLB names; and the interrupt flag.</summary>
internal sealed unsafe partial class BlockCompiler
{
    private const int LockPrefix = 0xF0;

    private bool TryAtomic(in Instruction i)
    {
        switch (i.Mnemonic)
        {
            case Mnemonic.Cmpxchg: return CompareExchange(i);
            case Mnemonic.Xadd: return ExchangeAdd(i);
            case Mnemonic.Add: return LockedAdd(i, subtract: false);
            case Mnemonic.Sub: return LockedAdd(i, subtract: true);
            case Mnemonic.Or: return LockedLogic(i, AluOr);
            case Mnemonic.And: return LockedLogic(i, AluAnd);
            case Mnemonic.Xor: return LockedLogic(i, AluXor);
            case Mnemonic.Adc: return LockedWithCarry(i, AluAdc);
            case Mnemonic.Sbb: return LockedWithCarry(i, AluSbb);
            case Mnemonic.Inc: return LockedStep(i, 0, CompiledForm.Increment);
            case Mnemonic.Dec: return LockedStep(i, 1, CompiledForm.Decrement);
            case Mnemonic.Not: return LockedNot(i);
            case Mnemonic.Neg: return LockedNegate(i);
            case Mnemonic.Bts: return BitTest(i, 1);
            case Mnemonic.Btr: return BitTest(i, 2);
            case Mnemonic.Btc: return BitTest(i, 3);
            case Mnemonic.Cmpxchg8b or Mnemonic.Cmpxchg16b: return CompareExchangePair(i);
            case Mnemonic.Xchg: return ExchangeMemory(i);
            default: return false;
        }
    }

    private bool CompareExchange(in Instruction i)
    {
        var bytes = SizeOf(i, 0);
        if (!IsMemory(i, 0) || IsHighByte(i.Op1Register)) return false;
        Access(i, bytes, write: true);
        _e.Move(8, Host.Rdx, Host.Rax);
        var accumulator = RegisterMap.Of(0);
        _e.Move(8, Host.Rax, accumulator);
        _e.Memory(bytes, bytes == 1 ? 0x0FB0 : 0x0FB1, Read(Number(i.Op1Register), Host.Rcx), new HostAddress(Host.Rdx), bytes == 1, LockPrefix);
        // The host's flags are those of the comparison; the accumulator changes where it failed.
        _e.Store(8, RegisterMap.At(RegisterMap.FlagA), accumulator);
        _e.Store(8, RegisterMap.At(RegisterMap.FlagB), Host.Rax);
        var equal = _e.JumpIf(4);
        _e.Move(bytes, accumulator, Host.Rax);
        _e.Bind(equal);
        SetFlags(CompiledForm.Compare, bytes, default, default, default);
        return true;
    }

    private bool ExchangeAdd(in Instruction i)
    {
        var bytes = SizeOf(i, 0);
        if (!IsMemory(i, 0) || IsHighByte(i.Op1Register)) return false;
        var from = Number(i.Op1Register);
        Access(i, bytes, write: true);
        LoadGuest(Host.Rdx, from);
        _e.Move(8, Host.Rcx, Host.Rdx);
        _e.Memory(bytes, bytes == 1 ? 0x0FC0 : 0x0FC1, Host.Rcx, new HostAddress(Host.Rax), bytes == 1, LockPrefix);
        AddedFlags(bytes, CompiledForm.Add);
        Write(from, bytes, Host.Rcx);
        return true;
    }

    /// <summary>RCX = old value, RDX = what was added: stores the flags of ADD, or of SUB of its negative.</summary>
    private void AddedFlags(int bytes, CompiledForm form)
    {
        _e.Store(8, RegisterMap.At(RegisterMap.FlagB), Host.Rdx);
        _e.Move(8, Host.Rax, Host.Rcx);
        _e.Alu(form == CompiledForm.Add ? AluAdd : AluSub, bytes, Host.Rax, Host.Rdx);
        _e.Store(8, RegisterMap.At(RegisterMap.FlagR), Host.Rax);
        SetFlags(form, bytes, default, default, default);
    }

    private bool LockedAdd(in Instruction i, bool subtract)
    {
        var bytes = SizeOf(i, 0);
        if (!IsMemory(i, 0)) return false;
        Access(i, bytes, write: true);
        var source = ReadSource(i, 1, bytes, Host.Rdx);
        if (source.Register == Host.None) _e.MoveImmediate(Host.Rdx, source.Value);
        else _e.Move(8, Host.Rdx, source.Register);
        _e.Move(8, Host.Rcx, Host.Rdx);
        if (subtract) _e.Unary(0xF6, 3, 8, Host.Rcx);
        _e.Memory(bytes, bytes == 1 ? 0x0FC0 : 0x0FC1, Host.Rcx, new HostAddress(Host.Rax), bytes == 1, LockPrefix);
        AddedFlags(bytes, subtract ? CompiledForm.Subtract : CompiledForm.Add);
        return true;
    }

    private bool LockedLogic(in Instruction i, int kind)
    {
        var bytes = SizeOf(i, 0);
        if (!IsMemory(i, 0) || !FlagsDead && IsRegister(i, 1) && IsHighByte(i.Op1Register)) return false;
        Access(i, bytes, write: true);
        var source = ReadSource(i, 1, bytes, Host.Rdx);
        if (FlagsDead)
        {
            if (source.Register == Host.None) _e.AluImmediateLocked(kind, bytes, new HostAddress(Host.Rax), source.Value);
            else _e.Memory(bytes, (kind << 3) | (bytes == 1 ? 0 : 1), source.Register, new HostAddress(Host.Rax), bytes == 1, LockPrefix);
            NoFlags();
            return true;
        }
        // The result is needed: a loop of compare and exchange, with the address in RDX and the new value in RCX.
        if (source.Register == Host.Rdx)
        {
            _e.Store(8, RegisterMap.At(RegisterMap.Transfer), Host.Rdx);
        }
        _e.Move(8, Host.Rdx, Host.Rax);
        _e.Load(bytes, Host.Rax, new HostAddress(Host.Rdx));
        var again = _e.Here;
        _e.Move(8, Host.Rcx, Host.Rax);
        if (source.Register == Host.Rdx) _e.Alu(kind, bytes, Host.Rcx, RegisterMap.At(RegisterMap.Transfer));
        else Alu(kind, bytes, Host.Rcx, source);
        _e.Memory(bytes, bytes == 1 ? 0x0FB0 : 0x0FB1, Host.Rcx, new HostAddress(Host.Rdx), bytes == 1, LockPrefix);
        _e.JumpIfTo(5, again);
        _e.Store(8, RegisterMap.At(RegisterMap.FlagR), Host.Rcx);
        _e.Test(bytes, Host.Rcx, Host.Rcx);
        SetFlags(CompiledForm.Logic, bytes, default, default, default);
        return true;
    }

    private bool LockedStep(in Instruction i, int kind, CompiledForm form)
    {
        var bytes = SizeOf(i, 0);
        Access(i, bytes, write: true);
        if (FlagsDead)
        {
            LoseHostFlags(); // CF stays what it is
            _e.Memory(bytes, bytes == 1 ? 0xFE : 0xFF, (Host)kind, new HostAddress(Host.Rax), prefix: LockPrefix);
            return true;
        }
        PutFlagsAside(memory: true);
        _e.MoveImmediate(Host.Rdx, kind == 0 ? 1 : -1);
        _e.Memory(bytes, bytes == 1 ? 0x0FC0 : 0x0FC1, Host.Rdx, new HostAddress(Host.Rax), bytes == 1, LockPrefix);
        _e.Unary(0xFE, kind, bytes, Host.Rdx);
        _e.Store(8, RegisterMap.At(RegisterMap.FlagR), Host.Rdx);
        SetFlags(form, bytes, default, default, default);
        _hostCarry = false;
        return true;
    }

    /// <summary>NOT: no flags.</summary>
    private bool LockedNot(in Instruction i)
    {
        var bytes = SizeOf(i, 0);
        Access(i, bytes, write: true);
        _e.Memory(bytes, bytes == 1 ? 0xF6 : 0xF7, (Host)2, new HostAddress(Host.Rax), prefix: LockPrefix);
        return true;
    }

    private bool LockedNegate(in Instruction i)
    {
        var bytes = SizeOf(i, 0);
        Access(i, bytes, write: true);
        _e.Move(8, Host.Rdx, Host.Rax);
        _e.Load(bytes, Host.Rax, new HostAddress(Host.Rdx));
        var again = _e.Here;
        _e.Move(8, Host.Rcx, Host.Rax);
        _e.Unary(0xF6, 3, bytes, Host.Rcx);
        StoreNew(bytes, again);
        _e.Store(8, RegisterMap.At(RegisterMap.FlagR), Host.Rcx);
        SetFlags(CompiledForm.Negate, bytes, default, default, default);
        _hostFlags = _hostCarry = false; // they are the comparison's
        return true;
    }

    /// <summary>Exchanges what RDX leads to from RAX to RCX, or tries again.</summary>
    private void StoreNew(int bytes, byte* again)
    {
        _e.Memory(bytes, bytes == 1 ? 0x0FB0 : 0x0FB1, Host.Rcx, new HostAddress(Host.Rdx), bytes == 1, LockPrefix);
        _e.JumpIfTo(5, again);
    }

    private bool LockedWithCarry(in Instruction i, int kind)
    {
        if (IsRegister(i, 1) && IsHighByte(i.Op1Register)) return false;
        var bytes = SizeOf(i, 0);
        Access(i, bytes, write: true);
        _e.Store(8, RegisterMap.At(RegisterMap.Transfer), Host.Rax);
        if (!PrepareCondition(2)) return false;
        // CF is kept in a byte of the state (nothing of the guest is in it now): the loop may need it again.
        _e.SetIf(2, RegisterMap.At(RegisterMap.LockBuffer));
        LoseHostFlags();
        _e.Load(8, Host.Rdx, RegisterMap.At(RegisterMap.Transfer));
        _e.Load(bytes, Host.Rax, new HostAddress(Host.Rdx));
        var again = _e.Here;
        _e.Move(8, Host.Rcx, Host.Rax);
        _e.BitTestImmediate(0, 4, RegisterMap.At(RegisterMap.LockBuffer), 0, 0);
        if (!IsRegister(i, 1)) _e.AluImmediate(kind, bytes, Host.Rcx, (int)Immediate(i, 1, bytes));
        else if (RegisterMap.Of(Number(i.Op1Register)) is var host and not Host.None) _e.Alu(kind, bytes, Host.Rcx, host);
        else _e.Alu(kind, bytes, Host.Rcx, RegisterMap.Slot(Number(i.Op1Register)));
        StoreImage();
        StoreNew(bytes, again);
        _e.Store(8, RegisterMap.At(RegisterMap.FlagR), Host.Rcx);
        SetFlags(CompiledForm.Image, bytes, default, default, default);
        _hostFlags = _hostCarry = false;
        return true;
    }

    /// <summary>XCHG with memory is always atomic.</summary>
    private bool ExchangeMemory(in Instruction i)
    {
        var register = IsRegister(i, 0) ? i.Op0Register : i.Op1Register;
        if (IsHighByte(register)) return false;
        var (bytes, guest) = (register.GetSize(), Number(register));
        BeforeWrite(guest);
        Access(i, bytes, write: true);
        LoadGuest(Host.Rdx, guest);
        _e.Memory(bytes, bytes == 1 ? 0x86 : 0x87, Host.Rdx, new HostAddress(Host.Rax), bytes == 1);
        Write(guest, bytes, Host.Rdx);
        return true;
    }

    /// <summary>CLI, and STI where no interrupt waits; in ring 0, where both are allowed.</summary>
    private bool InterruptFlag(bool set)
    {
        LoseHostFlags();
        _e.AluImmediate(AluCmp, 4, RegisterMap.At(RegisterMap.Cpl), 0);
        BailIf(5);
        if (set)
        {
            // The block goes on behind STI only if it has a next instruction: interrupts are held back for one.
            if (_at == _block->Count - 1) return false;
            _e.AluImmediate(AluCmp, 4, RegisterMap.At(RegisterMap.InterruptWaiting), 0);
            BailIf(5);
        }
        var flags = RegisterMap.At(RegisterMap.SystemFlags);
        if (set) _e.AluImmediate(AluOr, 4, flags, (int)Flags.If);
        else _e.AluImmediate(AluAnd, 4, flags, ~(int)Flags.If);
        return true;
    }

    /// <summary>BSF and BSR: a zero source sets ZF and keeps the destination.</summary>
    private bool BitScan(in Instruction i, int opcode)
    {
        var bytes = SizeOf(i, 0);
        if (bytes < 4) return false;
        var to = Number(i.Op0Register);
        if (IsMemory(i, 1))
        {
            Access(i, bytes, write: false);
            _e.Load(bytes, Host.Rdx, new HostAddress(Host.Rax));
        }
        var from = IsMemory(i, 1) ? Host.Rdx : Read(Number(i.Op1Register), Host.Rdx);
        var dead = FlagsDead;
        LoseHostFlags();
        _e.Registers(bytes, opcode, Host.Rcx, from);
        var zero = _e.JumpIf(4);
        if (!dead)
        {
            _e.Test(4, Host.Rcx, Host.Rcx);
            _e.SetIf(10, Host.Rax);
            _e.Registers(4, 0x0FB6, Host.Rax, Host.Rax, 2);
            _e.Shift(4, 4, Host.Rax, 2);
            _e.Store(8, RegisterMap.At(RegisterMap.FlagA), Host.Rax);
        }
        Write(to, bytes, Host.Rcx);
        var done = _e.Jump();
        _e.Bind(zero);
        if (!dead) _e.StoreImmediate(8, RegisterMap.At(RegisterMap.FlagA), (int)(Flags.Zf | Flags.Pf));
        _e.Bind(done);
        if (!dead) _e.StoreImmediate(4, RegisterMap.At(RegisterMap.FlagKind), (int)FlagKind.Raw);
        FlagsUnknown();
        return true;
    }
}
