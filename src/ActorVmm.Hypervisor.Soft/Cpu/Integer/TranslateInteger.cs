using Iced.Intel;
using Fn = System.IntPtr;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>The integer group: which handler serves an instruction's form, width and address.</summary>
internal sealed unsafe partial class Translator
{
    private bool TranslateInteger(in Instruction i)
    {
        switch (i.Mnemonic)
        {
            case Mnemonic.Mov: return TranslateMove(i);
            case Mnemonic.Movzx: return Extension(i, signed: false);
            case Mnemonic.Movsx or Mnemonic.Movsxd: return Extension(i, signed: true);
            case Mnemonic.Lea: return TranslateLea(i);
            case Mnemonic.Add: return Binary<Add>(i);
            case Mnemonic.Adc: return Binary<Adc>(i);
            case Mnemonic.Sub: return Binary<Sub>(i);
            case Mnemonic.Sbb: return Binary<Sbb>(i);
            case Mnemonic.Cmp: return Binary<Cmp>(i);
            case Mnemonic.And: return Binary<And>(i);
            case Mnemonic.Test: return Binary<Test>(i);
            case Mnemonic.Or: return Binary<Or>(i);
            case Mnemonic.Xor: return Binary<Xor>(i);
            case Mnemonic.Inc: return Unary<Inc>(i);
            case Mnemonic.Dec: return Unary<Dec>(i);
            case Mnemonic.Neg: return Unary<Neg>(i);
            case Mnemonic.Not: return Unary<Not>(i);
            case Mnemonic.Shl or Mnemonic.Sal: return Shift<Shl>(i);
            case Mnemonic.Shr: return Shift<Shr>(i);
            case Mnemonic.Sar: return Shift<Sar>(i);
            case Mnemonic.Rol: return Shift<Rol>(i);
            case Mnemonic.Ror: return Shift<Ror>(i);
            case Mnemonic.Rcl: return Shift<Rcl>(i);
            case Mnemonic.Rcr: return Shift<Rcr>(i);
            case Mnemonic.Shld: return DoubleShift(i, right: false);
            case Mnemonic.Shrd: return DoubleShift(i, right: true);
            case Mnemonic.Mul or Mnemonic.Imul or Mnemonic.Div or Mnemonic.Idiv: return MulDiv(i);
            case Mnemonic.Bt: return BitTest(i, BitAction.Test);
            case Mnemonic.Bts: return BitTest(i, BitAction.Set);
            case Mnemonic.Btr: return BitTest(i, BitAction.Reset);
            case Mnemonic.Btc: return BitTest(i, BitAction.Complement);
            case Mnemonic.Bsf: return BitScan(i, 0);
            case Mnemonic.Bsr: return BitScan(i, 1);
            case Mnemonic.Xchg: return Exchange(i);
            case Mnemonic.Xadd: return ExchangeAdd(i);
            case Mnemonic.Cmpxchg: return CompareExchange(i);
            case Mnemonic.Cmpxchg8b: EmitMemory(i, &BitOps.CompareExchange8B); return true;
            case Mnemonic.Cmpxchg16b: EmitMemory(i, &BitOps.CompareExchange16B); return true;
            case Mnemonic.Bswap: Reg(i, Pick(Size(i), null, &MoveOps.ByteSwap<ushort>, &MoveOps.ByteSwap<uint>, &MoveOps.ByteSwap<ulong>)); return true;
            case Mnemonic.Cbw: _b.Emit(&MoveOps.ExtendAccumulator<ushort, byte>); return true;
            case Mnemonic.Cwde: _b.Emit(&MoveOps.ExtendAccumulator<uint, ushort>); return true;
            case Mnemonic.Cdqe: _b.Emit(&MoveOps.ExtendAccumulator<ulong, uint>); return true;
            case Mnemonic.Cwd: _b.Emit(&MoveOps.SignToRdx<ushort>); return true;
            case Mnemonic.Cdq: _b.Emit(&MoveOps.SignToRdx<uint>); return true;
            case Mnemonic.Cqo: _b.Emit(&MoveOps.SignToRdx<ulong>); return true;
            case Mnemonic.Clc: _b.Emit(&FlagOps.Carry); return true;
            case Mnemonic.Stc: _b.Emit(&FlagOps.Carry).Imm = 1; return true;
            case Mnemonic.Cmc: _b.Emit(&FlagOps.Carry).Imm = 2; return true;
            case Mnemonic.Cld: _b.Emit(&FlagOps.Direction); return true;
            case Mnemonic.Std: _b.Emit(&FlagOps.Direction).Imm = 1; return true;
            case Mnemonic.Cli: _b.Emit(&FlagOps.Cli); return true;
            case Mnemonic.Sti: _b.Emit(&FlagOps.Sti); return true;
            case Mnemonic.Lahf: _b.Emit(&FlagOps.Lahf); return true;
            case Mnemonic.Sahf: _b.Emit(&FlagOps.Sahf); return true;
            case Mnemonic.Xlatb: return Xlat(i);
            case Mnemonic.In: return PortIn(i);
            case Mnemonic.Out: return PortOut(i);
        }
        return TranslateStack(i) || TranslateControl(i) || TranslateString(i) || TranslateConditional(i);
    }

