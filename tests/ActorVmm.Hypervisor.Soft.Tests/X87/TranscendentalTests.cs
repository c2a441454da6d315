using ActorVmm.Hypervisor.Soft.Tests.VectorUnit;
using Iced.Intel;
using Xunit;

namespace ActorVmm.Hypervisor.Soft.Tests.X87Unit;

/// <summary>
/// The transcendental instructions against values computed with 400 bits and rounded to nearest: the last bit must be right.
/// </summary>
public sealed unsafe class TranscendentalTests : IDisposable
{
    private readonly InstructionBench _bench = new();

    public void Dispose() => _bench.Dispose();

    [Theory]
    [InlineData("fsin", 0xC164_D839_9F76_7C45, 0x3FDC, 0x0000_0000_0000_0000, 0x0000, 0xC164_D839_9F76_7C45, 0x3FDC)]
    [InlineData("fcos", 0xF733_0BDB_D721_0DFF, 0x3FDA, 0x0000_0000_0000_0000, 0x0000, 0x8000_0000_0000_0000, 0x3FFF)]
    [InlineData("fptan", 0xA827_688D_E6A1_6A3B, 0xBFD8, 0x0000_0000_0000_0000, 0x0000, 0xA827_688D_E6A1_6A3B, 0xBFD8)]
    [InlineData("fsin", 0xDE52_7100_7814_E8A2, 0xBFFC, 0x0000_0000_0000_0000, 0x0000, 0xDC94_5C88_9915_B076, 0xBFFC)]
    [InlineData("fcos", 0x9A1A_FE87_8B33_E968, 0x3FFE, 0x0000_0000_0000_0000, 0x0000, 0xD300_072A_267C_8804, 0x3FFE)]
    [InlineData("fptan", 0xBB2E_DB20_035B_7399, 0xBFFC, 0x0000_0000_0000_0000, 0x0000, 0xBD4B_D030_565A_C27B, 0xBFFC)]
    [InlineData("fsin", 0xAE9C_82B1_478C_281D, 0x4002, 0x0000_0000_0000_0000, 0x0000, 0xFF21_D5AE_CCF1_03E2, 0xBFFE)]
    [InlineData("fcos", 0xCC11_D357_C30D_8B76, 0x3FFF, 0x0000_0000_0000_0000, 0x0000, 0xC079_A48B_9655_9FC7, 0xBFF9)]
    [InlineData("fptan", 0x9E11_5E4B_9E30_691C, 0x4002, 0x0000_0000_0000_0000, 0x0000, 0xFA25_ED1F_A876_796D, 0x3FFD)]
    [InlineData("fsin", 0x8074_5130_21DA_8978, 0x4009, 0x0000_0000_0000_0000, 0x0000, 0xA7E6_9BB0_B2C0_1EB1, 0xBFFD)]
    [InlineData("fcos", 0xB729_C619_C60A_3CAB, 0x400B, 0x0000_0000_0000_0000, 0x0000, 0x8C6E_0565_F78D_00C2, 0x3FFE)]
    [InlineData("fptan", 0xD04B_74BA_4A0F_E75D, 0x400C, 0x0000_0000_0000_0000, 0x0000, 0xF339_E4CD_670F_9C63, 0x3FFF)]
    [InlineData("fsin", 0xF0E3_CD97_2E81_D66D, 0xC039, 0x0000_0000_0000_0000, 0x0000, 0xA0BF_6CFB_E32D_1F55, 0x3FFE)]
    [InlineData("fcos", 0x8585_A01C_4C7D_6DF0, 0xC03B, 0x0000_0000_0000_0000, 0x0000, 0xFFEA_5216_3DD4_CC99, 0xBFFE)]
    [InlineData("fptan", 0xEF90_1B93_2A7C_1880, 0xC038, 0x0000_0000_0000_0000, 0x0000, 0xE02D_DADF_E1FE_63BC, 0xBFFF)]
    [InlineData("fsin", 0xC90F_DAA2_2168_C235, 0x4000, 0x0000_0000_0000_0000, 0x0000, 0xECE6_75D1_FC8F_8CBB, 0xBFBE)]
    [InlineData("fcos", 0xC90F_DAA2_2168_C235, 0x3FFF, 0x0000_0000_0000_0000, 0x0000, 0xECE6_75D1_FC8F_8CBB, 0xBFBD)]
    [InlineData("f2xm1", 0xD4F4_6A69_10AC_FF00, 0x3FC7, 0x0000_0000_0000_0000, 0x0000, 0x939B_E65A_233B_4745, 0x3FC7)]
    [InlineData("f2xm1", 0xAD8D_194A_9892_1396, 0x3FFC, 0x0000_0000_0000_0000, 0x0000, 0xFF4B_8D39_425E_711D, 0x3FFB)]
    [InlineData("f2xm1", 0xDAF8_4E6B_4F59_6727, 0xBFFE, 0x0000_0000_0000_0000, 0x0000, 0xE500_7B5E_CF3B_184D, 0xBFFD)]
    [InlineData("fpatan", 0xD0D7_D13F_B248_9191, 0xBFC5, 0xB465_3252_78F8_45F5, 0x3FFA, 0xC90F_DAA2_2168_C6D6, 0x3FFF)]
    [InlineData("fyl2x", 0xD0D7_D13F_B248_9191, 0x3FC5, 0xB465_3252_78F8_45F5, 0x3FFA, 0xA17E_1310_3916_B06A, 0xC000)]
    [InlineData("fpatan", 0xF9A0_1FE8_4195_21FE, 0xBFFE, 0xE77F_D139_D84A_1D3A, 0xBFF5, 0xC8F2_2D7D_F981_DBFB, 0xC000)]
    [InlineData("fyl2x", 0xF9A0_1FE8_4195_21FE, 0x3FFE, 0xE77F_D139_D84A_1D3A, 0xBFF5, 0x86BE_ECF5_4B58_3CE7, 0x3FF1)]
    [InlineData("fpatan", 0xE059_7BDC_5DBE_4409, 0x4029, 0x8BF6_4EF7_73EC_28D0, 0x3FFA, 0x9FB5_1FAF_ED07_6D75, 0x3FCF)]
    [InlineData("fyl2x", 0xE059_7BDC_5DBE_4409, 0x4029, 0x8BF6_4EF7_73EC_28D0, 0x3FFA, 0xBB3D_CAA9_A888_3534, 0x3FFF)]
    [InlineData("fpatan", 0xC177_F113_1E78_2196, 0xBE0E, 0x8332_F05A_5829_6818, 0xC000, 0xC90F_DAA2_2168_C235, 0xBFFF)]
    [InlineData("fyl2x", 0xC177_F113_1E78_2196, 0x3E0E, 0x8332_F05A_5829_6818, 0xC000, 0xFE67_B451_233E_4A2B, 0x4008)]
    [InlineData("fyl2x", 0x8000_0000_0000_3039, 0x3FFF, 0xF67D_5274_C68D_EB5D, 0xBFFF, 0x85F8_D80A_7E86_A821, 0xBFCF)]
    [InlineData("fyl2x", 0xFFFF_FFFF_FFFF_FC19, 0x3FFE, 0xF67D_5274_C68D_EB5D, 0xBFFF, 0xAD76_B40F_D3C9_CB39, 0x3FCA)]
    [InlineData("fyl2xp1", 0xCBBD_BB01_DC14_ED57, 0xBFB9, 0xFA74_9692_F21F_F5EB, 0x3FF7, 0x8FC8_F924_5DB6_C16E, 0xBFB3)]
    [InlineData("fyl2xp1", 0x834C_1B69_573A_C59A, 0x3FFA, 0xC692_BA03_5707_9670, 0x4006, 0x909F_D5C7_9B60_C268, 0x4002)]
    [InlineData("fyl2xp1", 0x9000_0000_0000_0123, 0xBFFD, 0xCC7C_6D81_2D6F_2EFC, 0x3FF7, 0xC2D9_90A6_B314_FBD2, 0xBFF6)]
    public void Results_are_correctly_rounded(string operation, ulong x, int xExponent, ulong y, int yExponent, ulong result,
        int resultExponent)
    {
        var s = _bench.State;
        (s->FpuTop, s->FpuEmpty) = (6, 0x3F);
        (s->St[6], s->StExponent[6], s->St[7], s->StExponent[7]) = (x, (ushort)xExponent, y, (ushort)yExponent);
        var binary = operation is "fpatan" or "fyl2x" or "fyl2xp1";
        Assert.Null(_bench.Run(a => Emit(a, operation)));
        // Binary functions leave ST1 and pop; FPTAN pushes a one above its result.
        var at = binary ? 7 : 6;
        Assert.Equal($"{result:x16} {resultExponent:x}", $"{s->St[at]:x16} {s->StExponent[at]:x}");
        Assert.Equal(operation == "fptan" ? 5 : at, s->FpuTop);
        Assert.Equal(0x20, s->FpuStatus & 0x7F); // inexact, nothing else
    }

