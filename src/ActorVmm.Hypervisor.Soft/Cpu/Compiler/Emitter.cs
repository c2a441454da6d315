using System.Runtime.CompilerServices;

namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>Host registers by their number in machine code.</summary>
internal enum Host
{
    None = -1,
    Rax, Rcx, Rdx, Rbx, Rsp, Rbp, Rsi, Rdi, R8, R9, R10, R11, R12, R13, R14, R15,
}

/// <summary>A host memory operand: base + index * 2^scale + displacement.</summary>
internal readonly record struct HostAddress(Host Base, int Displacement = 0, Host Index = Host.None, int Scale = 0);

/// <summary>
/// Writes x64 machine code (SDM Vol. 2 ch. 2). Opcodes are given as in the manual, two-byte ones as 0x0Fxx, three-byte
/// ones as 0x0F38xx; operand sizes are 1, 2, 4 or 8
/// bytes and choose prefix, REX.W and, for the classic groups, the byte form of the opcode.
/// </summary>
internal sealed unsafe class Emitter
{
    private byte* _at;
    private byte* _end;
    private long _delta;

    /// <summary>Goes on writing at <paramref name="at"/> (writable address).</summary>
    public void Begin(byte* at, byte* end, long delta)
    {
        _at = at;
        _end = end;
        _delta = delta;
    }

    /// <summary>Writable address of the next byte.</summary>
    public byte* At => _at;

    /// <summary>Executable address of the next byte.</summary>
    public byte* Here => _at + _delta;

    /// <summary>Takes back what was written behind <paramref name="at"/>.</summary>
    public void Rewind(byte* at) => _at = at;

    /// <summary>Bytes left.</summary>
    public long Room => _end - _at;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void Byte(int value) => *_at++ = (byte)value;

    private void Int32(int value)
    {
        *(int*)_at = value;
        _at += 4;
    }

    /// <summary>
    /// The next byte may be called as a handler: a runtime compiled ahead of time takes a function pointer with bit 1 set for the
    /// address of a generic method's descriptor. What is skipped is never run, since a jump stands before it.
    /// </summary>
    public void AlignHandler()
    {
        while (((nint)Here & (HandlerAlignment - 1)) != 0) Byte(0xCC); // INT3
    }

    /// <summary>What addresses of handlers are multiples of.</summary>
    public const int HandlerAlignment = 4;

    // --- the general forms ---

    private void Opcode(int size, int opcode, int rex)
    {
        if (size == 2) Byte(0x66);
        if (rex != 0) Byte(rex);
        if (opcode > 0xFF) Byte(0x0F);
        if (opcode > 0xFFFF) Byte(opcode >> 8);
        Byte(opcode);
    }

    /// <summary>An instruction with a register and a register-or-memory operand that is a register.</summary>
    /// <param name="byteRegisters">Bit 0: <paramref name="reg"/> is a byte register, bit 1: <paramref name="rm"/> is (they need REX for SPL to DIL).</param>
    public void Registers(int size, int opcode, Host reg, Host rm, int byteRegisters = 0)
    {
        var rex = (size == 8 ? 0x48 : 0) | ((int)reg >= 8 ? 0x44 : 0) | ((int)rm >= 8 ? 0x41 : 0);
        if ((byteRegisters & 1) != 0 && (int)reg is >= 4 and < 8) rex |= 0x40;
        if ((byteRegisters & 2) != 0 && (int)rm is >= 4 and < 8) rex |= 0x40;
        Opcode(size, opcode, rex);
        Byte(0xC0 | (((int)reg & 7) << 3) | ((int)rm & 7));
    }

    /// <summary>An instruction with a register (or opcode extension) and a memory operand.</summary>
    public void Memory(int size, int opcode, Host reg, HostAddress m, bool byteRegister = false, int prefix = 0)
    {
        if (prefix != 0) Byte(prefix);
        var rex = (size == 8 ? 0x48 : 0) | ((int)reg >= 8 ? 0x44 : 0) | ((int)m.Base >= 8 ? 0x41 : 0) | ((int)m.Index >= 8 ? 0x42 : 0);
        if (byteRegister && (int)reg is >= 4 and < 8) rex |= 0x40;
        Opcode(size, opcode, rex);
        var field = ((int)reg & 7) << 3;
        if (m.Base == Host.None)
        {
            Byte(field | 4);
            Byte((m.Scale << 6) | ((m.Index == Host.None ? 4 : (int)m.Index & 7) << 3) | 5);
            Int32(m.Displacement);
            return;
        }
        var low = (int)m.Base & 7;
        // A base of RBP or R13 always has a displacement; RSP and R12 always a SIB byte.
        var mode = m.Displacement == 0 && low != 5 ? 0 : m.Displacement is >= -128 and <= 127 ? 0x40 : 0x80;
        if (m.Index == Host.None && low != 4)
        {
            Byte(mode | field | low);
        }
        else
        {
            Byte(mode | field | 4);
            Byte((m.Scale << 6) | ((m.Index == Host.None ? 4 : (int)m.Index & 7) << 3) | low);
        }
        if (mode == 0x40) Byte(m.Displacement);
        else if (mode == 0x80) Int32(m.Displacement);
    }

