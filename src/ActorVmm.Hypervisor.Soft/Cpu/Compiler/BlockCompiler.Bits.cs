using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>Shifts, rotates, multiplications, bits and exchanges.</summary>
internal sealed unsafe partial class BlockCompiler
{
    private bool Shift(in Instruction i, int kind, CompiledForm form)
    {
        var bytes = SizeOf(i, 0);
        if (!IsRegister(i, 0) || IsHighByte(i.Op0Register) || (IsRegister(i, 1) && bytes < 4)) return ShiftAny(i, kind);
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
        if (!IsRegister(i, 0) || IsHighByte(i.Op0Register) || IsRegister(i, 1)) return ShiftAny(i, kind);
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
        if (IsMemory(i, 0))
        {
            Access(i, bytes, write: false);
            _e.Load(bytes, Host.Rcx, new HostAddress(Host.Rax));
        }
        LoseHostFlags();
        var from = IsMemory(i, 0) ? Host.Rcx : Read(i.Op0Register, Host.Rcx);
        LoadGuest(Host.Rax, 0);
        _e.Unary(0xF6, i.Mnemonic == Mnemonic.Mul ? 4 : 5, bytes, from);
        Write(0, bytes == 1 ? 2 : bytes, Host.Rax);
        if (bytes > 1) Write(2, bytes, Host.Rdx);
        if (FlagsDead) NoFlags();
        else SetProductFlags(bytes, 0);
        return true;
    }

    /// <summary>BT and its kin: CF alone changes.</summary>
    private bool BitTest(in Instruction i, int kind)
    {
        var bytes = SizeOf(i, 0);
        if (IsMemory(i, 0)) return BitTestMemory(i, kind);
        LoseHostFlags();
        if (FlagsDead && kind == 0) return true;
        StoreFlags();
        if (!FlagsDead) _e.AluImmediate(AluOr, 4, RegisterMap.At(RegisterMap.FlagKind), CompiledFlags.CarryKept);
        var value = OpenDestination(Number(i.Op0Register));
        if (IsRegister(i, 1)) _e.Registers(bytes, 0x0FA3 | (kind << 3), Read(Number(i.Op1Register), Host.Rdx), value);
        else _e.BitTestImmediate(kind, bytes, value, (int)i.GetImmediate(1) & (8 * bytes - 1));
        if (kind != 0) CloseDestination(Number(i.Op0Register), bytes, value);
        if (!FlagsDead) _flags = new Pending { Known = true, Dirty = true, OnlyCarry = true, CarryInHost = true };
        return true;
    }

    /// <summary>The same on memory, where the number of a bit in a register reaches beyond the operand.</summary>
    private bool BitTestMemory(in Instruction i, int kind)
    {
        var bytes = SizeOf(i, 0);
        EmitAddress(i);
        LoseHostFlags();
        if (IsRegister(i, 1))
        {
            var index = Number(i.Op1Register);
            if (bytes == 8) LoadGuest(Host.Rcx, index);
            else _e.Registers(8, bytes == 4 ? 0x63 : 0x0FBF, Host.Rcx, Read(index, Host.Rcx)); // sign-extended
            _e.Shift(7, 8, Host.Rcx, 3 + System.Numerics.BitOperations.Log2((uint)bytes));
            _e.Lea(Host.Rax, new HostAddress(Host.Rax, 0, Host.Rcx, System.Numerics.BitOperations.Log2((uint)bytes)));
            if (BlockBuilder.AddressSize(i) == 32) return false;
        }
        Probe(bytes, write: kind != 0);
        if (FlagsDead && kind == 0) return true; // a load that may fault, and nothing that anybody sees; ZF stays
        StoreFlagsKeeping(Host.Rax, inUse: true);
        if (!FlagsDead) _e.AluImmediate(AluOr, 4, RegisterMap.At(RegisterMap.FlagKind), CompiledFlags.CarryKept);
        var at = new HostAddress(Host.Rax);
        var bit = IsRegister(i, 1) ? 0 : (int)i.GetImmediate(1) & (8 * bytes - 1);
        if (IsRegister(i, 1))
        {
            _e.Move(8, Host.Rdx, Read(Number(i.Op1Register), Host.Rdx));
            _e.AluImmediate(AluAnd, 4, Host.Rdx, 8 * bytes - 1);
        }
        if (i.HasLockPrefix)
        {
            if (IsRegister(i, 1)) _e.Memory(bytes, 0x0FA3 | (kind << 3), Host.Rdx, at, prefix: LockPrefix);
            else _e.BitTestImmediate(kind, bytes, at, bit, LockPrefix);
        }
        else
        {
            _e.Load(bytes, Host.Rcx, at);
            if (IsRegister(i, 1)) _e.Registers(bytes, 0x0FA3 | (kind << 3), Host.Rdx, Host.Rcx);
            else _e.BitTestImmediate(kind, bytes, Host.Rcx, bit);
            if (kind != 0) _e.Store(bytes, at, Host.Rcx);
        }
        if (!FlagsDead) _flags = new Pending { Known = true, Dirty = true, OnlyCarry = true, CarryInHost = true };
        return true;
    }

