using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>
/// The shifts and rotates that are not one host instruction on a register: on memory and high bytes, narrow ones, rotates by CL and through
/// carry. The host computes result and CF; OF follows by the rule that tier 0 uses for every count.
/// </summary>
internal sealed unsafe partial class BlockCompiler
{
    private const int RotateLeft = 0, RotateRight = 1, ThroughCarryLeft = 2, ThroughCarryRight = 3, ShiftLeft = 4, ShiftRight = 5;

    private bool ShiftAny(in Instruction i, int kind)
    {
        var bytes = SizeOf(i, 0);
        var bits = 8 * bytes;
        var byCl = IsRegister(i, 1);
        var count = byCl ? 0 : (int)i.GetImmediate(1) & (bytes == 8 ? 63 : 31);
        var rotates = kind < ShiftLeft;
        if (!byCl && (count == 0 || (!rotates && count >= bits))) return false;
        LoseHostFlags();
        StoreFlags();
        if (IsMemory(i, 0))
        {
            Access(i, bytes, write: true);
            _e.Store(8, RegisterMap.At(RegisterMap.Transfer), Host.Rax);
        }
        var none = (int*)null;
        if (byCl)
        {
            LoadGuest(Host.Rcx, 1);
            _e.AluImmediate(AluAnd, 4, Host.Rcx, bytes == 8 ? 63 : 31);
            if (!rotates && bytes < 4)
            {
                _e.AluImmediate(AluCmp, 4, Host.Rcx, bits);
                BailIf(3);
                _e.Test(4, Host.Rcx, Host.Rcx);
            }
            if (bytes == 4 && IsRegister(i, 0))
            {
                // The upper half goes even where nothing is shifted.
                var target = OpenDestination(Number(i.Op0Register));
                _e.Move(4, target, target);
                CloseDestination(Number(i.Op0Register), 4, target);
            }
            none = _e.JumpIf(4);
        }
        if (rotates) PrepareImage();
        // From here to the shift only moves: CF goes into it, the others through it.
        if (byCl) LoadGuest(Host.Rcx, 1);
        else _e.MoveImmediate(Host.Rcx, count);
        LoadShifted(i, bytes);
        if (kind == ShiftRight) _e.Store(8, RegisterMap.At(RegisterMap.LockBuffer), Host.Rdx);
        _e.ShiftCl(kind, bytes, Host.Rdx);
        if (rotates) KeepRotated(kind, bytes);
        else KeepShifted(kind, bytes);
        if (IsMemory(i, 0))
        {
            _e.Load(8, Host.Rax, RegisterMap.At(RegisterMap.Transfer));
            _e.Store(bytes, new HostAddress(Host.Rax), Host.Rdx);
        }
        else if (IsHighByte(i.Op0Register)) WriteHighByte(i.Op0Register, Host.Rdx);
        else Write(Number(i.Op0Register), bytes, Host.Rdx);
        if (none != null) _e.Bind(none);
        FlagsUnknown();
        return true;
    }

    private void LoadShifted(in Instruction i, int bytes)
    {
        if (IsMemory(i, 0))
        {
            _e.Load(8, Host.Rax, RegisterMap.At(RegisterMap.Transfer));
            _e.Load(bytes, Host.Rdx, new HostAddress(Host.Rax));
            return;
        }
        var guest = Number(i.Op0Register);
        if (!IsHighByte(i.Op0Register))
        {
            LoadGuest(Host.Rdx, guest);
            return;
        }
        var slot = RegisterMap.Slot(guest);
        _e.Store(8, slot, RegisterMap.Of(guest));
        _e.Load(1, Host.Rdx, slot with { Displacement = slot.Displacement + 1 });
    }

    private void KeepShifted(int kind, int bytes)
    {
        _e.SetIf(2, RegisterMap.At(RegisterMap.FlagA));
        _e.Store(8, RegisterMap.At(RegisterMap.FlagR), Host.Rdx);
        if (kind == ShiftLeft)
        {
            // CF and the sign differ.
            _e.Move(8, Host.Rax, Host.Rdx);
            _e.Shift(ShiftRight, bytes, Host.Rax, 8 * bytes - 1);
            _e.Alu(AluXor, 1, Host.Rax, RegisterMap.At(RegisterMap.FlagA));
            _e.Store(8, RegisterMap.At(RegisterMap.FlagB), Host.Rax);
        }
        else if (kind == ShiftRight)
        {
            // The sign of the operand.
            _e.Load(8, Host.Rax, RegisterMap.At(RegisterMap.LockBuffer));
            _e.Shift(ShiftRight, bytes, Host.Rax, 8 * bytes - 1);
            _e.Store(8, RegisterMap.At(RegisterMap.FlagB), Host.Rax);
        }
        else
        {
            _e.StoreImmediate(8, RegisterMap.At(RegisterMap.FlagB), 0);
        }
        _e.StoreImmediate(4, RegisterMap.At(RegisterMap.FlagKind), (int)CompiledFlags.Kind(CompiledForm.Bits, bytes));
    }

    private void KeepRotated(int kind, int bytes)
    {
        _e.FlagsToAh();
        _e.Registers(4, 0x0FB6, Host.Rcx, (Host)4); // MOVZX ECX, AH
        _e.Move(8, Host.Rax, Host.Rdx);
        if (kind is RotateLeft or ThroughCarryLeft)
        {
            // CF and the sign differ.
            _e.Shift(ShiftRight, bytes, Host.Rax, 8 * bytes - 1);
            _e.Alu(AluXor, 4, Host.Rax, Host.Rcx);
        }
        else
        {
            // The upper two bits differ.
            _e.Shift(ShiftRight, bytes, Host.Rax, 8 * bytes - 2);
            _e.Store(8, RegisterMap.At(RegisterMap.LockBuffer), Host.Rax);
            _e.Shift(ShiftRight, 4, Host.Rax, 1);
            _e.Alu(AluXor, 4, Host.Rax, RegisterMap.At(RegisterMap.LockBuffer));
        }
        _e.AluImmediate(AluAnd, 4, Host.Rax, 1);
        _e.Shift(ShiftLeft, 4, Host.Rax, OverflowBit);
        _e.Alu(AluOr, 4, Host.Rcx, Host.Rax);
        _e.Store(8, RegisterMap.At(RegisterMap.FlagA), Host.Rcx);
        _e.StoreImmediate(4, RegisterMap.At(RegisterMap.FlagKind), (int)CompiledFlags.Kind(CompiledForm.Raw, 1));
    }
}
