using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Tests.Differential;

/// <summary>Gives an instruction form its operands: registers, immediates, and memory at an address that is known.</summary>
internal sealed class OperandBuilder(Rng rng, KnownRegisters known)
{
    // Operand 1 is the bit offset of a bit test in memory, and already chosen.
    private bool _bitOffset;

    public static bool Supports(OpCodeOperandKind kind) => kind switch
    {
        OpCodeOperandKind.mem or OpCodeOperandKind.mem_offs or OpCodeOperandKind.r8_or_mem or OpCodeOperandKind.r16_or_mem
            or OpCodeOperandKind.r32_or_mem
            or OpCodeOperandKind.r64_or_mem or OpCodeOperandKind.mm_or_mem or OpCodeOperandKind.xmm_or_mem or OpCodeOperandKind.r8_reg
            or OpCodeOperandKind.r8_opcode or OpCodeOperandKind.r16_reg or OpCodeOperandKind.r16_rm or OpCodeOperandKind.r16_opcode
            or OpCodeOperandKind.r32_reg or OpCodeOperandKind.r32_rm or OpCodeOperandKind.r32_opcode or OpCodeOperandKind.r64_reg
            or OpCodeOperandKind.r64_rm or OpCodeOperandKind.r64_opcode or OpCodeOperandKind.mm_reg or OpCodeOperandKind.mm_rm
            or OpCodeOperandKind.xmm_reg or OpCodeOperandKind.xmm_rm or OpCodeOperandKind.al or OpCodeOperandKind.cl or OpCodeOperandKind.ax
            or OpCodeOperandKind.eax or OpCodeOperandKind.rax or OpCodeOperandKind.st0 or OpCodeOperandKind.sti_opcode
            or OpCodeOperandKind.imm8
            or OpCodeOperandKind.imm8_const_1 or OpCodeOperandKind.imm8sex16 or OpCodeOperandKind.imm8sex32 or OpCodeOperandKind.imm8sex64
            or OpCodeOperandKind.imm16 or OpCodeOperandKind.imm32 or OpCodeOperandKind.imm32sex64 or OpCodeOperandKind.imm64
            or OpCodeOperandKind.seg_rSI or OpCodeOperandKind.es_rDI or OpCodeOperandKind.seg_rDI or OpCodeOperandKind.seg_rBX_al
            or OpCodeOperandKind.br64_1 or OpCodeOperandKind.br64_4 => true,
        _ => false,
    };

    /// <summary>Fills all operands; false where the registers' present values do not allow it.</summary>
    public bool TryBuild(Code code, out Instruction instruction)
    {
        instruction = default;
        instruction.Code = code;
        var info = code.ToOpCode();
        _bitOffset = false;
        for (var i = 0; i < info.OpCount; i++)
            if (!(_bitOffset && i == 1) && !TryOperand(ref instruction, info, i)) return false;
        return TryPrefixes(ref instruction, info);
    }

    private bool TryOperand(ref Instruction instruction, OpCodeInfo info, int n)
    {
        var kind = info.GetOpKind(n);
        switch (kind)
        {
            case OpCodeOperandKind.mem:
                return TryMemory(ref instruction, info, n);
            case OpCodeOperandKind.mem_offs:
                return TryOffset(ref instruction, info, n);
            case OpCodeOperandKind.r8_or_mem or OpCodeOperandKind.r16_or_mem or OpCodeOperandKind.r32_or_mem or OpCodeOperandKind.r64_or_mem
                or OpCodeOperandKind.mm_or_mem or OpCodeOperandKind.xmm_or_mem when rng.Below(100) < 45:
                return TryMemory(ref instruction, info, n);
            case OpCodeOperandKind.seg_rSI or OpCodeOperandKind.es_rDI:
                return TryString(ref instruction, kind, n);
            case OpCodeOperandKind.seg_rDI:
                instruction.SetOpKind(n, OpKind.MemorySegRDI);
                return known.IsInScratch(7, 16);
            case OpCodeOperandKind.seg_rBX_al:
                instruction.SetOpKind(n, OpKind.Memory);
                (instruction.MemoryBase, instruction.MemoryIndex) = (Register.RBX, Register.AL);
                return known.IsInScratch(3, 256);
            case OpCodeOperandKind.br64_1 or OpCodeOperandKind.br64_4:
                instruction.SetOpKind(n, OpKind.NearBranch64); // the target is set when the sequence is laid out
                return true;
        }
        if (PickRegister(kind) is var register && register != Register.None)
        {
            instruction.SetOpKind(n, OpKind.Register);
            instruction.SetOpRegister(n, register);
            return true;
        }
        var immediate = ImmediateKind(kind, n, instruction);
        instruction.SetOpKind(n, immediate);
        instruction.SetImmediate(n, unchecked((long)Immediate(kind, info)));
        return true;
    }

