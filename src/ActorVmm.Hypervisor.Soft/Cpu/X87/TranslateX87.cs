using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>x87: which body each instruction gets.</summary>
internal sealed unsafe partial class Translator
{
    private bool TranslateX87(in Instruction i)
    {
        switch (i.Mnemonic)
        {
            case Mnemonic.Fadd or Mnemonic.Fiadd: return X87Arithmetic(i, X87Operation.Add);
            case Mnemonic.Fmul or Mnemonic.Fimul: return X87Arithmetic(i, X87Operation.Multiply);
            case Mnemonic.Fsub or Mnemonic.Fisub: return X87Arithmetic(i, X87Operation.Subtract);
            case Mnemonic.Fsubr or Mnemonic.Fisubr: return X87Arithmetic(i, X87Operation.SubtractReversed);
            case Mnemonic.Fdiv or Mnemonic.Fidiv: return X87Arithmetic(i, X87Operation.Divide);
            case Mnemonic.Fdivr or Mnemonic.Fidivr: return X87Arithmetic(i, X87Operation.DivideReversed);
            case Mnemonic.Faddp: return X87Arithmetic(i, X87Operation.Add, X87.PopOnce);
            case Mnemonic.Fmulp: return X87Arithmetic(i, X87Operation.Multiply, X87.PopOnce);
            case Mnemonic.Fsubp: return X87Arithmetic(i, X87Operation.Subtract, X87.PopOnce);
            case Mnemonic.Fsubrp: return X87Arithmetic(i, X87Operation.SubtractReversed, X87.PopOnce);
            case Mnemonic.Fdivp: return X87Arithmetic(i, X87Operation.Divide, X87.PopOnce);
            case Mnemonic.Fdivrp: return X87Arithmetic(i, X87Operation.DivideReversed, X87.PopOnce);
            case Mnemonic.Fcom or Mnemonic.Ficom: return X87Compare(i, 0);
            case Mnemonic.Fcomp or Mnemonic.Ficomp: return X87Compare(i, X87.PopOnce);
            case Mnemonic.Fcompp: return X87Simple(i, &X87.Compare, X87.PopTwice, source: 1);
            case Mnemonic.Fucom: return X87Simple(i, &X87.Compare, X87.Unordered);
            case Mnemonic.Fucomp: return X87Simple(i, &X87.Compare, X87.Unordered | X87.PopOnce);
            case Mnemonic.Fucompp: return X87Simple(i, &X87.Compare, X87.Unordered | X87.PopTwice, source: 1);
            case Mnemonic.Fcomi: return X87Simple(i, &X87.CompareToFlags, 0);
            case Mnemonic.Fcomip: return X87Simple(i, &X87.CompareToFlags, X87.PopOnce);
            case Mnemonic.Fucomi: return X87Simple(i, &X87.CompareToFlags, X87.Unordered);
            case Mnemonic.Fucomip: return X87Simple(i, &X87.CompareToFlags, X87.Unordered | X87.PopOnce);
            case Mnemonic.Ftst: return X87Simple(i, &X87.Test, 0);
            case Mnemonic.Fxam: return X87Simple(i, &X87.Examine, 0);
            case Mnemonic.Fchs: return X87Simple(i, &X87.ChangeSign, 0);
            case Mnemonic.Fabs: return X87Simple(i, &X87.Absolute, 0);
            case Mnemonic.Fxch: return X87Simple(i, &X87.Exchange, 0);
            case Mnemonic.Fcmovb: return X87Simple(i, &X87.ConditionalMove, 0);
            case Mnemonic.Fcmove: return X87Simple(i, &X87.ConditionalMove, 1);
            case Mnemonic.Fcmovbe: return X87Simple(i, &X87.ConditionalMove, 2);
            case Mnemonic.Fcmovu: return X87Simple(i, &X87.ConditionalMove, 3);
            case Mnemonic.Fcmovnb: return X87Simple(i, &X87.ConditionalMove, 4);
            case Mnemonic.Fcmovne: return X87Simple(i, &X87.ConditionalMove, 5);
            case Mnemonic.Fcmovnbe: return X87Simple(i, &X87.ConditionalMove, 6);
            case Mnemonic.Fcmovnu: return X87Simple(i, &X87.ConditionalMove, 7);
            case Mnemonic.Fincstp: return X87Simple(i, &X87.IncrementTop, 0);
            case Mnemonic.Fdecstp: return X87Simple(i, &X87.DecrementTop, 0);
            case Mnemonic.Ffree: return X87Simple(i, &X87.Free, 0);
            case Mnemonic.Ffreep: return X87Simple(i, &X87.Free, X87.PopOnce);
            case Mnemonic.Fnop: return X87Simple(i, &X87.NoOperation, 0);
            case Mnemonic.Fsqrt: return X87Simple(i, &X87.SquareRoot, 0);
            case Mnemonic.Fprem: return X87Simple(i, &X87.Remainder, 0);
            case Mnemonic.Fprem1: return X87Simple(i, &X87.RemainderIeee, 0);
            case Mnemonic.Frndint: return X87Simple(i, &X87.RoundToInteger, 0);
            case Mnemonic.Fscale: return X87Simple(i, &X87.Scale, 0);
            case Mnemonic.Fxtract: return X87Simple(i, &X87.Extract, 0);
            case Mnemonic.Fld1: return X87Simple(i, &X87.LoadConstant, 0);
            case Mnemonic.Fldl2t: return X87Simple(i, &X87.LoadConstant, 1);
            case Mnemonic.Fldl2e: return X87Simple(i, &X87.LoadConstant, 2);
            case Mnemonic.Fldpi: return X87Simple(i, &X87.LoadConstant, 3);
            case Mnemonic.Fldlg2: return X87Simple(i, &X87.LoadConstant, 4);
            case Mnemonic.Fldln2: return X87Simple(i, &X87.LoadConstant, 5);
            case Mnemonic.Fldz: return X87Simple(i, &X87.LoadConstant, 6);
            case Mnemonic.Fsin: return X87Simple(i, &X87.Sine, 0);
            case Mnemonic.Fcos: return X87Simple(i, &X87.Cosine, 0);
            case Mnemonic.Fsincos: return X87Simple(i, &X87.SineCosine, 0);
            case Mnemonic.Fptan: return X87Simple(i, &X87.Tangent, 0);
            case Mnemonic.Fpatan: return X87Simple(i, &X87.ArcTangent, 0);
            case Mnemonic.F2xm1: return X87Simple(i, &X87.PowerMinusOne, 0);
            case Mnemonic.Fyl2x: return X87Simple(i, &X87.Logarithm, 0);
            case Mnemonic.Fyl2xp1: return X87Simple(i, &X87.LogarithmPlusOne, 0);
            default: return TranslateX87Memory(i) || TranslateX87Control(i);
        }
    }

