using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>MMX and SSE to SSE4.2: which handler each instruction gets.</summary>
internal sealed unsafe partial class Translator
{
    private bool TranslateVector(in Instruction i) =>
        TranslateVectorMove(i) || TranslateVectorInteger(i) || TranslateVectorFloat(i) || TranslateVectorMisc(i);

    /// <summary>The handler's address, taken once: only then do copies of it compare equal.</summary>
    private static readonly nint SseGuard = (nint)(delegate*<CpuState*, Op*, void>)&VectorGuard.Sse;

    /// <summary>Emits the SSE test unless the block has it already.</summary>
    private void GuardSse()
    {
        foreach (ref readonly var op in _b.Ops)
        {
            if ((nint)op.Fn == SseGuard) return;
        }
        _b.Emit((delegate*<CpuState*, Op*, void>)SseGuard);
    }

    private void GuardMmx(bool needsSse = false) => _b.Emit(&VectorGuard.Mmx).Imm = needsSse ? 1 : 0;

    /// <summary>Closes an MMX instruction; <paramref name="written"/> is the MMX register it wrote, if any.</summary>
    private void CommitMmx(Register written = Register.None)
    {
        ref var op = ref _b.Emit(&Packed.MmxCommit);
        if (written == Register.None) return;
        op.Imm = 1;
        op.Dst = Mm(written);
    }

    /// <summary>An op that runs <paramref name="body"/> through <see cref="Packed.Call"/>; memory operands get their address.</summary>
    private ref Op EmitCall(in Instruction i, delegate*<CpuState*, Op*, bool> body)
    {
        ref var op = ref HasMemory(i) ? ref EmitMemory(i, &Packed.Call) : ref _b.Emit(&Packed.Call);
        op.Imm = (long)body;
        return ref op;
    }

    /// <summary>
    /// Byte offset of an XMM register from XMM0, or of element <paramref name="element"/> of <paramref name="size"/> bytes in it.
    /// </summary>
    private static byte X(Register register, int element = 0, int size = 0) => (byte)((register - Register.XMM0) * 16 + element * size);

    private static byte Mm(Register register) => (byte)((register - Register.MM0) * 8);

    private static bool IsX(Register register) => register is >= Register.XMM0 and <= Register.XMM15;

    private static bool IsMm(Register register) => register is >= Register.MM0 and <= Register.MM7;

    private static bool HasMemory(in Instruction i)
    {
        for (var n = 0; n < i.OpCount; n++)
        {
            if (i.GetOpKind(n) == OpKind.Memory) return true;
        }
        return false;
    }

    /// <summary>A pure operation xmm, xmm/m or mm, mm/m or either with a shift count.</summary>
    private bool Vec<T>(in Instruction i) where T : struct, IPacked => Vec<T, T>(i);

    /// <summary>The same where the MMX form differs.</summary>
    private bool Vec<T, TMmx>(in Instruction i) where T : struct, IPacked where TMmx : struct, IPacked
    {
        var size = HasMemory(i) ? i.MemorySize.GetSize() : 0;
        if (IsX(i.Op0Register))
        {
            GuardSse();
            if (i.Op1Kind == OpKind.Immediate8)
            {
                ref var shift = ref _b.Emit(&Packed.Ri<T>);
                shift.Dst = X(i.Op0Register);
                shift.Imm = i.Immediate8;
                return true;
            }
            if (size == 0)
            {
                ref var rr = ref _b.Emit(&Packed.Rr<T>);
                rr.Dst = X(i.Op0Register);
                rr.Src = X(i.Op1Register);
                return true;
            }
            ref var rm = ref EmitMemory(i, size switch
            {
                16 => &Packed.Rm16<T>,
                8 => &Packed.RmSmall<T, ulong>,
                4 => &Packed.RmSmall<T, uint>,
                _ => &Packed.RmSmall<T, ushort>,
            });
            rm.Dst = X(i.Op0Register);
            return true;
        }
        GuardMmx();
        if (i.Op1Kind == OpKind.Immediate8)
        {
            ref var shift = ref _b.Emit(&Packed.MmxRi<TMmx>);
            shift.Dst = Mm(i.Op0Register);
            shift.Imm = i.Immediate8;
        }
        else if (size == 0)
        {
            ref var rr = ref _b.Emit(&Packed.MmxRr<TMmx>);
            rr.Dst = Mm(i.Op0Register);
            rr.Src = Mm(i.Op1Register);
        }
        else
        {
            ref var rm = ref EmitMemory(i, size == 4 ? &Packed.MmxRm<TMmx, uint> : &Packed.MmxRm<TMmx, ulong>);
            rm.Dst = Mm(i.Op0Register);
        }
        CommitMmx(i.Op0Register);
        return true;
    }

    /// <summary>Byte selection by an immediate (or by none: <paramref name="immediate"/> is then 0).</summary>
    private bool Permute(in Instruction i, byte immediate)
    {
        GuardSse();
        var source = i.Op1Kind == OpKind.Immediate8 ? i.Op0Register : i.Op1Register;
        var size = HasMemory(i) ? i.MemorySize.GetSize() : 0;
        // INSERTPS takes the element from a register by bits 6-7; a memory operand is that element.
        if (size == 4) immediate &= 0x3F;
        ref var op = ref size == 0 ? ref _b.Emit(&Packed.PermuteRr) : ref EmitMemory(i, size switch
        {
            16 => &Packed.PermuteRm,
            8 => &Packed.PermuteRmSmall<ulong>,
            _ => &Packed.PermuteRmSmall<uint>,
        });
        op.Dst = X(i.Op0Register);
        if (size == 0) op.Src = X(source);
        op.Imm = ShuffleControls.Get(i.Mnemonic, immediate);
        return true;
    }
}
