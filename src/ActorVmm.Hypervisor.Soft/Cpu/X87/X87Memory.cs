using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>x87 loads and stores, constants, and the control and environment instructions.</summary>
internal static unsafe partial class X87
{
    // --- loads ---

    /// <summary>FLD m32/m64, FILD m16/m32/m64.</summary>
    public static bool Load<TMemory>(CpuState* s, Op* op) where TMemory : struct, IX87Memory
    {
        if (!Read<TMemory>(s, op, out var value, out var offset)) return false;
        s->FpuDp = offset;
        var env = Environment(s);
        if (!TMemory.IsInteger) SoftFloat.Special(ref value, ref env);
        return Push(s, value, env);
    }

    /// <summary>FLD m80: any pattern, no exception but stack overflow.</summary>
    public static bool LoadExtended(CpuState* s, Op* op)
    {
        var at = Address(s, op, out var offset);
        var significand = Mem.Read<ulong>(s, op, at);
        if (s->Abort != Abort.None) return false;
        var signExponent = Mem.Read<ushort>(s, op, at + 8);
        if (s->Abort != Abort.None) return false;
        s->FpuDp = offset;
        return PushRaw(s, significand, signExponent);
    }

    private static bool PushRaw(CpuState* s, ulong significand, ushort signExponent)
    {
        if (!IsEmpty(s, 7)) return Push(s, Real.Indefinite, default);
        s->FpuStatus &= unchecked((ushort)~C1);
        PushSlot(s);
        SetRaw(s, 0, significand, signExponent);
        return true;
    }

    /// <summary>FLD ST(i).</summary>
    public static bool LoadRegister(CpuState* s, Op* op)
    {
        if (IsEmpty(s, op->Src))
        {
            if (!StackFault(s, overflow: false)) return true;
            PushSlot(s);
            Set(s, 0, Real.Indefinite);
            return true;
        }
        return PushRaw(s, s->St[Physical(s, op->Src)], s->StExponent[Physical(s, op->Src)]);
    }

    /// <summary>128 bits of each constant of FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ with its exponent.</summary>
    private static readonly (ulong Hi, ulong Lo, int Exponent)[] Constants =
    [
        (0x8000_0000_0000_0000, 0, 0),
        (0xD49A_784B_CD1B_8AFE, 0x492B_F6FF_4DAF_DB4C, 1),
        (0xB8AA_3B29_5C17_F0BB, 0xBE87_FED0_691D_3E88, 0),
        (0xC90F_DAA2_2168_C234, 0xC4C6_628B_80DC_1CD1, 1),
        (0x9A20_9A84_FBCF_F798, 0x8F89_59AC_0B7C_9178, -2),
        (0xB172_17F7_D1CF_79AB, 0xC9E3_B398_03F2_F6AF, -1),
    ];

    /// <summary>Loads constant Aux, rounded as RC says and without exceptions; 6 is zero.</summary>
    public static bool LoadConstant(CpuState* s, Op* op)
    {
        var env = Environment(s);
        var value = Real.Zero(false);
        if (op->Aux < Constants.Length)
        {
            var (hi, lo, exponent) = Constants[op->Aux];
            value = SoftFloat.Round(false, exponent, hi, lo, FpFormat.Extended, ref env);
        }
        env.Flags = FpFlags.None;
        env.RoundedUp = false;
        return Push(s, value, env);
    }

    // --- stores ---

