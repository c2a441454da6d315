using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>Shifts, rotates, multiplications, bits and exchanges.</summary>
internal sealed unsafe partial class BlockCompiler
{
    private bool Shift(in Instruction i, int kind, CompiledForm form)
    {
        var bytes = SizeOf(i, 0);
        if (!IsRegister(i, 0) || IsHighByte(i.Op0Register)) return false;
        var to = Number(i.Op0Register);
        var dead = FlagsDead;
        if (IsRegister(i, 1)) return ShiftByCl(to, bytes, kind, form, dead);
        var count = (int)i.GetImmediate(1) & (bytes == 8 ? 63 : 31);
        if (count == 0 || (count >= 8 * bytes && !dead)) return false;
        if (!dead && form == CompiledForm.ShiftRight && count >= 8 * bytes) return false;
        var into = OpenDestination(to);
        _e.Shift(kind, bytes, into, count);
        CloseDestination(to, bytes, into);
        if (dead)
        {
            NoFlags();
            return true;
        }
        SetFlags(form, bytes, default, form == CompiledForm.ShiftRight ? Operand.Immediate(count) : default, Operand.Guest(to), carryInHost: true);
        return true;
    }

    /// <summary>A count of zero changes no flag: the new ones are stored at once, behind a jump.</summary>
    private bool ShiftByCl(int to, int bytes, int kind, CompiledForm form, bool dead)
    {
        if (bytes < 4) return false;
        LoseHostFlags();
        if (!dead) StoreFlags();
        LoadGuest(Host.Rcx, 1);
        if (dead)
        {
            var plain = OpenDestination(to);
            if (bytes == 4 && plain != Host.Rax) _e.Move(4, plain, plain);
            _e.ShiftCl(kind, bytes, plain);
            if (plain == Host.Rax && bytes == 4) _e.Move(4, Host.Rax, Host.Rax);
            CloseDestination(to, bytes, plain);
            NoFlags();
            return true;
        }
        _e.AluImmediate(AluAnd, 4, Host.Rcx, bytes == 8 ? 63 : 31);
        var into = OpenDestination(to);
        if (bytes == 4) _e.Move(4, into, into);
        var none = _e.JumpIf(4);
        _e.ShiftCl(kind, bytes, into);
        _e.SetIf(2, RegisterMap.At(RegisterMap.FlagA));
        if (form == CompiledForm.ShiftRight) _e.Store(8, RegisterMap.At(RegisterMap.FlagB), Host.Rcx);
        _e.Store(8, RegisterMap.At(RegisterMap.FlagR), into);
        _e.StoreImmediate(4, RegisterMap.At(RegisterMap.FlagKind), (int)CompiledFlags.Kind(form, bytes));
        _e.Bind(none);
        CloseDestination(to, bytes, into);
        FlagsUnknown();
        return true;
    }

    /// <summary>Rotates by an immediate change CF and OF alone, which follow from the result: that is kept beside the flags so far.</summary>
    private bool Rotate(in Instruction i, int kind)
    {
        var bytes = SizeOf(i, 0);
        if (!IsRegister(i, 0) || IsHighByte(i.Op0Register) || IsRegister(i, 1)) return false;
        var count = (int)i.GetImmediate(1) & (bytes == 8 ? 63 : 31);
        if (count == 0) return false;
        var to = Number(i.Op0Register);
        // ZF and the others stay what they are.
        LoseHostFlags();
        var dead = FlagsDead;
        if (dead) BeforeWrite(to);
        else StoreFlags();
        var into = OpenDestination(to);
        _e.Shift(kind, bytes, into, count);
        CloseDestination(to, bytes, into);
        if (dead) return true;
        var flagKind = RegisterMap.At(RegisterMap.FlagKind);
        var bits = CompiledFlags.RotateBits(kind == 1, bytes);
        if (_flags is { Known: true, OnlyCarry: false })
        {
            _e.StoreImmediate(4, flagKind, (int)CompiledFlags.Kind(_flags.Form, _flags.Bytes) | bits);
        }
        else
        {
            _e.AluImmediate(AluAnd, 4, flagKind, CompiledFlags.CarryKept - 1);
            _e.AluImmediate(AluOr, 4, flagKind, bits);
        }
        _e.Store(8, RegisterMap.At(RegisterMap.FlagRotated), into);
        FlagsUnknown();
        return true;
    }

    /// <summary>IMUL with two or three operands.</summary>
    private bool Multiply(in Instruction i)
    {
        var bytes = SizeOf(i, 0);
        if (bytes < 4) return false;
        var to = Number(i.Op0Register);
        var dead = FlagsDead;
        if (IsMemory(i, 1))
        {
            Access(i, bytes, write: false);
            _e.Load(bytes, Host.Rdx, new HostAddress(Host.Rax));
        }
        var from = IsMemory(i, 1) ? Host.Rdx : Read(Number(i.Op1Register), Host.Rdx);
        LoseHostFlags();
        if (i.OpCount == 3)
        {
            var host = RegisterMap.Of(to);
            var into = host == Host.None ? Host.Rax : host;
            _e.MultiplyImmediate(bytes, into, from, (int)Immediate(i, 2, bytes));
            CloseDestination(to, bytes, into);
        }
        else
        {
            var into = OpenDestination(to);
            _e.Registers(bytes, 0x0FAF, into, from);
            CloseDestination(to, bytes, into);
        }
        if (dead) NoFlags();
        else SetProductFlags(bytes, to);
        return true;
    }

