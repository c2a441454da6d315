using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>
/// What floating point needs besides the host's instructions. While a vCPU is in compiled code the host's MXCSR becomes the guest's at the
/// first instruction that asks for it, and stays so until tier 0 takes over: rounding, DAZ and FTZ are then the guest's, and its sticky
/// flags rise by themselves. A guest that unmasks an exception computes in tier 0, where that can be raised.
/// </summary>
internal sealed unsafe partial class BlockCompiler
{
    /// <summary>All exceptions masked (SDM Vol. 1 §10.2.3).</summary>
    private const int MaskedExceptions = 0x1F80;

    private const Host LoadMxcsr = (Host)2, StoreMxcsr = (Host)3; // LDMXCSR and STMXCSR within their group

    /// <summary>Makes the host's MXCSR the guest's, or leaves to tier 0. Uses RAX.</summary>
    private void TakeRounding()
    {
        if (_vectors.OwnRounding) return;
        LoseHostFlags();
        _e.AluImmediate(AluCmp, 4, RegisterMap.At(RegisterMap.MxcsrInHost), 0);
        var taken = _e.JumpIf(5);
        _e.Load(4, Host.Rax, RegisterMap.At(RegisterMap.Mxcsr));
        _e.AluImmediate(AluAnd, 4, Host.Rax, MaskedExceptions);
        _e.AluImmediate(AluCmp, 4, Host.Rax, MaskedExceptions);
        BailIf(5);
        _e.Memory(4, 0x0FAE, LoadMxcsr, RegisterMap.At(RegisterMap.Mxcsr));
        _e.StoreImmediate(4, RegisterMap.At(RegisterMap.MxcsrInHost), 1);
        _e.Bind(taken);
        _vectors.OwnRounding = true;
    }

    /// <summary>Brings the sticky flags into the state; the host's MXCSR stays the guest's.</summary>
    private void StoreRounding()
    {
        LoseHostFlags();
        _e.AluImmediate(AluCmp, 4, RegisterMap.At(RegisterMap.MxcsrInHost), 0);
        var own = _e.JumpIf(4);
        _e.Memory(4, 0x0FAE, StoreMxcsr, RegisterMap.At(RegisterMap.Mxcsr));
        _e.Bind(own);
    }

    /// <summary>The host's MXCSR is its own again.</summary>
    private void GiveRoundingBack()
    {
        _e.Memory(4, 0x0FAE, LoadMxcsr, RegisterMap.At(RegisterMap.HostMxcsr));
        _e.StoreImmediate(4, RegisterMap.At(RegisterMap.MxcsrInHost), 0);
        _vectors.OwnRounding = false;
    }

    /// <summary>LDMXCSR and STMXCSR.</summary>
    private bool MoveMxcsr(in Instruction i)
    {
        AllowVectors();
        if (i.Mnemonic == Mnemonic.Stmxcsr)
        {
            StoreRounding();
            Access(i, 4, write: true);
            _e.Load(4, Host.Rdx, RegisterMap.At(RegisterMap.Mxcsr));
            _e.Store(4, new HostAddress(Host.Rax), Host.Rdx);
            return true;
        }
        Access(i, 4, write: false);
        _e.Load(4, Host.Rdx, new HostAddress(Host.Rax));
        _e.AluImmediate(AluCmp, 4, Host.Rdx, (int)Fxsave.MxcsrMask);
        BailIf(7);
        _e.Store(4, RegisterMap.At(RegisterMap.Mxcsr), Host.Rdx);
        GiveRoundingBack();
        return true;
    }

    /// <summary>COMISD and its kin, PTEST: what they leave is kept as an image of the flags.</summary>
    private bool VectorFlags(in Instruction i, VectorOpcode opcode)
    {
        if (IsMemory(i, 1)) AccessVector(i, i.MemorySize.GetSize(), write: false, unaligned: false);
        LoseHostFlags();
        var from = IsMemory(i, 1) ? -1 : ReadVector(VectorNumber(i.Op1Register), OtherTemporaryVector);
        var to = ReadVector(VectorNumber(i.Op0Register), TemporaryVector);
        if (from < 0) _e.Vector(opcode.Prefix, opcode.Opcode, to, new HostAddress(Host.Rax));
        else _e.Vector(opcode.Prefix, opcode.Opcode, to, from);
        SetImage();
        return true;
    }

    /// <summary>Flags that the host's instruction has left, OF among them zero.</summary>
    private void SetImage()
    {
        if (FlagsDead)
        {
            NoFlags();
            return;
        }
        _e.FlagsToAh();
        _e.Registers(4, 0x0FB6, Host.Rax, (Host)4); // MOVZX EAX, AH
        _e.Store(8, RegisterMap.At(RegisterMap.FlagA), Host.Rax);
        SetFlags(CompiledForm.Raw, 1, default, default, default);
    }
}
