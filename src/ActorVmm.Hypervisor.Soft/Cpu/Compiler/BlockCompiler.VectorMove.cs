using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>Moves between vector registers, general registers and memory.</summary>
internal sealed unsafe partial class BlockCompiler
{
    private const int LoadUnaligned = 0x0F10, StoreUnaligned = 0x0F11; // MOVUPS; with F3 MOVSS, with F2 MOVSD

    private bool VectorMove(in Instruction i, VectorOpcode opcode, bool unaligned)
    {
        switch (i.Mnemonic)
        {
            case Mnemonic.Movss or Mnemonic.Movsd:
                // Between registers the rest of the destination stays; a load makes it zero.
                if (!IsMemory(i, 0) && !IsMemory(i, 1)) return VectorOperation(i, opcode with { Opcode = LoadUnaligned }, reads: true);
                return MoveMemory(i, opcode.Prefix, LoadUnaligned, StoreUnaligned, reads: false, unaligned: true);
            case Mnemonic.Movlps or Mnemonic.Movlpd:
                return MoveMemory(i, 0, 0x0F12, 0x0F13, reads: true, unaligned: true);
            case Mnemonic.Movhps or Mnemonic.Movhpd:
                return MoveMemory(i, 0, 0x0F16, 0x0F17, reads: true, unaligned: true);
            case Mnemonic.Movd or Mnemonic.Movq:
                return MoveDwordQword(i);
            case Mnemonic.Pextrw or Mnemonic.Pextrb or Mnemonic.Pextrd or Mnemonic.Pextrq or Mnemonic.Extractps:
                return Extract(i, opcode);
        }
        if (IsMemory(i, 0) || IsMemory(i, 1)) return MoveMemory(i, 0, LoadUnaligned, StoreUnaligned, reads: false, unaligned);
        return MoveRegister(VectorNumber(i.Op0Register), VectorNumber(i.Op1Register));
    }

    private bool MoveRegister(int to, int from)
    {
        var value = ReadVector(from, TemporaryVector);
        if (to >= VectorsInHost) _e.StoreVector(VectorSlot(to), value);
        else
        {
            _e.MoveVector(to, value);
            CloseVector(to, to);
        }
        return true;
    }

    private bool MoveMemory(in Instruction i, int prefix, int load, int store, bool reads, bool unaligned)
    {
        var bytes = i.MemorySize.GetSize();
        if (IsMemory(i, 0))
        {
            AccessVector(i, bytes, write: true, unaligned);
            _e.Vector(prefix, store, ReadVector(VectorNumber(i.Op1Register), OtherTemporaryVector), new HostAddress(Host.Rax));
            return true;
        }
        var guest = VectorNumber(i.Op0Register);
        AccessVector(i, bytes, write: false, unaligned);
        var into = OpenVector(guest, reads);
        _e.Vector(prefix, load, into, new HostAddress(Host.Rax));
        CloseVector(guest, into);
        return true;
    }

    /// <summary>MOVD, MOVQ: the upper part of a vector destination becomes zero.</summary>
    private bool MoveDwordQword(in Instruction i)
    {
        if (IsMemory(i, 0) || IsMemory(i, 1))
        {
            // Loads as MOVSS and MOVSD, which clear the rest as well.
            return MoveMemory(i, i.MemorySize.GetSize() == 8 ? 0xF2 : 0xF3, LoadUnaligned, StoreUnaligned, reads: false, unaligned: true);
        }
        if (!IsVector(i.Op0Register))
        {
            var bytes = i.Op0Register.GetSize();
            var to = Number(i.Op0Register);
            BeforeWrite(to);
            _e.Vector(0x66, 0x0F7E, ReadVector(VectorNumber(i.Op1Register), OtherTemporaryVector), (int)Host.Rax, bytes == 8);
            Write(to, bytes, Host.Rax);
            return true;
        }
        var guest = VectorNumber(i.Op0Register);
        if (IsVector(i.Op1Register))
        {
            var from = ReadVector(VectorNumber(i.Op1Register), OtherTemporaryVector);
            var low = OpenVector(guest, reads: false);
            _e.Vector(0xF3, 0x0F7E, low, from);
            CloseVector(guest, low);
            return true;
        }
        var value = Read(Number(i.Op1Register), Host.Rax);
        var into = OpenVector(guest, reads: false);
        _e.Vector(0x66, 0x0F6E, into, (int)value, i.Op1Register.GetSize() == 8);
        CloseVector(guest, into);
        return true;
    }

    /// <summary>PEXTRB, PEXTRW, PEXTRD, PEXTRQ, EXTRACTPS: to a general register (zero-extended) or to memory.</summary>
    private bool Extract(in Instruction i, VectorOpcode opcode)
    {
        var wide = i.Mnemonic == Mnemonic.Pextrq;
        if (IsMemory(i, 0))
        {
            AccessVector(i, i.MemorySize.GetSize(), write: true, unaligned: true);
            var value = ReadVector(VectorNumber(i.Op1Register), OtherTemporaryVector);
            _e.Vector(opcode.Prefix, opcode.Opcode, value, new HostAddress(Host.Rax), wide);
            _e.Byte(i.Immediate8);
            return true;
        }
        var to = Number(i.Op0Register);
        BeforeWrite(to);
        var from = ReadVector(VectorNumber(i.Op1Register), OtherTemporaryVector);
        // PEXTRW of SSE2 has the general register in the other place.
        if (opcode.Opcode == 0x0FC5) _e.Vector(opcode.Prefix, opcode.Opcode, (int)Host.Rax, from);
        else _e.Vector(opcode.Prefix, opcode.Opcode, from, (int)Host.Rax, wide);
        _e.Byte(i.Immediate8);
        Write(to, wide ? 8 : 4, Host.Rax);
        return true;
    }

    /// <summary>MASKMOVDQU: the bytes that the mask selects to [RDI], where all sixteen may be written.</summary>
    private bool MaskMove(in Instruction i)
    {
        if (i.Op0Kind != OpKind.MemorySegRDI || !IsVector(i.Op1Register)) return false;
        AllowVectors();
        LoseHostFlags();
        LoadGuest(Host.Rax, Rdi);
        AddSegment(i);
        Probe(16, write: true);
        var value = ReadVector(VectorNumber(i.Op1Register), TemporaryVector);
        var mask = ReadVector(VectorNumber(i.Op2Register), OtherTemporaryVector);
        _e.Move(8, Host.Rdx, Host.Rdi); // a guest register is there, and the instruction wants the address
        _e.Move(8, Host.Rdi, Host.Rax);
        _e.Vector(0x66, 0x0FF7, value, mask);
        _e.Move(8, Host.Rdi, Host.Rdx);
        return true;
    }
}