    private bool TranslateX87Memory(in Instruction i)
    {
        var size = HasMemory(i) ? i.MemorySize.GetSize() : 0;
        switch (i.Mnemonic)
        {
            case Mnemonic.Fld when size == 0: return X87Simple(i, &X87.LoadRegister, 0);
            case Mnemonic.Fld:
                return X87Memory(i, size switch { 4 => &X87.Load<MemorySingle>, 8 => &X87.Load<MemoryDouble>, _ => &X87.LoadExtended }, 0);
            case Mnemonic.Fild:
                return X87Memory(i, size switch
                {
                    2 => &X87.Load<MemoryInt16>,
                    4 => &X87.Load<MemoryInt32>,
                    _ => &X87.Load<MemoryInt64>,
                }, 0);
            case Mnemonic.Fbld: return X87Memory(i, &X87.LoadDecimal, 0);
            case Mnemonic.Fbstp: return X87Memory(i, &X87.StoreDecimal, X87.PopOnce);
            case Mnemonic.Fst or Mnemonic.Fstp or Mnemonic.Fstpnce:
            {
                var pop = i.Mnemonic == Mnemonic.Fst ? (ushort)0 : X87.PopOnce;
                if (size != 0)
                {
                    return X87Memory(i, size switch
                    {
                        4 => &X87.Store<MemorySingle>,
                        8 => &X87.Store<MemoryDouble>,
                        _ => &X87.StoreExtended,
                    }, pop);
                }
                ref var op = ref EmitX87(i, &X87.Run, i.Mnemonic == Mnemonic.Fstpnce ? &X87.StoreRegisterUnchecked : &X87.StoreRegister);
                op.Dst = St(i.Op0Register);
                op.Aux = pop;
                return true;
            }
            case Mnemonic.Fist or Mnemonic.Fistp:
                return X87Memory(i, size switch
                {
                    2 => &X87.StoreInteger<MemoryInt16>,
                    4 => &X87.StoreInteger<MemoryInt32>,
                    _ => &X87.StoreInteger<MemoryInt64>,
                }, i.Mnemonic == Mnemonic.Fist ? (ushort)0 : X87.PopOnce);
            case Mnemonic.Fisttp:
                return X87Memory(i, size switch
                {
                    2 => &X87.StoreTruncated<MemoryInt16>,
                    4 => &X87.StoreTruncated<MemoryInt32>,
                    _ => &X87.StoreTruncated<MemoryInt64>,
                }, X87.PopOnce);
            default: return false;
        }
    }

