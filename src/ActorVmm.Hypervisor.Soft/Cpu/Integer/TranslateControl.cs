using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>Control flow, stack and string instructions, and those that test a condition.</summary>
internal sealed unsafe partial class Translator
{
    private bool Long => _b.Mode == CodeMode.Bits64;

    /// <summary>Operand width of a stack or branch instruction in legacy code, in bytes.</summary>
    private byte LegacySize(bool word) => (byte)(word ? 2 : 4);

    private ref Op Legacy(delegate*<CpuState*, Op*, void> fn, bool word, bool end = false)
    {
        ref var op = ref end ? ref _b.EmitEnd(fn) : ref _b.Emit(fn);
        op.Scale = LegacySize(word);
        op.Src = CpuState.ZeroRegister;
        return ref op;
    }

    // --- stack ---

    private bool TranslateStack(in Instruction i)
    {
        switch (i.Mnemonic)
        {
            case Mnemonic.Push: return Push(i);
            case Mnemonic.Pop: return Pop(i);
            case Mnemonic.Pushfq: _b.Emit(&StackOps.PushFlags<ulong>); return true;
            case Mnemonic.Popfq: _b.Emit(&StackOps.PopFlags<ulong>); return true;
            case Mnemonic.Pushf or Mnemonic.Pushfd:
                if (Long) _b.Emit(&StackOps.PushFlags<ushort>);
                else Legacy(&LegacyOps.PushFlags, i.Mnemonic == Mnemonic.Pushf);
                return true;
            case Mnemonic.Popf or Mnemonic.Popfd:
                if (Long) _b.Emit(&StackOps.PopFlags<ushort>);
                else Legacy(&LegacyOps.PopFlags, i.Mnemonic == Mnemonic.Popf, end: true);
                return true;
            case Mnemonic.Leave:
                if (Long) _b.Emit(i.Code == Code.Leavew ? &StackOps.Leave<ushort> : &StackOps.Leave<ulong>);
                else Legacy(&LegacyOps.Leave, i.Code == Code.Leavew);
                return true;
            case Mnemonic.Enter:
                if (i.Code == Code.Enterd_imm16_imm8 || !Long) return EnterLegacy(i);
                ref var enter = ref _b.Emit(i.Code == Code.Enterw_imm16_imm8 ? &StackOps.Enter<ushort> : &StackOps.Enter<ulong>);
                enter.Imm = i.Immediate16;
                enter.Aux = i.Immediate8_2nd;
                return true;
            case Mnemonic.Pusha or Mnemonic.Pushad: Legacy(&LegacyOps.PushAll, i.Mnemonic == Mnemonic.Pusha); return true;
            case Mnemonic.Popa or Mnemonic.Popad: Legacy(&LegacyOps.PopAll, i.Mnemonic == Mnemonic.Popa); return true;
            default: return false;
        }
    }

    private bool EnterLegacy(in Instruction i)
    {
        ref var op = ref Legacy(&LegacyOps.Enter, i.Code == Code.Enterw_imm16_imm8);
        op.Imm = i.Immediate16;
        op.Aux = i.Immediate8_2nd;
        return true;
    }

    private bool Push(in Instruction i)
    {
        if (IsReg(i, 0) && !i.Op0Register.IsGPR()) return false; // segment registers
        var size = i.StackPointerIncrement == -2 ? 2 : Long ? 8 : 4;
        if (!Long)
        {
            if (IsMem(i, 0))
            {
                EmitMemory(i, size == 2 ? &MulDivOps.ReadOperand<ushort> : &MulDivOps.ReadOperand<uint>);
                Legacy(&LegacyOps.PushReg, size == 2).Src = CpuState.TempRegister;
            }
            else if (IsReg(i, 0)) Legacy(&LegacyOps.PushReg, size == 2).Src = BlockBuilder.Offset(i.Op0Register);
            else Legacy(&LegacyOps.PushImm, size == 2).Imm = (long)i.GetImmediate(0);
            return true;
        }
        if (IsMem(i, 0)) EmitMemory(i, size == 2 ? &StackOps.PushMem<ushort> : &StackOps.PushMem<ulong>);
        else if (IsReg(i, 0)) _b.Emit(size == 2 ? &StackOps.PushReg<ushort> : &StackOps.PushReg<ulong>).Src = BlockBuilder.Offset(i.Op0Register);
        else _b.Emit(size == 2 ? &StackOps.PushImm<ushort> : &StackOps.PushImm<ulong>).Imm = (long)i.GetImmediate(0);
        return true;
    }

