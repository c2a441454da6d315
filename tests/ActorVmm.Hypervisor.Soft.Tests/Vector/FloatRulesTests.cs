using Iced.Intel;
using Xunit;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Soft.Tests.VectorUnit;

/// <summary>The rules of SDM Vol. 1 chapters 4 and 11 as tables; the differential test compares masses of values.</summary>
public sealed unsafe class FloatRulesTests : IDisposable
{
    private const ulong One = 0x3FF0_0000_0000_0000, Two = 0x4000_0000_0000_0000, Three = 0x4008_0000_0000_0000;
    private const ulong Infinity = 0x7FF0_0000_0000_0000, Default = 0xFFF8_0000_0000_0000, Signaling = 0x7FF0_0000_0000_0007;
    private const ulong Tiny = 0x0010_0000_0000_0000, Denormal = 1, Largest = 0x7FEF_FFFF_FFFF_FFFF;
    private const uint Ie = 1, De = 2, Ze = 4, Oe = 8, Ue = 16, Pe = 32;
    private const uint Masked = 0x1F80, Down = 0x2000, Up = 0x4000, Truncate = 0x6000, Daz = 0x40, Ftz = 0x8000;

    private readonly InstructionBench _bench = new();

    public void Dispose() => _bench.Dispose();

    public static TheoryData<string, uint, ulong, ulong, ulong, uint> Cases => new()
    {
        { "div", 0, One, Three, 0x3FD5_5555_5555_5555, Pe },
        { "div", Up, One, Three, 0x3FD5_5555_5555_5556, Pe },
        { "div", Down, One | 1UL << 63, Three, 0xBFD5_5555_5555_5556, Pe },
        { "div", Truncate, One | 1UL << 63, Three, 0xBFD5_5555_5555_5555, Pe },
        { "div", 0, One, 0, Infinity, Ze },
        { "div", 0, 0, 0, Default, Ie },
        { "div", 0, Denormal, 0, Infinity, Ze }, // the zero divide wins over the denormal operand
        { "sub", 0, Infinity, Infinity, Default, Ie },
        { "sub", Down, One, One, 1UL << 63, 0 },
        { "sub", 0, One, One, 0, 0 },
        { "mul", 0, Infinity, 0, Default, Ie },
        { "mul", 0, Largest, Two, Infinity, Oe | Pe },
        { "mul", Truncate, Largest, Two, Largest, Oe | Pe },
        { "mul", 0, Tiny, 0x3FE0_0000_0000_0000, 0x0008_0000_0000_0000, 0 }, // an exact denormal result is no underflow
        { "mul", Ftz, Tiny, 0x3FE0_0000_0000_0000, 0, Ue | Pe },
        { "mul", 0, Tiny, 0x3FD5_5555_5555_5555, 0x0005_5555_5555_5555, Ue | Pe },
        { "add", 0, Denormal, One, One, De | Pe },
        { "add", Daz, Denormal, One, One, 0 },
        { "add", 0, Signaling, One, Signaling | 1UL << 51, Ie },
        { "add", 0, One, Signaling, Signaling | 1UL << 51, Ie },
        { "add", 0, 0x7FF8_0000_0000_0001, 0x7FF8_0000_0000_0002, 0x7FF8_0000_0000_0001, 0 },
        { "add", 0, 0x7FF8_0000_0000_0001, Signaling, 0x7FF8_0000_0000_0001, Ie },
        { "sqrt", 0, 0, Two, 0x3FF6_A09E_667F_3BCD, Pe },
        { "sqrt", 0, 0, One | 1UL << 63, Default, Ie },
        { "sqrt", 0, 0, 1UL << 63, 1UL << 63, 0 },
        { "min", 0, 0, 1UL << 63, 1UL << 63, 0 }, // equal zeros: the second
        { "max", 0, One, 0x7FF8_0000_0000_0000, 0x7FF8_0000_0000_0000, Ie },
        { "max", 0, 0x7FF8_0000_0000_0000, One, One, Ie },
        { "min", 0, One, Two, One, 0 },
    };

    [Theory]
    [MemberData(nameof(Cases))]
    public void Doubles_follow_the_table(string operation, uint control, ulong a, ulong b, ulong result, uint flags)
    {
        _bench.State->Mxcsr = Masked | control;
        (_bench.Xmm(0)[0], _bench.Xmm(1)[0], _bench.Xmm(0)[1]) = (a, b, 0x77);
        Assert.Null(_bench.Run(code => Emit(code, operation)));
        Assert.Equal($"{result:x16} {flags:x}", $"{_bench.Xmm(0)[0]:x16} {_bench.State->Mxcsr & 0x3F:x}");
        Assert.Equal(0x77UL, _bench.Xmm(0)[1]);
    }