    /// <summary>FST, FSTP to m32 or m64.</summary>
    public static bool Store<TMemory>(CpuState* s, Op* op) where TMemory : struct, IX87Memory
    {
        var at = Address(s, op, out var offset);
        var env = Environment(s);
        var value = Real.Indefinite;
        var fault = IsEmpty(s, 0);
        if (fault)
        {
            env.Flags = FpFlags.Invalid | FpFlags.StackFault;
        }
        else
        {
            // Storing raises no denormal exception.
            value = Get(s, 0) with { Denormal = false };
            value = SoftFloat.Convert(value, TMemory.Size == 4 ? FpFormat.Single : FpFormat.Double, ref env);
        }
        // Memory takes no result of an unmasked exception other than precision, and the stack is then not popped.
        const FpFlags suppressing = FpFlags.BeforeResult | FpFlags.Overflow | FpFlags.Underflow;
        var delivered = (env.Flags & suppressing & ~env.Masks) == 0;
        if (delivered && !WriteMemory(s, op, at, TMemory.Size, TMemory.Size == 4 ? value.ToSingle() : value.ToDouble())) return false;
        if (!delivered && !Mem.ProbeWrite(s, op, at, TMemory.Size)) return false;
        s->FpuDp = offset;
        // What is not stored has not been rounded either.
        Note(s, delivered ? env.Flags : env.Flags & ~FpFlags.Precision, env.RoundedUp && delivered);
        if (!delivered) return true;
        for (var n = Pops(op); n > 0; n--) Pop(s);
        return true;
    }

    private static bool WriteMemory(CpuState* s, Op* op, ulong at, int size, ulong bits)
    {
        if (size == 2) Mem.Write(s, op, at, (ushort)bits);
        else if (size == 4) Mem.Write(s, op, at, (uint)bits);
        else Mem.Write(s, op, at, bits);
        return s->Abort == Abort.None;
    }

    public static bool StoreInteger<TMemory>(CpuState* s, Op* op) where TMemory : struct, IX87Memory =>
        StoreInteger<TMemory>(s, op, Environment(s).Rounding);

    /// <summary>FISTTP.</summary>
    public static bool StoreTruncated<TMemory>(CpuState* s, Op* op) where TMemory : struct, IX87Memory =>
        StoreInteger<TMemory>(s, op, Rounding.Zero);

    private static bool StoreInteger<TMemory>(CpuState* s, Op* op, Rounding rounding) where TMemory : struct, IX87Memory
    {
        var at = Address(s, op, out var offset);
        var env = Environment(s);
        long value;
        if (IsEmpty(s, 0))
        {
            env.Flags = FpFlags.Invalid | FpFlags.StackFault;
            value = long.MinValue >> (64 - TMemory.Size * 8);
        }
        else
        {
            value = SoftFloat.ToInteger(Get(s, 0), TMemory.Size * 8, rounding, ref env);
        }
        var delivered = (env.Flags & FpFlags.Invalid & ~env.Masks) == 0;
        if (delivered && !WriteMemory(s, op, at, TMemory.Size, (ulong)value)) return false;
        if (!delivered && !Mem.ProbeWrite(s, op, at, TMemory.Size)) return false;
        s->FpuDp = offset;
        Note(s, env.Flags, env.RoundedUp);
        if (!delivered) return true;
        for (var n = Pops(op); n > 0; n--) Pop(s);
        return true;
    }

    /// <summary>FSTP m80.</summary>
    public static bool StoreExtended(CpuState* s, Op* op)
    {
        var at = Address(s, op, out var offset);
        var (significand, signExponent) = Real.Indefinite.ToExtended();
        var fault = IsEmpty(s, 0);
        if (!fault) (significand, signExponent) = (s->St[s->FpuTop], s->StExponent[s->FpuTop]);
        var delivered = !fault || (s->FpuControl & (int)FpFlags.Invalid) != 0;
        if (!Mem.ProbeWrite(s, op, at, 10)) return false;
        if (delivered)
        {
            Mem.Write(s, op, at, significand);
            if (s->Abort != Abort.None) return false;
            Mem.Write(s, op, at + 8, signExponent);
            if (s->Abort != Abort.None) return false;
        }
        s->FpuDp = offset;
        Note(s, fault ? FpFlags.Invalid | FpFlags.StackFault : FpFlags.None, false);
        if (delivered) Pop(s);
        return true;
    }

