using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>Decoding of system instructions.</summary>
internal sealed unsafe partial class Translator
{
    private bool TranslateSystem(in Instruction i)
    {
        switch (i.Mnemonic)
        {
            case Mnemonic.Mov: return TranslateSystemMov(i);
            case Mnemonic.Jmp or Mnemonic.Call or Mnemonic.Retf: return TranslateFar(i);
            case Mnemonic.Push or Mnemonic.Pop: return TranslateSegmentStack(i);

            case Mnemonic.Syscall: return Transfer(&SystemOps.Syscall);
            case Mnemonic.Sysret: return Transfer(&SystemOps.Sysret, 4);
            case Mnemonic.Sysretq: return Transfer(&SystemOps.Sysret, 8);
            case Mnemonic.Sysenter: return Transfer(&SystemOps.Sysenter);
            case Mnemonic.Sysexit: return Transfer(&SystemOps.Sysexit, 4);
            case Mnemonic.Sysexitq: return Transfer(&SystemOps.Sysexit, 8);
            case Mnemonic.Iret: return Transfer(&SystemOps.Iret, 2);
            case Mnemonic.Iretd: return Transfer(&SystemOps.Iret, 4);
            case Mnemonic.Iretq: return Transfer(&SystemOps.Iret, 8);
            case Mnemonic.Int: return Transfer(&SystemOps.Int, i.Immediate8);
            case Mnemonic.Int3: return Transfer(&SystemOps.Int3);
            case Mnemonic.Int1: return Transfer(&SystemOps.Int1);
            case Mnemonic.Into: return Transfer(&SystemOps.Into);
            case Mnemonic.Hlt: return Transfer(&SystemOps.Hlt);
            case Mnemonic.Ud0 or Mnemonic.Ud1 or Mnemonic.Ud2:
                _b.EmitEnd(&SystemOps.InvalidOpcode);
                return true;

            case Mnemonic.Swapgs:
                _b.Emit(&SystemOps.Swapgs);
                return true;
            case Mnemonic.Cpuid: return Step(&SystemOps.CpuidInstruction);
            case Mnemonic.Rdtsc: return Step(&SystemOps.Rdtsc);
            case Mnemonic.Rdtscp: return Step(&SystemOps.Rdtscp);
            case Mnemonic.Rdpmc: return Step(&SystemOps.Rdpmc);
            case Mnemonic.Rdmsr: return End(&SystemOps.Rdmsr);
            case Mnemonic.Wrmsr: return End(&SystemOps.Wrmsr);
            case Mnemonic.Rdfsbase: return Base(i, &SystemOps.ReadBase, SoftCpu.SegFs);
            case Mnemonic.Rdgsbase: return Base(i, &SystemOps.ReadBase, SoftCpu.SegGs);
            case Mnemonic.Wrfsbase: return Base(i, &SystemOps.WriteBase, SoftCpu.SegFs);
            case Mnemonic.Wrgsbase: return Base(i, &SystemOps.WriteBase, SoftCpu.SegGs);

            case Mnemonic.Clts: return End(&SystemOps.Clts);
            case Mnemonic.Lmsw: return i.Op0Kind == OpKind.Register ? EndSource(i.Op0Register, &SystemOps.LmswRegister) : EndMemory(i, &SystemOps.LmswMemory);
            case Mnemonic.Smsw: return Store(i, &SystemOps.SmswRegister, &SystemOps.SmswMemory);
            case Mnemonic.Lgdt: return EndMemory(i, &SystemOps.Lgdt, TableForm(i.Code));
            case Mnemonic.Lidt: return EndMemory(i, &SystemOps.Lidt, TableForm(i.Code));
            case Mnemonic.Sgdt: return StepMemory(i, &SystemOps.Sgdt, TableForm(i.Code)).Fn != null;
            case Mnemonic.Sidt: return StepMemory(i, &SystemOps.Sidt, TableForm(i.Code)).Fn != null;
            case Mnemonic.Invlpg: return TranslateInvlpg(i);
            case Mnemonic.Invpcid: return TranslateInvpcid(i);
            case Mnemonic.Wbinvd or Mnemonic.Wbnoinvd or Mnemonic.Invd: return Step(&SystemOps.FlushCaches);

            case Mnemonic.Lldt: return WordSource(i, &SystemOps.LldtRegister, &SystemOps.LldtMemory);
            case Mnemonic.Ltr: return WordSource(i, &SystemOps.LtrRegister, &SystemOps.LtrMemory);
            case Mnemonic.Sldt: return Store(i, &SystemOps.SldtRegister, &SystemOps.SldtMemory);
            case Mnemonic.Str: return Store(i, &SystemOps.StrRegister, &SystemOps.StrMemory);
            case Mnemonic.Verr: return WordSource(i, &SystemOps.VerrRegister, &SystemOps.VerrMemory);
            case Mnemonic.Verw: return WordSource(i, &SystemOps.VerwRegister, &SystemOps.VerwMemory);
            case Mnemonic.Lar: return Lookup(i, &SystemOps.LarRegister, &SystemOps.LarMemory);
            case Mnemonic.Lsl: return Lookup(i, &SystemOps.LslRegister, &SystemOps.LslMemory);
            case Mnemonic.Lds: return FarPointer(i, SoftCpu.SegDs);
            case Mnemonic.Les: return FarPointer(i, SoftCpu.SegEs);
            case Mnemonic.Lss: return FarPointer(i, SoftCpu.SegSs);
            case Mnemonic.Lfs: return FarPointer(i, SoftCpu.SegFs);
            case Mnemonic.Lgs: return FarPointer(i, SoftCpu.SegGs);
            case Mnemonic.Arpl: return TranslateArpl(i);
            case Mnemonic.Bound:
                StepMemory(i, &SystemOps.Bound, i.Op0Register.GetSize()).Src = BlockBuilder.Offset(i.Op0Register);
                return true;

            case Mnemonic.Mfence:
                _b.Emit(&SystemOps.Mfence);
                return true;
            case Mnemonic.Clflush: return StepMemory(i, &SystemOps.Clflush, 0).Fn != null;
            default: return IsHint(i.Mnemonic) && Nop();
        }
    }

