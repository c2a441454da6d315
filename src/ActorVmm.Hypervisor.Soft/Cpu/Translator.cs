using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// Turns decoded instructions (Iced) into ops. One method per instruction group, each in its own file; a group answers false for what is
/// not its own, and what no group takes is #UD.
/// </summary>
internal sealed unsafe partial class Translator
{
    private const RflagsBits ArithmeticFlags = RflagsBits.CF | RflagsBits.PF | RflagsBits.AF | RflagsBits.ZF | RflagsBits.SF | RflagsBits.OF;

    // BMI1 and LZCNT are not offered: their encodings are then BSF and BSR with an ignored prefix.
    private const DecoderOptions Options = DecoderOptions.NoMPFX_0FBC | DecoderOptions.NoMPFX_0FBD;

    private readonly BlockBuilder _b = new();
    private readonly CodeBytes _bytes = new();
    private readonly Decoder _decoder16;
    private readonly Decoder _decoder32;
    private readonly Decoder _decoder64;
    private readonly Instruction[] _instructions = new Instruction[BlockBuilder.MaxInstructions];
    private readonly bool[] _flagsDead = new bool[BlockBuilder.MaxInstructions];

    public Translator()
    {
        _decoder16 = Decoder.Create(16, _bytes, Options);
        _decoder32 = Decoder.Create(32, _bytes, Options);
        _decoder64 = Decoder.Create(64, _bytes, Options);
    }

    public BlockBuilder Builder => _b;

    /// <summary>Entries after which a block of 64-bit code is compiled; 0: none ever is.</summary>
    public int CompileThreshold { get; set; }

    /// <summary>
    /// Translates from <paramref name="ip"/> until a branch, the end of the bytes, or <paramref name="limit"/> instructions. Returns the
    /// bytes of code consumed; 0 where the first instruction needs more bytes than given.
    /// </summary>
    /// <param name="code">Bytes from the block's start to the end of its page (and of the next, for an instruction across both).</param>
    /// <param name="counts">The block's entries shall be counted, so that it is compiled when it is hot.</param>
    public int Translate(ReadOnlySpan<byte> code, ulong ip, CodeMode mode, int limit, bool counts = false)
    {
        _b.Begin(ip, mode);
        if (counts && CompileThreshold > 0 && mode == CodeMode.Bits64) _b.Emit(&Compiler.CompiledOps.Heat).Imm = CompileThreshold;
        var count = Decode(code, ip, mode, Math.Min(limit, BlockBuilder.MaxInstructions), out var consumed);
        if (count == 0) return 0;
        FindDeadFlags(count);
        for (var n = 0; n < count; n++)
        {
            ref readonly var instruction = ref _instructions[n];
            _b.FlagsDead = _flagsDead[n];
            Translate(instruction);
            _b.Kind = KindAfter(instruction, _b.Kind);
            if (!_b.Ended) continue;
            consumed = (int)(instruction.NextIP - ip);
            break;
        }
        if (!_b.Ended) EmitFallThrough(ip + (uint)consumed);
        return consumed;
    }

    /// <summary>Decodes the instructions of a block of 64-bit code once more, for the compiler.</summary>
    public void DecodeAgain(ReadOnlySpan<byte> code, ulong ip, int count)
    {
        var decoded = Decode(code, ip, CodeMode.Bits64, count, out _);
        System.Diagnostics.Debug.Assert(decoded == count);
        FindDeadFlags(decoded);
    }

    /// <summary>Instruction <paramref name="n"/> of the block that was decoded last.</summary>
    public ref readonly Instruction Decoded(int n) => ref _instructions[n];

    /// <summary>The bytes of instruction <paramref name="n"/>.</summary>
    public ReadOnlySpan<byte> BytesOf(int n) =>
        _bytes.Read.Slice((int)(_instructions[n].IP - _instructions[0].IP), _instructions[n].Length);

    /// <summary>True where nobody sees the flags of that instruction.</summary>
    public bool FlagsDeadAt(int n) => _flagsDead[n];

    /// <summary>Fetches and decodes one instruction at the end of a page together with the start of the next page.</summary>
    private int Decode(ReadOnlySpan<byte> code, ulong ip, CodeMode mode, int limit, out int consumed)
    {
        var decoder = mode switch { CodeMode.Bits64 => _decoder64, CodeMode.Bits32 => _decoder32, _ => _decoder16 };
        _bytes.Begin(code);
        decoder.IP = ip;
        consumed = 0;
        var count = 0;
        while (count < limit)
        {
            ref var instruction = ref _instructions[count];
            decoder.Decode(out instruction);
            if (instruction.IsInvalid && decoder.LastError == DecoderError.NoMoreBytes) break;
            count++;
            consumed = (int)(instruction.NextIP - ip);
            // After STI the next instruction belongs into the same block (see FlagOps.Sti).
            if (instruction.IsInvalid || EndsBlock(instruction)) break;
        }
        return count;
    }

    private static bool EndsBlock(in Instruction i) => i.FlowControl != FlowControl.Next;

    private void EmitFallThrough(ulong next)
    {
        if (_b.Mode != CodeMode.Bits64)
        {
            _b.EmitEnd(&LegacyOps.FallThrough);
            return;
        }
        var near = _b.InStartPage(next);
        _b.EmitEnd(near ? &ControlOps.FallThrough : &ControlOps.FallThroughFar);
        _b.EmitLinkSlot();
    }