    // --- choosing handlers ---

    private static delegate*<CpuState*, Op*, void> Pick(
        int bytes,
        delegate*<CpuState*, Op*, void> one,
        delegate*<CpuState*, Op*, void> two,
        delegate*<CpuState*, Op*, void> four,
        delegate*<CpuState*, Op*, void> eight) => bytes switch { 1 => one, 2 => two, 4 => four, _ => eight };

    /// <summary>Bytes of operand <paramref name="n"/> (a register or memory).</summary>
    private static int Size(in Instruction i, int n = 0) =>
        i.GetOpKind(n) == OpKind.Register ? i.GetOpRegister(n).GetSize() : i.MemorySize.GetSize();

    private static bool IsReg(in Instruction i, int n) => i.GetOpKind(n) == OpKind.Register;

    private static bool IsMem(in Instruction i, int n) => i.GetOpKind(n) == OpKind.Memory;

    private static bool IsImmediate(in Instruction i, int n) => i.GetOpKind(n) is >= OpKind.Immediate8 and <= OpKind.Immediate32to64;

    /// <summary>An immediate sign-extended from the operand width.</summary>
    private static long Immediate(in Instruction i, int n, int bytes)
    {
        var value = (long)i.GetImmediate(n);
        return bytes switch { 1 => (sbyte)value, 2 => (short)value, 4 => (int)value, _ => value };
    }

    /// <summary>Emits a one-register op.</summary>
    private ref Op Reg(in Instruction i, delegate*<CpuState*, Op*, void> fn)
    {
        ref var op = ref _b.Emit(fn);
        op.Dst = BlockBuilder.Offset(i.Op0Register);
        op.Src = CpuState.ZeroRegister;
        return ref op;
    }

    // --- moves ---

    private bool TranslateMove(in Instruction i)
    {
        if (IsReg(i, 0) && !i.Op0Register.IsGPR()) return false; // control, debug and segment registers
        if (IsReg(i, 1) && !i.Op1Register.IsGPR()) return false;
        var size = Size(i);
        if (IsReg(i, 0))
        {
            if (IsReg(i, 1))
            {
                Reg(i, Pick(size, &MoveOps.RegReg<byte>, &MoveOps.RegReg<ushort>, &MoveOps.RegReg<uint>, &MoveOps.RegReg<ulong>)).Src = BlockBuilder.Offset(i.Op1Register);
                return true;
            }
            if (IsImmediate(i, 1))
            {
                Reg(i, Pick(size, &MoveOps.RegImm<byte>, &MoveOps.RegImm<ushort>, &MoveOps.RegImm<uint>, &MoveOps.RegImm<ulong>)).Imm = Immediate(i, 1, size);
                return true;
            }
            Memory(i, size,
                Pick(size, &MoveOps.Load<byte, AtBase>, &MoveOps.Load<ushort, AtBase>, &MoveOps.Load<uint, AtBase>, &MoveOps.Load<ulong, AtBase>),
                Pick(size, &MoveOps.Load<byte, AtAny>, &MoveOps.Load<ushort, AtAny>, &MoveOps.Load<uint, AtAny>, &MoveOps.Load<ulong, AtAny>))
                .Dst = BlockBuilder.Offset(i.Op0Register);
            return true;
        }
        if (IsReg(i, 1))
        {
            Memory(i, size,
                Pick(size, &MoveOps.Store<byte, AtBase>, &MoveOps.Store<ushort, AtBase>, &MoveOps.Store<uint, AtBase>, &MoveOps.Store<ulong, AtBase>),
                Pick(size, &MoveOps.Store<byte, AtAny>, &MoveOps.Store<ushort, AtAny>, &MoveOps.Store<uint, AtAny>, &MoveOps.Store<ulong, AtAny>))
                .Src = BlockBuilder.Offset(i.Op1Register);
            return true;
        }
        Memory(i, size,
            Pick(size, &MoveOps.StoreImm<byte, AtBase>, &MoveOps.StoreImm<ushort, AtBase>, &MoveOps.StoreImm<uint, AtBase>, &MoveOps.StoreImm<ulong, AtBase>),
            Pick(size, &MoveOps.StoreImm<byte, AtAny>, &MoveOps.StoreImm<ushort, AtAny>, &MoveOps.StoreImm<uint, AtAny>, &MoveOps.StoreImm<ulong, AtAny>))
            .Imm = Immediate(i, 1, size);
        return true;
    }