    /// <summary>
    /// What a CPU without the feature executes as a no-op: hints, and the reserved NOP space in which CET's and MPX's instructions lie.
    /// </summary>
    private static bool IsHint(Mnemonic mnemonic) => mnemonic is Mnemonic.Nop or Mnemonic.Reservednop or Mnemonic.Pause or Mnemonic.Lfence or
        Mnemonic.Sfence or Mnemonic.Endbr32 or Mnemonic.Endbr64 or Mnemonic.Rdsspd or Mnemonic.Rdsspq or Mnemonic.Prefetch or Mnemonic.Prefetchw or
        Mnemonic.Prefetchwt1 or Mnemonic.Prefetchnta or Mnemonic.Prefetcht0 or Mnemonic.Prefetcht1 or Mnemonic.Prefetcht2 or Mnemonic.Prefetchit0 or
        Mnemonic.Prefetchit1 or Mnemonic.Cldemote or Mnemonic.Bndcl or Mnemonic.Bndcn or Mnemonic.Bndcu or Mnemonic.Bndldx or Mnemonic.Bndmk or
        Mnemonic.Bndmov or Mnemonic.Bndstx;

    private bool Nop()
    {
        _b.Emit(&SystemOps.Nop);
        return true;
    }

    private bool TranslateSystemMov(in Instruction i)
    {
        switch (i.Code)
        {
            case Code.Mov_r32_cr or Code.Mov_r64_cr:
                return Control(&SystemOps.Step, &SystemOps.MovFromControl, i.Op1Register - Register.CR0, target: i.Op0Register);
            case Code.Mov_cr_r64 when i.Op0Register == Register.CR3:
                _b.EmitEnd(&SystemOps.MovToCr3).Src = BlockBuilder.Offset(i.Op1Register);
                return true;
            case Code.Mov_cr_r32 or Code.Mov_cr_r64:
                return Control(&SystemOps.StepAndEnd, &SystemOps.MovToControl, i.Op0Register - Register.CR0, source: i.Op1Register);
            case Code.Mov_r32_dr or Code.Mov_r64_dr:
                if (i.Op1Register > Register.DR7) return false;
                Body(ref _b.Emit(&SystemOps.Step), &SystemOps.MovFromDebug, i.Op1Register - Register.DR0).Dst = BlockBuilder.Offset(i.Op0Register);
                return true;
            case Code.Mov_dr_r32 or Code.Mov_dr_r64:
                if (i.Op0Register > Register.DR7) return false;
                Body(ref _b.EmitEnd(&SystemOps.StepAndEnd), &SystemOps.MovToDebug, i.Op0Register - Register.DR0).Src = BlockBuilder.Offset(i.Op1Register);
                return true;
            case Code.Mov_rm16_Sreg or Code.Mov_r32m16_Sreg or Code.Mov_r64m16_Sreg:
                if (i.Op0Kind == OpKind.Register)
                {
                    Body(ref _b.Emit(&SystemOps.Step), &SystemOps.MovFromSegment, SegmentAux(i.Op1Register, i.Op0Register.GetSize())).Dst =
                        BlockBuilder.Offset(i.Op0Register);
                    return true;
                }
                StepMemory(i, &SystemOps.MovFromSegmentMemory, SegmentAux(i.Op1Register, 2));
                return true;
            case Code.Mov_Sreg_rm16 or Code.Mov_Sreg_r32m16 or Code.Mov_Sreg_r64m16:
                return TranslateMovToSegment(i);
            default:
                return false;
        }
    }