    /// <summary>A string instruction with REP (0xF3) or REPNE (0xF2); the opcode is that of the byte form.</summary>
    public void Repeat(int prefix, int opcode, int size)
    {
        Byte(prefix);
        Opcode(size, size == 1 ? opcode : opcode | 1, size == 8 ? 0x48 : 0);
    }

    // --- vectors ---

    /// <summary>An instruction on two vector registers (or a vector and a general one); <paramref name="prefix"/> is 0, 0x66, 0xF2 or 0xF3.</summary>
    /// <param name="wide">REX.W.</param>
    public void Vector(int prefix, int opcode, int reg, int rm, bool wide = false)
    {
        if (prefix != 0) Byte(prefix);
        Registers(wide ? 8 : 4, opcode, (Host)reg, (Host)rm);
    }

    /// <summary>The same with a memory operand.</summary>
    public void Vector(int prefix, int opcode, int reg, HostAddress m, bool wide = false) =>
        Memory(wide ? 8 : 4, opcode, (Host)reg, m, prefix: prefix);

    public void MoveVector(int to, int from) => Vector(0, 0x0F28, to, from); // MOVAPS

    public void LoadVector(int to, HostAddress from) => Vector(0, 0x0F28, to, from);

    public void StoreVector(HostAddress to, int from) => Vector(0, 0x0F29, from, to);

    /// <summary>TEST of a byte of memory with an immediate.</summary>
    public void TestImmediate(HostAddress m, int value)
    {
        Memory(1, 0xF6, 0, m);
        Byte(value);
    }

    /// <summary>TEST AL, imm8.</summary>
    public void TestAl(int value)
    {
        Byte(0xA8);
        Byte(value);
    }

    /// <summary>The flags but OF into AH.</summary>
    public void FlagsToAh() => Byte(0x9F);

    /// <summary>AH into the flags but OF.</summary>
    public void AhToFlags() => Byte(0x9E);

    private void Immediate(int size, int value)
    {
        if (size == 1) Byte(value);
        else if (size == 2)
        {
            *(short*)_at = (short)value;
            _at += 2;
        }
        else Int32(value);
    }

    // --- moves ---

    public void Move(int size, Host to, Host from)
    {
        if (to == from && size == 8) return;
        Registers(size, size == 1 ? 0x88 : 0x89, from, to, size == 1 ? 3 : 0);
    }

    public void Load(int size, Host to, HostAddress from) => Memory(size, size == 1 ? 0x8A : 0x8B, to, from, size == 1);

    public void Store(int size, HostAddress to, Host from) => Memory(size, size == 1 ? 0x88 : 0x89, from, to, size == 1);

    /// <summary>Stores a sign-extended immediate.</summary>
    public void StoreImmediate(int size, HostAddress to, int value)
    {
        Memory(size, size == 1 ? 0xC6 : 0xC7, 0, to);
        Immediate(size, value);
    }

    public void MoveImmediate(Host to, long value)
    {
        if (value is >= 0 and <= uint.MaxValue)
        {
            if ((int)to >= 8) Byte(0x41);
            Byte(0xB8 | ((int)to & 7));
            Int32((int)value);
        }
        else if (value is >= int.MinValue and < 0)
        {
            Registers(8, 0xC7, 0, to);
            Int32((int)value);
        }
        else
        {
            Byte((int)to >= 8 ? 0x49 : 0x48);
            Byte(0xB8 | ((int)to & 7));
            *(long*)_at = value;
            _at += 8;
        }
    }

    public void Lea(Host to, HostAddress from) => Memory(8, 0x8D, to, from);

    /// <summary>Loads the address of a place in the code; gives the writable address of the distance for <see cref="Bind"/>.</summary>
    public int* LeaCode(Host to)
    {
        Byte((int)to >= 8 ? 0x4C : 0x48);
        Byte(0x8D);
        Byte((((int)to & 7) << 3) | 5);
        Int32(0);
        return (int*)(_at - 4);
    }

    // --- arithmetic ---

    /// <summary>ADD 0, OR 1, ADC 2, SBB 3, AND 4, SUB 5, XOR 6, CMP 7.</summary>
    public void Alu(int kind, int size, Host to, Host from) =>
        Registers(size, (kind << 3) | (size == 1 ? 0 : 1), from, to, size == 1 ? 3 : 0);

    public void Alu(int kind, int size, Host to, HostAddress from) => Memory(size, (kind << 3) | (size == 1 ? 2 : 3), to, from, size == 1);

    public void Alu(int kind, int size, HostAddress to, Host from) => Memory(size, (kind << 3) | (size == 1 ? 0 : 1), from, to, size == 1);

