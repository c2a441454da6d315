using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu;

internal sealed unsafe partial class Translator
{
    private bool TranslateVectorMove(in Instruction i)
    {
        switch (i.Mnemonic)
        {
            case Mnemonic.Movaps or Mnemonic.Movapd or Mnemonic.Movdqa or Mnemonic.Movntps or Mnemonic.Movntpd or Mnemonic.Movntdq
                or Mnemonic.Movntdqa:
                return Move16(i, &Moves.LoadAligned, &Moves.StoreAligned);
            case Mnemonic.Movups or Mnemonic.Movupd or Mnemonic.Movdqu or Mnemonic.Lddqu:
                return Move16(i, &Moves.Load, &Moves.Store);
            case Mnemonic.Movss:
                return MoveScalar(i, &Moves.Element<uint>, &Moves.LoadScalar<uint>, &Moves.StoreElement<uint>);
            case Mnemonic.Movsd when i.Op0Kind != OpKind.MemoryESDI && i.Op0Kind != OpKind.MemoryESEDI && i.Op0Kind != OpKind.MemoryESRDI:
                return MoveScalar(i, &Moves.Element<ulong>, &Moves.LoadScalar<ulong>, &Moves.StoreElement<ulong>);
            case Mnemonic.Movlps or Mnemonic.Movlpd: return MoveHalf(i, 0);
            case Mnemonic.Movhps or Mnemonic.Movhpd: return MoveHalf(i, 1);
            case Mnemonic.Movhlps: return MoveElement(i, &Moves.Element<ulong>, X(i.Op0Register), X(i.Op1Register, 1, 8));
            case Mnemonic.Movlhps: return MoveElement(i, &Moves.Element<ulong>, X(i.Op0Register, 1, 8), X(i.Op1Register));
            case Mnemonic.Movd or Mnemonic.Movq: return MoveDwordQword(i);
            case Mnemonic.Movq2dq:
                GuardMmx(needsSse: true);
                EmitRegisters(&Moves.XmmFromMmx, X(i.Op0Register), Mm(i.Op1Register));
                CommitMmx();
                return true;
            case Mnemonic.Movdq2q:
                GuardMmx(needsSse: true);
                EmitRegisters(&Moves.MmxFromXmm, Mm(i.Op0Register), X(i.Op1Register));
                CommitMmx(i.Op0Register);
                return true;
            case Mnemonic.Movntq:
                GuardMmx();
                EmitMemory(i, &Moves.MmxStore<ulong>).Src = Mm(i.Op1Register);
                CommitMmx();
                return true;
            case Mnemonic.Movnti:
                EmitMemory(i, i.Op1Register.GetSize() == 8 ? &Moves.StoreGeneral<ulong> : &Moves.StoreGeneral<uint>).Src =
                    BlockBuilder.Offset(i.Op1Register);
                return true;
            case Mnemonic.Movmskps: return MoveElement(i, &Moves.SignMask<uint>, BlockBuilder.Offset(i.Op0Register), X(i.Op1Register));
            case Mnemonic.Movmskpd: return MoveElement(i, &Moves.SignMask<ulong>, BlockBuilder.Offset(i.Op0Register), X(i.Op1Register));
            case Mnemonic.Pmovmskb when IsX(i.Op1Register):
                return MoveElement(i, &Moves.SignMask<byte>, BlockBuilder.Offset(i.Op0Register), X(i.Op1Register));
            case Mnemonic.Pmovmskb:
                GuardMmx();
                EmitRegisters(&Moves.MmxSignMask, BlockBuilder.Offset(i.Op0Register), Mm(i.Op1Register));
                CommitMmx();
                return true;
            case Mnemonic.Pinsrb: return Insert(i, 1, &Moves.LoadElement<byte>, &Moves.ElementFromGeneral<byte>);
            case Mnemonic.Pinsrw when IsX(i.Op0Register):
                return Insert(i, 2, &Moves.LoadElement<ushort>, &Moves.ElementFromGeneral<ushort>);
            case Mnemonic.Pinsrd: return Insert(i, 4, &Moves.LoadElement<uint>, &Moves.ElementFromGeneral<uint>);
            case Mnemonic.Pinsrq: return Insert(i, 8, &Moves.LoadElement<ulong>, &Moves.ElementFromGeneral<ulong>);
            case Mnemonic.Pextrb: return Extract(i, 1, &Moves.StoreElement<byte>, &Moves.ElementToGeneral<byte>);
            case Mnemonic.Pextrw when IsX(i.Op1Register):
                return Extract(i, 2, &Moves.StoreElement<ushort>, &Moves.ElementToGeneral<ushort>);
            case Mnemonic.Pextrd or Mnemonic.Extractps: return Extract(i, 4, &Moves.StoreElement<uint>, &Moves.ElementToGeneral<uint>);
            case Mnemonic.Pextrq: return Extract(i, 8, &Moves.StoreElement<ulong>, &Moves.ElementToGeneral<ulong>);
            case Mnemonic.Pinsrw:
            {
                GuardMmx();
                var place = (byte)(Mm(i.Op0Register) + (i.Immediate8 & 3) * 2);
                if (i.Op1Kind == OpKind.Memory) EmitMemory(i, &Moves.MmxInsertWordMemory).Dst = place;
                else EmitRegisters(&Moves.MmxInsertWord, place, BlockBuilder.Offset(i.Op1Register));
                CommitMmx(i.Op0Register);
                return true;
            }
            case Mnemonic.Pextrw:
                GuardMmx();
                EmitRegisters(&Moves.MmxToGeneral<ushort>, BlockBuilder.Offset(i.Op0Register),
                    (byte)(Mm(i.Op1Register) + (i.Immediate8 & 3) * 2));
                CommitMmx();
                return true;
            default: return false;
        }
    }