    /// <summary>Emits a memory op in the short or the universal address form.</summary>
    private ref Op Memory(in Instruction i, int size, delegate*<CpuState*, Op*, void> atBase, delegate*<CpuState*, Op*, void> atAny)
    {
        var viaTemporary = _b.EmitAddress(i);
        ref var op = ref _b.Emit(atAny);
        op.Src = CpuState.ZeroRegister;
        if (_b.Address(ref op, i, viaTemporary)) op.Fn = atBase;
        return ref op;
    }

    private bool Extension(in Instruction i, bool signed)
    {
        var target = Size(i);
        var source = Size(i, 1);
        if (target == source) // MOVSXD without REX.W
        {
            if (IsReg(i, 1)) Reg(i, Pick(target, null, &MoveOps.RegReg<ushort>, &MoveOps.RegReg<uint>, &MoveOps.RegReg<ulong>)).Src = BlockBuilder.Offset(i.Op1Register);
            else EmitMemory(i, Pick(target, null, &MoveOps.Load<ushort, AtAny>, &MoveOps.Load<uint, AtAny>, &MoveOps.Load<ulong, AtAny>)).Dst = BlockBuilder.Offset(i.Op0Register);
            return true;
        }
        if (IsReg(i, 1))
        {
            var fn = (signed, target, source) switch
            {
                (false, 2, 1) => (Fn)(delegate*<CpuState*, Op*, void>)&MoveOps.ZeroExtendReg<ushort, byte>,
                (false, 4, 1) => (Fn)(delegate*<CpuState*, Op*, void>)&MoveOps.ZeroExtendReg<uint, byte>,
                (false, 8, 1) => (Fn)(delegate*<CpuState*, Op*, void>)&MoveOps.ZeroExtendReg<ulong, byte>,
                (false, 4, 2) => (Fn)(delegate*<CpuState*, Op*, void>)&MoveOps.ZeroExtendReg<uint, ushort>,
                (false, 8, 2) => (Fn)(delegate*<CpuState*, Op*, void>)&MoveOps.ZeroExtendReg<ulong, ushort>,
                (true, 2, 1) => (Fn)(delegate*<CpuState*, Op*, void>)&MoveOps.SignExtendReg<ushort, byte>,
                (true, 4, 1) => (Fn)(delegate*<CpuState*, Op*, void>)&MoveOps.SignExtendReg<uint, byte>,
                (true, 8, 1) => (Fn)(delegate*<CpuState*, Op*, void>)&MoveOps.SignExtendReg<ulong, byte>,
                (true, 4, 2) => (Fn)(delegate*<CpuState*, Op*, void>)&MoveOps.SignExtendReg<uint, ushort>,
                (true, 8, 2) => (Fn)(delegate*<CpuState*, Op*, void>)&MoveOps.SignExtendReg<ulong, ushort>,
                (true, 8, 4) => (Fn)(delegate*<CpuState*, Op*, void>)&MoveOps.SignExtendReg<ulong, uint>,
                _ => 0,
            };
            if (fn == 0) return false;
            Reg(i, (delegate*<CpuState*, Op*, void>)fn).Src = BlockBuilder.Offset(i.Op1Register);
            return true;
        }
        var (atBase, atAny) = (signed, target, source) switch
        {
            (false, 2, 1) => Pair(&MoveOps.ZeroExtendMem<ushort, byte, AtBase>, &MoveOps.ZeroExtendMem<ushort, byte, AtAny>),
            (false, 4, 1) => Pair(&MoveOps.ZeroExtendMem<uint, byte, AtBase>, &MoveOps.ZeroExtendMem<uint, byte, AtAny>),
            (false, 8, 1) => Pair(&MoveOps.ZeroExtendMem<ulong, byte, AtBase>, &MoveOps.ZeroExtendMem<ulong, byte, AtAny>),
            (false, 4, 2) => Pair(&MoveOps.ZeroExtendMem<uint, ushort, AtBase>, &MoveOps.ZeroExtendMem<uint, ushort, AtAny>),
            (false, 8, 2) => Pair(&MoveOps.ZeroExtendMem<ulong, ushort, AtBase>, &MoveOps.ZeroExtendMem<ulong, ushort, AtAny>),
            (true, 2, 1) => Pair(&MoveOps.SignExtendMem<ushort, byte, AtBase>, &MoveOps.SignExtendMem<ushort, byte, AtAny>),
            (true, 4, 1) => Pair(&MoveOps.SignExtendMem<uint, byte, AtBase>, &MoveOps.SignExtendMem<uint, byte, AtAny>),
            (true, 8, 1) => Pair(&MoveOps.SignExtendMem<ulong, byte, AtBase>, &MoveOps.SignExtendMem<ulong, byte, AtAny>),
            (true, 4, 2) => Pair(&MoveOps.SignExtendMem<uint, ushort, AtBase>, &MoveOps.SignExtendMem<uint, ushort, AtAny>),
            (true, 8, 2) => Pair(&MoveOps.SignExtendMem<ulong, ushort, AtBase>, &MoveOps.SignExtendMem<ulong, ushort, AtAny>),
            (true, 8, 4) => Pair(&MoveOps.SignExtendMem<ulong, uint, AtBase>, &MoveOps.SignExtendMem<ulong, uint, AtAny>),
            _ => default,
        };
        if (atAny == 0) return false;
        Memory(i, source, (delegate*<CpuState*, Op*, void>)atBase, (delegate*<CpuState*, Op*, void>)atAny).Dst = BlockBuilder.Offset(i.Op0Register);
        return true;
    }