    private static void Emit(Assembler a, string operation)
    {
        switch (operation)
        {
            case "fsin": a.fsin(); break;
            case "fcos": a.fcos(); break;
            case "fptan": a.fptan(); break;
            case "f2xm1": a.f2xm1(); break;
            case "fpatan": a.fpatan(); break;
            case "fyl2x": a.fyl2x(); break;
            default: a.fyl2xp1(); break;
        }
    }

    [Fact]
    public void Angles_beyond_2_to_the_63_are_left_alone()
    {
        var s = _bench.State;
        (s->FpuTop, s->FpuEmpty, s->St[7], s->StExponent[7]) = (7, 0x7F, 1UL << 63, 0x403E);
        Assert.Null(_bench.Run(a => a.fsin()));
        Assert.Equal((0x400, 1UL << 63), (s->FpuStatus & 0x400, s->St[7]));
    }

    [Fact]
    public void The_logarithm_of_a_power_of_two_is_exact()
    {
        var s = _bench.State;
        (s->FpuTop, s->FpuEmpty, s->St[6], s->StExponent[6]) = (6, 0x3F, 1UL << 63, 0x3FFF + 10);
        (s->St[7], s->StExponent[7]) = (3UL << 62, 0x3FFF);
        Assert.Null(_bench.Run(a => a.fyl2x()));
        Assert.Equal((0xF000_0000_0000_0000UL, 0x4002, 0), (s->St[7], s->StExponent[7], s->FpuStatus & 0x7F)); // 1.5 * 10
    }
}