    private bool Pop(in Instruction i)
    {
        if (IsReg(i, 0) && !i.Op0Register.IsGPR()) return false;
        var size = i.StackPointerIncrement == 2 ? 2 : Long ? 8 : 4;
        if (IsReg(i, 0))
        {
            if (!Long) Legacy(&LegacyOps.PopReg, size == 2).Dst = BlockBuilder.Offset(i.Op0Register);
            else _b.Emit(size == 2 ? &StackOps.PopReg<ushort> : &StackOps.PopReg<ulong>).Dst = BlockBuilder.Offset(i.Op0Register);
            return true;
        }
        // An address based on the stack pointer counts from its value after the pop (SDM Vol. 2 POP); one computed beforehand is corrected.
        var computed = _b.EmitAddress(i);
        if (computed && i.MemoryBase is Register.RSP or Register.ESP or Register.SP) _b.Last.Imm += size;
        if (!Long)
        {
            Legacy(&LegacyOps.PopMem, size == 2);
            return true;
        }
        ref var op = ref _b.Emit(size == 2 ? &StackOps.PopMem<ushort> : &StackOps.PopMem<ulong>);
        _b.Address(ref op, i, computed);
        return true;
    }

    // --- control flow ---

    private bool TranslateControl(in Instruction i)
    {
        switch (i.Mnemonic)
        {
            case Mnemonic.Jmp: return Jump(i);
            case Mnemonic.Call: return Call(i);
            case Mnemonic.Ret:
                ref var ret = ref Long ? ref _b.EmitEnd(&ControlOps.Return) : ref Legacy(&LegacyOps.Return, i.StackPointerIncrement == 2 + (i.OpCount > 0 ? i.Immediate16 : 0), end: true);
                if (Long && i.Code is Code.Retnw or Code.Retnw_imm16) return false;
                ret.Imm = i.OpCount > 0 ? i.Immediate16 : 0;
                return true;
            case Mnemonic.Loop or Mnemonic.Loope or Mnemonic.Loopne or Mnemonic.Jcxz or Mnemonic.Jecxz or Mnemonic.Jrcxz:
                ref var loop = ref _b.EmitEnd(Long ? &ControlOps.Loop : &LegacyOps.Loop);
                loop.Imm = _b.Offset(Target(i));
                loop.Aux = (ushort)(i.Mnemonic switch { Mnemonic.Loop => 0, Mnemonic.Loope => 1, Mnemonic.Loopne => 2, _ => 3 });
                loop.Scale = CounterLog2(i);
                return true;
        }
        return false;
    }

    private static byte CounterLog2(in Instruction i)
    {
        var name = i.Code.ToString();
        return (byte)(name.Contains("_RCX", StringComparison.Ordinal) || i.Mnemonic == Mnemonic.Jrcxz ? 3
            : name.Contains("_ECX", StringComparison.Ordinal) || i.Mnemonic == Mnemonic.Jecxz ? 2 : 1);
    }

    private static ulong Target(in Instruction i) => i.NearBranchTarget;

    private bool InPage(ulong target) => _b.InStartPage(target);

