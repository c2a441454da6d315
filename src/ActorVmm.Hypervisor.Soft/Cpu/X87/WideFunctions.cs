using System.Numerics;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// Elementary functions on <see cref="WideFloat"/>: argument reduction and power series until the terms fall below the last bit. The
/// relative error is below 2^-110, so that rounding to 64 bits gives the correctly rounded value but for arguments within 2^-46 ulp of a
/// tie. No host math library is used: results are the same everywhere.
/// </summary>
internal static class WideFunctions
{
    /// <summary>2/π in 320 bits: enough for arguments below 2^63 that come as close to a multiple of π/2 as 64-bit numbers can.</summary>
    private static readonly ulong[] TwoOverPi =
        [0xA2F9_836E_4E44_1529, 0xFC27_57D1_F534_DDC0, 0xDB62_9599_3C43_9041, 0xFE51_63AB_DEBB_C561, 0xB724_6E3A_424D_D2E0];

    /// <summary>atan(k/16) for k = 1 to 16.</summary>
    private static readonly WideFloat[] ArcTangents =
    [
        WideFloat.Of(0xFFAA_DDB9_67EF_4E36, 0xCB27_92DC_0E2E_0D51, -5),
        WideFloat.Of(0xFEAD_D4D5_617B_6E32, 0xC897_989F_3E88_8EF8, -4),
        WideFloat.Of(0xBDCB_DA5E_72D8_1134, 0x7B0B_4F88_1C9C_7488, -3),
        WideFloat.Of(0xFADB_AFC9_6406_EB15, 0x6DC7_9EF5_F7A2_17E6, -3),
        WideFloat.Of(0x9B13_B9B8_3F5E_5E69, 0xC5AB_B498_D27A_F328, -2),
        WideFloat.Of(0xB7B0_CA0F_26F7_8473, 0x8AA3_2122_DCFE_4483, -2),
        WideFloat.Of(0xD327_761E_611F_E5B6, 0x427C_95E9_001E_7136, -2),
        WideFloat.Of(0xED63_382B_0DDA_7B45, 0x6FE4_45EC_BC3A_8D03, -2),
        WideFloat.Of(0x832B_F4A6_D986_7E2A, 0x4B6A_09CB_61A5_15C1, -1),
        WideFloat.Of(0x8F00_5D5E_F7F5_9F9B, 0x5C83_5E16_65C4_3748, -1),
        WideFloat.Of(0x9A2F_80E6_71BD_DA20, 0x4226_F8E2_204F_F3BD, -1),
        WideFloat.Of(0xA4BC_7D19_34F7_0924, 0x19A8_7F2A_457D_AC9F, -1),
        WideFloat.Of(0xAEAC_4C38_B4D8_C080, 0x1472_5E2F_3E52_070A, -1),
        WideFloat.Of(0xB805_3E2B_C231_9E73, 0xCB2D_A552_10A4_443D, -1),
        WideFloat.Of(0xC0CE_85B8_AC52_6640, 0x89DD_62C4_6E92_FA25, -1),
        WideFloat.Of(0xC90F_DAA2_2168_C234, 0xC4C6_628B_80DC_1CD1, -1),
    ];

    private static bool Negligible(WideFloat term, WideFloat sum) => term.IsZero || term.Exponent < sum.Exponent - 130;

    /// <summary>Brings |x| below 2^63 into [-π/4, π/4] and counts the quarter turns.</summary>
    public static WideFloat ReduceAngle(in Real x, out int quadrant)
    {
        quadrant = 0;
        var value = WideFloat.Of(x);
        if (x.Exponent < -1) return value;
        // significand * (2/π) as a 384-bit integer behind one empty word, then shifted so that word 0 holds the integer part.
        Span<ulong> product = stackalloc ulong[7];
        product.Clear();
        for (var n = 4; n >= 0; n--)
        {
            var high = Math.BigMul(x.Significand, TwoOverPi[n], out var low);
            var sum = (UInt128)product[n + 2] + low;
            product[n + 2] = (ulong)sum;
            product[n + 1] = high + (ulong)(sum >> 64);
        }
        var shift = x.Exponent + 1;
        for (var n = 0; n < 6 && shift > 0; n++) product[n] = product[n] << shift | product[n + 1] >> (64 - shift);
        var (turns, f1, f2, f3) = (product[0], product[1], product[2], product[3]);
        var negative = f1 >> 63 != 0;
        if (negative)
        {
            turns++;
            (f1, f2, f3) = (~f1, ~f2, 0 - f3);
            if (f3 == 0 && ++f2 == 0) f1++;
        }
        var lead = BitOperations.LeadingZeroCount(f1);
        var fraction = new UInt128(f1, f2);
        if (lead == 64) (fraction, lead) = (new UInt128(f2, f3), 64);
        else if (lead > 0) fraction = fraction << lead | f3 >> (64 - lead);
        var reduced = WideFloat.Normalized(negative != x.Negative, -lead, fraction) * WideFloat.HalfPi;
        quadrant = (int)((x.Negative ? 0 - turns : turns) & 3);
        return reduced;
    }