    /// <summary>
    /// Backward liveness of the arithmetic flags. An instruction that can fault or leave the block shows its flags to the outside, so they
    /// all live before it; only between such points may an unread result be dropped.
    /// </summary>
    private void FindDeadFlags(int count)
    {
        var live = ArithmeticFlags;
        for (var n = count - 1; n >= 0; n--)
        {
            ref readonly var i = ref _instructions[n];
            var written = i.RflagsModified & ArithmeticFlags;
            _flagsDead[n] = written != 0 && (written & live) == 0;
            if (!IsPure(i)) live = ArithmeticFlags;
            else live = (MayKeepFlags(i) ? live : live & ~written) | (i.RflagsRead & ArithmeticFlags);
        }
    }

    /// <summary>Register-only instructions that cannot fault.</summary>
    private static bool IsPure(in Instruction i)
    {
        switch (i.Mnemonic)
        {
            case Mnemonic.Mov or Mnemonic.Movzx or Mnemonic.Movsx or Mnemonic.Movsxd or Mnemonic.Add or Mnemonic.Adc or Mnemonic.Sub or Mnemonic.Sbb or
                Mnemonic.Cmp or Mnemonic.And or Mnemonic.Test or Mnemonic.Or or Mnemonic.Xor or Mnemonic.Inc or Mnemonic.Dec or Mnemonic.Neg or
                Mnemonic.Not or Mnemonic.Shl or Mnemonic.Sal or Mnemonic.Shr or Mnemonic.Sar or Mnemonic.Rol or Mnemonic.Ror or Mnemonic.Imul or
                Mnemonic.Mul or Mnemonic.Bt or Mnemonic.Bts or Mnemonic.Btr or Mnemonic.Btc or Mnemonic.Bsf or Mnemonic.Bsr or Mnemonic.Xchg or
                Mnemonic.Bswap or Mnemonic.Cdqe or Mnemonic.Cwde or Mnemonic.Cdq or Mnemonic.Cqo:
                break;
            case Mnemonic.Lea:
                return true;
            default:
                if (i.ConditionCode == ConditionCode.None || i.FlowControl != FlowControl.Next) return false;
                break;
        }
        for (var n = 0; n < i.OpCount; n++)
        {
            var kind = i.GetOpKind(n);
            if (kind == OpKind.Register ? !i.GetOpRegister(n).IsGPR() : !IsImmediate(i, n)) return false;
        }
        return true;
    }

    /// <summary>A shift whose count may be zero changes no flag then.</summary>
    private static bool MayKeepFlags(in Instruction i) =>
        i.Mnemonic is Mnemonic.Shl or Mnemonic.Sal or Mnemonic.Shr or Mnemonic.Sar or Mnemonic.Rol or Mnemonic.Ror or Mnemonic.Rcl or Mnemonic.Rcr
            or Mnemonic.Shld or Mnemonic.Shrd;

    private static KnownKind KindAfter(in Instruction i, KnownKind before) => i.Mnemonic switch
    {
        Mnemonic.Cmp or Mnemonic.Sub or Mnemonic.Neg => KnownKind.Sub,
        Mnemonic.And or Mnemonic.Or or Mnemonic.Xor or Mnemonic.Test => KnownKind.Logic,
        Mnemonic.Add or Mnemonic.Inc or Mnemonic.Dec or Mnemonic.Adc or Mnemonic.Sbb => KnownKind.Result,
        _ => i.RflagsModified == RflagsBits.None ? before : KnownKind.Any,
    };

    /// <summary>Emits the ops of one instruction.</summary>
    private void Translate(in Instruction i)
    {
        _b.BeginInstruction(i);
        if (!i.IsInvalid && LockAllowed(i) && (TranslateInteger(i) || TranslateSystem(i) || TranslateVector(i) || TranslateX87(i))) return;
        _b.EmitEnd(&SystemOps.InvalidOpcode);
    }

    /// <summary>LOCK is #UD but on a memory destination of the instructions that take it; Iced refuses the others itself.</summary>
    private static bool LockAllowed(in Instruction i) => !i.HasLockPrefix || i.Op0Kind == OpKind.Memory;

    /// <summary>Emits <paramref name="fn"/> with the address operands of <paramref name="i"/>, in the universal form <see cref="AtAny"/>.</summary>
    private ref Op EmitMemory(in Instruction i, delegate*<CpuState*, Op*, void> fn)
    {
        var viaTemporary = _b.EmitAddress(i);
        ref var op = ref _b.Emit(fn);
        _b.Address(ref op, i, viaTemporary);
        return ref op;
    }

    /// <summary>The bytes that the decoder reads.</summary>
    private sealed class CodeBytes : CodeReader
    {
        private readonly byte[] _copy = new byte[8192];
        private int _length;
        private int _next;

        public void Begin(ReadOnlySpan<byte> code)
        {
            code.CopyTo(_copy);
            _length = code.Length;
            _next = 0;
        }

        /// <summary>All of them.</summary>
        public ReadOnlySpan<byte> Read => _copy.AsSpan(0, _length);

        public override int ReadByte() => _next < _length ? _copy[_next++] : -1;
    }
}
