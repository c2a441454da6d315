using ActorVmm.Hypervisor.Soft.Tests.Differential;
using Xunit;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Soft.Tests.VectorUnit;

public sealed unsafe class GuardTests : IDisposable
{
    private readonly InstructionBench _bench = new();

    public void Dispose() => _bench.Dispose();

    [Theory]
    [InlineData(0x8000_0033UL, 0x620UL, null)]
    [InlineData(0x8000_003BUL, 0x620UL, Cpu.Vector.Nm)] // TS
    [InlineData(0x8000_0037UL, 0x620UL, Cpu.Vector.Ud)] // EM
    [InlineData(0x8000_003BUL, 0x420UL, Cpu.Vector.Ud)] // no OSFXSR wins over TS
    public void Sse_asks_cr0_and_cr4_each_time_it_runs(ulong cr0, ulong cr4, int? vector)
    {
        var ops = _bench.Translate([0x66, 0x0F, 0xEF, 0xC0, 0x66, 0x0F, 0xEF, 0xC9]); // pxor xmm0, xmm0; pxor xmm1, xmm1
        Assert.Null(_bench.Run(ops));
        (_bench.State->Cr0, _bench.State->Cr4) = (cr0, cr4);
        Assert.Equal(vector, _bench.Run(ops));
    }

    [Fact]
    public void One_test_serves_all_sse_instructions_of_a_block() =>
        Assert.Equal(3, _bench.Translate([0x66, 0x0F, 0xEF, 0xC0, 0x66, 0x0F, 0xEF, 0xC9]).Length);

    [Theory]
    [InlineData(0x8000_003BUL, Cpu.Vector.Nm)]
    [InlineData(0x8000_0037UL, Cpu.Vector.Ud)]
    public void Mmx_asks_cr0(ulong cr0, int vector)
    {
        _bench.State->Cr0 = cr0;
        Assert.Equal(vector, _bench.Run(a => a.pxor(mm0, mm0)));
    }

    [Theory]
    [InlineData(0x8000_003BUL)]
    [InlineData(0x8000_0037UL)]
    public void X87_is_not_available_with_either_bit(ulong cr0)
    {
        _bench.State->Cr0 = cr0;
        Assert.Equal(Cpu.Vector.Nm, _bench.Run(a => a.fldz()));
        Assert.Equal(Cpu.Vector.Nm, _bench.Run(a => a.fninit()));
        Assert.Equal(0xFF, _bench.State->FpuEmpty);
    }

    [Fact]
    public void Wait_needs_mp_and_ts_both()
    {
        _bench.State->Cr0 = 0x8000_0039; // TS without MP
        Assert.Null(_bench.Run(a => a.wait()));
        _bench.State->Cr0 = 0x8000_003B;
        Assert.Equal(Cpu.Vector.Nm, _bench.Run(a => a.wait()));
    }

    [Fact]
    public void Aligned_forms_refuse_other_addresses_and_change_nothing()
    {
        _bench.State->Regs[0] = Layout.Scratch + 8;
        _bench.Xmm(1).Fill(0x1111);
        _bench.Memory.Fill(0x22);
        Assert.Equal(Cpu.Vector.Gp, _bench.Run(a => a.movaps(xmm1, __[rax])));
        Assert.Equal(Cpu.Vector.Gp, _bench.Run(a => a.movdqa(__[rax], xmm1)));
        Assert.Equal(Cpu.Vector.Gp, _bench.Run(a => a.paddb(xmm1, __[rax])));
        Assert.Equal(Cpu.Vector.Gp, _bench.Run(a => a.addps(xmm1, __[rax])));
        Assert.Equal([0x1111UL, 0x1111UL], _bench.Xmm(1).ToArray());
        Assert.DoesNotContain(_bench.Memory.ToArray(), b => b != 0x22);
        Assert.Null(_bench.Run(a => a.movups(xmm1, __[rax])));
        Assert.Equal([0x2222_2222_2222_2222UL, 0x2222_2222_2222_2222UL], _bench.Xmm(1).ToArray());
    }

    [Fact]
    public void Mmx_instructions_take_over_the_x87_stack()
    {
        _bench.Run(a => { a.fld1(); a.fld1(); });
        Assert.Equal(6, _bench.State->FpuTop);
        _bench.Run(a => a.pcmpeqb(mm3, mm3));
        Assert.Equal((0, 0, 0xFFFF, ulong.MaxValue), (_bench.State->FpuTop, _bench.State->FpuEmpty, _bench.State->StExponent[3],
            _bench.State->St[3]));
        _bench.Run(a => a.emms());
        Assert.Equal(0xFF, _bench.State->FpuEmpty);
    }
}
