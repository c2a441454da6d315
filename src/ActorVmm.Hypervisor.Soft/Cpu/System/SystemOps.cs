using System.Runtime.CompilerServices;
using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>Exceptions raised by the decoder.</summary>
internal static unsafe partial class SystemOps
{
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void InvalidOpcode(CpuState* s, Op* op) => Flow.Raise(s, op, Vector.Ud);
}

internal sealed unsafe partial class Translator
{
    private bool TranslateSystem(in Instruction i) => false;
}
