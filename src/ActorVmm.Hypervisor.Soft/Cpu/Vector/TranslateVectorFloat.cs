using System.Numerics;
using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu;

internal sealed unsafe partial class Translator
{
    private bool TranslateVectorFloat(in Instruction i)
    {
        switch (i.Mnemonic)
        {
            case Mnemonic.Addss: return ScalarFloat<FloatOps.Add, float>(i);
            case Mnemonic.Addsd: return ScalarFloat<FloatOps.Add, double>(i);
            case Mnemonic.Addps: return PackedFloat<FloatOps.Add, float>(i);
            case Mnemonic.Addpd: return PackedFloat<FloatOps.Add, double>(i);
            case Mnemonic.Subss: return ScalarFloat<FloatOps.Sub, float>(i);
            case Mnemonic.Subsd: return ScalarFloat<FloatOps.Sub, double>(i);
            case Mnemonic.Subps: return PackedFloat<FloatOps.Sub, float>(i);
            case Mnemonic.Subpd: return PackedFloat<FloatOps.Sub, double>(i);
            case Mnemonic.Mulss: return ScalarFloat<FloatOps.Mul, float>(i);
            case Mnemonic.Mulsd: return ScalarFloat<FloatOps.Mul, double>(i);
            case Mnemonic.Mulps: return PackedFloat<FloatOps.Mul, float>(i);
            case Mnemonic.Mulpd: return PackedFloat<FloatOps.Mul, double>(i);
            case Mnemonic.Divss: return ScalarFloat<FloatOps.Div, float>(i);
            case Mnemonic.Divsd: return ScalarFloat<FloatOps.Div, double>(i);
            case Mnemonic.Divps: return PackedFloat<FloatOps.Div, float>(i);
            case Mnemonic.Divpd: return PackedFloat<FloatOps.Div, double>(i);
            case Mnemonic.Sqrtss: return ScalarFloat<FloatOps.Sqrt, float>(i);
            case Mnemonic.Sqrtsd: return ScalarFloat<FloatOps.Sqrt, double>(i);
            case Mnemonic.Sqrtps: return PackedFloat<FloatOps.Sqrt, float>(i);
            case Mnemonic.Sqrtpd: return PackedFloat<FloatOps.Sqrt, double>(i);
            case Mnemonic.Minss: return ScalarFloat<FloatOps.Min, float>(i);
            case Mnemonic.Minsd: return ScalarFloat<FloatOps.Min, double>(i);
            case Mnemonic.Minps: return PackedFloat<FloatOps.Min, float>(i);
            case Mnemonic.Minpd: return PackedFloat<FloatOps.Min, double>(i);
            case Mnemonic.Maxss: return ScalarFloat<FloatOps.Max, float>(i);
            case Mnemonic.Maxsd: return ScalarFloat<FloatOps.Max, double>(i);
            case Mnemonic.Maxps: return PackedFloat<FloatOps.Max, float>(i);
            case Mnemonic.Maxpd: return PackedFloat<FloatOps.Max, double>(i);

            case Mnemonic.Cmpss: return SseCall(i, &FloatCalls.Compare<float, OneLane>);
            case Mnemonic.Cmpsd when HasImmediate(i): return SseCall(i, &FloatCalls.Compare<double, OneLane>);
            case Mnemonic.Cmpps: return SseCall(i, &FloatCalls.Compare<float, AllLanes>);
            case Mnemonic.Cmppd: return SseCall(i, &FloatCalls.Compare<double, AllLanes>);
            case Mnemonic.Comiss: return SseCall(i, &FloatCalls.Comis<float>);
            case Mnemonic.Comisd: return SseCall(i, &FloatCalls.Comis<double>);
            case Mnemonic.Ucomiss: return SseCall(i, &FloatCalls.Ucomis<float>);
            case Mnemonic.Ucomisd: return SseCall(i, &FloatCalls.Ucomis<double>);
            case Mnemonic.Roundss: return SseCall(i, &FloatCalls.RoundTo<float, OneLane>);
            case Mnemonic.Roundsd: return SseCall(i, &FloatCalls.RoundTo<double, OneLane>);
            case Mnemonic.Roundps: return SseCall(i, &FloatCalls.RoundTo<float, AllLanes>);
            case Mnemonic.Roundpd: return SseCall(i, &FloatCalls.RoundTo<double, AllLanes>);
            case Mnemonic.Addsubps: return SseCall(i, &FloatCalls.AddSub<float>);
            case Mnemonic.Addsubpd: return SseCall(i, &FloatCalls.AddSub<double>);
            case Mnemonic.Haddps: return SseCall(i, &FloatCalls.HorizontalAdd<float>);
            case Mnemonic.Haddpd: return SseCall(i, &FloatCalls.HorizontalAdd<double>);
            case Mnemonic.Hsubps: return SseCall(i, &FloatCalls.HorizontalSub<float>);
            case Mnemonic.Hsubpd: return SseCall(i, &FloatCalls.HorizontalSub<double>);
            case Mnemonic.Dpps: return SseCall(i, &FloatCalls.DotProduct<float>);
            case Mnemonic.Dppd: return SseCall(i, &FloatCalls.DotProduct<double>);
            case Mnemonic.Rcpss: return SseCall(i, &FloatCalls.Reciprocal<OneLane>);
            case Mnemonic.Rcpps: return SseCall(i, &FloatCalls.Reciprocal<AllLanes>);
            case Mnemonic.Rsqrtss: return SseCall(i, &FloatCalls.ReciprocalRoot<OneLane>);
            case Mnemonic.Rsqrtps: return SseCall(i, &FloatCalls.ReciprocalRoot<AllLanes>);
            default: return TranslateConversion(i);
        }
    }