    private static OpKind ImmediateKind(OpCodeOperandKind kind, int n, in Instruction instruction) => kind switch
    {
        OpCodeOperandKind.imm8 when n > 0 && instruction.GetOpKind(n - 1) == OpKind.Immediate16 => OpKind.Immediate8_2nd, // ENTER
        OpCodeOperandKind.imm8 or OpCodeOperandKind.imm8_const_1 => OpKind.Immediate8,
        OpCodeOperandKind.imm8sex16 => OpKind.Immediate8to16,
        OpCodeOperandKind.imm8sex32 => OpKind.Immediate8to32,
        OpCodeOperandKind.imm8sex64 => OpKind.Immediate8to64,
        OpCodeOperandKind.imm16 => OpKind.Immediate16,
        OpCodeOperandKind.imm32 => OpKind.Immediate32,
        OpCodeOperandKind.imm32sex64 => OpKind.Immediate32to64,
        OpCodeOperandKind.imm64 => OpKind.Immediate64,
        _ => throw new InvalidOperationException($"operand kind {kind}"),
    };

    private ulong Immediate(OpCodeOperandKind kind, OpCodeInfo info)
    {
        if (kind == OpCodeOperandKind.imm8_const_1) return 1;
        if (info.Mnemonic is Mnemonic.Enter) // from level 2 on it reads the outer frames through RBP
            return (ulong)rng.Below(kind == OpCodeOperandKind.imm16 ? 256 : known.HasRoom(5, 64) ? 5 : 2);
        if (info.Mnemonic is Mnemonic.Shld or Mnemonic.Shrd && info.OperandSize == 16) return (ulong)rng.Below(16); // more is undefined
        var value = Values.Integer(rng);
        return kind switch
        {
            OpCodeOperandKind.imm8 => (byte)value,
            OpCodeOperandKind.imm8sex16 or OpCodeOperandKind.imm8sex32 or OpCodeOperandKind.imm8sex64 => (ulong)(sbyte)value,
            OpCodeOperandKind.imm16 => (ushort)value,
            OpCodeOperandKind.imm32 => (uint)value,
            OpCodeOperandKind.imm32sex64 => (ulong)(int)value,
            _ => value,
        };
    }

    private Register PickRegister(OpCodeOperandKind kind) => kind switch
    {
        OpCodeOperandKind.r8_or_mem or OpCodeOperandKind.r8_reg or OpCodeOperandKind.r8_opcode => Byte(General()),
        OpCodeOperandKind.r16_or_mem or OpCodeOperandKind.r16_reg or OpCodeOperandKind.r16_rm or OpCodeOperandKind.r16_opcode =>
            Register.AX + General(),
        OpCodeOperandKind.r32_or_mem or OpCodeOperandKind.r32_reg or OpCodeOperandKind.r32_rm or OpCodeOperandKind.r32_opcode =>
            Register.EAX + General(),
        OpCodeOperandKind.r64_or_mem or OpCodeOperandKind.r64_reg or OpCodeOperandKind.r64_rm or OpCodeOperandKind.r64_opcode =>
            Register.RAX + General(),
        OpCodeOperandKind.mm_or_mem or OpCodeOperandKind.mm_reg or OpCodeOperandKind.mm_rm => Register.MM0 + rng.Below(8),
        OpCodeOperandKind.xmm_or_mem or OpCodeOperandKind.xmm_reg or OpCodeOperandKind.xmm_rm => Register.XMM0 + rng.Below(16),
        OpCodeOperandKind.al => Register.AL,
        OpCodeOperandKind.cl => Register.CL,
        OpCodeOperandKind.ax => Register.AX,
        OpCodeOperandKind.eax => Register.EAX,
        OpCodeOperandKind.rax => Register.RAX,
        OpCodeOperandKind.st0 => Register.ST0,
        OpCodeOperandKind.sti_opcode => Register.ST0 + rng.Below(8),
        _ => Register.None,
    };

    // Pointers are spared most of the time, so that later instructions of the case still find memory.
    private int General()
    {
        var register = rng.Below(16);
        return known.IsPointer(register) ? rng.Below(16) : register;
    }