    private bool TranslateMovToSegment(in Instruction i)
    {
        if (i.Op0Register == Register.CS) return false;
        var aux = SegmentAux(i.Op0Register, 2);
        // A new SS ends the block: its width is part of what the next ops assume, and interrupts are held back.
        var ends = i.Op0Register == Register.SS;
        if (i.Op1Kind == OpKind.Register)
        {
            ref var op = ref (ends ? ref _b.EmitEnd(&SystemOps.StepAndEnd) : ref _b.Emit(&SystemOps.Step));
            Body(ref op, &SystemOps.MovToSegment, aux).Src = BlockBuilder.Offset(i.Op1Register);
        }
        else if (ends)
        {
            EndMemory(i, &SystemOps.MovToSegmentMemory, aux);
        }
        else
        {
            StepMemory(i, &SystemOps.MovToSegmentMemory, aux);
        }
        return true;
    }

    private bool Control(
        delegate*<CpuState*, Op*, void> handler, delegate*<SoftCpu, CpuState*, Op*, bool> body, int number,
        Register target = Register.None, Register source = Register.None)
    {
        if (number is not (0 or 2 or 3 or 4 or 8)) return false;
        var ends = source != Register.None;
        ref var op = ref Body(ref (ends ? ref _b.EmitEnd(handler) : ref _b.Emit(handler)), body, number);
        if (ends) op.Src = BlockBuilder.Offset(source);
        else op.Dst = BlockBuilder.Offset(target);
        return true;
    }

    private bool TranslateSegmentStack(in Instruction i)
    {
        if (i.Op0Kind != OpKind.Register || i.Op0Register is < Register.ES or > Register.GS) return false;
        var size = i.Code switch
        {
            Code.Pushw_ES or Code.Pushw_CS or Code.Pushw_SS or Code.Pushw_DS or Code.Pushw_FS or Code.Pushw_GS => 2,
            Code.Popw_ES or Code.Popw_CS or Code.Popw_SS or Code.Popw_DS or Code.Popw_FS or Code.Popw_GS => 2,
            Code.Pushq_FS or Code.Pushq_GS or Code.Popq_FS or Code.Popq_GS => 8,
            _ => 4,
        };
        var aux = SegmentAux(i.Op0Register, size);
        if (i.Mnemonic == Mnemonic.Push) return Step(&SystemOps.PushSegment, aux);
        if (i.Op0Register == Register.CS) return false; // an 8086 instruction
        return i.Op0Register == Register.SS ? End(&SystemOps.PopSegment, aux) : Step(&SystemOps.PopSegment, aux);
    }