    private bool TranslateConversion(in Instruction i)
    {
        switch (i.Mnemonic)
        {
            case Mnemonic.Cvtsi2ss: return FromGeneral(i, &Conversions.FromGeneral<uint, float>, &Conversions.FromGeneral<ulong, float>);
            case Mnemonic.Cvtsi2sd: return FromGeneral(i, &Conversions.FromGeneral<uint, double>, &Conversions.FromGeneral<ulong, double>);
            case Mnemonic.Cvtss2si: return ToGeneral(i, &Conversions.ToGeneral<float, uint>, &Conversions.ToGeneral<float, ulong>);
            case Mnemonic.Cvtsd2si: return ToGeneral(i, &Conversions.ToGeneral<double, uint>, &Conversions.ToGeneral<double, ulong>);
            case Mnemonic.Cvttss2si:
                return ToGeneral(i, &Conversions.ToGeneralTruncated<float, uint>, &Conversions.ToGeneralTruncated<float, ulong>);
            case Mnemonic.Cvttsd2si:
                return ToGeneral(i, &Conversions.ToGeneralTruncated<double, uint>, &Conversions.ToGeneralTruncated<double, ulong>);
            case Mnemonic.Cvtss2sd: return SseCall(i, &Conversions.ScalarTo<float, double>);
            case Mnemonic.Cvtsd2ss: return SseCall(i, &Conversions.ScalarTo<double, float>);
            case Mnemonic.Cvtps2pd: return SseCall(i, &Conversions.PackedTo<float, double>);
            case Mnemonic.Cvtpd2ps: return SseCall(i, &Conversions.PackedTo<double, float>);
            case Mnemonic.Cvtdq2ps: return SseCall(i, &Conversions.IntegersToSingles<FourLanes>);
            case Mnemonic.Cvtdq2pd: return SseCall(i, &Conversions.IntegersToDoubles);
            case Mnemonic.Cvtps2dq: return SseCall(i, &Conversions.ToIntegers<float, AsMxcsrSays>);
            case Mnemonic.Cvttps2dq: return SseCall(i, &Conversions.ToIntegers<float, Truncating>);
            case Mnemonic.Cvtpd2dq: return SseCall(i, &Conversions.ToIntegers<double, AsMxcsrSays>);
            case Mnemonic.Cvttpd2dq: return SseCall(i, &Conversions.ToIntegers<double, Truncating>);
            case Mnemonic.Cvtpi2ps: return FromMmx(i, &Conversions.IntegersToSingles<TwoLanes>);
            case Mnemonic.Cvtpi2pd: return FromMmx(i, &Conversions.IntegersToDoubles);
            case Mnemonic.Cvtps2pi: return ToMmx(i, &Conversions.ToMmx<float, AsMxcsrSays>);
            case Mnemonic.Cvttps2pi: return ToMmx(i, &Conversions.ToMmx<float, Truncating>);
            case Mnemonic.Cvtpd2pi: return ToMmx(i, &Conversions.ToMmx<double, AsMxcsrSays>);
            case Mnemonic.Cvttpd2pi: return ToMmx(i, &Conversions.ToMmx<double, Truncating>);
            default: return false;
        }
    }

