using ActorVmm.Hypervisor.Soft.Cpu;
using ActorVmm.Hypervisor.Soft.Tests.Differential;
using ActorVmm.Hypervisor.Soft.Tests.VectorUnit;
using Xunit;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Soft.Tests.X87Unit;

public sealed unsafe class X87StateTests : IDisposable
{
    private readonly InstructionBench _bench = new();

    public void Dispose() => _bench.Dispose();

    private ushort Status => Cpu.X87.StatusWord(_bench.State);

    [Fact]
    public void Fninit_gives_what_linux_probes_for()
    {
        (_bench.State->FpuControl, _bench.State->FpuStatus, _bench.State->FpuTop) = (0x1234, 0x4567, 5);
        _bench.State->Regs[0] = 0xFFFF_FFFF;
        _bench.State->Regs[7] = Layout.Scratch;
        Assert.Null(_bench.Run(a => { a.fninit(); a.fnstsw(ax); a.fnstcw(__word_ptr[rdi]); }));
        Assert.Equal(0xFFFF_0000UL, _bench.State->Regs[0]);
        Assert.Equal(0x037F, BitConverter.ToUInt16(_bench.Memory));
        Assert.Equal(0xFF, _bench.State->FpuEmpty);
    }

    [Fact]
    public void An_unmasked_fault_waits_for_the_next_waiting_instruction()
    {
        Assert.Null(_bench.Run(a => { a.fld1(); a.fldz(); }));
        _bench.State->FpuControl = 0x37B; // ZM clear
        Assert.Null(_bench.Run(a => a.fdivp(st1, st0)));
        Assert.Equal(0x8084, Status & 0x80FF); // B, ES, ZE
        Assert.Equal(6, _bench.State->FpuTop); // neither result nor pop
        Assert.Equal(Cpu.Vector.Mf, _bench.Run(a => a.fld1()));
        Assert.Equal(Cpu.Vector.Mf, _bench.Run(a => a.wait()));
        Assert.Equal(Cpu.Vector.Mf, _bench.Run(a => a.paddb(mm0, mm1)));
        Assert.Null(_bench.Run(a => a.fnstsw(ax)));
        Assert.Null(_bench.Run(a => { a.fnclex(); a.fld1(); }));
        Assert.Equal(0, Status & 0x80FF);
    }

    [Fact]
    public void Unmasking_a_raised_flag_makes_it_pending()
    {
        _bench.State->Regs[7] = Layout.Scratch;
        BitConverter.TryWriteBytes(_bench.Memory, (ushort)0x37B);
        Assert.Null(_bench.Run(a => { a.fld1(); a.fldz(); a.fdivp(st1, st0); }));
        Assert.Equal(4, Status & 0xFF);
        Assert.Null(_bench.Run(a => a.fldcw(__word_ptr[rdi])));
        Assert.Equal(0x84, Status & 0xFF);
    }

    [Fact]
    public void Stack_faults_tell_overflow_from_underflow_by_c1()
    {
        Assert.Null(_bench.Run(a => a.fadd(st0, st1)));
        Assert.Equal(0x41, Status & 0x2FF);
        Assert.Null(_bench.Run(a => a.fnclex()));
        _bench.State->FpuEmpty = 0;
        Assert.Null(_bench.Run(a => a.fldpi()));
        Assert.Equal(0x241, Status & 0x2FF);
        Assert.Equal((0xC000_0000_0000_0000UL, 0xFFFF), (_bench.State->St[_bench.State->FpuTop],
            _bench.State->StExponent[_bench.State->FpuTop]));
    }

    [Theory]
    [InlineData(0x37F, 0xC90F_DAA2_2168_C235)]
    [InlineData(0x77F, 0xC90F_DAA2_2168_C234)]
    [InlineData(0xB7F, 0xC90F_DAA2_2168_C235)]
    [InlineData(0xF7F, 0xC90F_DAA2_2168_C234)]
    public void Constants_are_rounded_as_rc_says(int control, ulong significand)
    {
        _bench.State->FpuControl = (ushort)control;
        Assert.Null(_bench.Run(a => a.fldpi()));
        Assert.Equal((significand, 0x4000, 0), (_bench.State->St[7], _bench.State->StExponent[7], Status & 0xFF));
    }

