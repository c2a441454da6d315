using System.Globalization;
using System.Runtime.InteropServices;
using ActorVmm.Hypervisor.Soft.Cpu.Compiler;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>A copy of a CPU's state in the one form in which two runs of a block can be compared byte by byte.</summary>
internal sealed unsafe class StateImage : IDisposable
{
    // SAFETY: memory of the struct's size, aligned as the state itself is, freed in Dispose.
    private readonly CpuState* _copy = (CpuState*)NativeMemory.AlignedAlloc((nuint)sizeof(CpuState), 64);

    private static readonly string[] Names =
        ["RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15"];

    public void CopyFrom(CpuState* s) => *_copy = *s;

    public void CopyTo(CpuState* s) => *s = *_copy;

    /// <summary>Takes the state over and brings it into the common form: RIP and count exact, flags as bits, what is no guest state zero.</summary>
    public void Take(CpuState* s)
    {
        *_copy = *s;
        var c = _copy;
        if (c->AbortOp != null)
        {
            c->Rip += c->AbortOp->IpOffset;
            c->Budget += c->AbortOp->Left;
        }
        CompiledFlags.Normalize(c);
        Flags.SetArithmetic(c, Flags.GetArithmetic(c));
        (c->FlagB, c->FlagR, c->FlagCarry, c->FlagRotated) = (0, 0, 0, 0);
        (c->OldFlagA, c->OldFlagB, c->OldFlagR, c->OldFlagKind, c->OldFlagCarry, c->OldFlagRotated) = (0, 0, 0, 0, 0, 0);
        (c->Page, c->Attention, c->Transfer, c->LockBuffer, c->ReturnTop, c->Regs[17]) = (0, 0, 0, 0, 0, 0);
        c->AbortOp = null;
        c->Handler = null;
        for (var i = 0; i < 6; i++) c->Saved[i] = 0;
        for (var i = 0; i < 2 * CpuState.ReturnDepth; i++) c->Returns[i] = 0;
    }

    private ReadOnlySpan<ulong> Words => new(_copy, sizeof(CpuState) / sizeof(ulong));

    public bool Equals(StateImage other) => Words.SequenceEqual(other.Words);

    /// <summary>What is different, for people.</summary>
    public IEnumerable<string> Differences(StateImage other)
    {
        var differences = new List<string>();
        for (var i = 0; i < Words.Length; i++)
        {
            if (Words[i] == other.Words[i]) continue;
            differences.Add(string.Create(CultureInfo.InvariantCulture, $"{NameOf(i * sizeof(ulong))} 0x{Words[i]:x} and 0x{other.Words[i]:x}"));
        }
        return differences;
    }

    private string NameOf(int offset)
    {
        if (offset < 16 * 8) return Names[offset / 8];
        if (offset == RegisterMap.Rip) return "RIP";
        if (offset == RegisterMap.BudgetOffset) return "instructions left";
        if (offset == RegisterMap.FlagA) return "arithmetic flags";
        if (offset >= RegisterMap.Xmm && offset < RegisterMap.Xmm + 16 * 16)
            return string.Create(CultureInfo.InvariantCulture, $"XMM{(offset - RegisterMap.Xmm) / 16}{((offset & 8) == 0 ? " low" : " high")}");
        return string.Create(CultureInfo.InvariantCulture, $"state+{offset}");
    }

    public void Dispose() => NativeMemory.AlignedFree(_copy);
}