    private Register Byte(int register)
    {
        if (register < 4) return rng.OneIn(3) ? Register.AH + register : Register.AL + register;
        return register < 8 ? Register.SPL + (register - 4) : Register.R8L + (register - 8);
    }

    private bool TryMemory(ref Instruction instruction, OpCodeInfo info, int n)
    {
        instruction.SetOpKind(n, OpKind.Memory);
        if (info.Mnemonic is Mnemonic.Lea) return new AddressBuilder(rng, known).BuildAnything(ref instruction);

        var size = Math.Max(1, info.MemorySize.GetSize());
        var target = PickTarget(size, canFault: size <= 16 && info.Mnemonic is not Mnemonic.Clflush);
        if (info.Mnemonic is Mnemonic.Bt or Mnemonic.Bts or Mnemonic.Btr or Mnemonic.Btc && info.Op1Kind is not OpCodeOperandKind.imm8)
        {
            // The bit offset reaches beyond the operand, by up to the register's value: it must be known and small.
            if (n + 1 >= info.OpCount || known.PickBelow(rng, 8 * 512) is not { } register) return false;
            if (!instruction.TrySetBitOffset(info, register)) return false;
            target = Layout.Scratch + 1024 + (ulong)rng.Below(4096);
            _bitOffset = true;
        }
        return new AddressBuilder(rng, known).TryBuild(ref instruction, target);
    }

    /// <summary>An address in the scratch pages; often aligned, sometimes across the page boundary, rarely where it faults.</summary>
    private ulong PickTarget(int size, bool canFault)
    {
        if (canFault && rng.OneIn(96))
            return Layout.ReadOnlyPage - (ulong)size + 1 + (ulong)rng.Below(0x2000 - 16);
        var offset = rng.OneIn(8) ? 0x1000 - rng.Below(size + 1) : rng.Below(Layout.ScratchSize - size + 1);
        if (rng.Below(100) < (size == 16 ? 95 : 50)) offset &= -Math.Min(16, RoundUp(size));
        return Layout.Scratch + (ulong)offset;
    }

    private static int RoundUp(int size) => (int)System.Numerics.BitOperations.RoundUpToPowerOf2((uint)size);

    private bool TryOffset(ref Instruction instruction, OpCodeInfo info, int n)
    {
        instruction.SetOpKind(n, OpKind.Memory);
        instruction.MemoryDisplSize = 8;
        instruction.MemoryDisplacement64 = PickTarget(Math.Max(1, info.MemorySize.GetSize()), canFault: true);
        return true;
    }

    private bool TryString(ref Instruction instruction, OpCodeOperandKind kind, int n)
    {
        instruction.SetOpKind(n, kind == OpCodeOperandKind.seg_rSI ? OpKind.MemorySegRSI : OpKind.MemoryESRDI);
        return known.IsInScratch(kind == OpCodeOperandKind.seg_rSI ? 6 : 7, 8) && known.DirectionKnown;
    }

    private bool TryPrefixes(ref Instruction instruction, OpCodeInfo info)
    {
        if (info.CanUseLockPrefix && instruction.Op0Kind == OpKind.Memory && rng.OneIn(4)) instruction.HasLockPrefix = true;
        if (!instruction.IsStringInstruction) return true;
        // At most 40 elements of 8 bytes either way: that much room must be on both sides.
        var mayRepeat = known.Value(1) is <= 40 && known.HasRoom(6, 320) && known.HasRoom(7, 320);
        if (!mayRepeat || rng.OneIn(3)) return true;
        if (info.CanUseRepnePrefix && rng.OneIn(2)) instruction.HasRepnePrefix = true;
        else instruction.HasRepPrefix = info.CanUseRepPrefix;
        return true;
    }
}

/// <summary>Small steps of operand building.</summary>
internal static class InstructionExtensions
{
    /// <summary>Sets operand 1, a bit offset register of the form's width.</summary>
    public static bool TrySetBitOffset(this ref Instruction instruction, OpCodeInfo info, int register)
    {
        var first = info.Op1Kind switch
        {
            OpCodeOperandKind.r16_reg => Register.AX,
            OpCodeOperandKind.r32_reg => Register.EAX,
            OpCodeOperandKind.r64_reg => Register.RAX,
            _ => Register.None,
        };
        if (first == Register.None) return false;
        instruction.Op1Kind = OpKind.Register;
        instruction.Op1Register = first + register;
        return true;
    }
}