    private static (Fn AtBase, Fn AtAny) Pair(delegate*<CpuState*, Op*, void> atBase, delegate*<CpuState*, Op*, void> atAny) => ((Fn)atBase, (Fn)atAny);

    private bool TranslateLea(in Instruction i)
    {
        var size = Size(i);
        var address = BlockBuilder.AddressSize(i);
        var displacement = i.IsIPRelativeMemoryOperand ? _b.Offset(i.IPRelativeMemoryAddress) : (long)i.MemoryDisplacement64;
        if (address == 64 && displacement is >= int.MinValue and <= int.MaxValue)
        {
            ref var op = ref Reg(i, Pick(size, null, &MoveOps.Lea<ushort, AtAny>, &MoveOps.Lea<uint, AtAny>, &MoveOps.Lea<ulong, AtAny>));
            if (_b.Address(ref op, i, viaTemporary: false))
                op.Fn = Pick(size, null, &MoveOps.Lea<ushort, AtBase>, &MoveOps.Lea<uint, AtBase>, &MoveOps.Lea<ulong, AtBase>);
            op.Seg = CpuState.ZeroRegister;
            return true;
        }
        ref var narrow = ref Reg(i, Pick(size, null, &MoveOps.LeaNarrow<ushort>, &MoveOps.LeaNarrow<uint>, &MoveOps.LeaNarrow<ulong>));
        if (i.IsIPRelativeMemoryOperand) narrow.Base = CpuState.RipOffset;
        else if (i.MemoryBase != Register.None) narrow.Base = BlockBuilder.Offset(i.MemoryBase);
        if (i.MemoryIndex != Register.None)
        {
            narrow.Index = BlockBuilder.Offset(i.MemoryIndex);
            narrow.Scale = (byte)System.Numerics.BitOperations.Log2((uint)i.MemoryIndexScale);
        }
        narrow.Imm = displacement;
        narrow.Aux = (ushort)address;
        return true;
    }

