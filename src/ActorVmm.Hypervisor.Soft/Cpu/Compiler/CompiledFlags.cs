namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>
/// The forms in which compiled code leaves the arithmetic flags in the state: cheaper to write than those of tier 0, because operands and
/// results go there as they are in the registers, with garbage above the operand's width, and what follows from the rest is left out.
/// Before a handler of tier 0 runs, <see cref="Fix"/> brings them into tier 0's form, bit for bit what its own handlers would have left.
/// </summary>
internal static unsafe class CompiledFlags
{
    /// <summary>Base of the kinds; a kind is <c>First + 4 * form + log2 of the width in bytes</c>.</summary>
    public const int First = 8;

    /// <summary>Added to any kind, also tier 0's: CF is the low bit of <see cref="CpuState.FlagCarry"/> instead.</summary>
    public const int CarryKept = 0x100;

    /// <summary>Added to any kind: CF and OF are those of a rotate with the result <see cref="CpuState.FlagRotated"/>.</summary>
    public const int Rotated = 0x200;

    /// <summary>With <see cref="Rotated"/>: to the right. The log2 of the width is in the two bits above.</summary>
    public const int RotatedRight = 0x400;

    private const int RotatedWidthShift = 11;

    private const int KindMask = CarryKept - 1;

    public static int RotateBits(bool right, int bytes) =>
        Rotated | (right ? RotatedRight : 0) | (System.Numerics.BitOperations.Log2((uint)bytes) << RotatedWidthShift);

    public static FlagKind Kind(CompiledForm form, int bytes) => (FlagKind)(First + 4 * (int)form + System.Numerics.BitOperations.Log2((uint)bytes));

    /// <summary>A handler in front of another: fixes the flags and goes on.</summary>
    public static void Fix(CpuState* s, Op* op)
    {
        Normalize(s);
        op->Fn(s, op);
    }

    /// <summary>The same in front of <see cref="CpuState.Handler"/>.</summary>
    public static void FixThenHandler(CpuState* s, Op* op)
    {
        Normalize(s);
        s->Handler(s, op);
    }

    /// <summary>Brings the flags into tier 0's form.</summary>
    public static void Normalize(CpuState* s)
    {
        var kind = (int)s->FlagKind & KindMask;
        var more = (int)s->FlagKind & ~KindMask;
        var rotated = s->FlagRotated;
        var carry = s->FlagCarry & Flags.Cf; // an INC or DEC below uses its place
        s->FlagKind = (FlagKind)kind;
        if (kind >= First)
        {
            var (form, width) = ((CompiledForm)((kind - First) >> 2), (kind - First) & 3);
            // An INC over other flags brings those into order first; that does not touch what is read here.
            Decode(s, form, width, s->FlagA, s->FlagB, Extend(s->FlagR, width));
        }
        if ((more & Rotated) != 0)
        {
            var width = (more >> RotatedWidthShift) & 3;
            Rotate(s, Extend(rotated, width), 8 << width, (more & RotatedRight) != 0);
        }
        if ((more & CarryKept) != 0) Flags.Change(s, Flags.Cf, carry);
    }

    private static void Rotate(CpuState* s, long result, int bits, bool right)
    {
        var sign = result < 0 ? 1u : 0;
        var carry = right ? sign : (uint)result & 1;
        var overflow = sign ^ (right ? (uint)(result >> (bits - 2)) & 1 : carry);
        Flags.Change(s, Flags.Cf | Flags.Of, carry | (overflow != 0 ? Flags.Of : 0));
    }

    private static long Extend(long value, int width) => width switch { 0 => (sbyte)value, 1 => (short)value, 2 => (int)value, _ => value };

