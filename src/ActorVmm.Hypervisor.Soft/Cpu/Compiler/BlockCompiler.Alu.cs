using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>Moves, arithmetic and logic on registers and memory.</summary>
internal sealed unsafe partial class BlockCompiler
{
    private const int AluAdd = 0, AluOr = 1, AluAdc = 2, AluSbb = 3, AluAnd = 4, AluSub = 5, AluXor = 6, AluCmp = 7;

    private bool FlagsDead => _translator.FlagsDeadAt(_at);

    /// <summary>Emits one instruction; false where it stays with tier 0 (what was emitted is taken back).</summary>
    private bool TryInstruction(in Instruction i)
    {
        if (i.IsInvalid) return false;
        if (IsNothing(i.Mnemonic)) return true;
        if (VectorShapes.Of(i.Mnemonic) is var shape and not VectorShape.None && TryVector(i, shape)) return true;
        if (i.Mnemonic == Mnemonic.Maskmovdqu) return MaskMove(i);
        if (TryString(i)) return true;
        if (i.Mnemonic == Mnemonic.Mov && IsRegister(i, 0) && IsRegister(i, 1) && i.Op1Register.IsSegmentRegister()) return MoveSelector(i);
        for (var n = 0; n < i.OpCount; n++)
        {
            if (i.GetOpKind(n) == OpKind.Memory && !AddressFits(i)) return false;
            if (i.GetOpKind(n) == OpKind.Register && !i.GetOpRegister(n).IsGPR()) return false;
        }
        if (i.HasLockPrefix) return TryAtomic(i);
        switch (i.Mnemonic)
        {
            case Mnemonic.Mov or Mnemonic.Movnti: return Move(i);
            case Mnemonic.Movzx: return Extend(i, signed: false);
            case Mnemonic.Movsx or Mnemonic.Movsxd: return Extend(i, signed: true);
            case Mnemonic.Lea: return Lea(i);
            case Mnemonic.Add: return Binary(i, AluAdd, CompiledForm.Add);
            case Mnemonic.Or: return Binary(i, AluOr, CompiledForm.Logic);
            case Mnemonic.Adc: return WithCarry(i, AluAdc);
            case Mnemonic.Sbb: return WithCarry(i, AluSbb);
            case Mnemonic.And: return Binary(i, AluAnd, CompiledForm.Logic);
            case Mnemonic.Sub: return Binary(i, AluSub, CompiledForm.Subtract);
            case Mnemonic.Xor: return Binary(i, AluXor, CompiledForm.Logic);
            case Mnemonic.Cmp: return Compare(i);
            case Mnemonic.Test: return Test(i);
            case Mnemonic.Inc: return Step(i, 0, CompiledForm.Increment);
            case Mnemonic.Dec: return Step(i, 1, CompiledForm.Decrement);
            case Mnemonic.Neg: return Negate(i);
            case Mnemonic.Not: return Complement(i);
            case Mnemonic.Shl or Mnemonic.Sal: return Shift(i, 4, CompiledForm.ShiftLeft);
            case Mnemonic.Shr: return Shift(i, 5, CompiledForm.ShiftRight);
            case Mnemonic.Sar: return Shift(i, 7, CompiledForm.ShiftArithmetic);
            case Mnemonic.Rol: return Rotate(i, 0);
            case Mnemonic.Ror: return Rotate(i, 1);
            case Mnemonic.Imul when i.OpCount > 1: return Multiply(i);
            case Mnemonic.Mul or Mnemonic.Imul: return MultiplyWide(i);
            case Mnemonic.Div: return Divide(i, signed: false);
            case Mnemonic.Idiv: return Divide(i, signed: true);
            case Mnemonic.Rcl: return RotateThroughCarry(i, 2);
            case Mnemonic.Rcr: return RotateThroughCarry(i, 3);
            case Mnemonic.Shld: return DoubleShift(i, 0x0FA4);
            case Mnemonic.Shrd: return DoubleShift(i, 0x0FAC);
            case Mnemonic.Popcnt: return CountBits(i);
            case Mnemonic.Crc32: return Checksum(i);
            case Mnemonic.Cmpxchg8b or Mnemonic.Cmpxchg16b: return CompareExchangePair(i);
            case Mnemonic.Pushfq: return PushFlags();
            case Mnemonic.Popfq: return PopFlags();
            case Mnemonic.Lahf: return FlagsToAh();
            case Mnemonic.Sahf: return AhToFlags();
            case Mnemonic.Clc: return SetCarry(set: false);
            case Mnemonic.Stc: return SetCarry(set: true);
            case Mnemonic.Cmc: return ComplementCarry();
            case Mnemonic.Cld: return SetDirection(set: false);
            case Mnemonic.Std: return SetDirection(set: true);
            case Mnemonic.Cbw: return ExtendAccumulator(i);
            case Mnemonic.Ldmxcsr or Mnemonic.Stmxcsr: return MoveMxcsr(i);
            case Mnemonic.Mfence: return Fence();
            case Mnemonic.Bt: return BitTest(i, 0);
            case Mnemonic.Bts: return BitTest(i, 1);
            case Mnemonic.Btr: return BitTest(i, 2);
            case Mnemonic.Btc: return BitTest(i, 3);
            case Mnemonic.Bsf: return BitScan(i, 0x0FBC);
            case Mnemonic.Bsr: return BitScan(i, 0x0FBD);
            case Mnemonic.Cmpxchg: return CompareExchange(i);
            case Mnemonic.Xadd: return ExchangeAdd(i);
            case Mnemonic.Cli: return InterruptFlag(set: false);
            case Mnemonic.Sti: return InterruptFlag(set: true);
            case Mnemonic.Bswap: return ByteSwap(i);
            case Mnemonic.Cdqe or Mnemonic.Cwde: return ExtendAccumulator(i);
            case Mnemonic.Cwd or Mnemonic.Cdq or Mnemonic.Cqo: return SignToRdx(i);
            case Mnemonic.Xchg: return IsMemory(i, 0) || IsMemory(i, 1) ? ExchangeMemory(i) : Exchange(i);
        }
        return TryControl(i);
    }