    // --- arithmetic ---

    private bool Binary<TOp>(in Instruction i) where TOp : struct, IBinary
    {
        var size = Size(i);
        if (IsReg(i, 0))
        {
            if (IsReg(i, 1))
            {
                var fn = _b.FlagsDead
                    ? Pick(size, &AluOps.RegReg<TOp, byte, DropFlags>, &AluOps.RegReg<TOp, ushort, DropFlags>, &AluOps.RegReg<TOp, uint, DropFlags>, &AluOps.RegReg<TOp, ulong, DropFlags>)
                    : Pick(size, &AluOps.RegReg<TOp, byte, KeepFlags>, &AluOps.RegReg<TOp, ushort, KeepFlags>, &AluOps.RegReg<TOp, uint, KeepFlags>, &AluOps.RegReg<TOp, ulong, KeepFlags>);
                Reg(i, fn).Src = BlockBuilder.Offset(i.Op1Register);
                return true;
            }
            if (IsImmediate(i, 1))
            {
                var fn = _b.FlagsDead
                    ? Pick(size, &AluOps.RegImm<TOp, byte, DropFlags>, &AluOps.RegImm<TOp, ushort, DropFlags>, &AluOps.RegImm<TOp, uint, DropFlags>, &AluOps.RegImm<TOp, ulong, DropFlags>)
                    : Pick(size, &AluOps.RegImm<TOp, byte, KeepFlags>, &AluOps.RegImm<TOp, ushort, KeepFlags>, &AluOps.RegImm<TOp, uint, KeepFlags>, &AluOps.RegImm<TOp, ulong, KeepFlags>);
                Reg(i, fn).Imm = Immediate(i, 1, size);
                return true;
            }
            Memory(i, size,
                Pick(size, &AluOps.RegMem<TOp, byte, AtBase>, &AluOps.RegMem<TOp, ushort, AtBase>, &AluOps.RegMem<TOp, uint, AtBase>, &AluOps.RegMem<TOp, ulong, AtBase>),
                Pick(size, &AluOps.RegMem<TOp, byte, AtAny>, &AluOps.RegMem<TOp, ushort, AtAny>, &AluOps.RegMem<TOp, uint, AtAny>, &AluOps.RegMem<TOp, ulong, AtAny>))
                .Dst = BlockBuilder.Offset(i.Op0Register);
            return true;
        }
        ref var op = ref i.HasLockPrefix
            ? ref EmitMemory(i, Pick(size, &AluOps.MemLocked<TOp, byte>, &AluOps.MemLocked<TOp, ushort>, &AluOps.MemLocked<TOp, uint>, &AluOps.MemLocked<TOp, ulong>))
            : ref TOp.Stores
                ? ref Memory(i, size,
                    Pick(size, &AluOps.MemWrite<TOp, byte, AtBase>, &AluOps.MemWrite<TOp, ushort, AtBase>, &AluOps.MemWrite<TOp, uint, AtBase>, &AluOps.MemWrite<TOp, ulong, AtBase>),
                    Pick(size, &AluOps.MemWrite<TOp, byte, AtAny>, &AluOps.MemWrite<TOp, ushort, AtAny>, &AluOps.MemWrite<TOp, uint, AtAny>, &AluOps.MemWrite<TOp, ulong, AtAny>))
                : ref Memory(i, size,
                    Pick(size, &AluOps.MemRead<TOp, byte, AtBase>, &AluOps.MemRead<TOp, ushort, AtBase>, &AluOps.MemRead<TOp, uint, AtBase>, &AluOps.MemRead<TOp, ulong, AtBase>),
                    Pick(size, &AluOps.MemRead<TOp, byte, AtAny>, &AluOps.MemRead<TOp, ushort, AtAny>, &AluOps.MemRead<TOp, uint, AtAny>, &AluOps.MemRead<TOp, ulong, AtAny>));
        op.Src = CpuState.ZeroRegister;
        if (IsReg(i, 1)) op.Src = BlockBuilder.Offset(i.Op1Register);
        else op.Imm = Immediate(i, 1, size);
        return true;
    }