    private static bool HasImmediate(in Instruction i) => i.OpCount > 0 && i.GetOpKind(i.OpCount - 1) == OpKind.Immediate8;

    private bool ScalarFloat<TOp, T>(in Instruction i) where TOp : struct, IFloatOp where T : unmanaged, IBinaryFloatingPointIeee754<T>
    {
        GuardSse();
        if (i.Op1Kind == OpKind.Memory) EmitMemory(i, &VectorFloat.ScalarRm<TOp, T>).Dst = X(i.Op0Register);
        else EmitRegisters(&VectorFloat.ScalarRr<TOp, T>, X(i.Op0Register), X(i.Op1Register));
        return true;
    }

    private bool PackedFloat<TOp, T>(in Instruction i) where TOp : struct, IFloatOp where T : unmanaged, IBinaryFloatingPointIeee754<T>
    {
        GuardSse();
        if (i.Op1Kind == OpKind.Memory) EmitMemory(i, &VectorFloat.PackedRm<TOp, T>).Dst = X(i.Op0Register);
        else EmitRegisters(&VectorFloat.PackedRr<TOp, T>, X(i.Op0Register), X(i.Op1Register));
        return true;
    }

    /// <summary>Aux of an op whose body reads its operand through <see cref="VectorSource"/>.</summary>
    private static ushort SourceOf(in Instruction i, bool unaligned = false)
    {
        var aux = HasImmediate(i) ? i.Immediate8 : 0;
        if (HasMemory(i)) aux |= i.MemorySize.GetSize() << VectorSource.SizeShift;
        return (ushort)(aux | (unaligned ? VectorSource.Unaligned : 0));
    }

    /// <summary>xmm, xmm/m [, imm8] through a body.</summary>
    private bool SseCall(in Instruction i, delegate*<CpuState*, Op*, bool> body, bool unaligned = false)
    {
        GuardSse();
        ref var op = ref EmitCall(i, body);
        op.Dst = X(i.Op0Register);
        if (i.Op1Kind == OpKind.Register) op.Src = X(i.Op1Register);
        op.Aux = SourceOf(i, unaligned);
        return true;
    }

    private bool FromGeneral(in Instruction i, delegate*<CpuState*, Op*, bool> narrow, delegate*<CpuState*, Op*, bool> wide)
    {
        GuardSse();
        var size = HasMemory(i) ? i.MemorySize.GetSize() : i.Op1Register.GetSize();
        ref var op = ref EmitCall(i, size == 8 ? wide : narrow);
        op.Dst = X(i.Op0Register);
        if (i.Op1Kind == OpKind.Register) op.Src = BlockBuilder.Offset(i.Op1Register);
        op.Aux = SourceOf(i);
        return true;
    }

    private bool ToGeneral(in Instruction i, delegate*<CpuState*, Op*, bool> narrow, delegate*<CpuState*, Op*, bool> wide)
    {
        GuardSse();
        ref var op = ref EmitCall(i, i.Op0Register.GetSize() == 8 ? wide : narrow);
        op.Dst = BlockBuilder.Offset(i.Op0Register);
        if (i.Op1Kind == OpKind.Register) op.Src = X(i.Op1Register);
        op.Aux = SourceOf(i);
        return true;
    }

    /// <summary>CVTPI2PS, CVTPI2PD. With a memory operand they do not touch the MMX state.</summary>
    private bool FromMmx(in Instruction i, delegate*<CpuState*, Op*, bool> body)
    {
        var touches = i.Op1Kind == OpKind.Register;
        if (touches) GuardMmx(needsSse: true);
        else GuardSse();
        ref var op = ref EmitCall(i, body);
        op.Dst = X(i.Op0Register);
        op.Aux = SourceOf(i);
        if (i.Op1Kind == OpKind.Register)
        {
            op.Src = Mm(i.Op1Register);
            op.Aux |= VectorSource.MmxRegister;
        }
        if (touches) CommitMmx();
        return true;
    }

    private bool ToMmx(in Instruction i, delegate*<CpuState*, Op*, bool> body)
    {
        GuardMmx(needsSse: true);
        ref var op = ref EmitCall(i, body);
        op.Dst = Mm(i.Op0Register);
        if (i.Op1Kind == OpKind.Register) op.Src = X(i.Op1Register);
        op.Aux = SourceOf(i);
        CommitMmx(i.Op0Register);
        return true;
    }
}