    private bool TranslateFar(in Instruction i)
    {
        switch (i.Code)
        {
            case Code.Jmp_ptr1616 or Code.Jmp_ptr1632: return FarImmediate(i, &SystemOps.JumpFar);
            case Code.Call_ptr1616 or Code.Call_ptr1632: return FarImmediate(i, &SystemOps.CallFar);
            case Code.Jmp_m1616: return TransferMemory(i, &SystemOps.JumpFarMemory, 2);
            case Code.Jmp_m1632: return TransferMemory(i, &SystemOps.JumpFarMemory, 4);
            case Code.Jmp_m1664: return TransferMemory(i, &SystemOps.JumpFarMemory, 8);
            case Code.Call_m1616: return TransferMemory(i, &SystemOps.CallFarMemory, 2);
            case Code.Call_m1632: return TransferMemory(i, &SystemOps.CallFarMemory, 4);
            case Code.Call_m1664: return TransferMemory(i, &SystemOps.CallFarMemory, 8);
            case Code.Retfw or Code.Retfw_imm16: return FarReturn(i, 2);
            case Code.Retfd or Code.Retfd_imm16: return FarReturn(i, 4);
            case Code.Retfq or Code.Retfq_imm16: return FarReturn(i, 8);
            default: return false;
        }
    }

    private bool FarImmediate(in Instruction i, delegate*<SoftCpu, CpuState*, Op*, bool> body)
    {
        ref var op = ref Body(ref _b.EmitEnd(&SystemOps.Transfer), body, i.FarBranchSelector);
        var wide = i.Op0Kind == OpKind.FarBranch32;
        op.Disp = (int)(wide ? i.FarBranch32 : i.FarBranch16);
        op.Scale = (byte)(wide ? 4 : 2);
        return true;
    }

    private bool FarReturn(in Instruction i, int size)
    {
        Body(ref _b.EmitEnd(&SystemOps.Transfer), &SystemOps.RetFar, i.OpCount == 0 ? 0 : i.Immediate16).Scale = (byte)size;
        return true;
    }

    /// <summary>INVLPG takes an address only: no segment limit, no access.</summary>
    private bool TranslateInvlpg(in Instruction i)
    {
        EndMemory(i, &SystemOps.Invlpg);
        return true;
    }

    private bool TranslateInvpcid(in Instruction i)
    {
        EndMemory(i, &SystemOps.Invpcid);
        _b.Last.Src = BlockBuilder.Offset(i.Op0Register);
        return true;
    }

    private bool TranslateArpl(in Instruction i)
    {
        var source = BlockBuilder.Offset(i.Op1Register);
        if (i.Op0Kind == OpKind.Register)
        {
            ref var op = ref Body(ref _b.Emit(&SystemOps.Step), &SystemOps.ArplRegister, 0);
            (op.Dst, op.Src) = (BlockBuilder.Offset(i.Op0Register), source);
        }
        else
        {
            StepMemory(i, &SystemOps.ArplMemory, 0).Src = source;
        }
        return true;
    }

    // --- the shapes of system ops ---

    private static int SegmentAux(Register segment, int size) => (segment - Register.ES) << 8 | size;

    /// <summary>Bytes of a table register's base in memory: 8, 4, or 3 significant ones with 16-bit operands.</summary>
    private static int TableForm(Code code) => code switch
    {
        Code.Lgdt_m1664 or Code.Lidt_m1664 or Code.Sgdt_m1664 or Code.Sidt_m1664 => 8,
        Code.Lgdt_m1632_16 or Code.Lidt_m1632_16 or Code.Sgdt_m1632_16 or Code.Sidt_m1632_16 => 3,
        _ => 4,
    };

    private static ref Op Body(ref Op op, delegate*<SoftCpu, CpuState*, Op*, bool> body, int aux)
    {
        op.Imm = (long)body;
        op.Aux = (ushort)aux;
        return ref op;
    }

    private bool Step(delegate*<SoftCpu, CpuState*, Op*, bool> body, int aux = 0)
    {
        Body(ref _b.Emit(&SystemOps.Step), body, aux);
        return true;
    }

    private bool End(delegate*<SoftCpu, CpuState*, Op*, bool> body, int aux = 0)
    {
        Body(ref _b.EmitEnd(&SystemOps.StepAndEnd), body, aux);
        return true;
    }