    /// <summary>FSTPNCE ST(i), undocumented: as FSTP, but an empty ST0 is only popped.</summary>
    public static bool StoreRegisterUnchecked(CpuState* s, Op* op)
    {
        if (!IsEmpty(s, 0)) return StoreRegister(s, op);
        s->FpuStatus &= unchecked((ushort)~C1);
        Pop(s);
        return true;
    }

    /// <summary>FST, FSTP ST(i).</summary>
    public static bool StoreRegister(CpuState* s, Op* op)
    {
        if (IsEmpty(s, 0))
        {
            if (!StackFault(s, overflow: false)) return true;
            Set(s, op->Dst, Real.Indefinite);
        }
        else
        {
            s->FpuStatus &= unchecked((ushort)~C1);
            SetRaw(s, op->Dst, s->St[s->FpuTop], s->StExponent[s->FpuTop]);
        }
        for (var n = Pops(op); n > 0; n--) Pop(s);
        return true;
    }

    // --- packed decimal ---

    /// <summary>FBLD m80: 18 digits and a sign; digits above 9 are undefined and count by value.</summary>
    public static bool LoadDecimal(CpuState* s, Op* op)
    {
        var at = Address(s, op, out var offset);
        var low = Mem.Read<ulong>(s, op, at);
        if (s->Abort != Abort.None) return false;
        var high = Mem.Read<ushort>(s, op, at + 8);
        if (s->Abort != Abort.None) return false;
        s->FpuDp = offset;
        var value = (ulong)((high >> 4) & 15) * 10 + (ulong)(high & 15);
        for (var digit = 15; digit >= 0; digit--) value = value * 10 + ((low >> (digit * 4)) & 15);
        var real = Real.FromInteger((long)value);
        real.Negative = high >> 15 != 0;
        return Push(s, real, Environment(s));
    }

    /// <summary>FBSTP m80.</summary>
    public static bool StoreDecimal(CpuState* s, Op* op)
    {
        const ulong limit = 999_999_999_999_999_999;
        var at = Address(s, op, out var offset);
        var env = Environment(s);
        var (low, high) = (0xC000_0000_0000_0000UL, (ushort)0xFFFF);
        if (IsEmpty(s, 0))
        {
            env.Flags = FpFlags.Invalid | FpFlags.StackFault;
        }
        else
        {
            var real = Get(s, 0);
            var value = SoftFloat.ToInteger(real, 64, env.Rounding, ref env);
            var magnitude = (ulong)Math.Abs(value == long.MinValue ? long.MaxValue : value);
            if (magnitude > limit) (env.Flags, env.RoundedUp) = (FpFlags.Invalid, false);
            if ((env.Flags & FpFlags.Invalid) == 0)
            {
                low = 0;
                for (var digit = 0; digit < 16; digit++, magnitude /= 10) low |= magnitude % 10 << (digit * 4);
                high = (ushort)(magnitude % 10 | magnitude / 10 << 4 | (real.Negative ? 0x8000UL : 0));
            }
        }
        var delivered = (env.Flags & FpFlags.Invalid & ~env.Masks) == 0;
        if (!Mem.ProbeWrite(s, op, at, 10)) return false;
        if (delivered)
        {
            Mem.Write(s, op, at, low);
            if (s->Abort != Abort.None) return false;
            Mem.Write(s, op, at + 8, high);
            if (s->Abort != Abort.None) return false;
        }
        s->FpuDp = offset;
        Note(s, env.Flags, env.RoundedUp);
        if (delivered) Pop(s);
        return true;
    }

    // --- control ---

    public static bool InitializeInstruction(CpuState* s, Op* op)
    {
        Initialize(s);
        return true;
    }

    public static bool ClearExceptions(CpuState* s, Op* op)
    {
        s->FpuStatus &= 0x7F00;
        return true;
    }