    /// <summary>What tier 0 executes as nothing.</summary>
    private static bool IsNothing(Mnemonic mnemonic) => mnemonic is Mnemonic.Nop or Mnemonic.Endbr64 or Mnemonic.Pause or Mnemonic.Lfence or
        Mnemonic.Sfence or Mnemonic.Prefetch or Mnemonic.Prefetchw or Mnemonic.Prefetchnta or Mnemonic.Prefetcht0 or Mnemonic.Prefetcht1 or
        Mnemonic.Prefetcht2;

    /// <summary>MFENCE.</summary>
    private bool Fence()
    {
        _e.Fence();
        return true;
    }

    private static int SizeOf(in Instruction i, int operand) =>
        i.GetOpKind(operand) == OpKind.Register ? i.GetOpRegister(operand).GetSize() : i.MemorySize.GetSize();

    private static bool IsRegister(in Instruction i, int n) => i.GetOpKind(n) == OpKind.Register;

    private static bool IsMemory(in Instruction i, int n) => i.GetOpKind(n) == OpKind.Memory;

    private static long Immediate(in Instruction i, int n, int bytes)
    {
        var value = (long)i.GetImmediate(n);
        return bytes switch { 1 => (sbyte)value, 2 => (short)value, 4 => (int)value, _ => value };
    }