    private void SetProductFlags(int bytes, int result)
    {
        SetFlags(CompiledForm.Product, bytes, default, default, Operand.Guest(result), carryInHost: true);
        // Tier 0 derives ZF, SF and PF, which are undefined here, from the result.
        CaptureCarry(ref _flags);
        _hostFlags = _hostCarry = false;
    }

    /// <summary>MUL and IMUL with one operand.</summary>
    private bool MultiplyWide(in Instruction i)
    {
        var bytes = SizeOf(i, 0);
        if (bytes < 4) return false;
        if (IsMemory(i, 0))
        {
            Access(i, bytes, write: false);
            _e.Load(bytes, Host.Rcx, new HostAddress(Host.Rax));
        }
        LoseHostFlags();
        var from = IsMemory(i, 0) ? Host.Rcx : Read(Number(i.Op0Register), Host.Rcx);
        LoadGuest(Host.Rax, 0);
        _e.Unary(0xF6, i.Mnemonic == Mnemonic.Mul ? 4 : 5, bytes, from);
        Write(0, bytes, Host.Rax);
        Write(2, bytes, Host.Rdx);
        if (FlagsDead) NoFlags();
        else SetProductFlags(bytes, 0);
        return true;
    }

    /// <summary>BT and its kin on a register, BT of memory by an immediate: CF alone changes.</summary>
    private bool BitTest(in Instruction i, int kind)
    {
        var bytes = SizeOf(i, 0);
        if (IsMemory(i, 0) && (IsRegister(i, 1) || kind != 0)) return false;
        if (IsMemory(i, 0)) Access(i, bytes, write: false);
        LoseHostFlags();
        if (FlagsDead && kind == 0) return true; // a load that may fault, and nothing that anybody sees; ZF stays
        StoreFlagsKeeping(Host.Rax, IsMemory(i, 0));
        if (!FlagsDead) _e.AluImmediate(AluOr, 4, RegisterMap.At(RegisterMap.FlagKind), CompiledFlags.CarryKept);
        var value = Host.Rax;
        if (IsMemory(i, 0)) _e.Load(bytes, Host.Rax, new HostAddress(Host.Rax));
        else value = OpenDestination(Number(i.Op0Register));
        if (IsRegister(i, 1)) _e.Registers(bytes, 0x0FA3 | (kind << 3), Read(Number(i.Op1Register), Host.Rdx), value);
        else _e.BitTestImmediate(kind, bytes, value, (int)i.GetImmediate(1) & (8 * bytes - 1));
        if (kind != 0) CloseDestination(Number(i.Op0Register), bytes, value);
        if (FlagsDead) return true;
        _flags = new Pending { Known = true, Dirty = true, OnlyCarry = true, CarryInHost = true };
        return true;
    }

    /// <summary>Stores the flags where a temporary is in use.</summary>
    private void StoreFlagsKeeping(Host temporary, bool inUse)
    {
        if (!inUse || !_flags.Dirty)
        {
            StoreFlags();
            return;
        }
        _e.Store(8, RegisterMap.At(RegisterMap.Transfer), temporary);
        StoreFlags();
        _e.Load(8, temporary, RegisterMap.At(RegisterMap.Transfer));
    }

    private bool ByteSwap(in Instruction i)
    {
        var bytes = SizeOf(i, 0);
        if (bytes < 4) return false;
        var to = Number(i.Op0Register);
        BeforeWrite(to);
        var into = OpenDestination(to);
        _e.ByteSwap(bytes, into);
        CloseDestination(to, bytes, into);
        return true;
    }

    private bool ExtendAccumulator(in Instruction i)
    {
        BeforeWrite(0);
        var rax = RegisterMap.Of(0);
        if (i.Mnemonic == Mnemonic.Cdqe) _e.Registers(8, 0x63, rax, rax);
        else _e.Registers(4, 0x0FBF, rax, rax);
        return true;
    }

    private bool SignToRdx(in Instruction i)
    {
        BeforeWrite(2);
        LoseHostFlags();
        var bytes = i.Mnemonic == Mnemonic.Cqo ? 8 : 4;
        _e.Move(bytes, RegisterMap.Of(2), RegisterMap.Of(0));
        _e.Shift(7, bytes, RegisterMap.Of(2), 8 * bytes - 1);
        return true;
    }

    /// <summary>XCHG of registers; with memory it is atomic.</summary>
    private bool Exchange(in Instruction i)
    {
        var bytes = SizeOf(i, 0);
        if (!IsRegister(i, 0) || !IsRegister(i, 1) || IsHighByte(i.Op0Register) || IsHighByte(i.Op1Register)) return false;
        var (a, b) = (Number(i.Op0Register), Number(i.Op1Register));
        BeforeWrite(a);
        BeforeWrite(b);
        LoadGuest(Host.Rcx, a);
        LoadGuest(Host.Rdx, b);
        Write(a, bytes, Host.Rdx);
        Write(b, bytes, Host.Rcx);
        return true;
    }
}
