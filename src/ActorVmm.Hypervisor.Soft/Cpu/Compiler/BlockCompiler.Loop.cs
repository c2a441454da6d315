using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>LOOP, LOOPE, LOOPNE, JRCXZ: jumps that ask RCX.</summary>
internal sealed unsafe partial class BlockCompiler
{
    private bool Loop(in Instruction i)
    {
        if (!InReach(i)) return false;
        var count = RegisterMap.Of(1);
        switch (i.Code)
        {
            case Code.Jrcxz_rel8_64 or Code.Jecxz_rel8_64:
                LoseHostFlags();
                StoreFlags();
                _e.Test(i.Code == Code.Jrcxz_rel8_64 ? 8 : 4, count, count);
                break;
            case Code.Loop_rel8_64_RCX:
                BeforeWrite(1);
                LoseHostFlags();
                StoreFlags();
                _e.AluImmediate(AluSub, 8, count, 1);
                break;
            case Code.Loope_rel8_64_RCX or Code.Loopne_rel8_64_RCX:
                // Taken where RCX goes on and ZF is as wanted: the first decides alone where it is zero.
                if (!PrepareCondition(4)) return false;
                _e.SetIf(i.Code == Code.Loope_rel8_64_RCX ? 4 : 5, RegisterMap.At(RegisterMap.Transfer));
                LoseHostFlags();
                StoreFlags();
                _e.AluImmediate(AluSub, 8, count, 1);
                var zero = _e.JumpIf(4);
                _e.TestImmediate(RegisterMap.At(RegisterMap.Transfer), 1);
                _e.Bind(zero);
                break;
            default:
                return false; // counts in ECX
        }
        _ended = true;
        var condition = i.Mnemonic is Mnemonic.Jrcxz or Mnemonic.Jecxz ? 4 : 5;
        if (TargetDisplacement(i) < 0x1000)
        {
            EdgeTo((int)TargetDisplacement(i), _e.JumpIf(condition));
        }
        else
        {
            var not = _e.JumpIf(condition ^ 1);
            GoTo(TargetDisplacement(i));
            _e.Bind(not);
        }
        GoTo(i.NextIP - _page);
        return true;
    }
}