    public void AluImmediate(int kind, int size, Host to, int value)
    {
        var small = size == 1 || value is >= -128 and <= 127;
        Registers(size, size == 1 ? 0x80 : small ? 0x83 : 0x81, (Host)kind, to, size == 1 ? 2 : 0);
        Immediate(small ? 1 : size, value);
    }

    public void AluImmediate(int kind, int size, HostAddress to, int value)
    {
        var small = size == 1 || value is >= -128 and <= 127;
        Memory(size, size == 1 ? 0x80 : small ? 0x83 : 0x81, (Host)kind, to);
        Immediate(small ? 1 : size, value);
    }

    /// <summary>As above, with LOCK.</summary>
    public void AluImmediateLocked(int kind, int size, HostAddress to, int value)
    {
        Byte(0xF0);
        AluImmediate(kind, size, to, value);
    }

    /// <summary>SUB with a 32-bit immediate whatever its value: the head of a block has a fixed length.</summary>
    public void SubtractWide(Host to, int value)
    {
        Registers(8, 0x81, (Host)5, to);
        Int32(value);
    }

    public void Test(int size, Host a, Host b) => Registers(size, size == 1 ? 0x84 : 0x85, b, a, size == 1 ? 3 : 0);

    /// <summary>NOT 2, NEG 3, MUL 4, IMUL 5 of group 3; INC 0, DEC 1 with <paramref name="group"/> 0xFE.</summary>
    public void Unary(int group, int kind, int size, Host r) => Registers(size, size == 1 ? group : group | 1, (Host)kind, r, size == 1 ? 2 : 0);

    public void Unary(int group, int kind, int size, HostAddress m) => Memory(size, size == 1 ? group : group | 1, (Host)kind, m);

    /// <summary>ROL 0, ROR 1, RCL 2, RCR 3, SHL 4, SHR 5, SAR 7 by an immediate.</summary>
    public void Shift(int kind, int size, Host r, int count)
    {
        if (count == 1)
        {
            Registers(size, size == 1 ? 0xD0 : 0xD1, (Host)kind, r, size == 1 ? 2 : 0);
            return;
        }
        Registers(size, size == 1 ? 0xC0 : 0xC1, (Host)kind, r, size == 1 ? 2 : 0);
        Byte(count);
    }

    /// <summary>As above, by CL.</summary>
    public void ShiftCl(int kind, int size, Host r) => Registers(size, size == 1 ? 0xD2 : 0xD3, (Host)kind, r, size == 1 ? 2 : 0);

    /// <summary>IMUL r, r/m, imm32.</summary>
    public void MultiplyImmediate(int size, Host to, Host from, int value)
    {
        Registers(size, 0x69, to, from);
        Immediate(size, value);
    }

    /// <summary>BT 0, BTS 1, BTR 2, BTC 3 r/m, imm8.</summary>
    public void BitTestImmediate(int kind, int size, Host r, int bit)
    {
        Registers(size, 0x0FBA, (Host)(4 + kind), r);
        Byte(bit);
    }

    public void BitTestImmediate(int kind, int size, HostAddress m, int bit, int prefix)
    {
        Memory(size, 0x0FBA, (Host)(4 + kind), m, prefix: prefix);
        Byte(bit);
    }

    /// <summary>MFENCE.</summary>
    public void Fence()
    {
        Byte(0x0F);
        Byte(0xAE);
        Byte(0xF0);
    }

    public void ByteSwap(int size, Host r)
    {
        var rex = (size == 8 ? 0x48 : 0) | ((int)r >= 8 ? 0x41 : 0);
        Opcode(4, 0x0FC8 | ((int)r & 7), rex);
    }

    /// <summary>An entry of a table of distances.</summary>
    public void Distance(long value) => Int32((int)value);

    // --- jumps ---

    /// <summary>Jcc rel32; gives the writable address of the distance for <see cref="Bind"/>.</summary>
    public int* JumpIf(int condition)
    {
        Byte(0x0F);
        Byte(0x80 | condition);
        Int32(0);
        return (int*)(_at - 4);
    }

    public int* Jump()
    {
        Byte(0xE9);
        Int32(0);
        return (int*)(_at - 4);
    }

    public void JumpTo(byte* runAddress)
    {
        Byte(0xE9);
        Int32((int)(runAddress - (Here + 4)));
    }

    public void JumpIfTo(int condition, byte* runAddress)
    {
        Byte(0x0F);
        Byte(0x80 | condition);
        Int32((int)(runAddress - (Here + 4)));
    }

    public void JumpRegister(Host r) => Registers(4, 0xFF, (Host)4, r);

    public void JumpMemory(HostAddress m) => Memory(4, 0xFF, (Host)4, m);

    /// <summary>Makes a reserved distance lead to the next byte.</summary>
    public void Bind(int* distance) => *distance = (int)(_at - ((byte*)distance + 4));

    /// <summary>SETcc on a byte of memory.</summary>
    public void SetIf(int condition, HostAddress m) => Memory(4, 0x0F90 | condition, 0, m);

    public void SetIf(int condition, Host r) => Registers(4, 0x0F90 | condition, 0, r, 2);
}
