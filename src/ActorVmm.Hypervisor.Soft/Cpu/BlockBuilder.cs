using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>See <see cref="IKnownKind"/>.</summary>
internal enum KnownKind
{
    Any,
    Sub,
    Logic,
    Result,
}

/// <summary>Collects the ops of the block that is being translated. One per vCPU, reused.</summary>
internal sealed unsafe class BlockBuilder
{
    public const int MaxInstructions = 48;

    /// <summary>An instruction makes at most a few ops; one slot stays free for the end of the block.</summary>
    public const int MaxOps = MaxInstructions * 4 + 4;

    private readonly Op[] _ops = new Op[MaxOps];
    private readonly byte[] _instructionOf = new byte[MaxOps];
    private ulong _start;
    private ulong _ip;
    private byte _length;

    public int OpCount { get; private set; }

    /// <summary>Instructions begun so far.</summary>
    public int Instructions { get; private set; }

    public CodeMode Mode { get; private set; }

    /// <summary>True once an op that ends the block was emitted.</summary>
    public bool Ended { get; private set; }

    /// <summary>True where the flags an instruction writes are overwritten before anything can see them (set by the liveness pass).</summary>
    public bool FlagsDead { get; set; }

    /// <summary>What the flags are known to come from at this place of the block.</summary>
    public KnownKind Kind { get; set; }

    public ReadOnlySpan<Op> Ops => _ops.AsSpan(0, OpCount);

    public int InstructionOf(int op) => _instructionOf[op];

    public void Begin(ulong start, CodeMode mode)
    {
        (_start, Mode, OpCount, Instructions, Ended, Kind) = (start, mode, 0, 0, false, KnownKind.Any);
        (_ip, _length) = (start, 0);
    }

    public void BeginInstruction(in Instruction instruction)
    {
        _ip = instruction.IP;
        _length = (byte)instruction.Length;
        Instructions++;
    }

    /// <summary>Adds an op with its place in the code filled in; the caller sets its operands.</summary>
    public ref Op Emit(delegate*<CpuState*, Op*, void> fn)
    {
        ref var op = ref _ops[OpCount];
        op = default;
        op.Fn = fn;
        op.Length = _length;
        op.IpOffset = (ushort)(_ip - _start);
        op.Base = op.Index = op.Seg = CpuState.ZeroRegister;
        _instructionOf[OpCount++] = (byte)Math.Max(0, Instructions - 1);
        return ref op;
    }

    /// <summary>The op that was emitted last.</summary>
    public ref Op Last => ref _ops[OpCount - 1];

    /// <summary>Adds the op that ends the block.</summary>
    public ref Op EmitEnd(delegate*<CpuState*, Op*, void> fn)
    {
        Ended = true;
        return ref Emit(fn);
    }

    /// <summary>A raw slot behind a terminator, for its two chain links.</summary>
    public void EmitLinkSlot()
    {
        _ops[OpCount] = default;
        _instructionOf[OpCount++] = (byte)(Instructions - 1);
    }

    /// <summary>True where a branch target lies in the virtual page of the block's start: such links hold as long as the block runs.</summary>
    public bool InStartPage(ulong target) => (target ^ _start) >> 12 == 0;

    /// <summary>The virtual distance from the block's start to <paramref name="target"/>.</summary>
    public long Offset(ulong target) => (long)(target - _start);

    /// <summary>Byte offset of a general register (any width, AH to BH too) inside the state.</summary>
    public static byte Offset(Register register)
    {
        if (register is >= Register.AH and <= Register.BH) return (byte)((register - Register.AH) * 8 + 1);
        return (byte)(register.GetFullRegister().GetNumber() * 8);
    }

    /// <summary>Byte offset of a segment register's base.</summary>
    public static byte BaseOffset(Register segment) => (byte)(CpuState.SegBaseOffset + (segment - Register.ES) * 8);

    /// <summary>
    /// Fills the address operands of <paramref name="op"/> and tells whether the short form <see cref="AtBase"/> serves. In 16- and 32-bit
    /// modes and with 32-bit addresses in 64-bit mode call <see cref="EmitAddress"/> first: it leaves the address in the temporary.
    /// </summary>
    public bool Address(ref Op op, in Instruction i, bool viaTemporary)
    {
        if (viaTemporary)
        {
            op.Base = CpuState.TempRegister;
            return true;
        }
        var disp = (long)i.MemoryDisplacement64;
        if (i.IsIPRelativeMemoryOperand)
        {
            disp = Offset(i.IPRelativeMemoryAddress);
            op.Base = CpuState.RipOffset;
        }
        else if (i.MemoryBase != Register.None)
        {
            op.Base = Offset(i.MemoryBase);
        }
        op.Disp = (int)disp;
        var simple = true;
        if (i.MemoryIndex != Register.None)
        {
            op.Index = Offset(i.MemoryIndex);
            op.Scale = (byte)System.Numerics.BitOperations.Log2((uint)i.MemoryIndexScale);
            simple = false;
        }
        if (i.MemorySegment is Register.FS or Register.GS)
        {
            op.Seg = BaseOffset(i.MemorySegment);
            simple = false;
        }
        return simple;
    }

    /// <summary>
    /// Where the address of a memory operand does not fit an op (16/32-bit addressing, segment limits, 64-bit absolute), emits the op that
    /// computes it into the temporary, and returns true.
    /// </summary>
    public bool EmitAddress(in Instruction i)
    {
        var size = AddressSize(i);
        var fits = Mode == CodeMode.Bits64 && size == 64 &&
            (i.IsIPRelativeMemoryOperand ? Offset(i.IPRelativeMemoryAddress) : (long)i.MemoryDisplacement64) is >= int.MinValue and <= int.MaxValue;
        if (fits) return false;
        ref var op = ref Emit(size switch
        {
            16 => &LegacyAddress.Compute16,
            32 => Mode == CodeMode.Bits64 ? &LegacyAddress.Compute32In64 : &LegacyAddress.Compute32,
            _ => &LegacyAddress.Compute64,
        });
        if (i.IsIPRelativeMemoryOperand)
        {
            op.Base = CpuState.RipOffset;
            op.Imm = Offset(i.IPRelativeMemoryAddress);
        }
        else
        {
            if (i.MemoryBase != Register.None) op.Base = Offset(i.MemoryBase);
            op.Imm = (long)i.MemoryDisplacement64;
        }
        if (i.MemoryIndex != Register.None)
        {
            op.Index = Offset(i.MemoryIndex);
            op.Scale = (byte)System.Numerics.BitOperations.Log2((uint)i.MemoryIndexScale);
        }
        if (Mode != CodeMode.Bits64 || i.MemorySegment is Register.FS or Register.GS)
        {
            op.Seg = BaseOffset(i.MemorySegment);
        }
        // Segment number (0 = ES) and access size, for the limit check of the legacy modes.
        op.Aux = (ushort)(((i.MemorySegment - Register.ES) << 8) | Math.Max(1, Math.Min(64, i.MemorySize.GetSize())));
        return true;
    }

    /// <summary>16, 32 or 64.</summary>
    public static int AddressSize(in Instruction i)
    {
        var register = i.MemoryBase != Register.None ? i.MemoryBase : i.MemoryIndex;
        if (register is Register.RIP) return 64;
        if (register is Register.EIP) return 32;
        if (register != Register.None) return register.GetSize() * 8;
        return i.MemoryDisplSize switch { 2 => 16, 4 => i.CodeSize == CodeSize.Code64 ? 64 : 32, 8 => 64, _ => i.CodeSize switch { CodeSize.Code16 => 16, CodeSize.Code32 => 32, _ => 64 } };
    }
}
