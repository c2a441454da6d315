using ActorVmm.Hypervisor.Soft.Cpu;
using CsCheck;
using Xunit;

namespace ActorVmm.Hypervisor.Soft.Tests.X87Unit;

/// <summary>The software arithmetic against the host's IEEE arithmetic, which rounds to nearest.</summary>
public sealed class SoftFloatProperties
{
    private static readonly ulong[] Borders =
        [0, 1UL << 63, 1, 0x7FF0_0000_0000_0000, 0x7FEF_FFFF_FFFF_FFFF, 0x0010_0000_0000_0000];

    private static readonly Gen<ulong> Bits = Gen.OneOf(
        Gen.ULong,
        Gen.Select(Gen.ULong[0, (1UL << 52) - 1], Gen.ULong[0, 6], (fraction, exponent) => exponent << 52 | fraction),
        Gen.Select(Gen.ULong, Gen.Int[980, 1070], (bits, exponent) => (bits & 0x800F_FFFF_FFFF_FFFF) | (ulong)exponent << 52),
        Gen.OneOf([.. Borders.Select(bits => Gen.Const(bits))]));

    [Fact]
    public void Sums_products_quotients_and_roots_of_doubles_equal_the_hosts() => Gen.Select(Bits, Bits).Sample((x, y) =>
    {
        var (a, b) = (BitConverter.UInt64BitsToDouble(x), BitConverter.UInt64BitsToDouble(y));
        Same(a + b, (ref FpEnvironment env) => SoftFloat.Add(Real.FromDouble(x), Real.FromDouble(y), FpFormat.Double, ref env));
        Same(a - b, (ref FpEnvironment env) => SoftFloat.Subtract(Real.FromDouble(x), Real.FromDouble(y), FpFormat.Double, ref env));
        Same(a * b, (ref FpEnvironment env) => SoftFloat.Multiply(Real.FromDouble(x), Real.FromDouble(y), FpFormat.Double, ref env));
        Same(a / b, (ref FpEnvironment env) => SoftFloat.Divide(Real.FromDouble(x), Real.FromDouble(y), FpFormat.Double, ref env));
        Same(Math.Sqrt(a), (ref FpEnvironment env) => SoftFloat.SquareRoot(Real.FromDouble(x), FpFormat.Double, ref env));
    }, iter: 50_000);

    [Fact]
    public void Every_single_survives_the_way_through_the_extended_format() => Gen.UInt.Sample(bits =>
    {
        var env = FpEnvironment.FromControlWord(0x37F);
        var (significand, signExponent) = Real.FromSingle(bits).ToExtended();
        var back = SoftFloat.Convert(Real.FromExtended(significand, signExponent), FpFormat.Single, ref env).ToSingle();
        var quiet = (bits & 0x7F80_0000) == 0x7F80_0000 && (bits & 0x7F_FFFF) != 0 ? bits | 0x40_0000 : bits;
        Assert.Equal(quiet, back);
        Assert.Equal(FpFlags.None, env.Flags & FpFlags.Precision);
    }, iter: 20_000);

    [Fact]
    public void Inexact_is_raised_exactly_where_a_128_bit_product_needs_rounding() => Gen.Select(Gen.ULong, Gen.ULong).Sample((x, y) =>
    {
        var (a, b) = (x | 1UL << 63, y | 1UL << 63);
        var env = FpEnvironment.FromControlWord(0x37F);
        SoftFloat.Multiply(Real.Finite(false, 0, a), Real.Finite(false, 0, b), FpFormat.Extended, ref env);
        var product = (UInt128)a * b;
        var width = 128 - (int)UInt128.LeadingZeroCount(product) - (int)UInt128.TrailingZeroCount(product);
        Assert.Equal(width > 64, (env.Flags & FpFlags.Precision) != 0);
    }, iter: 20_000);

    private delegate Real Operation(ref FpEnvironment env);

    private static void Same(double expected, Operation operation)
    {
        var env = FpEnvironment.FromMxcsr(0x1F80);
        var actual = operation(ref env).ToDouble();
        if (double.IsNaN(expected)) Assert.True(double.IsNaN(BitConverter.UInt64BitsToDouble(actual)));
        else Assert.Equal(BitConverter.DoubleToUInt64Bits(expected), actual);
    }
}
