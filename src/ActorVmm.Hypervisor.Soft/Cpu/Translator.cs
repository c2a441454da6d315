using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// Turns decoded instructions (Iced) into ops. One method per instruction group, each in its own file; a group answers false for what is
/// not its own, and what no group takes is #UD.
/// </summary>
internal sealed unsafe partial class Translator
{
    private readonly BlockBuilder _b = new();

    public BlockBuilder Builder => _b;

    /// <summary>Emits the ops of one instruction.</summary>
    private void Translate(in Instruction i)
    {
        _b.BeginInstruction(i);
        if (TranslateInteger(i) || TranslateSystem(i) || TranslateVector(i) || TranslateX87(i)) return;
        _b.EmitEnd(&SystemOps.InvalidOpcode);
    }

    /// <summary>Emits <paramref name="fn"/> with the address operands of <paramref name="i"/>, in the universal form <see cref="AtAny"/>.</summary>
    private ref Op EmitMemory(in Instruction i, delegate*<CpuState*, Op*, void> fn)
    {
        var viaTemporary = _b.EmitAddress(i);
        ref var op = ref _b.Emit(fn);
        _b.Address(ref op, i, viaTemporary);
        return ref op;
    }
}
