using System.Buffers.Binary;
using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Tests.Differential;

/// <summary>
/// Makes cases from seeds. It follows each sequence as it grows: which registers still hold known addresses, which flags are undefined (an
/// instruction that would read one is not used), and whether an instruction may be jumped over.
/// </summary>
internal sealed class CaseGenerator(InstructionSet instructions)
{
    private const int MaxInstructions = 8;
    private const RflagsBits Conditions = RflagsBits.C0 | RflagsBits.C1 | RflagsBits.C2 | RflagsBits.C3;

    private readonly InstructionInfoFactory _infos = new();

    private Rng _rng = new(0);
    private KnownRegisters _known = new();
    private OperandBuilder _operands = null!;
    private TestCase _case = null!;
    private RflagsBits _undefined;
    private List<int> _targets = [];
    private int _joined;

    /// <summary>The case of <paramref name="seed"/>, laid out in code slot <paramref name="slot"/>.</summary>
    public TestCase Generate(ulong seed, int slot)
    {
        _rng = new Rng(seed);
        _known = new KnownRegisters();
        _operands = new OperandBuilder(_rng, _known);
        _case = new TestCase(seed, slot);
        (_undefined, _targets, _joined) = (RflagsBits.None, [], 0);

        new InputGenerator(_rng, _known).Fill(_case.Input);
        _case.Input.Rip = _case.CodeAddress;
        var wanted = _rng.OneIn(4) ? 1 : 2 + _rng.Below(MaxInstructions - 1);
        while (_case.Instructions.Count < wanted) AddOne();
        LayOut();
        return _case;
    }

    private void AddOne()
    {
        while (true)
        {
            var code = instructions.Pick(_rng);
            AddPrelude(code);
            if (_operands.TryBuild(code, out var instruction) && TryAdd(instruction)) return;
        }
    }

    // A random dividend hardly ever fits its quotient: most divisions get a small upper half first.
    private void AddPrelude(Code code)
    {
        if (code.Mnemonic() is not (Mnemonic.Div or Mnemonic.Idiv) || _rng.OneIn(4)) return;
        var prelude = code is Code.Div_rm8 or Code.Idiv_rm8
            ? Instruction.Create(Code.Movzx_r32_rm8, Register.EAX, Register.AL)
            : Instruction.Create(Code.Mov_r32_imm32, Register.EDX, _rng.Below(3));
        TryAdd(prelude);
    }

    private bool TryAdd(in Instruction instruction)
    {
        if (!TryLength(instruction, out _)) return false;
        var skippable = _case.Instructions.Count < _joined;
        var reads = instruction.RflagsRead | (StoresStatusWord(instruction) ? Conditions : RflagsBits.None);
        if ((reads & _undefined) != 0) return false;
        if (!RegistersAllow(instruction, skippable)) return false;
        if (instruction.Mnemonic is Mnemonic.Std or Mnemonic.Cld && skippable) return false;
        // From memory it switches the x87 stack to MMX on some processors, and not on others.
        if (instruction.Mnemonic is Mnemonic.Cvtpi2ps && instruction.Op1Kind == OpKind.Memory) return false;

        TrackRegisters(instruction);
        TrackFlags(instruction, skippable);
        _case.Instructions.Add(instruction);
        _case.UndefinedAfter.Add(_undefined);
        _targets.Add(-1);
        if (instruction.Op0Kind == OpKind.NearBranch64)
        {
            _targets[^1] = _case.Instructions.Count + _rng.Below(3);
            _joined = Math.Max(_joined, _targets[^1]);
        }
        return true;
    }

    private static bool StoresStatusWord(in Instruction i) => i.Mnemonic is Mnemonic.Fnstsw;

    private bool RegistersAllow(in Instruction instruction, bool skippable)
    {
        if (instruction.IsStackInstruction)
        {
            // Room for what ENTER and the pushes of one case can take; the size of a skipped push would be unknown.
            if (skippable || !_known.HasRoom(4, 700) || instruction.FlowControl == FlowControl.Return) return false;
            return !WritesBesidesPush(instruction);
        }
        foreach (var used in _infos.GetInfo(instruction).GetUsedRegisters())
            if (Writes(used.Access) && used.Register.GetFullRegister() == Register.RSP) return false;
        if (UsesCountOfShift16(instruction)) return _known.Value(1) is { } count && (count & 31) < 16;
        return true;
    }

    // POP RSP and the like would move the stack to nowhere.
    private static bool WritesBesidesPush(in Instruction i) =>
        i.OpCount > 0 && i.Mnemonic is Mnemonic.Pop && i.Op0Kind == OpKind.Register && i.Op0Register.GetFullRegister() == Register.RSP;

