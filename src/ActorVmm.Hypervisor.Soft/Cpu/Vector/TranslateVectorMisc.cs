using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu;

internal sealed unsafe partial class Translator
{
    private bool TranslateVectorMisc(in Instruction i)
    {
        switch (i.Mnemonic)
        {
            case Mnemonic.Ptest: return SseCall(i, &IntegerCalls.Ptest);
            case Mnemonic.Pblendvb: return SseCall(i, &IntegerCalls.BlendVariable<byte>);
            case Mnemonic.Blendvps: return SseCall(i, &IntegerCalls.BlendVariable<uint>);
            case Mnemonic.Blendvpd: return SseCall(i, &IntegerCalls.BlendVariable<ulong>);
            case Mnemonic.Mpsadbw: return SseCall(i, &IntegerCalls.Mpsadbw);
            case Mnemonic.Phminposuw: return SseCall(i, &IntegerCalls.Phminposuw);
            case Mnemonic.Pcmpistri: return SseCall(i, &StringCompare.ImplicitIndex, unaligned: true);
            case Mnemonic.Pcmpistrm: return SseCall(i, &StringCompare.ImplicitMask, unaligned: true);
            case Mnemonic.Pcmpestri: return SseCall(i, &StringCompare.ExplicitIndex, unaligned: true);
            case Mnemonic.Pcmpestrm: return SseCall(i, &StringCompare.ExplicitMask, unaligned: true);
            case Mnemonic.Pcmpestri64: return SseCall(i, &StringCompare.ExplicitWideIndex, unaligned: true);
            case Mnemonic.Pcmpestrm64: return SseCall(i, &StringCompare.ExplicitWideMask, unaligned: true);
            case Mnemonic.Palignr: return MmxCall(i, &IntegerCalls.PalignrMmx);
            case Mnemonic.Pshufw: return MmxCall(i, &IntegerCalls.Pshufw);
            case Mnemonic.Popcnt:
                return GeneralCall(i, i.Op0Register.GetSize(), &IntegerCalls.Popcnt<ushort>, &IntegerCalls.Popcnt<ushort>,
                    &IntegerCalls.Popcnt<uint>, &IntegerCalls.Popcnt<ulong>);
            case Mnemonic.Crc32:
                return GeneralCall(i, HasMemory(i) ? i.MemorySize.GetSize() : i.Op1Register.GetSize(), &IntegerCalls.Crc32<byte>,
                    &IntegerCalls.Crc32<ushort>, &IntegerCalls.Crc32<uint>, &IntegerCalls.Crc32<ulong>);
            case Mnemonic.Maskmovdqu or Mnemonic.Maskmovq: return MaskMove(i);
            case Mnemonic.Fxsave or Mnemonic.Fxsave64:
                EmitCall(i, &Fxsave.SaveInstruction).Aux = (ushort)(i.Mnemonic == Mnemonic.Fxsave64 ? 1 : 0);
                return true;
            case Mnemonic.Fxrstor or Mnemonic.Fxrstor64:
                EmitCall(i, &Fxsave.LoadInstruction).Aux = (ushort)(i.Mnemonic == Mnemonic.Fxrstor64 ? 1 : 0);
                return true;
            case Mnemonic.Ldmxcsr:
                GuardSse();
                EmitCall(i, &Fxsave.LoadMxcsr);
                return true;
            case Mnemonic.Stmxcsr:
                GuardSse();
                EmitCall(i, &Fxsave.StoreMxcsr);
                return true;
            case Mnemonic.Emms:
                GuardMmx();
                _b.Emit(&Moves.Emms);
                return true;
            case Mnemonic.Lfence or Mnemonic.Sfence or Mnemonic.Mfence:
                _b.Emit(&Moves.Fence);
                return true;
            case Mnemonic.Prefetchnta or Mnemonic.Prefetcht0 or Mnemonic.Prefetcht1 or Mnemonic.Prefetcht2 or Mnemonic.Prefetchw:
                _b.Emit(&Moves.Nothing);
                return true;
            default: return false;
        }
    }

    /// <summary>mm, mm/m64, imm8 through a body.</summary>
    private bool MmxCall(in Instruction i, delegate*<CpuState*, Op*, bool> body)
    {
        GuardMmx();
        ref var op = ref EmitCall(i, body);
        op.Dst = Mm(i.Op0Register);
        op.Aux = SourceOf(i);
        if (i.Op1Kind == OpKind.Register)
        {
            op.Src = Mm(i.Op1Register);
            op.Aux |= VectorSource.MmxRegister;
        }
        CommitMmx(i.Op0Register);
        return true;
    }

    /// <summary>General register from register or memory, by operand size.</summary>
    private bool GeneralCall(in Instruction i, int size, delegate*<CpuState*, Op*, bool> b, delegate*<CpuState*, Op*, bool> w,
        delegate*<CpuState*, Op*, bool> d, delegate*<CpuState*, Op*, bool> q)
    {
        ref var op = ref EmitCall(i, size switch { 1 => b, 2 => w, 4 => d, _ => q });
        op.Dst = BlockBuilder.Offset(i.Op0Register);
        if (i.Op1Kind == OpKind.Register) op.Src = BlockBuilder.Offset(i.Op1Register);
        op.Aux = SourceOf(i);
        return true;
    }

    /// <summary>MASKMOVDQU, MASKMOVQ: the memory operand is implicit, [DS:rDI] with an optional segment prefix.</summary>
    private bool MaskMove(in Instruction i)
    {
        var mmx = IsMm(i.Op1Register);
        if (mmx) GuardMmx();
        else GuardSse();
        // The same address in a form that the address code knows.
        var address = i;
        address.MemoryBase = i.Op0Kind switch
        {
            OpKind.MemorySegDI => Register.DI,
            OpKind.MemorySegEDI => Register.EDI,
            _ => Register.RDI,
        };
        ref var op = ref EmitMemory(address, &Packed.Call);
        op.Imm = (long)(delegate*<CpuState*, Op*, bool>)&IntegerCalls.MaskMove;
        op.Dst = mmx ? Mm(i.Op1Register) : X(i.Op1Register);
        op.Src = mmx ? Mm(i.Op2Register) : X(i.Op2Register);
        if (!mmx) return true;
        op.Aux = VectorSource.MmxRegister;
        CommitMmx();
        return true;
    }
}