    private static void Decode(CpuState* s, CompiledForm form, int width, long rawA, long rawB, long r)
    {
        switch (form)
        {
            case CompiledForm.Compare:
                var (a, b) = (Extend(rawA, width), Extend(rawB, width));
                Set(s, FlagKind.Sub, a, b, Extend(a - b, width));
                break;
            case CompiledForm.Subtract:
                b = Extend(rawB, width);
                Set(s, FlagKind.Sub, Extend(r + b, width), b, r);
                break;
            case CompiledForm.Add:
                b = Extend(rawB, width);
                Set(s, FlagKind.Add, Extend(r - b, width), b, r);
                break;
            case CompiledForm.Negate:
                Set(s, FlagKind.Sub, 0, Extend(-r, width), r);
                break;
            case CompiledForm.ShiftLeft:
                a = rawA & 1;
                Set(s, FlagKind.Bits, a, a ^ (r < 0 ? 1 : 0), r);
                break;
            case CompiledForm.ShiftRight:
                // B is the count: the sign of the operand has moved down by it. It is the OF of tier 0.
                Set(s, FlagKind.Bits, rawA & 1, (r >> ((8 << width) - 1 - (int)rawB)) & 1, r);
                break;
            case CompiledForm.ShiftArithmetic:
                Set(s, FlagKind.Bits, rawA & 1, 0, r);
                break;
            case CompiledForm.Product:
                Set(s, FlagKind.Bits, rawA & 1, rawA & 1, r);
                break;
            case CompiledForm.Bits:
                Set(s, FlagKind.Bits, rawA & 1, rawB & 1, r);
                break;
            case CompiledForm.Raw:
                Set(s, FlagKind.Raw, rawA & Flags.Arithmetic, 0, 0);
                break;
            case CompiledForm.Image:
                // R stays beside the image: a condition of tier 0 that knows its kind may ask R alone.
                Set(s, FlagKind.Raw, rawA & Flags.Arithmetic, 0, r);
                break;
            case CompiledForm.Increment:
                Set(s, FlagKind.Inc, Extend(r - 1, width), OldCarry(s), r);
                break;
            case CompiledForm.Decrement:
                Set(s, FlagKind.Dec, Extend(r + 1, width), OldCarry(s), r);
                break;
            default:
                s->FlagKind = FlagKind.Logic;
                s->FlagR = r;
                break;
        }
    }

    private static void Set(CpuState* s, FlagKind kind, long a, long b, long r) => (s->FlagA, s->FlagB, s->FlagR, s->FlagKind) = (a, b, r, kind);

    /// <summary>CF of the flags put aside by an increment.</summary>
    private static long OldCarry(CpuState* s)
    {
        // What was laid over them has the say on CF. They may then be an increment's themselves, whose own old flags are gone.
        var more = (int)s->OldFlagKind;
        if ((more & CarryKept) != 0) return s->OldFlagCarry & 1;
        if ((more & Rotated) != 0)
        {
            var result = Extend(s->OldFlagRotated, (more >> RotatedWidthShift) & 3);
            return (more & RotatedRight) != 0 ? result >>> 63 : result & 1;
        }
        (s->FlagA, s->FlagB, s->FlagR, s->FlagKind) = (s->OldFlagA, s->OldFlagB, s->OldFlagR, s->OldFlagKind);
        Normalize(s);
        return Flags.Carry(s) ? 1 : 0;
    }
}

/// <summary>What compiled code stores of an instruction's flags.</summary>
internal enum CompiledForm
{
    /// <summary>CMP: A, B.</summary>
    Compare,

    /// <summary>SUB: R, B.</summary>
    Subtract,

    /// <summary>ADD: R, B.</summary>
    Add,

    /// <summary>AND, OR, XOR, TEST: R.</summary>
    Logic,

    /// <summary>NEG: R.</summary>
    Negate,

    /// <summary>SHL: A = CF in the low bit, R.</summary>
    ShiftLeft,

    /// <summary>SHR: A = CF in the low bit, B = count, R.</summary>
    ShiftRight,

    /// <summary>SAR: A = CF in the low bit, R.</summary>
    ShiftArithmetic,

    /// <summary>IMUL, MUL: A = CF and OF in the low bit, R.</summary>
    Product,

    /// <summary>ADC, SBB: A = RFLAGS as the host pushed it, R.</summary>
    Image,

    /// <summary>INC: R; CF is that of the flags put aside.</summary>
    Increment,

    /// <summary>DEC, likewise.</summary>
    Decrement,

    /// <summary>Comparisons of vectors and strings, and others that leave all flags: A = RFLAGS, nothing else.</summary>
    Raw,

    /// <summary>SHLD, SHRD: A = CF and B = OF in the low bits, R.</summary>
    Bits,
}