    /// <summary>Sine of a reduced angle.</summary>
    public static WideFloat Sine(WideFloat z) => Alternating(z, z * z, 2);

    /// <summary>Cosine of a reduced angle.</summary>
    public static WideFloat Cosine(WideFloat z) => Alternating(WideFloat.One, z * z, 1);

    /// <summary>first - first * square / (k (k+1)) + ...</summary>
    private static WideFloat Alternating(WideFloat first, WideFloat square, uint k)
    {
        var (sum, term) = (first, first);
        while (true)
        {
            term = -(term * square).Over(k * (k + 1));
            if (Negligible(term, sum)) return sum;
            sum += term;
            k += 2;
        }
    }

    /// <summary>2^x - 1 for |x| up to about 2.</summary>
    public static WideFloat PowerMinusOne(WideFloat x)
    {
        var z = x * WideFloat.Ln2;
        var (sum, term) = (z, z);
        for (uint k = 2; ; k++)
        {
            term = (term * z).Over(k);
            if (Negligible(term, sum)) return sum;
            sum += term;
        }
    }

    /// <summary>log2(1 + u) for u in [-0.3, 0.42] by the series of 2 artanh(u / (2 + u)), else through the exponent of 1 + u.</summary>
    public static WideFloat LogOnePlus(WideFloat u)
    {
        if (u.IsZero) return u;
        if (u.Exponent >= -2)
        {
            var whole = WideFloat.One + u;
            // sqrt(1/2) <= m < sqrt(2).
            var exponent = whole.Exponent;
            var m = whole.Scaled(-exponent);
            if (m.Significand >= new UInt128(0xB504_F333_F9DE_6484, 0))
            {
                m = m.Scaled(-1);
                exponent++;
            }
            if (exponent != 0) return WideFloat.Of(exponent) + LogNearOne(m - WideFloat.One);
        }
        return LogNearOne(u);
    }

    private static WideFloat LogNearOne(WideFloat u)
    {
        if (u.IsZero) return u;
        var s = u / (WideFloat.One.Scaled(1) + u);
        var square = s * s;
        var (sum, power) = (s, s);
        for (uint k = 3; ; k += 2)
        {
            power *= square;
            var term = power.Over(k);
            if (Negligible(term, sum)) return (sum * WideFloat.Log2E).Scaled(1);
            sum += term;
        }
    }

    /// <summary>Arc tangent of numerator / denominator, both positive.</summary>
    public static WideFloat ArcTangent(WideFloat numerator, WideFloat denominator)
    {
        var swap = numerator.Exponent > denominator.Exponent ||
            (numerator.Exponent == denominator.Exponent && numerator.Significand > denominator.Significand);
        var ratio = swap ? denominator / numerator : numerator / denominator;
        // Nearest sixteenth.
        var index = ratio.Exponent < -5 ? 0 : (int)(((ratio.Significand >> (122 - ratio.Exponent)) + 1) >> 1);
        if (index > 0)
        {
            var center = WideFloat.Of(index).Scaled(-4);
            ratio = (ratio - center) / (WideFloat.One + ratio * center);
        }
        var square = ratio * ratio;
        var (sum, power) = (ratio, ratio);
        for (uint k = 3; ; k += 2)
        {
            power = -(power * square);
            var term = power.Over(k);
            if (Negligible(term, sum)) break;
            sum += term;
        }
        if (index > 0) sum = ArcTangents[index - 1] + sum;
        return swap ? WideFloat.HalfPi - sum : sum;
    }
}