    private bool Move(in Instruction i)
    {
        var bytes = SizeOf(i, 0);
        if (IsRegister(i, 0))
        {
            if (IsHighByte(i.Op0Register)) return MoveToHighByte(i);
            var to = Number(i.Op0Register);
            BeforeWrite(to);
            if (IsRegister(i, 1))
            {
                var from = Read(i.Op1Register, Host.Rax);
                Write(to, bytes, from);
                return true;
            }
            if (IsMemory(i, 1))
            {
                Access(i, bytes, write: false);
                LoadTo(to, bytes, bytes, signed: false);
                return true;
            }
            var value = Immediate(i, 1, bytes);
            var host = RegisterMap.Of(to);
            if (bytes >= 4)
            {
                if (bytes == 4) value = (uint)value;
                if (host != Host.None) _e.MoveImmediate(host, value);
                else if (value is >= int.MinValue and <= int.MaxValue) _e.StoreImmediate(8, RegisterMap.Slot(to), (int)value);
                else
                {
                    _e.MoveImmediate(Host.Rax, value);
                    _e.Store(8, RegisterMap.Slot(to), Host.Rax);
                }
                return true;
            }
            _e.MoveImmediate(Host.Rax, value & 0xFFFF);
            Write(to, bytes, Host.Rax);
            return true;
        }
        if (IsRegister(i, 1))
        {
            if (IsHighByte(i.Op1Register))
            {
                Access(i, 1, write: true);
                Read(i.Op1Register, Host.Rdx);
                _e.Store(1, new HostAddress(Host.Rax), Host.Rdx);
                return true;
            }
            Access(i, bytes, write: true);
            _e.Store(bytes, new HostAddress(Host.Rax), Read(Number(i.Op1Register), Host.Rdx));
            return true;
        }
        Access(i, bytes, write: true);
        _e.StoreImmediate(bytes, new HostAddress(Host.Rax), (int)Immediate(i, 1, bytes));
        return true;
    }

    /// <summary>MOV from a segment register: the selector, zero-extended.</summary>
    private bool MoveSelector(in Instruction i)
    {
        var to = Number(i.Op0Register);
        BeforeWrite(to);
        var segment = RegisterMap.Selectors + sizeof(Segment) * (i.Op1Register - Register.ES);
        _e.Memory(4, 0x0FB7, Host.Rdx, RegisterMap.At(segment));
        Write(to, i.Op0Register.GetSize() == 2 ? 2 : 4, Host.Rdx);
        return true;
    }

    /// <summary>Loads from the host address in RAX into a guest register, extending.</summary>
    private void LoadTo(int guest, int target, int source, bool signed)
    {
        var host = RegisterMap.Of(guest);
        var into = host != Host.None && target >= 4 ? host : Host.Rdx;
        var at = new HostAddress(Host.Rax);
        if (source == target) _e.Load(source, into, at);
        else if (source == 4) _e.Memory(8, 0x63, into, at);
        else if (signed) _e.Memory(target, source == 1 ? 0x0FBE : 0x0FBF, into, at);
        else _e.Memory(4, source == 1 ? 0x0FB6 : 0x0FB7, into, at);
        if (into == host) return;
        if (host != Host.None) _e.Move(target, host, into);
        else _e.Store(target == 4 ? 8 : target, RegisterMap.Slot(guest), into);
    }

    private bool Extend(in Instruction i, bool signed)
    {
        var (target, source) = (SizeOf(i, 0), SizeOf(i, 1));
        var to = Number(i.Op0Register);
        BeforeWrite(to);
        if (IsMemory(i, 1))
        {
            Access(i, source, write: false);
            LoadTo(to, target, source, signed);
            return true;
        }
        var from = Read(i.Op1Register, Host.Rax);
        var host = RegisterMap.Of(to);
        var into = host != Host.None && target >= 4 ? host : Host.Rax;
        if (source == target) _e.Move(source, into, from);
        else if (source == 4) _e.Registers(8, 0x63, into, from);
        else if (signed) _e.Registers(target, source == 1 ? 0x0FBE : 0x0FBF, into, from, source == 1 ? 2 : 0);
        else _e.Registers(4, source == 1 ? 0x0FB6 : 0x0FB7, into, from, source == 1 ? 2 : 0);
        if (into == host) return true;
        if (host != Host.None) _e.Move(target, host, into);
        else _e.Store(target == 4 ? 8 : target, RegisterMap.Slot(to), into);
        return true;
    }