    private bool Unary<TOp>(in Instruction i) where TOp : struct, IUnary
    {
        var size = Size(i);
        if (IsReg(i, 0))
        {
            Reg(i, _b.FlagsDead
                ? Pick(size, &AluOps.UnaryReg<TOp, byte, DropFlags>, &AluOps.UnaryReg<TOp, ushort, DropFlags>, &AluOps.UnaryReg<TOp, uint, DropFlags>, &AluOps.UnaryReg<TOp, ulong, DropFlags>)
                : Pick(size, &AluOps.UnaryReg<TOp, byte, KeepFlags>, &AluOps.UnaryReg<TOp, ushort, KeepFlags>, &AluOps.UnaryReg<TOp, uint, KeepFlags>, &AluOps.UnaryReg<TOp, ulong, KeepFlags>));
            return true;
        }
        EmitMemory(i, i.HasLockPrefix
            ? Pick(size, &AluOps.UnaryLocked<TOp, byte>, &AluOps.UnaryLocked<TOp, ushort>, &AluOps.UnaryLocked<TOp, uint>, &AluOps.UnaryLocked<TOp, ulong>)
            : Pick(size, &AluOps.UnaryMem<TOp, byte>, &AluOps.UnaryMem<TOp, ushort>, &AluOps.UnaryMem<TOp, uint>, &AluOps.UnaryMem<TOp, ulong>));
        return true;
    }

    private bool Shift<TOp>(in Instruction i) where TOp : struct, IShift
    {
        var size = Size(i);
        var byCl = IsReg(i, 1);
        var count = byCl ? 0 : (int)i.GetImmediate(1) & (size == 8 ? 63 : 31);
        if (IsReg(i, 0))
        {
            if (byCl) Reg(i, Pick(size, &ShiftOps.RegCl<TOp, byte>, &ShiftOps.RegCl<TOp, ushort>, &ShiftOps.RegCl<TOp, uint>, &ShiftOps.RegCl<TOp, ulong>));
            else if (count != 0 && _b.FlagsDead && TOp.HasValue)
                Reg(i, Pick(size, &ShiftOps.RegImmPlain<TOp, byte>, &ShiftOps.RegImmPlain<TOp, ushort>, &ShiftOps.RegImmPlain<TOp, uint>, &ShiftOps.RegImmPlain<TOp, ulong>)).Imm = count;
            else if (count != 0) Reg(i, Pick(size, &ShiftOps.RegImm<TOp, byte>, &ShiftOps.RegImm<TOp, ushort>, &ShiftOps.RegImm<TOp, uint>, &ShiftOps.RegImm<TOp, ulong>)).Imm = count;
            else Reg(i, size == 4 ? &MoveOps.RegReg<uint> : &MoveOps.Nop).Src = BlockBuilder.Offset(i.Op0Register);
            return true;
        }
        ref var op = ref EmitMemory(i, Pick(size, &ShiftOps.Mem<TOp, byte>, &ShiftOps.Mem<TOp, ushort>, &ShiftOps.Mem<TOp, uint>, &ShiftOps.Mem<TOp, ulong>));
        op.Imm = count;
        op.Aux = (ushort)(byCl ? 1 : 0);
        return true;
    }

    private bool DoubleShift(in Instruction i, bool right)
    {
        var size = Size(i);
        var byCl = IsReg(i, 2);
        ref var op = ref IsReg(i, 0)
            ? ref Reg(i, Pick(size, null, &ShiftOps.DoubleReg<ushort>, &ShiftOps.DoubleReg<uint>, &ShiftOps.DoubleReg<ulong>))
            : ref EmitMemory(i, Pick(size, null, &ShiftOps.DoubleMem<ushort>, &ShiftOps.DoubleMem<uint>, &ShiftOps.DoubleMem<ulong>));
        op.Src = BlockBuilder.Offset(i.Op1Register);
        op.Imm = byCl ? 0 : (long)i.GetImmediate(2);
        op.Aux = (ushort)((byCl ? 1 : 0) | (right ? 2 : 0));
        return true;
    }