    public static bool LoadControlWord(CpuState* s, Op* op)
    {
        var value = Mem.Read<ushort>(s, op, AtAny.Of(s, op));
        if (s->Abort != Abort.None) return false;
        LoadControl(s, value, s->FpuStatus);
        return true;
    }

    public static bool StoreControlWord(CpuState* s, Op* op)
    {
        Mem.Write(s, op, AtAny.Of(s, op), s->FpuControl);
        return s->Abort == Abort.None;
    }

    public static bool StoreStatusWord(CpuState* s, Op* op)
    {
        Mem.Write(s, op, AtAny.Of(s, op), StatusWord(s));
        return s->Abort == Abort.None;
    }

    public static bool StatusWordToAx(CpuState* s, Op* op)
    {
        *(ushort*)&s->Regs[0] = StatusWord(s);
        return true;
    }

    // --- environment: 14 or 28 bytes, protected or real-mode layout (SDM Vol. 1 figures 8-9 to 8-12) ---

    private const int RegisterBytes = 80;

    /// <summary>The two-bit tags: 0 valid, 1 zero, 2 special, 3 empty.</summary>
    private static ushort TagWord(CpuState* s)
    {
        var tags = 0;
        for (var n = 0; n < 8; n++)
        {
            var value = Real.FromExtended(s->St[n], s->StExponent[n]);
            var tag = (s->FpuEmpty >> n & 1) != 0 ? 3
                : value.Class == RealClass.Zero ? 1
                : value.Class == RealClass.Finite && !value.Denormal ? 0 : 2;
            tags |= tag << (n * 2);
        }
        return (ushort)tags;
    }

    private static int PackEnvironment(CpuState* s, Span<byte> image, bool wide)
    {
        var real = (s->Cr0 & 1) == 0 || (s->SystemFlags & Flags.Vm) != 0;
        var (ip, dp) = ((uint)s->FpuIp, (uint)s->FpuDp);
        Span<uint> fields = stackalloc uint[7];
        if (wide)
        {
            fields[0] = 0xFFFF_0000u | s->FpuControl;
            fields[1] = 0xFFFF_0000u | StatusWord(s);
            fields[2] = 0xFFFF_0000u | TagWord(s);
            fields[3] = real ? 0xFFFF_0000u | (ip & 0xFFFF) : ip;
            fields[4] = real ? (ip >> 16 << 12) | (uint)(s->FpuOpcode & 0x7FF) : (uint)(s->FpuOpcode & 0x7FF) << 16;
            fields[5] = real ? 0xFFFF_0000u | (dp & 0xFFFF) : dp;
            fields[6] = real ? dp >> 16 << 12 : 0xFFFF_0000u;
            for (var n = 0; n < 7; n++) BinaryPrimitives.WriteUInt32LittleEndian(image[(n * 4)..], fields[n]);
            return 28;
        }
        fields[0] = s->FpuControl;
        fields[1] = StatusWord(s);
        fields[2] = TagWord(s);
        fields[3] = ip & 0xFFFF;
        fields[4] = real ? (ip >> 16 << 12) | (uint)(s->FpuOpcode & 0x7FF) : 0;
        fields[5] = dp & 0xFFFF;
        fields[6] = real ? dp >> 16 << 12 : 0;
        for (var n = 0; n < 7; n++) BinaryPrimitives.WriteUInt16LittleEndian(image[(n * 2)..], (ushort)fields[n]);
        return 14;
    }