    private bool Lea(in Instruction i)
    {
        var bytes = SizeOf(i, 0);
        if (!AddressFits(i)) return false;
        var to = Number(i.Op0Register);
        BeforeWrite(to);
        EmitAddress(i, withSegment: false);
        Write(to, bytes, Host.Rax);
        return true;
    }

    // --- two operands ---

    /// <summary>The second operand, in a register or as an immediate.</summary>
    private readonly record struct Source(Host Register, int Value, Operand Remembered);

    private Source ReadSource(in Instruction i, int n, int bytes, Host temporary)
    {
        if (!IsRegister(i, n)) return new Source(Host.None, (int)Immediate(i, n, bytes), Operand.Immediate((int)Immediate(i, n, bytes)));
        var register = i.GetOpRegister(n);
        var host = Read(register, temporary);
        return new Source(host, 0, IsHighByte(register) ? Operand.Stored : Operand.Guest(Number(register)));
    }

    private void Alu(int kind, int bytes, Host to, Source source)
    {
        if (source.Register == Host.None) _e.AluImmediate(kind, bytes, to, source.Value);
        else _e.Alu(kind, bytes, to, source.Register);
    }

    /// <summary>Remembers an operand: as it is, or, where it cannot be found again, by storing it now.</summary>
    private Operand Keep(Operand operand, Host value, int offset)
    {
        if (operand.Place != Place.Stored) return operand;
        _e.Store(8, RegisterMap.At(offset), value);
        return Operand.Stored;
    }

    private bool Binary(in Instruction i, int kind, CompiledForm form)
    {
        var bytes = SizeOf(i, 0);
        var dead = FlagsDead;
        var logic = form == CompiledForm.Logic;
        if (IsRegister(i, 0))
        {
            if (IsHighByte(i.Op0Register)) return BinaryHighByte(i, kind, form);
            var to = Number(i.Op0Register);
            if (IsMemory(i, 1))
            {
                Access(i, bytes, write: false);
                // The value stays in RDX for the flags.
                _e.Load(bytes, Host.Rdx, new HostAddress(Host.Rax));
                if (!dead && !logic) _e.Store(8, RegisterMap.At(RegisterMap.FlagB), Host.Rdx);
                var into = OpenDestination(to);
                _e.Alu(kind, bytes, into, Host.Rdx);
                CloseDestination(to, bytes, into);
                if (dead) NoFlags();
                else SetFlags(form, bytes, default, default, Operand.Guest(to));
                return true;
            }
            if (IsRegister(i, 1) && i.Op0Register == i.Op1Register && kind is AluXor or AluSub)
            {
                // A result that is always zero: its flags are those of a logical operation or of 0 - 0.
                var zero = OpenDestination(to);
                _e.Alu(kind, bytes, zero, zero);
                CloseDestination(to, bytes, zero);
                if (dead) NoFlags();
                else SetFlags(form, bytes, default, logic ? default : Operand.Immediate(0), Operand.Immediate(0));
                return true;
            }
            var source = ReadSource(i, 1, bytes, Host.Rdx);
            var remembered = source.Remembered;
            if (!dead && !logic && (remembered.Place == Place.Stored || (remembered.Place == Place.Guest && remembered.Value == to)))
            {
                // ADD of a register to itself: the operand is about to change.
                _e.Store(8, RegisterMap.At(RegisterMap.FlagB), source.Register);
                remembered = Operand.Stored;
            }
            var destination = OpenDestination(to);
            Alu(kind, bytes, destination, source);
            CloseDestination(to, bytes, destination);
            if (dead) NoFlags();
            else SetFlags(form, bytes, default, logic ? default : remembered, Operand.Guest(to));
            return true;
        }
        Access(i, bytes, write: true);
        if (dead)
        {
            var plain = ReadSource(i, 1, bytes, Host.Rdx);
            if (plain.Register == Host.None) _e.AluImmediate(kind, bytes, new HostAddress(Host.Rax), plain.Value);
            else _e.Alu(kind, bytes, new HostAddress(Host.Rax), plain.Register);
            NoFlags();
            return true;
        }
        var operand = ReadSource(i, 1, bytes, Host.Rdx);
        var second = logic ? default : Keep(operand.Remembered, operand.Register, RegisterMap.FlagB);
        _e.Load(bytes, Host.Rcx, new HostAddress(Host.Rax));
        Alu(kind, bytes, Host.Rcx, operand);
        _e.Store(bytes, new HostAddress(Host.Rax), Host.Rcx);
        _e.Store(8, RegisterMap.At(RegisterMap.FlagR), Host.Rcx);
        SetFlags(form, bytes, default, second, default);
        return true;
    }