    private bool Jump(in Instruction i)
    {
        if (i.Op0Kind is OpKind.NearBranch64 or OpKind.NearBranch32 or OpKind.NearBranch16)
        {
            if (!Long)
            {
                Legacy(&LegacyOps.Jump, i.Op0Kind == OpKind.NearBranch16, end: true).Imm = _b.Offset(Target(i));
                return true;
            }
            if (i.Op0Kind != OpKind.NearBranch64) return false;
            var near = InPage(Target(i));
            _b.EmitEnd(near ? &ControlOps.Jump : &ControlOps.JumpFar).Imm = _b.Offset(Target(i));
            _b.EmitLinkSlot();
            return true;
        }
        return Indirect(i, &ControlOps.JumpReg, &ControlOps.JumpMem, &LegacyOps.JumpReg);
    }

    private bool Call(in Instruction i)
    {
        if (i.Op0Kind is OpKind.NearBranch64 or OpKind.NearBranch32 or OpKind.NearBranch16)
        {
            if (!Long)
            {
                Legacy(&LegacyOps.Call, i.Op0Kind == OpKind.NearBranch16, end: true).Imm = _b.Offset(Target(i));
                return true;
            }
            if (i.Op0Kind != OpKind.NearBranch64) return false;
            var near = InPage(Target(i));
            _b.EmitEnd(near ? &ControlOps.Call : &ControlOps.CallFar).Imm = _b.Offset(Target(i));
            _b.EmitLinkSlot();
            return true;
        }
        return Indirect(i, &ControlOps.CallReg, &ControlOps.CallMem, &LegacyOps.CallReg);
    }

    private bool Indirect(
        in Instruction i,
        delegate*<CpuState*, Op*, void> register,
        delegate*<CpuState*, Op*, void> memory,
        delegate*<CpuState*, Op*, void> legacy)
    {
        if (IsReg(i, 0))
        {
            var size = i.Op0Register.GetSize();
            if (Long)
            {
                if (size != 8) return false;
                _b.EmitEnd(register).Src = BlockBuilder.Offset(i.Op0Register);
                _b.EmitLinkSlot(); // for the return of a call
            }
            else
            {
                Legacy(legacy, size == 2, end: true).Src = BlockBuilder.Offset(i.Op0Register);
            }
            return true;
        }
        if (i.Op0Kind != OpKind.Memory) return false; // far pointers are the system group's
        var width = i.MemorySize;
        if (Long)
        {
            if (width != MemorySize.QwordOffset) return false;
            var viaTemporary = _b.EmitAddress(i);
            ref var op = ref _b.EmitEnd(memory);
            _b.Address(ref op, i, viaTemporary);
            _b.EmitLinkSlot();
            return true;
        }
        if (width is not (MemorySize.WordOffset or MemorySize.DwordOffset)) return false;
        EmitMemory(i, width == MemorySize.WordOffset ? &MulDivOps.ReadOperand<ushort> : &MulDivOps.ReadOperand<uint>);
        Legacy(legacy, width == MemorySize.WordOffset, end: true).Src = CpuState.TempRegister;
        return true;
    }

    // --- conditions ---

    private bool TranslateConditional(in Instruction i)
    {
        if (i.ConditionCode == ConditionCode.None) return false;
        return i.ConditionCode switch
        {
            ConditionCode.o => Conditional<CondO>(i, 0),
            ConditionCode.no => Conditional<CondNo>(i, 1),
            ConditionCode.b => Conditional<CondB>(i, 2),
            ConditionCode.ae => Conditional<CondAe>(i, 3),
            ConditionCode.e => Conditional<CondE>(i, 4),
            ConditionCode.ne => Conditional<CondNe>(i, 5),
            ConditionCode.be => Conditional<CondBe>(i, 6),
            ConditionCode.a => Conditional<CondA>(i, 7),
            ConditionCode.s => Conditional<CondS>(i, 8),
            ConditionCode.ns => Conditional<CondNs>(i, 9),
            ConditionCode.p => Conditional<CondP>(i, 10),
            ConditionCode.np => Conditional<CondNp>(i, 11),
            ConditionCode.l => Conditional<CondL>(i, 12),
            ConditionCode.ge => Conditional<CondGe>(i, 13),
            ConditionCode.le => Conditional<CondLe>(i, 14),
            _ => Conditional<CondG>(i, 15),
        };
    }

