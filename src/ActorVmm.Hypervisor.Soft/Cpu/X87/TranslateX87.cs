using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu;

internal sealed unsafe partial class Translator
{
    private bool TranslateX87(in Instruction i) => false;
}