    private bool Compare(in Instruction i)
    {
        var bytes = SizeOf(i, 0);
        if (IsMemory(i, 0))
        {
            Access(i, bytes, write: false);
            _e.Load(bytes, Host.Rcx, new HostAddress(Host.Rax));
            _e.Store(8, RegisterMap.At(RegisterMap.FlagA), Host.Rcx);
            var source = ReadSource(i, 1, bytes, Host.Rdx);
            var second = Keep(source.Remembered, source.Register, RegisterMap.FlagB);
            Alu(AluCmp, bytes, Host.Rcx, source);
            SetFlags(CompiledForm.Compare, bytes, default, second, default);
            return true;
        }
        var left = i.Op0Register;
        if (IsMemory(i, 1))
        {
            Access(i, bytes, write: false);
            _e.Load(bytes, Host.Rcx, new HostAddress(Host.Rax));
            _e.Store(8, RegisterMap.At(RegisterMap.FlagB), Host.Rcx);
            var first = Read(left, Host.Rdx);
            var kept = Keep(IsHighByte(left) ? default : Operand.Guest(Number(left)), first, RegisterMap.FlagA);
            _e.Alu(AluCmp, bytes, first, Host.Rcx);
            SetFlags(CompiledForm.Compare, bytes, kept, default, default);
            return true;
        }
        var a = Read(left, Host.Rax);
        var b = ReadSource(i, 1, bytes, Host.Rdx);
        var keptA = Keep(IsHighByte(left) ? default : Operand.Guest(Number(left)), a, RegisterMap.FlagA);
        var keptB = b.Register == Host.None ? b.Remembered : Keep(b.Remembered, b.Register, RegisterMap.FlagB);
        Alu(AluCmp, bytes, a, b);
        SetFlags(CompiledForm.Compare, bytes, keptA, keptB, default);
        return true;
    }

    private bool Test(in Instruction i)
    {
        var bytes = SizeOf(i, 0);
        if (IsMemory(i, 0))
        {
            Access(i, bytes, write: false);
            _e.Load(bytes, Host.Rcx, new HostAddress(Host.Rax));
            Alu(AluAnd, bytes, Host.Rcx, ReadSource(i, 1, bytes, Host.Rdx));
            _e.Store(8, RegisterMap.At(RegisterMap.FlagR), Host.Rcx);
            SetFlags(CompiledForm.Logic, bytes, default, default, default);
            return true;
        }
        var left = i.Op0Register;
        if (IsRegister(i, 1) && i.Op1Register == left && !IsHighByte(left))
        {
            var same = Read(Number(left), Host.Rax);
            _e.Test(bytes, same, same);
            SetFlags(CompiledForm.Logic, bytes, default, default, Operand.Guest(Number(left)));
            return true;
        }
        var source = ReadSource(i, 1, bytes, Host.Rdx);
        _e.Move(8, Host.Rax, Read(left, Host.Rax));
        Alu(AluAnd, bytes, Host.Rax, source);
        _e.Store(8, RegisterMap.At(RegisterMap.FlagR), Host.Rax);
        SetFlags(CompiledForm.Logic, bytes, default, default, default);
        return true;
    }