    [Theory]
    [InlineData(0x07F, 0xAAAA_AB00_0000_0000)] // 24 bits
    [InlineData(0x27F, 0xAAAA_AAAA_AAAA_A800)] // 53
    [InlineData(0x37F, 0xAAAA_AAAA_AAAA_AAAB)] // 64
    public void Precision_control_limits_the_significand(int control, ulong significand)
    {
        _bench.State->FpuControl = (ushort)control;
        _bench.State->Regs[7] = Layout.Scratch;
        BitConverter.TryWriteBytes(_bench.Memory, 3);
        Assert.Null(_bench.Run(a => { a.fld1(); a.fidiv(__dword_ptr[rdi]); }));
        Assert.Equal((significand, 0x3FFD), (_bench.State->St[7], _bench.State->StExponent[7]));
    }

    [Theory]
    [InlineData(0UL, 0, 0x4000)]                                    // zero
    [InlineData(0x8000_0000_0000_0000, 0xBFFF, 0x0600)]             // -1
    [InlineData(0x8000_0000_0000_0000, 0x7FFF, 0x0500)]             // infinity
    [InlineData(0xC000_0000_0000_0000, 0xFFFF, 0x0300)]             // NaN
    [InlineData(0x4000_0000_0000_0000, 0x3FFF, 0x0000)]             // unnormal: unsupported
    [InlineData(1UL, 0, 0x4400)]                                    // denormal
    public void Fxam_names_the_class(ulong significand, int signExponent, int conditions)
    {
        Assert.Null(_bench.Run(a => a.fld1()));
        (_bench.State->St[7], _bench.State->StExponent[7]) = (significand, (ushort)signExponent);
        Assert.Null(_bench.Run(a => a.fxam()));
        Assert.Equal(conditions, Status & 0x4700);
        _bench.State->FpuEmpty = 0xFF;
        (_bench.State->St[7], _bench.State->StExponent[7]) = (0, 0);
        Assert.Null(_bench.Run(a => a.fxam()));
        Assert.Equal(0x4100, Status & 0x4500);
    }

    [Fact]
    public void Scaling_and_extracting_are_inverse()
    {
        _bench.State->Regs[7] = Layout.Scratch;
        BitConverter.TryWriteBytes(_bench.Memory, -1234.5678);
        Assert.Null(_bench.Run(a => { a.fld(__qword_ptr[rdi]); a.fxtract(); a.fscale(); a.fstp(__qword_ptr[rdi + 8]); }));
        Assert.Equal(-1234.5678, BitConverter.ToDouble(_bench.Memory[8..]));
    }

    [Fact]
    public void The_image_of_fxsave_brings_everything_back()
    {
        Assert.Null(_bench.Run(a => { a.fldpi(); a.fld1(); a.pcmpeqb(xmm9, xmm9); }));
        _bench.State->Mxcsr = 0xFFBF;
        (_bench.State->FpuIp, _bench.State->FpuDp, _bench.State->FpuOpcode) = (0x1234_5678_9ABC, 0x7FFF_0000_1111, 0x5DE);
        var image = new byte[Fxsave.Size];
        Fxsave.Save(_bench.State, image);
        Assert.Equal((0x3000, (byte)0xC0, 0xFFFFu), (BitConverter.ToUInt16(image, 2), image[4], BitConverter.ToUInt32(image, 28)));
        Assert.Equal((0x8000_0000_0000_0000UL, (ushort)0x3FFF),
            (BitConverter.ToUInt64(image, 32), BitConverter.ToUInt16(image, 40))); // ST0 first

        using var other = new InstructionBench();
        Assert.True(Fxsave.Load(other.State, image));
        var again = new byte[Fxsave.Size];
        Fxsave.Save(other.State, again);
        Assert.Equal(image, again);

        image[26] = 1; // a reserved MXCSR bit
        Assert.False(Fxsave.Load(_bench.State, image));
    }
}