    private void EmitRegisters(delegate*<CpuState*, Op*, void> fn, byte dst, byte src)
    {
        ref var op = ref _b.Emit(fn);
        op.Dst = dst;
        op.Src = src;
    }

    private bool MoveElement(in Instruction i, delegate*<CpuState*, Op*, void> fn, byte dst, byte src)
    {
        if (HasMemory(i)) return false;
        GuardSse();
        EmitRegisters(fn, dst, src);
        return true;
    }

    private bool Move16(in Instruction i, delegate*<CpuState*, Op*, void> load, delegate*<CpuState*, Op*, void> store)
    {
        GuardSse();
        if (i.Op0Kind == OpKind.Memory) EmitMemory(i, store).Src = X(i.Op1Register);
        else if (i.Op1Kind == OpKind.Memory) EmitMemory(i, load).Dst = X(i.Op0Register);
        else EmitRegisters(&Moves.Register, X(i.Op0Register), X(i.Op1Register));
        return true;
    }

    private bool MoveScalar(in Instruction i, delegate*<CpuState*, Op*, void> register, delegate*<CpuState*, Op*, void> load,
        delegate*<CpuState*, Op*, void> store)
    {
        GuardSse();
        if (i.Op0Kind == OpKind.Memory) EmitMemory(i, store).Src = X(i.Op1Register);
        else if (i.Op1Kind == OpKind.Memory) EmitMemory(i, load).Dst = X(i.Op0Register);
        else EmitRegisters(register, X(i.Op0Register), X(i.Op1Register));
        return true;
    }

    private bool MoveHalf(in Instruction i, int half)
    {
        GuardSse();
        if (i.Op0Kind == OpKind.Memory) EmitMemory(i, &Moves.StoreElement<ulong>).Src = X(i.Op1Register, half, 8);
        else EmitMemory(i, &Moves.LoadElement<ulong>).Dst = X(i.Op0Register, half, 8);
        return true;
    }

