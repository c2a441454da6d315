using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>AH, CH, DH and BH as destinations: through the state, where a byte gets into its place without touching the flags.</summary>
internal sealed unsafe partial class BlockCompiler
{
    /// <summary>Puts the low byte of a host register into AH, CH, DH or BH. Only moves.</summary>
    private void WriteHighByte(Register register, Host from)
    {
        var guest = Number(register);
        var slot = RegisterMap.Slot(guest);
        _e.Store(8, slot, RegisterMap.Of(guest));
        _e.Store(1, slot with { Displacement = slot.Displacement + 1 }, from);
        _e.Load(8, RegisterMap.Of(guest), slot);
    }

    private bool MoveToHighByte(in Instruction i)
    {
        BeforeWrite(Number(i.Op0Register));
        if (IsMemory(i, 1))
        {
            Access(i, 1, write: false);
            _e.Load(1, Host.Rdx, new HostAddress(Host.Rax));
            WriteHighByte(i.Op0Register, Host.Rdx);
        }
        else if (IsRegister(i, 1))
        {
            WriteHighByte(i.Op0Register, Read(i.Op1Register, Host.Rdx));
        }
        else
        {
            _e.MoveImmediate(Host.Rdx, (byte)i.GetImmediate(1));
            WriteHighByte(i.Op0Register, Host.Rdx);
        }
        return true;
    }

    private bool BinaryHighByte(in Instruction i, int kind, CompiledForm form)
    {
        if (IsMemory(i, 1))
        {
            Access(i, 1, write: false);
            _e.Load(1, Host.Rdx, new HostAddress(Host.Rax));
        }
        LoseHostFlags();
        BeforeWrite(Number(i.Op0Register));
        if (IsRegister(i, 1)) _e.Move(8, Host.Rdx, Read(i.Op1Register, Host.Rdx));
        else if (!IsMemory(i, 1)) _e.MoveImmediate(Host.Rdx, (byte)i.GetImmediate(1));
        Read(i.Op0Register, Host.Rcx);
        _e.Alu(kind, 1, Host.Rcx, Host.Rdx);
        WriteHighByte(i.Op0Register, Host.Rcx);
        if (FlagsDead)
        {
            NoFlags();
            return true;
        }
        _e.Store(8, RegisterMap.At(RegisterMap.FlagB), Host.Rdx);
        _e.Store(8, RegisterMap.At(RegisterMap.FlagR), Host.Rcx);
        SetFlags(form, 1, default, default, default);
        return true;
    }
}
