using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>Guest registers, and guest memory through the software TLB.</summary>
internal sealed unsafe partial class BlockCompiler
{
    private static int Number(Register register) => register.GetFullRegister().GetNumber();

    private static bool IsHighByte(Register register) => register is >= Register.AH and <= Register.BH;

    private void LoadGuest(Host to, int guest)
    {
        var host = RegisterMap.Of(guest);
        if (host == Host.None) _e.Load(8, to, RegisterMap.Slot(guest));
        else _e.Move(8, to, host);
    }

    /// <summary>The host register that has a guest register, or <paramref name="temporary"/> after loading it.</summary>
    private Host Read(int guest, Host temporary)
    {
        var host = RegisterMap.Of(guest);
        if (host != Host.None) return host;
        _e.Load(8, temporary, RegisterMap.Slot(guest));
        return temporary;
    }

    /// <summary>As above for an operand of any width; AH to BH come shifted down in the temporary (which costs the host's flags).</summary>
    private Host Read(Register register, Host temporary)
    {
        if (!IsHighByte(register)) return Read(Number(register), temporary);
        LoseHostFlags();
        _e.Move(4, temporary, RegisterMap.Of(Number(register)));
        _e.Shift(5, 4, temporary, 8);
        return temporary;
    }

    /// <summary>Writes a guest register from a host register: 32 bits clear the upper half, narrower ones keep the rest. No flags change.</summary>
    private void Write(int guest, int bytes, Host from)
    {
        var host = RegisterMap.Of(guest);
        if (host != Host.None)
        {
            if (bytes == 4 || host != from) _e.Move(bytes, host, from);
            return;
        }
        if (bytes == 4)
        {
            // The upper half is zero; the source keeps its own.
            var into = from == Host.Rdx ? Host.Rdx : Host.Rax;
            _e.Move(4, into, from);
            from = into;
        }
        _e.Store(bytes == 4 ? 8 : bytes, RegisterMap.Slot(guest), from);
    }

    /// <summary>Where an instruction computes its result: the guest register itself, or RAX with the register's value.</summary>
    private Host OpenDestination(int guest)
    {
        var host = RegisterMap.Of(guest);
        if (host != Host.None) return host;
        _e.Load(8, Host.Rax, RegisterMap.Slot(guest));
        return Host.Rax;
    }

    /// <summary>Puts the result in its place; a 32-bit operation has cleared the upper half in the host register already.</summary>
    private void CloseDestination(int guest, int bytes, Host result)
    {
        if (RegisterMap.Of(guest) != Host.None) return;
        _e.Store(bytes == 4 ? 8 : bytes, RegisterMap.Slot(guest), result);
    }

    // --- addresses ---

    /// <summary>True where the address of the memory operand is one that <see cref="EmitAddress"/> computes.</summary>
    private bool AddressFits(in Instruction i)
    {
        if (BlockBuilder.AddressSize(i) == 32) return !i.IsIPRelativeMemoryOperand;
        if (BlockBuilder.AddressSize(i) != 64) return false;
        var displacement = i.IsIPRelativeMemoryOperand ? (long)(i.IPRelativeMemoryAddress - _page) : (long)i.MemoryDisplacement64;
        return displacement is >= int.MinValue and <= int.MaxValue;
    }

    /// <summary>Puts the linear address into RAX. Uses RCX; the host's flags stay unless there is a segment base.</summary>
    private void EmitAddress(in Instruction i, bool withSegment = true)
    {
        if (i.IsIPRelativeMemoryOperand)
        {
            _e.Load(8, Host.Rax, RegisterMap.At(RegisterMap.Page));
            _e.Lea(Host.Rax, new HostAddress(Host.Rax, (int)(i.IPRelativeMemoryAddress - _page)));
        }
        else
        {
            var basis = i.MemoryBase == Register.None ? Host.None : Read(Number(i.MemoryBase), Host.Rax);
            var index = i.MemoryIndex == Register.None ? Host.None : Read(Number(i.MemoryIndex), Host.Rcx);
            var displacement = (int)(long)i.MemoryDisplacement64;
            var scale = index == Host.None ? 0 : System.Numerics.BitOperations.Log2((uint)i.MemoryIndexScale);
            if (BlockBuilder.AddressSize(i) == 32)
            {
                if (basis == Host.None && index == Host.None) _e.MoveImmediate(Host.Rax, (uint)displacement);
                else _e.Memory(4, 0x8D, Host.Rax, new HostAddress(basis, displacement, index, scale));
            }
            else if (basis == Host.None && index == Host.None) _e.MoveImmediate(Host.Rax, displacement);
            else if (index == Host.None && displacement == 0) _e.Move(8, Host.Rax, basis);
            else _e.Lea(Host.Rax, new HostAddress(basis, displacement, index, scale));
        }
        if (!withSegment || i.MemorySegment is not (Register.FS or Register.GS)) return;
        LoseHostFlags();
        _e.Alu(0, 8, Host.Rax, RegisterMap.At(BlockBuilder.BaseOffset(i.MemorySegment)));
    }

    /// <summary>
    /// Turns the linear address in RAX into a host address, where the whole access lies in a page that the TLB has; else the instruction is
    /// left to tier 0. Uses RCX, RDX and the host's flags.
    /// </summary>
    /// <param name="count">Holds how many times <paramref name="bytes"/> are accessed, at least once; none: once.</param>
    private void Probe(int bytes, bool write, Host count = Host.None)
    {
        LoseHostFlags();
        _e.Registers(4, 0x8B, Host.Rdx, Host.Rax);
        _e.Shift(5, 4, Host.Rdx, 8);
        _e.AluImmediate(4, 4, Host.Rdx, (Mem.TlbSize - 1) << 4);
        _e.Alu(0, 8, Host.Rdx, RegisterMap.At(write ? RegisterMap.TlbWrite : RegisterMap.TlbRead));
        // The last byte's page must be the entry's: an access across pages fails.
        if (count != Host.None)
            _e.Lea(Host.Rcx, new HostAddress(Host.Rax, -1, count, System.Numerics.BitOperations.Log2((uint)bytes)));
        else if (bytes == 1) _e.Move(8, Host.Rcx, Host.Rax);
        else _e.Lea(Host.Rcx, new HostAddress(Host.Rax, bytes - 1));
        _e.AluImmediate(4, 8, Host.Rcx, -4096);
        _e.Alu(7, 8, Host.Rcx, new HostAddress(Host.Rdx));
        BailIf(5);
        _e.Alu(0, 8, Host.Rax, new HostAddress(Host.Rdx, 8));
    }

    /// <summary>Address and probe of a memory operand; the host address is in RAX.</summary>
    private void Access(in Instruction i, int bytes, bool write)
    {
        EmitAddress(i);
        Probe(bytes, write);
    }
}