    /// <summary>ADC and SBB: their flags are kept as the host's image, with the result beside it.</summary>
    private bool WithCarry(in Instruction i, int kind)
    {
        var bytes = SizeOf(i, 0);
        if (IsRegister(i, 1) && IsHighByte(i.Op1Register)) return false;
        if (IsMemory(i, 0)) return MemoryWithCarry(i, kind);
        if (IsHighByte(i.Op0Register)) return false;
        var to = Number(i.Op0Register);
        if (IsMemory(i, 1))
        {
            Access(i, bytes, write: false);
            _e.Load(bytes, Host.Rdx, new HostAddress(Host.Rax));
            _e.Store(8, RegisterMap.At(RegisterMap.Transfer), Host.Rdx);
        }
        if (!PrepareCondition(2)) return false;
        if (IsMemory(i, 1)) _e.Load(8, Host.Rdx, RegisterMap.At(RegisterMap.Transfer));
        var source = IsMemory(i, 1) ? new Source(Host.Rdx, 0, default) : ReadSource(i, 1, bytes, Host.Rdx);
        var into = OpenDestination(to);
        Alu(kind, bytes, into, source);
        CloseDestination(to, bytes, into);
        if (FlagsDead)
        {
            NoFlags();
            return true;
        }
        StoreImage();
        SetFlags(CompiledForm.Image, bytes, default, default, Operand.Guest(to));
        return true;
    }

    /// <summary>The same on memory.</summary>
    private bool MemoryWithCarry(in Instruction i, int kind)
    {
        var bytes = SizeOf(i, 0);
        Access(i, bytes, write: true);
        _e.Store(8, RegisterMap.At(RegisterMap.Transfer), Host.Rax);
        if (!PrepareCondition(2)) return false;
        _e.Load(8, Host.Rax, RegisterMap.At(RegisterMap.Transfer));
        var source = ReadSource(i, 1, bytes, Host.Rdx);
        _e.Load(bytes, Host.Rcx, new HostAddress(Host.Rax));
        Alu(kind, bytes, Host.Rcx, source);
        _e.Store(bytes, new HostAddress(Host.Rax), Host.Rcx);
        if (FlagsDead)
        {
            NoFlags();
            return true;
        }
        StoreImage();
        _e.Store(8, RegisterMap.At(RegisterMap.FlagR), Host.Rcx);
        SetFlags(CompiledForm.Image, bytes, default, default, default);
        return true;
    }

    /// <summary>Stores the host's flags into A; they stay.</summary>
    private void StoreImage()
    {
        _e.Byte(0x9C); // PUSHFQ; nothing below the stack pointer is in use
        _e.Memory(4, 0x8F, 0, RegisterMap.At(RegisterMap.FlagA)); // POP
    }

    // --- one operand ---

    private bool Step(in Instruction i, int kind, CompiledForm form)
    {
        var bytes = SizeOf(i, 0);
        var dead = FlagsDead;
        if (IsMemory(i, 0)) Access(i, bytes, write: true);
        else if (IsHighByte(i.Op0Register)) return false;
        if (!dead) PutFlagsAside(memory: IsMemory(i, 0));
        else LoseHostFlags();
        if (IsMemory(i, 0))
        {
            if (dead)
            {
                // CF stays what it is.
                _e.Unary(0xFE, kind, bytes, new HostAddress(Host.Rax));
                return true;
            }
            _e.Load(bytes, Host.Rdx, new HostAddress(Host.Rax));
            _e.Unary(0xFE, kind, bytes, Host.Rdx);
            _e.Store(bytes, new HostAddress(Host.Rax), Host.Rdx);
            _e.Store(8, RegisterMap.At(RegisterMap.FlagR), Host.Rdx);
            SetFlags(form, bytes, default, default, default);
            _hostCarry = false;
            return true;
        }
        var to = Number(i.Op0Register);
        BeforeWrite(to);
        var into = OpenDestination(to);
        _e.Unary(0xFE, kind, bytes, into);
        CloseDestination(to, bytes, into);
        if (dead) return true;
        SetFlags(form, bytes, default, default, Operand.Guest(to));
        _hostCarry = false;
        return true;
    }