    private bool MulDiv(in Instruction i)
    {
        var size = Size(i);
        var source = CpuState.TempRegister;
        var operand = i.OpCount == 1 ? 0 : 1;
        if (IsReg(i, operand)) source = BlockBuilder.Offset(i.GetOpRegister(operand));
        else EmitMemory(i, Pick(size, &MulDivOps.ReadOperand<byte>, &MulDivOps.ReadOperand<ushort>, &MulDivOps.ReadOperand<uint>, &MulDivOps.ReadOperand<ulong>));
        if (i.OpCount == 1)
        {
            _b.Emit(i.Mnemonic switch
            {
                Mnemonic.Mul => Pick(size, &MulDivOps.Mul<byte>, &MulDivOps.Mul<ushort>, &MulDivOps.Mul<uint>, &MulDivOps.Mul<ulong>),
                Mnemonic.Imul => Pick(size, &MulDivOps.Imul<byte>, &MulDivOps.Imul<ushort>, &MulDivOps.Imul<uint>, &MulDivOps.Imul<ulong>),
                Mnemonic.Div => Pick(size, &MulDivOps.Div<byte>, &MulDivOps.Div<ushort>, &MulDivOps.Div<uint>, &MulDivOps.Div<ulong>),
                _ => Pick(size, &MulDivOps.Idiv<byte>, &MulDivOps.Idiv<ushort>, &MulDivOps.Idiv<uint>, &MulDivOps.Idiv<ulong>),
            }).Src = (byte)source;
            return true;
        }
        ref var op = ref _b.Emit(i.OpCount == 2
            ? _b.FlagsDead
                ? Pick(size, null, &MulDivOps.ImulReg<ushort, DropFlags>, &MulDivOps.ImulReg<uint, DropFlags>, &MulDivOps.ImulReg<ulong, DropFlags>)
                : Pick(size, null, &MulDivOps.ImulReg<ushort, KeepFlags>, &MulDivOps.ImulReg<uint, KeepFlags>, &MulDivOps.ImulReg<ulong, KeepFlags>)
            : _b.FlagsDead
                ? Pick(size, null, &MulDivOps.ImulImm<ushort, DropFlags>, &MulDivOps.ImulImm<uint, DropFlags>, &MulDivOps.ImulImm<ulong, DropFlags>)
                : Pick(size, null, &MulDivOps.ImulImm<ushort, KeepFlags>, &MulDivOps.ImulImm<uint, KeepFlags>, &MulDivOps.ImulImm<ulong, KeepFlags>));
        op.Dst = BlockBuilder.Offset(i.Op0Register);
        op.Src = (byte)source;
        if (i.OpCount == 3) op.Imm = Immediate(i, 2, size);
        return true;
    }

    // --- bits and exchanges ---

    private bool BitTest(in Instruction i, BitAction action)
    {
        var size = Size(i);
        ref var op = ref IsReg(i, 0)
            ? ref Reg(i, Pick(size, null, &BitOps.Reg<ushort>, &BitOps.Reg<uint>, &BitOps.Reg<ulong>))
            : ref EmitMemory(i, Pick(size, null, &BitOps.Memory<ushort>, &BitOps.Memory<uint>, &BitOps.Memory<ulong>));
        op.Src = IsReg(i, 1) ? BlockBuilder.Offset(i.Op1Register) : (byte)CpuState.ZeroRegister;
        if (!IsReg(i, 1)) op.Imm = (long)i.GetImmediate(1);
        // With 32-bit addresses in 64-bit code the address of the addressed unit wraps at 4 GiB.
        var wraps = Long && !IsReg(i, 0) && BlockBuilder.AddressSize(i) == 32 && i.MemorySegment is not (Register.FS or Register.GS);
        op.Aux = (ushort)((int)action | (i.HasLockPrefix ? 4 : 0) | (wraps ? 8 : 0));
        return true;
    }