    /// <summary>POPCNT: ZF follows from the source, the others are clear.</summary>
    private bool CountBits(in Instruction i)
    {
        if (!System.Runtime.Intrinsics.X86.Popcnt.IsSupported) return false;
        var (bytes, to) = (SizeOf(i, 0), Number(i.Op0Register));
        if (IsMemory(i, 1))
        {
            Access(i, bytes, write: false);
            _e.Load(bytes, Host.Rdx, new HostAddress(Host.Rax));
        }
        LoseHostFlags();
        var from = IsMemory(i, 1) ? Host.Rdx : Read(Number(i.Op1Register), Host.Rdx);
        BeforeWrite(to);
        var into = OpenDestination(to);
        _e.Byte(0xF3);
        _e.Registers(bytes, 0x0FB8, into, from);
        CloseDestination(to, bytes, into);
        SetImage();
        return true;
    }

    /// <summary>CRC32: the destination is 32 bits, whatever is added.</summary>
    private bool Checksum(in Instruction i)
    {
        if (!HasLateVectors) return false;
        var (bytes, to) = (SizeOf(i, 1), Number(i.Op0Register));
        BeforeWrite(to);
        if (IsMemory(i, 1))
        {
            Access(i, bytes, write: false);
            _e.Load(bytes, Host.Rdx, new HostAddress(Host.Rax));
        }
        var from = IsMemory(i, 1) ? Host.Rdx : Read(i.Op1Register, Host.Rdx);
        var into = OpenDestination(to);
        _e.Byte(0xF2);
        _e.Registers(bytes == 1 ? 4 : bytes, bytes == 1 ? 0x0F38F0 : 0x0F38F1, into, from, bytes == 1 ? 2 : 0);
        CloseDestination(to, 4, into);
        return true;
    }

    /// <summary>SHLD and SHRD on a register.</summary>
    private bool DoubleShift(in Instruction i, int opcode)
    {
        var bytes = SizeOf(i, 0);
        if (bytes < 4 || !IsRegister(i, 0)) return false;
        var to = Number(i.Op0Register);
        var byCl = IsRegister(i, 2);
        var count = byCl ? 0 : (int)i.GetImmediate(2) & (8 * bytes - 1);
        if (!byCl && count == 0) return false;
        LoseHostFlags();
        StoreFlags();
        var from = Read(Number(i.Op1Register), Host.Rdx);
        var none = (int*)null;
        if (byCl)
        {
            LoadGuest(Host.Rcx, 1);
            var target = OpenDestination(to);
            if (bytes == 4) _e.Move(4, target, target); // the upper half goes even where nothing is shifted
            CloseDestination(to, bytes, target);
            _e.AluImmediate(AluAnd, 4, Host.Rcx, 8 * bytes - 1);
            none = _e.JumpIf(4);
        }
        var into = OpenDestination(to);
        _e.Store(8, RegisterMap.At(RegisterMap.Transfer), into);
        _e.Registers(bytes, byCl ? opcode | 1 : opcode, from, into);
        if (!byCl) _e.Byte(count);
        if (!FlagsDead)
        {
            _e.SetIf(2, RegisterMap.At(RegisterMap.FlagA));
            _e.Store(8, RegisterMap.At(RegisterMap.FlagR), into);
            // OF: the sign has changed.
            _e.Load(8, Host.Rdx, RegisterMap.At(RegisterMap.Transfer));
            _e.Alu(AluXor, 8, Host.Rdx, into);
            _e.Shift(5, bytes, Host.Rdx, 8 * bytes - 1);
            _e.Store(8, RegisterMap.At(RegisterMap.FlagB), Host.Rdx);
            _e.StoreImmediate(4, RegisterMap.At(RegisterMap.FlagKind), (int)CompiledFlags.Kind(CompiledForm.Bits, bytes));
        }
        CloseDestination(to, bytes, into);
        if (none != null) _e.Bind(none);
        FlagsUnknown();
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
        else if (i.Mnemonic == Mnemonic.Cbw) _e.Registers(2, 0x0FBE, rax, rax, 2);
        else _e.Registers(4, 0x0FBF, rax, rax);
        return true;
    }

    private bool SignToRdx(in Instruction i)
    {
        BeforeWrite(2);
        LoseHostFlags();
        if (i.Mnemonic == Mnemonic.Cwd)
        {
            _e.Registers(4, 0x0FBF, Host.Rcx, RegisterMap.Of(0)); // MOVSX ECX, AX
            _e.Shift(7, 4, Host.Rcx, 16);
            Write(2, 2, Host.Rcx);
            return true;
        }
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