    private bool TranslateX87Control(in Instruction i)
    {
        // 14 and 94 bytes are the 16-bit images, 28 and 108 the 32-bit ones.
        var wide = (ushort)(HasMemory(i) && i.MemorySize.GetSize() is 28 or 108 ? 1 : 0);
        switch (i.Mnemonic)
        {
            case Mnemonic.Wait:
                _b.Emit(&X87.Wait);
                return true;
            case Mnemonic.Fninit: EmitX87(i, &X87.RunNoWait, &X87.InitializeInstruction); return true;
            case Mnemonic.Fnclex: EmitX87(i, &X87.RunNoWait, &X87.ClearExceptions); return true;
            case Mnemonic.Fndisi or Mnemonic.Fneni or Mnemonic.Fnsetpm: EmitX87(i, &X87.RunNoWait, &X87.NoOperation); return true;
            case Mnemonic.Fnstcw: EmitX87(i, &X87.RunNoWait, &X87.StoreControlWord); return true;
            case Mnemonic.Fnstsw when HasMemory(i): EmitX87(i, &X87.RunNoWait, &X87.StoreStatusWord); return true;
            case Mnemonic.Fnstsw: EmitX87(i, &X87.RunNoWait, &X87.StatusWordToAx); return true;
            case Mnemonic.Fldcw: EmitX87(i, &X87.RunControl, &X87.LoadControlWord); return true;
            case Mnemonic.Fnstenv: EmitX87(i, &X87.RunNoWait, &X87.StoreEnvironment).Aux = wide; return true;
            case Mnemonic.Fldenv: EmitX87(i, &X87.RunControl, &X87.LoadEnvironment).Aux = wide; return true;
            case Mnemonic.Fnsave: EmitX87(i, &X87.RunNoWait, &X87.SaveAll).Aux = wide; return true;
            case Mnemonic.Frstor: EmitX87(i, &X87.RunControl, &X87.RestoreAll).Aux = wide; return true;
            default: return false;
        }
    }

    private static byte St(Register register) => (byte)(register - Register.ST0);

    private ref Op EmitX87(in Instruction i, delegate*<CpuState*, Op*, void> run, delegate*<CpuState*, Op*, bool> body)
    {
        ref var op = ref HasMemory(i) ? ref EmitMemory(i, run) : ref _b.Emit(run);
        op.Imm = (long)body;
        return ref op;
    }

    /// <summary>No memory operand. The source register is the last operand unless given.</summary>
    private bool X87Simple(in Instruction i, delegate*<CpuState*, Op*, bool> body, int aux, int source = -1)
    {
        ref var op = ref EmitX87(i, &X87.Run, body);
        if (source < 0) source = i.OpCount > 0 ? St(i.GetOpRegister(i.OpCount - 1)) : 0;
        op.Src = (byte)source;
        op.Aux = (ushort)aux;
        return true;
    }

    private bool X87Memory(in Instruction i, delegate*<CpuState*, Op*, bool> body, ushort aux)
    {
        EmitX87(i, &X87.Run, body).Aux = aux;
        return true;
    }

    private bool X87Arithmetic(in Instruction i, X87Operation operation, ushort pop = 0)
    {
        var aux = (ushort)((int)operation | pop);
        if (HasMemory(i))
        {
            return X87Memory(i, i.MemorySize switch
            {
                MemorySize.Float32 => &X87.ArithmeticMemory<MemorySingle>,
                MemorySize.Float64 => &X87.ArithmeticMemory<MemoryDouble>,
                MemorySize.Int16 => &X87.ArithmeticMemory<MemoryInt16>,
                _ => &X87.ArithmeticMemory<MemoryInt32>,
            }, aux);
        }
        ref var op = ref EmitX87(i, &X87.Run, &X87.Arithmetic);
        op.Dst = St(i.Op0Register);
        op.Src = St(i.Op1Register);
        op.Aux = aux;
        return true;
    }

    private bool X87Compare(in Instruction i, ushort pop)
    {
        if (!HasMemory(i)) return X87Simple(i, &X87.Compare, pop);
        return X87Memory(i, i.MemorySize switch
        {
            MemorySize.Float32 => &X87.CompareMemory<MemorySingle>,
            MemorySize.Float64 => &X87.CompareMemory<MemoryDouble>,
            MemorySize.Int16 => &X87.CompareMemory<MemoryInt16>,
            _ => &X87.CompareMemory<MemoryInt32>,
        }, pop);
    }
}
