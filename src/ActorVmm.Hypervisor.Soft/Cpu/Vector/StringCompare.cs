using System.Numerics;
using System.Runtime.Intrinsics;
using V = System.Runtime.Intrinsics.Vector128<byte>;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>PCMPISTRI, PCMPISTRM, PCMPESTRI, PCMPESTRM (SDM Vol. 1 §12.9, Vol. 2 §4.1). RAX, RDX, RCX are registers 0, 2, 1.</summary>
internal static unsafe class StringCompare
{
    /// <summary>The forms: whether lengths are explicit, whether they are 64 bits wide (REX.W), whether the result is a mask.</summary>
    private const int Explicit = 1, Wide = 2, Mask = 4;

    public static bool ImplicitIndex(CpuState* s, Op* op) => Run(s, op, 0);

    public static bool ImplicitMask(CpuState* s, Op* op) => Run(s, op, Mask);

    public static bool ExplicitIndex(CpuState* s, Op* op) => Run(s, op, Explicit);

    public static bool ExplicitMask(CpuState* s, Op* op) => Run(s, op, Explicit | Mask);

    public static bool ExplicitWideIndex(CpuState* s, Op* op) => Run(s, op, Explicit | Wide);

    public static bool ExplicitWideMask(CpuState* s, Op* op) => Run(s, op, Explicit | Wide | Mask);

    private static bool Run(CpuState* s, Op* op, int form)
    {
        if (!VectorSource.Read(s, op, out var b)) return false;
        var a = Xmm.At(s, op->Dst);
        var control = VectorSource.Immediate(op);
        var words = (control & 1) != 0;
        var count = words ? 8 : 16;
        int lengthA, lengthB;
        if ((form & Explicit) != 0)
        {
            lengthA = Length(s->Regs[0], (form & Wide) != 0, count);
            lengthB = Length(s->Regs[2], (form & Wide) != 0, count);
        }
        else
        {
            lengthA = ZeroAt(a, words, count);
            lengthB = ZeroAt(b, words, count);
        }
        var result = Aggregate(a, b, lengthA, lengthB, control, count);
        // Polarity: bit 4 negates, with bit 5 only where the second string is valid.
        var all = (1 << count) - 1;
        if ((control & 0x10) != 0) result ^= (control & 0x20) != 0 ? (1 << lengthB) - 1 : all;
        result &= all;

        if ((form & Mask) != 0) StoreMask(s, result, (control & 0x40) != 0, words, count);
        else s->Regs[1] = (ulong)Index(result, (control & 0x40) != 0, count);
        Flags.SetArithmetic(s, (result != 0 ? Flags.Cf : 0) | (lengthB < count ? Flags.Zf : 0) | (lengthA < count ? Flags.Sf : 0) |
            ((result & 1) != 0 ? Flags.Of : 0));
        return true;
    }

    /// <summary>The magnitude of an explicit length, saturated.</summary>
    private static int Length(ulong register, bool wide, int count)
    {
        var value = wide ? (long)register : (int)register;
        return value > count || value < -count ? count : (int)Math.Abs(value);
    }

    private static int ZeroAt(V value, bool words, int count)
    {
        var zeros = words
            ? Vector128.Equals(value.AsUInt16(), Vector128<ushort>.Zero).ExtractMostSignificantBits()
            : Vector128.Equals(value, V.Zero).ExtractMostSignificantBits();
        return zeros == 0 ? count : BitOperations.TrailingZeroCount(zeros);
    }

    private static int Element(V value, int index, int control) => (control & 3) switch
    {
        0 => value.GetElement(index),
        1 => value.AsUInt16().GetElement(index),
        2 => value.AsSByte().GetElement(index),
        _ => value.AsInt16().GetElement(index),
    };

    /// <summary>One result bit per element of <paramref name="b"/>, by the aggregation of control bits 2-3.</summary>
    private static int Aggregate(V a, V b, int lengthA, int lengthB, int control, int count)
    {
        var result = 0;
        for (var j = 0; j < count; j++)
        {
            var hit = ((control >> 2) & 3) switch
            {
                0 => j < lengthB && EqualAny(a, b, lengthA, j, control),
                1 => j < lengthB && InRanges(a, b, lengthA, j, control),
                2 => j < lengthA && j < lengthB ? Element(a, j, control) == Element(b, j, control) : j >= lengthA && j >= lengthB,
                _ => EqualOrdered(a, b, lengthA, lengthB, j, control, count),
            };
            if (hit) result |= 1 << j;
        }
        return result;
    }

    private static bool EqualAny(V a, V b, int lengthA, int j, int control)
    {
        for (var i = 0; i < lengthA; i++)
        {
            if (Element(a, i, control) == Element(b, j, control)) return true;
        }
        return false;
    }

    private static bool InRanges(V a, V b, int lengthA, int j, int control)
    {
        var value = Element(b, j, control);
        for (var i = 0; i + 1 < lengthA; i += 2)
        {
            if (Element(a, i, control) <= value && value <= Element(a, i + 1, control)) return true;
        }
        return false;
    }

    /// <summary>
    /// Whether the first string occurs in the second at <paramref name="j"/>, as far as the second reaches in this vector.
    /// </summary>
    private static bool EqualOrdered(V a, V b, int lengthA, int lengthB, int j, int control, int count)
    {
        for (var i = 0; i < lengthA && i + j < count; i++)
        {
            if (i + j >= lengthB || Element(a, i, control) != Element(b, i + j, control)) return false;
        }
        return true;
    }

    private static int Index(int result, bool last, int count)
    {
        if (result == 0) return count;
        return last ? BitOperations.Log2((uint)result) : BitOperations.TrailingZeroCount(result);
    }

    private static void StoreMask(CpuState* s, int result, bool expand, bool words, int count)
    {
        if (!expand)
        {
            Xmm.At(s, 0) = Vector128.CreateScalar(result).AsByte();
            return;
        }
        var mask = V.Zero;
        for (var n = 0; n < count; n++)
        {
            if ((result >> n & 1) == 0) continue;
            mask = words ? mask.AsUInt16().WithElement(n, ushort.MaxValue).AsByte() : mask.WithElement(n, byte.MaxValue);
        }
        Xmm.At(s, 0) = mask;
    }
}