    // SHLD and SHRD of 16 bits by more than 16: an undefined result.
    private static bool UsesCountOfShift16(in Instruction i) => i.Code is Code.Shld_rm16_r16_CL or Code.Shrd_rm16_r16_CL;

    private void TrackRegisters(in Instruction instruction)
    {
        var stack = _known.Value(4);
        foreach (var used in _infos.GetInfo(instruction).GetUsedRegisters())
            if (Writes(used.Access) && used.Register.GetFullRegister() is >= Register.RAX and <= Register.R15 and var register)
                _known.Set(register - Register.RAX, null);
        if (instruction.IsStackInstruction) _known.Set(4, stack + (ulong)(long)instruction.StackPointerIncrement);
    }

    private static bool Writes(OpAccess access) =>
        access is OpAccess.Write or OpAccess.CondWrite or OpAccess.ReadWrite or OpAccess.ReadCondWrite;

    private void TrackFlags(in Instruction instruction, bool skippable)
    {
        // A shift by CL or a repeated comparison may do nothing at all, and so may an instruction that can be jumped over.
        var certain = !skippable && !instruction.HasRepPrefix && !instruction.HasRepnePrefix && !ShiftsByCl(instruction);
        if (certain) _undefined &= ~(instruction.RflagsWritten | instruction.RflagsCleared | instruction.RflagsSet);
        _undefined |= instruction.RflagsUndefined;
        if (LosesCarry(instruction)) _undefined |= RflagsBits.CF;
        _undefined |= VendorsChoice(instruction);
    }

    /// <summary>Flags that Intel's and AMD's processors leave in different states, where the manuals speak or do not.</summary>
    private RflagsBits VendorsChoice(in Instruction i)
    {
        const RflagsBits order = RflagsBits.C0 | RflagsBits.C2 | RflagsBits.C3;
        const RflagsBits arithmetic = RflagsBits.OF | RflagsBits.SF | RflagsBits.ZF | RflagsBits.AF | RflagsBits.PF | RflagsBits.CF;
        var unmasked = (_case.Input.FpuControl & 3) != 3; // invalid operand, denormal operand
        return i.Mnemonic switch
        {
            // C1 is cleared, or left alone where there is no underflow.
            Mnemonic.Fcmovb or Mnemonic.Fcmovbe or Mnemonic.Fcmove or Mnemonic.Fcmovnb or Mnemonic.Fcmovnbe or Mnemonic.Fcmovne
                or Mnemonic.Fcmovnu or Mnemonic.Fcmovu => RflagsBits.C1,

            // From an empty register onto a full stack: C1 says overflow or underflow, whichever is looked for first.
            Mnemonic.Fld when i.Op1Kind == OpKind.Register => RflagsBits.C1,

            // C1 as with FCMOV; and the result of a comparison that raises an unmasked exception over its operands is written, or is not.
            Mnemonic.Fcomi or Mnemonic.Fcomip or Mnemonic.Fucomi or Mnemonic.Fucomip =>
                RflagsBits.C1 | (unmasked ? arithmetic : RflagsBits.None),
            Mnemonic.Fcom or Mnemonic.Fcomp or Mnemonic.Fcompp or Mnemonic.Fucom or Mnemonic.Fucomp or Mnemonic.Fucompp or Mnemonic.Ficom
                or Mnemonic.Ficomp or Mnemonic.Ftst => unmasked ? order : RflagsBits.None,
            _ => RflagsBits.None,
        };
    }

    private static bool ShiftsByCl(in Instruction i) =>
        i.OpCount > 0 && i.GetOpKind(i.OpCount - 1) == OpKind.Register && i.GetOpRegister(i.OpCount - 1) == Register.CL;

    // SHL and SHR of 8 and 16 bits by the operand's size or more leave CF undefined (SDM Vol. 2, SAL/SAR/SHL/SHR).
    private static bool LosesCarry(in Instruction i)
    {
        if (i.Mnemonic is not (Mnemonic.Shl or Mnemonic.Sal or Mnemonic.Shr)) return false;
        var bits = i.Op0Kind == OpKind.Register ? i.Op0Register.GetSize() * 8 : i.MemorySize.GetSize() * 8;
        if (bits > 16) return false;
        return i.Op1Kind == OpKind.Register || (i.Immediate8 & 31) >= bits;
    }

    private static bool TryLength(in Instruction instruction, out int length)
    {
        var encoder = Encoder.Create(64, new ByteSink());
        var copy = instruction;
        if (copy.Op0Kind == OpKind.NearBranch64) copy.NearBranch64 = Layout.CodeBase + 16;
        var ok = encoder.TryEncode(copy, Layout.CodeBase, out var size, out _);
        length = (int)size;
        return ok;
    }