    private bool Insert(in Instruction i, int size, delegate*<CpuState*, Op*, void> load, delegate*<CpuState*, Op*, void> register)
    {
        GuardSse();
        var place = X(i.Op0Register, i.Immediate8 & (16 / size - 1), size);
        if (i.Op1Kind == OpKind.Memory) EmitMemory(i, load).Dst = place;
        else EmitRegisters(register, place, BlockBuilder.Offset(i.Op1Register));
        return true;
    }

    private bool Extract(in Instruction i, int size, delegate*<CpuState*, Op*, void> store, delegate*<CpuState*, Op*, void> register)
    {
        GuardSse();
        var place = X(i.Op1Register, i.Immediate8 & (16 / size - 1), size);
        if (i.Op0Kind == OpKind.Memory) EmitMemory(i, store).Src = place;
        else EmitRegisters(register, BlockBuilder.Offset(i.Op0Register), place);
        return true;
    }

    private bool MoveDwordQword(in Instruction i)
    {
        if (IsX(i.Op0Register) || IsX(i.Op1Register))
        {
            GuardSse();
            if (i.Op0Kind == OpKind.Memory)
            {
                EmitMemory(i, i.MemorySize.GetSize() == 8 ? &Moves.StoreElement<ulong> : &Moves.StoreElement<uint>).Src = X(i.Op1Register);
            }
            else if (i.Op1Kind == OpKind.Memory)
            {
                EmitMemory(i, i.MemorySize.GetSize() == 8 ? &Moves.LoadScalar<ulong> : &Moves.LoadScalar<uint>).Dst = X(i.Op0Register);
            }
            else if (IsX(i.Op0Register) && IsX(i.Op1Register))
            {
                EmitRegisters(&Moves.LowHalf, X(i.Op0Register), X(i.Op1Register));
            }
            else if (IsX(i.Op0Register))
            {
                var wide = i.Op1Register.GetSize() == 8;
                EmitRegisters(wide ? &Moves.ScalarFromGeneral<ulong> : &Moves.ScalarFromGeneral<uint>, X(i.Op0Register),
                    BlockBuilder.Offset(i.Op1Register));
            }
            else
            {
                var wide = i.Op0Register.GetSize() == 8;
                EmitRegisters(wide ? &Moves.ElementToGeneral<ulong> : &Moves.ElementToGeneral<uint>, BlockBuilder.Offset(i.Op0Register),
                    X(i.Op1Register));
            }
            return true;
        }
        GuardMmx();
        if (i.Op0Kind == OpKind.Memory)
        {
            EmitMemory(i, i.MemorySize.GetSize() == 8 ? &Moves.MmxStore<ulong> : &Moves.MmxStore<uint>).Src = Mm(i.Op1Register);
        }
        else if (i.Op1Kind == OpKind.Memory)
        {
            EmitMemory(i, i.MemorySize.GetSize() == 8 ? &Moves.MmxLoad<ulong> : &Moves.MmxLoad<uint>).Dst = Mm(i.Op0Register);
        }
        else if (IsMm(i.Op0Register) && IsMm(i.Op1Register))
        {
            EmitRegisters(&Moves.MmxRegister, Mm(i.Op0Register), Mm(i.Op1Register));
        }
        else if (IsMm(i.Op0Register))
        {
            var wide = i.Op1Register.GetSize() == 8;
            EmitRegisters(wide ? &Moves.MmxFromGeneral<ulong> : &Moves.MmxFromGeneral<uint>, Mm(i.Op0Register),
                BlockBuilder.Offset(i.Op1Register));
        }
        else
        {
            var wide = i.Op0Register.GetSize() == 8;
            EmitRegisters(wide ? &Moves.MmxToGeneral<ulong> : &Moves.MmxToGeneral<uint>, BlockBuilder.Offset(i.Op0Register),
                Mm(i.Op1Register));
        }
        CommitMmx(IsMm(i.Op0Register) ? i.Op0Register : Register.None);
        return true;
    }
}