    private bool Conditional<TC>(in Instruction i, int number) where TC : struct, ICondition
    {
        if (i.IsJccShortOrNear) return ConditionalJump<TC>(i, number);
        if (i.FlowControl != FlowControl.Next) return false;
        if (i.OpCount == 1) // SETcc
        {
            if (IsReg(i, 0))
            {
                Reg(i, _b.Kind switch
                {
                    KnownKind.Sub => &MoveOps.SetReg<TC, SubKind>,
                    KnownKind.Logic => &MoveOps.SetReg<TC, LogicKind>,
                    _ => &MoveOps.SetReg<TC, AnyKind>,
                });
            }
            else
            {
                EmitMemory(i, &MoveOps.SetMem<TC, AnyKind>);
            }
            return true;
        }
        if (i.OpCount != 2 || !IsReg(i, 0) || !i.Op0Register.IsGPR()) return false; // FCMOVcc
        var size = Size(i);
        if (IsReg(i, 1))
        {
            Reg(i, _b.Kind switch
            {
                KnownKind.Sub => Pick(size, null, &MoveOps.ConditionalReg<ushort, TC, SubKind>, &MoveOps.ConditionalReg<uint, TC, SubKind>, &MoveOps.ConditionalReg<ulong, TC, SubKind>),
                KnownKind.Logic => Pick(size, null, &MoveOps.ConditionalReg<ushort, TC, LogicKind>, &MoveOps.ConditionalReg<uint, TC, LogicKind>, &MoveOps.ConditionalReg<ulong, TC, LogicKind>),
                _ => Pick(size, null, &MoveOps.ConditionalReg<ushort, TC, AnyKind>, &MoveOps.ConditionalReg<uint, TC, AnyKind>, &MoveOps.ConditionalReg<ulong, TC, AnyKind>),
            }).Src = BlockBuilder.Offset(i.Op1Register);
            return true;
        }
        EmitMemory(i, Pick(size, null, &MoveOps.ConditionalMem<ushort, TC>, &MoveOps.ConditionalMem<uint, TC>, &MoveOps.ConditionalMem<ulong, TC>)).Dst = BlockBuilder.Offset(i.Op0Register);
        return true;
    }

    private bool ConditionalJump<TC>(in Instruction i, int number) where TC : struct, ICondition
    {
        var offset = _b.Offset(Target(i));
        if (!Long)
        {
            ref var legacy = ref Legacy(&LegacyOps.JumpIf, i.Op0Kind == OpKind.NearBranch16, end: true);
            legacy.Imm = offset;
            legacy.Aux = (ushort)number;
            return true;
        }
        if (i.Op0Kind != OpKind.NearBranch64) return false;
        if (!InPage(Target(i)) || !InPage(i.NextIP))
        {
            _b.EmitEnd(&ControlOps.JumpIfFar<TC>).Imm = offset;
            _b.EmitLinkSlot();
            return true;
        }
        _b.EmitEnd(_b.Kind switch
        {
            KnownKind.Sub => &ControlOps.JumpIf<TC, SubKind>,
            KnownKind.Logic => &ControlOps.JumpIf<TC, LogicKind>,
            KnownKind.Result => &ControlOps.JumpIf<TC, ResultKind>,
            _ => &ControlOps.JumpIf<TC, AnyKind>,
        }).Imm = offset;
        _b.EmitLinkSlot();
        return true;
    }

    // --- strings ---