    // Branch targets are instructions further on, or the end; lengths do not depend on addresses, so one pass finds all places.
    private void LayOut()
    {
        var list = _case.Instructions;
        var at = new ulong[list.Count + 1];
        at[0] = _case.CodeAddress;
        for (var i = 0; i < list.Count; i++)
        {
            if (!TryLength(list[i], out var length)) throw new InvalidOperationException($"cannot encode {list[i]}");
            at[i + 1] = at[i] + (ulong)length;
        }
        var sink = new ByteSink();
        var encoder = Encoder.Create(64, sink);
        for (var i = 0; i < list.Count; i++)
        {
            var instruction = list[i];
            if (_targets[i] >= 0) instruction.NearBranch64 = at[Math.Min(_targets[i], list.Count)];
            var length = encoder.Encode(instruction, at[i]);
            if (at[i] + length != at[i + 1]) throw new InvalidOperationException($"length of {instruction} depends on its place");
            instruction.Length = (int)length; // before IP, which Iced keeps as the next address
            instruction.IP = at[i];
            list[i] = instruction;
        }
        sink.WriteByte(0xCC);
        _case.Code = sink.ToArray();
        if (_case.Code.Length > Layout.CodeSlot) throw new InvalidOperationException("the case is longer than its slot");
    }

    private sealed class ByteSink : CodeWriter
    {
        private readonly List<byte> _bytes = new(64);
        public override void WriteByte(byte value) => _bytes.Add(value);
        public byte[] ToArray() => [.. _bytes];
    }
}

/// <summary>Random starting states.</summary>
internal readonly struct InputGenerator(Rng rng, KnownRegisters known)
{
    public void Fill(CpuImage input)
    {
        FillGeneral(input);
        FillFpu(input);
        FillMemory(input);
    }

    private void FillGeneral(CpuImage input)
    {
        for (var i = 0; i < 16; i++) input.Gpr[i] = Values.Integer(rng);
        foreach (var pointer in new[] { 3, 6, 7, rng.OneIn(2) ? 5 : 3, 8 + rng.Below(4), 12 + rng.Below(4) })
            input.Gpr[pointer] = Layout.Scratch + 512 + (ulong)rng.Below(7000);
        if (rng.OneIn(2)) input.Gpr[1] = (ulong)rng.Below(41);
        input.Gpr[4] = Layout.Scratch + 0xC00 + (ulong)rng.Below(0x800);
        if (!rng.OneIn(8)) input.Gpr[4] &= ~7UL;
        for (var i = 0; i < 16; i++) known.Set(i, input.Gpr[i]);
        input.Rflags = 0x202 | (rng.Next() & 0x8D5) | (rng.OneIn(4) ? 0x400UL : 0);
    }

    private void FillFpu(CpuImage input)
    {
        var masked = !rng.OneIn(24);
        ReadOnlySpan<int> precisions = [0, 2, 3, 3];
        var control = 0x40 | precisions[rng.Below(4)] << 8 | rng.Below(4) << 10 | (masked ? 0x3F : rng.Below(64));
        input.FpuControl = (ushort)control;
        input.FpuStatus = (ushort)((rng.Next() & 0x4700) | (uint)rng.Below(8) << 11 | (masked ? (uint)rng.Below(128) : 0));
        input.FpuTag = rng.OneIn(3) ? (byte)rng.Next() : (byte)0xFF;
        for (var i = 0; i < 8; i++)
        {
            if (rng.OneIn(4)) // as MMX leaves it
            {
                BinaryPrimitives.WriteUInt64LittleEndian(input.St(i), Values.Integer(rng));
                BinaryPrimitives.WriteUInt16LittleEndian(input.St(i)[8..], 0xFFFF);
            }
            else
            {
                Values.Extended(rng, input.St(i));
            }
        }
        for (var i = 0; i < 16; i++) Values.Vector(rng, input.Xmm(i));
        var sseMasked = !rng.OneIn(24);
        input.Mxcsr = (uint)((sseMasked ? 0x1F80 | rng.Below(64) : rng.Below(64) << 7) | rng.Below(4) << 13);
        if (rng.OneIn(4)) input.Mxcsr |= rng.OneIn(2) ? 0x8000u : 0x40u;
        BinaryPrimitives.WriteUInt32LittleEndian(input.Fx.AsSpan(28), 0xFFFF);
    }

    private void FillMemory(CpuImage input)
    {
        rng.Fill(input.Memory);
        for (var i = 0; i < 64; i++)
        {
            var at = rng.Below(Layout.ScratchSize / 16) * 16;
            if (rng.OneIn(3)) Values.Extended(rng, input.Memory.AsSpan(at, 10));
            else Values.Vector(rng, input.Memory.AsSpan(at, 16));
        }
    }
}
