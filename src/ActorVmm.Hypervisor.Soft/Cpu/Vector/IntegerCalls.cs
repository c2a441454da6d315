using System.Numerics;
using System.Runtime.Intrinsics;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>Integer vector instructions that are more than one expression, run through <see cref="Packed.Call"/>.</summary>
internal static unsafe class IntegerCalls
{
    /// <summary>PTEST: ZF = no common bit, CF = source within destination.</summary>
    public static bool Ptest(CpuState* s, Op* op)
    {
        if (!VectorSource.Read(s, op, out var b)) return false;
        var a = Xmm.At(s, op->Dst);
        var zero = (a & b) == Vector128<byte>.Zero;
        var carry = (~a & b) == Vector128<byte>.Zero;
        Flags.SetArithmetic(s, (zero ? Flags.Zf : 0) | (carry ? Flags.Cf : 0));
        return true;
    }

    /// <summary>PBLENDVB, BLENDVPS, BLENDVPD: elements of the source where XMM0's element has its top bit set.</summary>
    public static bool BlendVariable<T>(CpuState* s, Op* op) where T : unmanaged
    {
        if (!VectorSource.Read(s, op, out var b)) return false;
        var mask = Xmm.At(s, 0);
        mask = sizeof(T) switch
        {
            1 => Vector128.ShiftRightArithmetic(mask.AsSByte(), 7).AsByte(),
            4 => Vector128.ShiftRightArithmetic(mask.AsInt32(), 31).AsByte(),
            _ => Vector128.ShiftRightArithmetic(mask.AsInt64(), 63).AsByte(),
        };
        Xmm.At(s, op->Dst) = Vector128.ConditionalSelect(mask, b, Xmm.At(s, op->Dst));
        return true;
    }

    /// <summary>MPSADBW: eight sums of absolute differences of four bytes.</summary>
    public static bool Mpsadbw(CpuState* s, Op* op)
    {
        if (!VectorSource.Read(s, op, out var b)) return false;
        var a = Xmm.At(s, op->Dst);
        var immediate = VectorSource.Immediate(op);
        var (first, second) = ((immediate >> 2 & 1) * 4, (immediate & 3) * 4);
        var result = Vector128<ushort>.Zero;
        for (var lane = 0; lane < 8; lane++)
        {
            var sum = 0;
            for (var n = 0; n < 4; n++) sum += Math.Abs(a.GetElement(first + lane + n) - b.GetElement(second + n));
            result = result.WithElement(lane, (ushort)sum);
        }
        Xmm.At(s, op->Dst) = result.AsByte();
        return true;
    }

    /// <summary>PHMINPOSUW: the smallest word and its index.</summary>
    public static bool Phminposuw(CpuState* s, Op* op)
    {
        if (!VectorSource.Read(s, op, out var b)) return false;
        var best = 0;
        for (var n = 1; n < 8; n++)
        {
            if (b.AsUInt16().GetElement(n) < b.AsUInt16().GetElement(best)) best = n;
        }
        Xmm.At(s, op->Dst) = Vector128.CreateScalar(b.AsUInt16().GetElement(best) | (uint)best << 16).AsByte();
        return true;
    }

    /// <summary>MASKMOVDQU and MASKMOVQ: bytes with a set mask bit go to [DS:rDI], which the op's address names.</summary>
    public static bool MaskMove(CpuState* s, Op* op)
    {
        var mmx = (op->Aux & VectorSource.MmxRegister) != 0;
        var data = mmx ? Vector128.CreateScalar(Xmm.Mm(s, op->Dst)).AsByte() : Xmm.At(s, op->Dst);
        var mask = (mmx ? Vector128.CreateScalar(Xmm.Mm(s, op->Src)).AsByte() : Xmm.At(s, op->Src)).ExtractMostSignificantBits();
        if (mask == 0) return true;
        var at = AtAny.Of(s, op);
        var first = BitOperations.TrailingZeroCount(mask);
        if (!Mem.ProbeWrite(s, op, at + (uint)first, 32 - BitOperations.LeadingZeroCount(mask) - first)) return false;
        for (var n = 0; n < 16; n++)
        {
            if ((mask >> n & 1) == 0) continue;
            Mem.Write(s, op, at + (uint)n, data.GetElement(n));
            if (s->Abort != Abort.None) return false;
        }
        return true;
    }

    /// <summary>PALIGNR mm, mm/m64, imm8.</summary>
    public static bool PalignrMmx(CpuState* s, Op* op)
    {
        if (!VectorSource.Read(s, op, out var b)) return false;
        var shift = VectorSource.Immediate(op) * 8;
        var joined = new UInt128(Xmm.Mm(s, op->Dst), b.AsUInt64().ToScalar());
        Xmm.Mm(s, op->Dst) = shift < 128 ? (ulong)(joined >> shift) : 0;
        return true;
    }

    /// <summary>PSHUFW mm, mm/m64, imm8.</summary>
    public static bool Pshufw(CpuState* s, Op* op)
    {
        if (!VectorSource.Read(s, op, out var b)) return false;
        var from = b.AsUInt64().ToScalar();
        var immediate = VectorSource.Immediate(op);
        ulong result = 0;
        for (var n = 0; n < 4; n++) result |= (ulong)(ushort)(from >> ((immediate >> (n * 2) & 3) * 16)) << (n * 16);
        Xmm.Mm(s, op->Dst) = result;
        return true;
    }

    /// <summary>POPCNT (SSE4.2 age, general registers): ZF from the source, the other arithmetic flags clear.</summary>
    public static bool Popcnt<T>(CpuState* s, Op* op) where T : unmanaged
    {
        if (!General<T>(s, op, out var value)) return false;
        Reg.Set(s, op->Dst, Truncate<T>((ulong)BitOperations.PopCount(value)));
        Flags.SetArithmetic(s, value == 0 ? Flags.Zf : 0);
        return true;
    }

    /// <summary>CRC32 (Castagnoli, reflected) of 1 to 8 bytes; the destination is 32 bits, zero-extended.</summary>
    public static bool Crc32<T>(CpuState* s, Op* op) where T : unmanaged
    {
        if (!General<T>(s, op, out var value)) return false;
        var crc = Reg.Get<uint>(s, op->Dst);
        crc = sizeof(T) switch
        {
            1 => BitOperations.Crc32C(crc, (byte)value),
            2 => BitOperations.Crc32C(crc, (ushort)value),
            4 => BitOperations.Crc32C(crc, (uint)value),
            _ => BitOperations.Crc32C(crc, value),
        };
        Reg.Set(s, op->Dst, (ulong)crc);
        return true;
    }

    private static bool General<T>(CpuState* s, Op* op, out ulong value) where T : unmanaged
    {
        value = VectorSource.MemorySize(op) == 0 ? Scalar.Load<T>((byte*)s + op->Src) : Scalar.Read<T>(s, op, AtAny.Of(s, op));
        return s->Abort == Abort.None;
    }

    private static T Truncate<T>(ulong value) where T : unmanaged => *(T*)&value;
}
