using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu;

internal sealed unsafe partial class Translator
{
    private bool TranslateInteger(in Instruction i) => false;
}