    private bool BitScan(in Instruction i, int reverse)
    {
        var size = Size(i);
        var source = CpuState.TempRegister;
        if (IsReg(i, 1)) source = BlockBuilder.Offset(i.Op1Register);
        else EmitMemory(i, Pick(size, null, &MulDivOps.ReadOperand<ushort>, &MulDivOps.ReadOperand<uint>, &MulDivOps.ReadOperand<ulong>));
        ref var op = ref Reg(i, Pick(size, null, &BitOps.Scan<ushort>, &BitOps.Scan<uint>, &BitOps.Scan<ulong>));
        op.Src = (byte)source;
        op.Aux = (ushort)reverse;
        return true;
    }

    private bool Exchange(in Instruction i)
    {
        var size = Size(i);
        if (IsReg(i, 0) && IsReg(i, 1))
        {
            Reg(i, Pick(size, &MoveOps.ExchangeReg<byte>, &MoveOps.ExchangeReg<ushort>, &MoveOps.ExchangeReg<uint>, &MoveOps.ExchangeReg<ulong>)).Src = BlockBuilder.Offset(i.Op1Register);
            return true;
        }
        EmitMemory(i, Pick(size, &MoveOps.ExchangeMem<byte>, &MoveOps.ExchangeMem<ushort>, &MoveOps.ExchangeMem<uint>, &MoveOps.ExchangeMem<ulong>))
            .Src = BlockBuilder.Offset(IsReg(i, 0) ? i.Op0Register : i.Op1Register);
        return true;
    }

    private bool ExchangeAdd(in Instruction i)
    {
        var size = Size(i);
        ref var op = ref IsReg(i, 0)
            ? ref Reg(i, Pick(size, &BitOps.ExchangeAddReg<byte>, &BitOps.ExchangeAddReg<ushort>, &BitOps.ExchangeAddReg<uint>, &BitOps.ExchangeAddReg<ulong>))
            : ref EmitMemory(i, Pick(size, &BitOps.ExchangeAddMem<byte>, &BitOps.ExchangeAddMem<ushort>, &BitOps.ExchangeAddMem<uint>, &BitOps.ExchangeAddMem<ulong>));
        op.Src = BlockBuilder.Offset(i.Op1Register);
        return true;
    }

    private bool CompareExchange(in Instruction i)
    {
        var size = Size(i);
        ref var op = ref IsReg(i, 0)
            ? ref Reg(i, Pick(size, &BitOps.CompareExchangeReg<byte>, &BitOps.CompareExchangeReg<ushort>, &BitOps.CompareExchangeReg<uint>, &BitOps.CompareExchangeReg<ulong>))
            : ref EmitMemory(i, Pick(size, &BitOps.CompareExchangeMem<byte>, &BitOps.CompareExchangeMem<ushort>, &BitOps.CompareExchangeMem<uint>, &BitOps.CompareExchangeMem<ulong>));
        op.Src = BlockBuilder.Offset(i.Op1Register);
        return true;
    }

    private bool Xlat(in Instruction i)
    {
        ref var op = ref _b.Emit(&MoveOps.XlatAddress);
        op.Aux = (ushort)(i.MemoryBase.GetSize() * 8);
        if (_b.Mode != CodeMode.Bits64 || i.MemorySegment is Register.FS or Register.GS) op.Seg = BlockBuilder.BaseOffset(i.MemorySegment);
        _b.Emit(&MoveOps.Xlat);
        return true;
    }

    private bool PortIn(in Instruction i)
    {
        var size = Size(i);
        _b.EmitEnd(Pick(size, &FlagOps.In<byte>, &FlagOps.In<ushort>, &FlagOps.In<uint>, null)).Imm = IsReg(i, 1) ? -1 : (long)i.GetImmediate(1);
        return true;
    }

    private bool PortOut(in Instruction i)
    {
        var size = Size(i, 1);
        _b.EmitEnd(Pick(size, &FlagOps.Out<byte>, &FlagOps.Out<ushort>, &FlagOps.Out<uint>, null)).Imm = IsReg(i, 0) ? -1 : (long)i.GetImmediate(0);
        return true;
    }
}
