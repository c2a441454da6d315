using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>
/// DIV and IDIV, where a comparison shows that the quotient fits: the host's division then cannot fault. Everything else, #DE among it, is
/// tier 0's. The flags stay what they are, as there.
/// </summary>
internal sealed unsafe partial class BlockCompiler
{
    private bool Divide(in Instruction i, bool signed)
    {
        var bytes = SizeOf(i, 0);
        LoseHostFlags();
        if (IsMemory(i, 0))
        {
            Access(i, bytes, write: false);
            _e.Load(bytes, Host.Rcx, new HostAddress(Host.Rax));
        }
        else
        {
            _e.Move(8, Host.Rcx, Read(i.Op0Register, Host.Rcx));
        }
        BeforeWrite(0);
        BeforeWrite(2);
        LoadGuest(Host.Rax, 0);
        if (signed) CheckSigned(bytes);
        else CheckUnsigned(bytes);
        _e.Unary(0xF6, signed ? 7 : 6, bytes, Host.Rcx);
        Write(0, bytes == 1 ? 2 : bytes, Host.Rax);
        if (bytes > 1) Write(2, bytes, Host.Rdx);
        return true;
    }

    /// <summary>The quotient fits where the upper half of the dividend is below the divisor (which is then not zero either).</summary>
    private void CheckUnsigned(int bytes)
    {
        if (bytes == 1) _e.Registers(4, 0x0FB6, Host.Rdx, (Host)4); // MOVZX EDX, AH
        else LoadGuest(Host.Rdx, 2);
        _e.Alu(AluCmp, bytes, Host.Rdx, Host.Rcx);
        BailIf(3);
    }

    /// <summary>Taken where the upper half of the dividend is the sign of the lower, and the divisor is neither 0 nor -1.</summary>
    private void CheckSigned(int bytes)
    {
        if (bytes == 1)
        {
            _e.Registers(4, 0x0FBE, Host.Rdx, Host.Rax, 2); // MOVSX EDX, AL
            _e.Alu(AluCmp, 2, Host.Rdx, Host.Rax);
        }
        else
        {
            _e.Move(8, Host.Rdx, Host.Rax);
            _e.Shift(7, bytes, Host.Rdx, 8 * bytes - 1);
            _e.Alu(AluCmp, bytes, RegisterMap.Of(2), Host.Rdx);
        }
        BailIf(5);
        _e.Test(bytes, Host.Rcx, Host.Rcx);
        BailIf(4);
        _e.AluImmediate(AluCmp, bytes, Host.Rcx, -1);
        BailIf(4);
    }
}
