using System.Numerics;

namespace ActorVmm.Hypervisor.Soft.Cpu;

internal enum RealClass : byte
{
    Zero,
    Finite,
    Infinity,
    QuietNaN,
    SignalingNaN,

    /// <summary>An 80-bit encoding that no modern processor makes: unnormal, pseudo-NaN, pseudo-infinity (SDM Vol. 1 §8.2.2).</summary>
    Unsupported,
}

/// <summary>
/// A number taken apart: finite ones are <c>Significand / 2^63 * 2^Exponent</c> with bit 63 of the significand set, whatever format they
/// came from and denormal or not, so that one set of algorithms serves binary32, binary64 and the 80-bit format.
/// </summary>
internal struct Real
{
    public ulong Significand;
    public int Exponent;
    public bool Negative;
    public RealClass Class;

    /// <summary>The operand was denormal (or pseudo-denormal) in its own format.</summary>
    public bool Denormal;

    private const ulong Top = 1UL << 63;
    private const ulong QuietBit = 1UL << 62;

    public static readonly Real Indefinite = new() { Class = RealClass.QuietNaN, Negative = true, Significand = Top | QuietBit };

    public readonly bool IsNaN => Class is RealClass.QuietNaN or RealClass.SignalingNaN;

    public static Real Zero(bool negative) => new() { Class = RealClass.Zero, Negative = negative };

    public static Real Infinity(bool negative) => new() { Class = RealClass.Infinity, Negative = negative };

    public static Real Finite(bool negative, int exponent, ulong significand) =>
        new() { Class = RealClass.Finite, Negative = negative, Exponent = exponent, Significand = significand };

    /// <summary>The NaN an instruction delivers for a NaN operand.</summary>
    public readonly Real Quieted() => this with { Class = RealClass.QuietNaN, Significand = Significand | QuietBit };

    public readonly Real Negated() => this with { Negative = !Negative };

    public readonly Real Absolute() => this with { Negative = false };

    public static Real FromInteger(long value)
    {
        if (value == 0) return Zero(false);
        var magnitude = value < 0 ? (ulong)-value : (ulong)value;
        var shift = BitOperations.LeadingZeroCount(magnitude);
        return Finite(value < 0, 63 - shift, magnitude << shift);
    }

    public static Real FromSingle(uint bits) => FromBits(bits >> 31 != 0, (int)(bits >> 23) & 0xFF, (ulong)bits << 41 >> 1, 0xFF, 127);

    public static Real FromDouble(ulong bits) => FromBits(bits >> 63 != 0, (int)(bits >> 52) & 0x7FF, bits << 12 >> 1, 0x7FF, 1023);

    /// <summary><paramref name="fraction"/> is left-aligned below bit 63.</summary>
    private static Real FromBits(bool negative, int biased, ulong fraction, int maximum, int bias)
    {
        if (biased == maximum)
        {
            if (fraction == 0) return Infinity(negative);
            return new Real
            {
                Negative = negative,
                Significand = Top | fraction,
                Class = (fraction & QuietBit) != 0 ? RealClass.QuietNaN : RealClass.SignalingNaN,
            };
        }
        if (biased != 0) return Finite(negative, biased - bias, Top | fraction);
        if (fraction == 0) return Zero(negative);
        var shift = BitOperations.LeadingZeroCount(fraction);
        return Finite(negative, 1 - bias - shift, fraction << shift) with { Denormal = true };
    }

    public static Real FromExtended(ulong significand, ushort signExponent)
    {
        var negative = signExponent >> 15 != 0;
        var biased = signExponent & 0x7FFF;
        if (biased == 0)
        {
            if (significand == 0) return Zero(negative);
            var shift = BitOperations.LeadingZeroCount(significand);
            return Finite(negative, -16382 - shift, significand << shift) with { Denormal = true };
        }
        if ((significand & Top) == 0) return new Real { Negative = negative, Significand = significand, Class = RealClass.Unsupported };
        if (biased != 0x7FFF) return Finite(negative, biased - 16383, significand);
        if (significand == Top) return Infinity(negative);
        return new Real
        {
            Negative = negative,
            Significand = significand,
            Class = (significand & QuietBit) != 0 ? RealClass.QuietNaN : RealClass.SignalingNaN,
        };
    }

    /// <summary>Bits of a value that has been rounded to the format before (NaN payloads are cut).</summary>
    public readonly uint ToSingle() => (uint)ToBits(23, 0xFF, 127);

    /// <summary>Bits of a value that has been rounded to the format before (NaN payloads are cut).</summary>
    public readonly ulong ToDouble() => ToBits(52, 0x7FF, 1023);

    private readonly ulong ToBits(int fractionBits, ulong maximum, int bias)
    {
        var sign = Negative ? 1UL << (BitOperations.Log2(maximum) + 1 + fractionBits) : 0;
        var fraction = Significand << 1 >> (64 - fractionBits);
        switch (Class)
        {
            case RealClass.Zero: return sign;
            case RealClass.Infinity: return sign | maximum << fractionBits;
            case RealClass.Finite:
                if (Exponent >= 1 - bias) return sign | (ulong)(Exponent + bias) << fractionBits | fraction;
                return sign | Significand >> (63 - fractionBits + (1 - bias - Exponent));
            default: return sign | maximum << fractionBits | fraction;
        }
    }

    public readonly (ulong Significand, ushort SignExponent) ToExtended()
    {
        var sign = Negative ? 0x8000 : 0;
        return Class switch
        {
            RealClass.Zero => (0, (ushort)sign),
            RealClass.Infinity => (Top, (ushort)(sign | 0x7FFF)),
            RealClass.Finite => Exponent >= -16382
                ? (Significand, (ushort)(sign | (Exponent + 16383)))
                : (Significand >> (-16382 - Exponent), (ushort)sign),
            _ => (Significand, (ushort)(sign | 0x7FFF)),
        };
    }
}