    private static void Emit(Assembler a, string operation)
    {
        switch (operation)
        {
            case "add": a.addsd(xmm0, xmm1); break;
            case "sub": a.subsd(xmm0, xmm1); break;
            case "mul": a.mulsd(xmm0, xmm1); break;
            case "div": a.divsd(xmm0, xmm1); break;
            case "sqrt": a.sqrtsd(xmm0, xmm1); break;
            case "min": a.minsd(xmm0, xmm1); break;
            default: a.maxsd(xmm0, xmm1); break;
        }
    }

    [Fact]
    public void An_unmasked_exception_keeps_the_destination_and_raises_xm()
    {
        _bench.State->Mxcsr = Masked & ~(Ze << 7);
        (_bench.Xmm(0)[0], _bench.Xmm(1)[0]) = (One, 0);
        Assert.Equal(Cpu.Vector.Xm, _bench.Run(a => a.divsd(xmm0, xmm1)));
        Assert.Equal((One, Ze), (_bench.Xmm(0)[0], _bench.State->Mxcsr & 0x3F));
        _bench.State->Cr4 &= ~0x400UL;
        Assert.Equal(Cpu.Vector.Ud, _bench.Run(a => a.divsd(xmm0, xmm1)));
    }

    [Fact]
    public void Exceptions_found_before_computing_hide_the_later_ones_of_other_lanes()
    {
        _bench.State->Mxcsr = Masked & ~(Ze << 7);
        (_bench.Xmm(0)[0], _bench.Xmm(0)[1]) = (One, One);
        (_bench.Xmm(1)[0], _bench.Xmm(1)[1]) = (Three, 0);
        Assert.Equal(Cpu.Vector.Xm, _bench.Run(a => a.divpd(xmm0, xmm1)));
        Assert.Equal(Ze, _bench.State->Mxcsr & 0x3F);
    }

    [Theory]
    [InlineData(One, Two, 0x001u, 0u)]
    [InlineData(Two, One, 0x000u, 0u)]
    [InlineData(Two, Two, 0x040u, 0u)]
    [InlineData(0x7FF8_0000_0000_0000, One, 0x045u, 0u)]
    [InlineData(Signaling, One, 0x045u, Ie)]
    public void Ucomisd_sets_zf_pf_cf(ulong a, ulong b, uint rflags, uint flags)
    {
        (_bench.Xmm(0)[0], _bench.Xmm(1)[0]) = (a, b);
        Assert.Null(_bench.Run(code => code.ucomisd(xmm0, xmm1)));
        Assert.Equal((rflags, flags), (Cpu.Flags.GetArithmetic(_bench.State), _bench.State->Mxcsr & 0x3F));
    }

    [Theory]
    [InlineData(0x41E0_0000_0000_0000, 0u, 0x8000_0000u, Ie)] // 2^31 does not fit: integer indefinite
    [InlineData(0x41DF_FFFF_FFC0_0000, 0u, 0x7FFF_FFFFu, 0u)]
    [InlineData(0x4004_0000_0000_0000, 0u, 2u, Pe)] // 2.5 to even
    [InlineData(0x4004_0000_0000_0000, Up, 3u, Pe)]
    [InlineData(0xC004_0000_0000_0000, Down, 0xFFFF_FFFDu, Pe)]
    [InlineData(Default, 0u, 0x8000_0000u, Ie)]
    public void Cvtsd2si_rounds_as_mxcsr_says(ulong value, uint control, uint result, uint flags)
    {
        _bench.State->Mxcsr = Masked | control;
        _bench.Xmm(1)[0] = value;
        _bench.State->Regs[0] = ulong.MaxValue;
        Assert.Null(_bench.Run(a => a.cvtsd2si(eax, xmm1)));
        Assert.Equal(((ulong)result, flags), (_bench.State->Regs[0], _bench.State->Mxcsr & 0x3F));
    }

    [Fact]
    public void Approximations_stay_within_the_promised_error()
    {
        for (var exponent = -100; exponent <= 100; exponent += 7)
        {
            var value = (float)(Math.ScaleB(1.0, exponent) * 1.2345678);
            _bench.Xmm(1)[0] = BitConverter.SingleToUInt32Bits(value);
            Assert.Null(_bench.Run(a => { a.rcpss(xmm0, xmm1); a.rsqrtss(xmm2, xmm1); }));
            var reciprocal = BitConverter.UInt32BitsToSingle((uint)_bench.Xmm(0)[0]);
            var root = BitConverter.UInt32BitsToSingle((uint)_bench.Xmm(2)[0]);
            Assert.InRange(Math.Abs(reciprocal * (double)value - 1), 0, 1.5 / 4096);
            Assert.InRange(Math.Abs(root * Math.Sqrt(value) - 1), 0, 1.5 / 4096);
        }
        Assert.Equal(0u, _bench.State->Mxcsr & 0x3F);
    }
}
