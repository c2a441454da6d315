using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu;

internal sealed unsafe partial class Translator
{
    private bool TranslateVector(in Instruction i) => false;
}