    /// <summary>
    /// INC and DEC keep CF: the flags so far are put aside whole, to be asked for it when somebody wants to know. Where they are those of an
    /// INC or DEC already, what was put aside then still serves.
    /// </summary>
    private void PutFlagsAside(bool memory)
    {
        // RAX holds the host address of a memory operand.
        if (memory) _e.Store(8, RegisterMap.At(RegisterMap.Transfer), Host.Rax);
        LoseHostFlags();
        StoreFlags();
        var steps = CompiledFlags.First + 4 * (int)CompiledForm.Increment;
        if (!_flags.Known || _flags.OnlyCarry || _flags.Form is not (CompiledForm.Increment or CompiledForm.Decrement))
        {
            _e.Load(4, Host.Rax, RegisterMap.At(RegisterMap.FlagKind));
            _e.Lea(Host.Rcx, new HostAddress(Host.Rax, -steps));
            _e.AluImmediate(AluCmp, 4, Host.Rcx, 8);
            var same = _e.JumpIf(2);
            _e.Store(4, RegisterMap.At(RegisterMap.OldFlagKind), Host.Rax);
            Copy(RegisterMap.FlagA, RegisterMap.OldFlagA);
            Copy(RegisterMap.FlagB, RegisterMap.OldFlagB);
            Copy(RegisterMap.FlagR, RegisterMap.OldFlagR);
            Copy(RegisterMap.FlagRotated, RegisterMap.OldFlagRotated);
            _e.Memory(4, 0x0FB6, Host.Rcx, RegisterMap.At(RegisterMap.FlagCarry));
            _e.Store(1, RegisterMap.At(RegisterMap.OldFlagCarry), Host.Rcx);
            _e.Bind(same);
        }
        if (memory) _e.Load(8, Host.Rax, RegisterMap.At(RegisterMap.Transfer));
    }

    private void Copy(int from, int to)
    {
        _e.Load(8, Host.Rcx, RegisterMap.At(from));
        _e.Store(8, RegisterMap.At(to), Host.Rcx);
    }

    private bool Negate(in Instruction i)
    {
        var bytes = SizeOf(i, 0);
        if (IsMemory(i, 0))
        {
            Access(i, bytes, write: true);
            _e.Load(bytes, Host.Rcx, new HostAddress(Host.Rax));
            _e.Unary(0xF6, 3, bytes, Host.Rcx);
            _e.Store(bytes, new HostAddress(Host.Rax), Host.Rcx);
            _e.Store(8, RegisterMap.At(RegisterMap.FlagR), Host.Rcx);
            SetFlags(CompiledForm.Negate, bytes, default, default, default);
            return true;
        }
        if (IsHighByte(i.Op0Register)) return false;
        var to = Number(i.Op0Register);
        var into = OpenDestination(to);
        _e.Unary(0xF6, 3, bytes, into);
        CloseDestination(to, bytes, into);
        if (FlagsDead) NoFlags();
        else SetFlags(CompiledForm.Negate, bytes, default, default, Operand.Guest(to));
        return true;
    }

    private bool Complement(in Instruction i)
    {
        var bytes = SizeOf(i, 0);
        if (IsMemory(i, 0))
        {
            Access(i, bytes, write: true);
            _e.Unary(0xF6, 2, bytes, new HostAddress(Host.Rax));
            return true;
        }
        if (IsHighByte(i.Op0Register)) return false;
        var to = Number(i.Op0Register);
        BeforeWrite(to);
        var into = OpenDestination(to);
        _e.Unary(0xF6, 2, bytes, into);
        CloseDestination(to, bytes, into);
        return true;
    }
}