    private static void UnpackEnvironment(CpuState* s, ReadOnlySpan<byte> image, bool wide)
    {
        var real = (s->Cr0 & 1) == 0 || (s->SystemFlags & Flags.Vm) != 0;
        Span<uint> fields = stackalloc uint[7];
        for (var n = 0; n < 7; n++)
        {
            fields[n] = wide
                ? BinaryPrimitives.ReadUInt32LittleEndian(image[(n * 4)..])
                : BinaryPrimitives.ReadUInt16LittleEndian(image[(n * 2)..]);
        }
        s->FpuTop = (ushort)((fields[1] >> 11) & 7);
        s->FpuEmpty = 0;
        for (var n = 0; n < 8; n++)
        {
            if ((fields[2] >> (n * 2) & 3) == 3) s->FpuEmpty |= (ushort)(1 << n);
        }
        if (real)
        {
            s->FpuIp = (fields[3] & 0xFFFF) | (fields[4] >> 12 << 16);
            s->FpuDp = (fields[5] & 0xFFFF) | (fields[6] >> 12 << 16);
            s->FpuOpcode = (ushort)(fields[4] & 0x7FF);
        }
        else
        {
            s->FpuIp = fields[3];
            s->FpuDp = fields[5];
            if (wide) s->FpuOpcode = (ushort)((fields[4] >> 16) & 0x7FF);
        }
        LoadControl(s, (ushort)fields[0], (ushort)fields[1]);
    }

    private static bool WriteImage(CpuState* s, Op* op, ReadOnlySpan<byte> image)
    {
        var at = AtAny.Of(s, op);
        if (!Mem.ProbeWrite(s, op, at, image.Length)) return false;
        foreach (var part in MemoryMarshal.Cast<byte, ushort>(image))
        {
            Mem.Write(s, op, at, part);
            if (s->Abort != Abort.None) return false;
            at += 2;
        }
        return true;
    }

    private static bool ReadImage(CpuState* s, Op* op, Span<byte> image)
    {
        var at = AtAny.Of(s, op);
        foreach (ref var part in MemoryMarshal.Cast<byte, ushort>(image))
        {
            part = Mem.Read<ushort>(s, op, at);
            if (s->Abort != Abort.None) return false;
            at += 2;
        }
        return true;
    }

    /// <summary>FNSTENV; Aux is 1 for the 28-byte form. All exceptions are masked afterwards.</summary>
    public static bool StoreEnvironment(CpuState* s, Op* op)
    {
        Span<byte> image = stackalloc byte[28];
        var size = PackEnvironment(s, image, op->Aux == 1);
        if (!WriteImage(s, op, image[..size])) return false;
        LoadControl(s, (ushort)(s->FpuControl | (int)FpFlags.All), s->FpuStatus);
        return true;
    }

    public static bool LoadEnvironment(CpuState* s, Op* op)
    {
        Span<byte> image = stackalloc byte[op->Aux == 1 ? 28 : 14];
        if (!ReadImage(s, op, image)) return false;
        UnpackEnvironment(s, image, op->Aux == 1);
        return true;
    }

    /// <summary>FNSAVE: environment, then ST0 to ST7; the unit is initialized afterwards.</summary>
    public static bool SaveAll(CpuState* s, Op* op)
    {
        Span<byte> image = stackalloc byte[28 + RegisterBytes];
        var size = PackEnvironment(s, image, op->Aux == 1);
        for (var n = 0; n < 8; n++)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(image[(size + n * 10)..], s->St[Physical(s, n)]);
            BinaryPrimitives.WriteUInt16LittleEndian(image[(size + n * 10 + 8)..], s->StExponent[Physical(s, n)]);
        }
        if (!WriteImage(s, op, image[..(size + RegisterBytes)])) return false;
        Initialize(s);
        return true;
    }

    public static bool RestoreAll(CpuState* s, Op* op)
    {
        var size = op->Aux == 1 ? 28 : 14;
        Span<byte> image = stackalloc byte[size + RegisterBytes];
        if (!ReadImage(s, op, image)) return false;
        UnpackEnvironment(s, image, op->Aux == 1);
        for (var n = 0; n < 8; n++)
        {
            s->St[Physical(s, n)] = BinaryPrimitives.ReadUInt64LittleEndian(image[(size + n * 10)..]);
            s->StExponent[Physical(s, n)] = BinaryPrimitives.ReadUInt16LittleEndian(image[(size + n * 10 + 8)..]);
        }
        return true;
    }
}