    private bool TranslateString(in Instruction i)
    {
        var size = i.Code switch
        {
            Code.Movsb_m8_m8 or Code.Stosb_m8_AL or Code.Lodsb_AL_m8 or Code.Cmpsb_m8_m8 or Code.Scasb_AL_m8 or Code.Insb_m8_DX or Code.Outsb_DX_m8 => 1,
            Code.Movsw_m16_m16 or Code.Stosw_m16_AX or Code.Lodsw_AX_m16 or Code.Cmpsw_m16_m16 or Code.Scasw_AX_m16 or Code.Insw_m16_DX or Code.Outsw_DX_m16 => 2,
            Code.Movsd_m32_m32 or Code.Stosd_m32_EAX or Code.Lodsd_EAX_m32 or Code.Cmpsd_m32_m32 or Code.Scasd_EAX_m32 or Code.Insd_m32_DX or Code.Outsd_DX_m32 => 4,
            Code.Movsq_m64_m64 or Code.Stosq_m64_RAX or Code.Lodsq_RAX_m64 or Code.Cmpsq_m64_m64 or Code.Scasq_RAX_m64 => 8,
            _ => 0,
        };
        if (size == 0) return false;
        delegate*<CpuState*, Op*, void> fn = i.Mnemonic switch
        {
            Mnemonic.Movsb or Mnemonic.Movsw or Mnemonic.Movsd or Mnemonic.Movsq => Pick(size, &StringOps.Movs<byte>, &StringOps.Movs<ushort>, &StringOps.Movs<uint>, &StringOps.Movs<ulong>),
            Mnemonic.Stosb or Mnemonic.Stosw or Mnemonic.Stosd or Mnemonic.Stosq => Pick(size, &StringOps.Stos<byte>, &StringOps.Stos<ushort>, &StringOps.Stos<uint>, &StringOps.Stos<ulong>),
            Mnemonic.Lodsb or Mnemonic.Lodsw or Mnemonic.Lodsd or Mnemonic.Lodsq => Pick(size, &StringOps.Lods<byte>, &StringOps.Lods<ushort>, &StringOps.Lods<uint>, &StringOps.Lods<ulong>),
            Mnemonic.Cmpsb or Mnemonic.Cmpsw or Mnemonic.Cmpsd or Mnemonic.Cmpsq => Pick(size, &StringOps.Cmps<byte>, &StringOps.Cmps<ushort>, &StringOps.Cmps<uint>, &StringOps.Cmps<ulong>),
            Mnemonic.Scasb or Mnemonic.Scasw or Mnemonic.Scasd or Mnemonic.Scasq => Pick(size, &StringOps.Scas<byte>, &StringOps.Scas<ushort>, &StringOps.Scas<uint>, &StringOps.Scas<ulong>),
            Mnemonic.Insb or Mnemonic.Insw or Mnemonic.Insd => Pick(size, &StringOps.Ins<byte>, &StringOps.Ins<ushort>, &StringOps.Ins<uint>, null),
            _ => Pick(size, &StringOps.Outs<byte>, &StringOps.Outs<ushort>, &StringOps.Outs<uint>, null),
        };
        var compares = i.Mnemonic is Mnemonic.Cmpsb or Mnemonic.Cmpsw or Mnemonic.Cmpsd or Mnemonic.Cmpsq or Mnemonic.Scasb or Mnemonic.Scasw or Mnemonic.Scasd or Mnemonic.Scasq;
        var repeat = i.HasRepnePrefix ? (compares ? Repeat.RepNe : Repeat.Rep) : i.HasRepPrefix ? Repeat.Rep : Repeat.None;
        var segment = i.MemorySegment is >= Register.ES and <= Register.GS ? i.MemorySegment - Register.ES : 3;
        ref var op = ref _b.Emit(fn);
        op.Aux = StringOps.Encode(repeat, StringAddressBytes(i), segment);
        return true;
    }

    /// <summary>Width of RSI/RDI/RCX that a string instruction uses.</summary>
    private static int StringAddressBytes(in Instruction i)
    {
        for (var n = 0; n < i.OpCount; n++)
        {
            switch (i.GetOpKind(n))
            {
                case OpKind.MemorySegSI or OpKind.MemoryESDI or OpKind.MemorySegDI: return 2;
                case OpKind.MemorySegESI or OpKind.MemoryESEDI or OpKind.MemorySegEDI: return 4;
                case OpKind.MemorySegRSI or OpKind.MemoryESRDI or OpKind.MemorySegRDI: return 8;
            }
        }
        return 8;
    }
}