    private bool EndSource(Register source, delegate*<SoftCpu, CpuState*, Op*, bool> body)
    {
        Body(ref _b.EmitEnd(&SystemOps.StepAndEnd), body, 0).Src = BlockBuilder.Offset(source);
        return true;
    }

    private bool Transfer(delegate*<SoftCpu, CpuState*, Op*, bool> body, int aux = 0)
    {
        Body(ref _b.EmitEnd(&SystemOps.Transfer), body, aux);
        return true;
    }

    private ref Op Memory(in Instruction i, delegate*<CpuState*, Op*, void> handler, delegate*<SoftCpu, CpuState*, Op*, bool> body, int aux, bool ends)
    {
        var viaTemporary = _b.EmitAddress(i);
        ref var op = ref (ends ? ref _b.EmitEnd(handler) : ref _b.Emit(handler));
        _b.Address(ref op, i, viaTemporary);
        return ref Body(ref op, body, aux);
    }

    private ref Op StepMemory(in Instruction i, delegate*<SoftCpu, CpuState*, Op*, bool> body, int aux) =>
        ref Memory(i, &SystemOps.Step, body, aux, ends: false);

    private bool EndMemory(in Instruction i, delegate*<SoftCpu, CpuState*, Op*, bool> body, int aux = 0)
    {
        Memory(i, &SystemOps.StepAndEnd, body, aux, ends: true);
        return true;
    }

    private bool TransferMemory(in Instruction i, delegate*<SoftCpu, CpuState*, Op*, bool> body, int size)
    {
        Memory(i, &SystemOps.Transfer, body, size, ends: true);
        return true;
    }

    /// <summary>One r/m16 source.</summary>
    private bool WordSource(
        in Instruction i, delegate*<SoftCpu, CpuState*, Op*, bool> register, delegate*<SoftCpu, CpuState*, Op*, bool> memory)
    {
        if (i.Op0Kind == OpKind.Register) Body(ref _b.Emit(&SystemOps.Step), register, 0).Src = BlockBuilder.Offset(i.Op0Register);
        else StepMemory(i, memory, 0);
        return true;
    }

    /// <summary>One destination: a register of any width, or 16 bits of memory.</summary>
    private bool Store(
        in Instruction i, delegate*<SoftCpu, CpuState*, Op*, bool> register, delegate*<SoftCpu, CpuState*, Op*, bool> memory)
    {
        if (i.Op0Kind == OpKind.Register)
            Body(ref _b.Emit(&SystemOps.Step), register, i.Op0Register.GetSize()).Dst = BlockBuilder.Offset(i.Op0Register);
        else
            StepMemory(i, memory, 2);
        return true;
    }

    /// <summary>LAR and LSL: a register, and a selector from a register or 16 bits of memory.</summary>
    private bool Lookup(
        in Instruction i, delegate*<SoftCpu, CpuState*, Op*, bool> register, delegate*<SoftCpu, CpuState*, Op*, bool> memory)
    {
        var size = i.Op0Register.GetSize();
        if (i.Op1Kind == OpKind.Register)
        {
            ref var op = ref Body(ref _b.Emit(&SystemOps.Step), register, size);
            (op.Dst, op.Src) = (BlockBuilder.Offset(i.Op0Register), BlockBuilder.Offset(i.Op1Register));
        }
        else
        {
            StepMemory(i, memory, size).Dst = BlockBuilder.Offset(i.Op0Register);
        }
        return true;
    }

    private bool FarPointer(in Instruction i, int segment)
    {
        var aux = segment << 8 | i.Op0Register.GetSize();
        ref var op = ref Memory(
            i, segment == SoftCpu.SegSs ? &SystemOps.StepAndEnd : &SystemOps.Step, &SystemOps.LoadFarPointer, aux, segment == SoftCpu.SegSs);
        op.Dst = BlockBuilder.Offset(i.Op0Register);
        return true;
    }

    private bool Base(in Instruction i, delegate*<SoftCpu, CpuState*, Op*, bool> body, int segment)
    {
        var register = BlockBuilder.Offset(i.Op0Register);
        ref var op = ref Body(ref _b.Emit(&SystemOps.Step), body, segment << 8 | i.Op0Register.GetSize());
        (op.Dst, op.Src) = (register, register);
        return true;
    }
}
