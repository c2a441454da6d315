using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Tests.Differential;

/// <summary>A part of the instruction set, so that a run can look closer at one engine of the software CPU.</summary>
public enum InstructionGroup
{
    All,
    Integer,
    X87AndMmx,
    Sse,
}

/// <summary>Every instruction form (Iced's <see cref="Code"/>) that a user-mode case may use, by what the guest's CPUID offers.</summary>
internal sealed class InstructionSet
{
    private static readonly HashSet<CpuidFeature> Baseline =
    [
        CpuidFeature.INTEL8086, CpuidFeature.INTEL186, CpuidFeature.INTEL286, CpuidFeature.INTEL386, CpuidFeature.INTEL486,
        CpuidFeature.X64,
        CpuidFeature.CMOV, CpuidFeature.CX8, CpuidFeature.FPU, CpuidFeature.FPU287, CpuidFeature.FPU387, CpuidFeature.MMX, CpuidFeature.SSE,
        CpuidFeature.SSE2, CpuidFeature.MULTIBYTENOP, CpuidFeature.PAUSE, CpuidFeature.CLFSH,
    ];

    // What cannot be compared: it shows time, identity or host selectors, it leaves the case, or its result is the vendor's choice.
    private static readonly HashSet<Mnemonic> Excluded =
    [
        Mnemonic.Cpuid, Mnemonic.Rdtsc, Mnemonic.Rdtscp, Mnemonic.Rdpmc, Mnemonic.Syscall, Mnemonic.Sysret, Mnemonic.Sysenter,
        Mnemonic.Sysexit,
        Mnemonic.Sysretq, Mnemonic.Sysexitq, Mnemonic.Int, Mnemonic.Int1, Mnemonic.Int3, Mnemonic.Into, Mnemonic.Iret, Mnemonic.Iretd,
        Mnemonic.Iretq,
        Mnemonic.Ret, Mnemonic.Retf, Mnemonic.Leave, Mnemonic.Popf, Mnemonic.Popfq, Mnemonic.Popfd, Mnemonic.Sldt, Mnemonic.Str,
        Mnemonic.Sgdt, Mnemonic.Sidt,
        Mnemonic.Smsw, Mnemonic.Lar, Mnemonic.Lsl, Mnemonic.Verr, Mnemonic.Verw, Mnemonic.Lfs, Mnemonic.Lgs, Mnemonic.Lss,
        Mnemonic.Lds, Mnemonic.Les,
        Mnemonic.Ud0, Mnemonic.Ud1, Mnemonic.Ud2, Mnemonic.Insb, Mnemonic.Insw, Mnemonic.Insd, Mnemonic.Outsb, Mnemonic.Outsw,
        Mnemonic.Outsd,
        // Environment images hold instruction and operand pointers, which vendors keep at different times; known-answer tests cover them.
        Mnemonic.Fnstenv, Mnemonic.Fstenv, Mnemonic.Fldenv, Mnemonic.Fnsave, Mnemonic.Fsave, Mnemonic.Frstor, Mnemonic.Fxsave,
        Mnemonic.Fxrstor,
        Mnemonic.Fxsave64, Mnemonic.Fxrstor64, Mnemonic.Fldcw, Mnemonic.Ldmxcsr,
        // Undocumented: FSTP without the check for an empty register.
        Mnemonic.Fstpnce,
        // Results within an error bound, not to the bit; tolerance tests cover them.
        Mnemonic.Rcpps, Mnemonic.Rcpss, Mnemonic.Rsqrtps, Mnemonic.Rsqrtss, Mnemonic.Fsin, Mnemonic.Fcos, Mnemonic.Fsincos, Mnemonic.Fptan,
        Mnemonic.Fpatan, Mnemonic.F2xm1, Mnemonic.Fyl2x, Mnemonic.Fyl2xp1, Mnemonic.Fprem, Mnemonic.Fprem1, Mnemonic.Fbld,
    ];

    private readonly Code[] _codes;
    private readonly Code[][] _byMnemonic;

    public InstructionSet(IReadOnlySet<CpuidFeature> offered, InstructionGroup group = InstructionGroup.All)
    {
        var allowed = Baseline.Union(offered).ToHashSet();
        _codes = [.. Enum.GetValues<Code>()
            .Where(code => IsUsable(code, allowed) && (group is InstructionGroup.All || GroupOf(code) == group))];
        _byMnemonic = [.. _codes.GroupBy(code => code.Mnemonic()).Select(group => group.ToArray())];
    }

    public IReadOnlyList<Code> Codes => _codes;

    public int MnemonicCount => _byMnemonic.Length;

    /// <summary>Half the time any form, half the time any form of any mnemonic, so that mnemonics with few forms come up as well.</summary>
    public Code Pick(Rng rng) => rng.OneIn(2) ? rng.Pick(_codes) : rng.Pick(rng.Pick(_byMnemonic));

    private static InstructionGroup GroupOf(Code code)
    {
        var info = code.ToOpCode();
        var kinds = Enumerable.Range(0, info.OpCount).Select(info.GetOpKind).ToList();
        if (kinds.Exists(kind => kind is OpCodeOperandKind.xmm_reg or OpCodeOperandKind.xmm_rm or OpCodeOperandKind.xmm_or_mem))
            return InstructionGroup.Sse;
        var features = code.CpuidFeatures();
        var x87 = features.Any(feature => feature is CpuidFeature.FPU or CpuidFeature.FPU287 or CpuidFeature.FPU387 or CpuidFeature.MMX);
        return x87 || kinds.Exists(kind => kind is OpCodeOperandKind.mm_reg or OpCodeOperandKind.mm_rm or OpCodeOperandKind.mm_or_mem)
            ? InstructionGroup.X87AndMmx : InstructionGroup.Integer;
    }

    private static bool IsUsable(Code code, HashSet<CpuidFeature> allowed)
    {
        var info = code.ToOpCode();
        if (!info.IsInstruction || !info.Mode64 || !info.LongMode || info.Encoding != EncodingKind.Legacy || !info.Cpl3) return false;
        if (info.IsPrivileged || info.IsInputOutput || info.IsReservedNop || Excluded.Contains(code.Mnemonic())) return false;
        if (code.CpuidFeatures().Any(feature => !allowed.Contains(feature))) return false;
        if (code is Code.Bswap_r16 || info.Fwait) return false; // undefined; two instructions
        if (code.FlowControl() is not
            (FlowControl.Next or FlowControl.ConditionalBranch or FlowControl.UnconditionalBranch or FlowControl.Call)) return false;
        for (var i = 0; i < info.OpCount; i++)
            if (!OperandBuilder.Supports(info.GetOpKind(i))) return false;
        return true;
    }
}
