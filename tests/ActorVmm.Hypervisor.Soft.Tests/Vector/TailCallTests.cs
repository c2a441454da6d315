using ActorVmm.Hypervisor.Soft.Tests.Differential;
using Iced.Intel;
using Xunit;

namespace ActorVmm.Hypervisor.Soft.Tests.VectorUnit;

/// <summary>Handlers must hand over by a jump: a chain of them may be endless.</summary>
public sealed unsafe class TailCallTests
{
    // These leave through a part of the CPU that the bench does not have (write probes), or clear what the others need.
    private static readonly HashSet<Mnemonic> NeedsCpu =
    [
        Mnemonic.Fxsave, Mnemonic.Fxsave64, Mnemonic.Fxrstor, Mnemonic.Fxrstor64, Mnemonic.Fbstp, Mnemonic.Fnsave, Mnemonic.Fnstenv,
        Mnemonic.Maskmovdqu, Mnemonic.Maskmovq, Mnemonic.Fldenv, Mnemonic.Frstor, Mnemonic.Ldmxcsr, Mnemonic.Fldcw,
    ];

    private static readonly HashSet<CpuidFeature> Mine =
    [
        CpuidFeature.MMX, CpuidFeature.SSE, CpuidFeature.SSE2, CpuidFeature.SSE3, CpuidFeature.SSSE3, CpuidFeature.SSE4_1,
        CpuidFeature.SSE4_2,
        CpuidFeature.POPCNT, CpuidFeature.FPU, CpuidFeature.FPU287, CpuidFeature.FPU387,
    ];

    public static TheoryData<string> Groups => [.. Mine.Select(feature => feature.ToString())];

    [Theory]
    [MemberData(nameof(Groups))]
    public void Every_form_goes_on_to_the_next_op_without_growing_the_stack(string group)
    {
        using var bench = new InstructionBench();
        var known = new KnownRegisters();
        for (var n = 0; n < 16; n++)
        {
            bench.State->Regs[n] = Layout.Scratch + 0x800;
            known.Set(n, bench.State->Regs[n]);
        }
        var operands = new OperandBuilder(new Rng(1), known);
        bench.Run([]);
        var empty = bench.StackAtEnd;

        var (grown, untranslated, run) = (new List<Code>(), new List<Code>(), 0);
        var forms = Enum.GetValues<Code>().Where(code => IsTestable(code, group)).ToList();
        foreach (var code in forms)
        {
            // Twice with other operands: memory and register forms have different handlers.
            for (var attempt = 0; attempt < 12; attempt++)
            {
                if (!operands.TryBuild(code, out var instruction) || !TryEncode(instruction, out var bytes)) continue;
                Cpu.X87.Initialize(bench.State);
                bench.State->FpuEmpty = 0xF0;
                for (var n = 0; n < 16; n++) bench.State->Regs[n] = Layout.Scratch + 0x800;
                if (!TryRun(bench, bytes, out var vector)) continue;
                if (vector != null)
                {
                    if (vector == Cpu.Vector.Ud) untranslated.Add(code);
                    continue; // misaligned
                }
                run++;
                if (bench.StackAtEnd != empty) grown.Add(code);
            }
        }
        Assert.Equal([], untranslated.Distinct());
        Assert.Equal([], grown.Distinct());
        Assert.True(run >= forms.Count * 2, $"only {run} runs of {forms.Count} forms");
    }

    // Operands beyond the bench's pages take the slow path, which finds no CPU.
    private static bool TryRun(InstructionBench bench, byte[] bytes, out int? vector)
    {
        vector = null;
        try
        {
            vector = bench.Run(bench.Translate(bytes));
            return true;
        }
        catch (InvalidOperationException)
        {
            return false;
        }
    }

    private static bool IsTestable(Code code, string group)
    {
        var info = code.ToOpCode();
        if (!info.IsInstruction || !info.Mode64 || !info.LongMode || info.Encoding != EncodingKind.Legacy || info.Fwait) return false;
        if (NeedsCpu.Contains(code.Mnemonic()) || code is Code.Fstp_m80fp) return false;
        if (code.CpuidFeatures() is not [var first, ..] || first.ToString() != group) return false;
        for (var n = 0; n < info.OpCount; n++)
        {
            if (!OperandBuilder.Supports(info.GetOpKind(n))) return false;
        }
        return true;
    }

    private static bool TryEncode(in Instruction instruction, out byte[] bytes)
    {
        using var stream = new MemoryStream();
        var encoder = Encoder.Create(64, new StreamCodeWriter(stream));
        var done = encoder.TryEncode(instruction, 0x40_0000, out _, out _);
        bytes = stream.ToArray();
        return done;
    }
}
