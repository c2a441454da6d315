using ActorVmm.Hypervisor.Soft.Cpu;
using CsCheck;
using Xunit;

namespace ActorVmm.Hypervisor.Soft.Tests.SystemSide;

public sealed unsafe class StateTests : IDisposable
{
    private readonly SystemBench _b = new();

    public void Dispose() => _b.Dispose();

    private static Gen<VcpuState> States(VcpuState template) =>
        Gen.Select(Gen.ULong.Array[16], Gen.UInt, Gen.Byte.Array[416], Gen.ULong.Array[4], Gen.Byte[0, 31], Gen.Bool.Array[3])
            .Select((registers, flags, image, debug, vector, bits) =>
            {
                var xsave = new byte[576];
                image.CopyTo(xsave, 0);
                xsave[2] &= 0x7F; // the summary and busy bits follow the others
                xsave[3] &= 0x7F;
                (xsave[0], xsave[1], xsave[2]) = (0x7F, 3, 0);
                (xsave[5], xsave[7]) = (0, (byte)(xsave[7] & 7));
                (xsave[26], xsave[27], xsave[28], xsave[29], xsave[30], xsave[31]) = (0, 0, 0xFF, 0xFF, 0, 0);
                for (var i = 0; i < 8; i++) xsave.AsSpan(42 + i * 16, 6).Clear();
                xsave[512] = 3;
                return template with
                {
                    General = new GeneralRegisters
                    {
                        Rax = registers[0], Rbx = registers[1], Rcx = registers[2], Rdx = registers[3], Rsi = registers[4], Rdi = registers[5],
                        Rsp = registers[6], Rbp = registers[7], R8 = registers[8], R9 = registers[9], R10 = registers[10], R11 = registers[11],
                        R12 = registers[12], R13 = registers[13], R14 = registers[14], R15 = registers[15], Rip = registers[0] >> 20,
                        Rflags = flags & 0x3D_7FD7 | 2,
                    },
                    Special = template.Special with
                    {
                        Cr2 = registers[1], Cr8 = registers[2] & 15,
                        Fs = template.Special.Fs with { Base = registers[3] >> 20, Selector = (ushort)flags },
                        Gdt = new TableRegister(registers[4] >> 20, (ushort)registers[4]),
                    },
                    Xsave = xsave,
                    Debug = [.. debug, 0xFFFF_0FF0 | flags & 0xE00F, 0x400 | flags & 0xFFFF_23FF],
                    Events = new VcpuEvents
                    {
                        PendingException = bits[0] ? vector : null,
                        PendingExceptionErrorCode = bits[0] && bits[1] ? flags : null,
                        NmiMasked = bits[1], InterruptShadow = bits[2],
                    },
                };
            });

    [Fact]
    public void What_is_set_is_what_is_got()
    {
        var template = _b.Long().Cpu.GetState();
        States(template).Sample(state =>
        {
            _b.Cpu.SetState(state);
            var got = _b.Cpu.GetState();
            Assert.Equal(state.General, got.General);
            Assert.Equal(state.Special with { Fs = got.Special.Fs }, got.Special);
            Assert.Equal((state.Special.Fs.Selector, state.Special.Fs.Limit), (got.Special.Fs.Selector, got.Special.Fs.Limit));
            Assert.Equal(state.Events, got.Events);
            Assert.Equal(state.Debug, got.Debug);
            Assert.Equal(state.Xsave, got.Xsave);
            Assert.Equal(state.Activity, got.Activity);
        }, iter: 1000, threads: 1);
    }

    [Fact]
    public void Msrs_travel_with_the_state()
    {
        var written = new Dictionary<uint, ulong>
        {
            [Msr.Star] = 0x0023_0010_0000_0000, [Msr.Lstar] = 0xFFFF_FFFF_8100_0000, [Msr.SyscallMask] = 0x47700, [Msr.KernelGsBase] = 0xFFFF_8880_0000_0000,
            [Msr.TscAux] = 3, [Msr.Pat] = 0x0407_0506_0007_0106, [Msr.MtrrDefType] = 0xC06, [0x20F] = 0xFF_8000_0800, [0x26F] = 0x0505_0505_0505_0505,
            [Msr.SysenterEip] = 0x1234, [Msr.HwCr] = 0x40, [Msr.TscAdjust] = 0x55, [Msr.GsBase] = 0x7000,
        };
        foreach (var (index, value) in written) Assert.True(_b.Cpu.TryWriteMsr(null, index, value));
        var state = _b.Cpu.GetState();
        using var other = new SystemBench();
        other.Cpu.SetState(state);
        foreach (var (index, value) in written)
        {
            Assert.True(other.Cpu.TryReadMsr(null, index, out var got));
            Assert.True(value == got, $"MSR 0x{index:x}: 0x{got:x}");
        }
    }

    [Fact]
    public void Every_saved_register_can_be_read_and_written_back()
    {
        foreach (var index in Msr.Saved)
        {
            Assert.True(_b.Cpu.TryReadMsr(null, index, out var value), $"read 0x{index:x}");
            Assert.True(_b.Cpu.TryWriteMsr(null, index, value), $"write 0x{index:x}");
        }
    }

    [Fact]
    public void States_that_the_cpu_cannot_be_in_are_refused_by_name()
    {
        var state = _b.Long().Cpu.GetState();
        var special = state.Special;
        void Refused(string word, VcpuState bad) =>
            Assert.Contains(word, Assert.Throws<HypervisorException>(() => _b.Cpu.SetState(bad)).Message, StringComparison.Ordinal);
        Refused("CR4", state with { Special = special with { Cr4 = special.Cr4 | 1 << 21 } });
        Refused("EFER", state with { Special = special with { Efer = special.Efer | 1 << 12 } });
        Refused("LMA", state with { Special = special with { Efer = special.Efer & ~EferBits.Lma } });
        Refused("CR0", state with { Special = special with { Cr0 = 0x8000_0000 } });
        Refused("APIC", state with { Lapic = new byte[16] });
        Refused("XSAVE", state with { Xsave = new byte[16] });
        var mxcsr = (byte[])state.Xsave.Clone();
        mxcsr[26] = 1;
        Refused("MXCSR", state with { Xsave = mxcsr });
        Refused("MSR", state with { Msrs = [new MsrValue(Msr.Lstar, 1UL << 47)] });
    }

    [Fact]
    public void Reset_and_init_leave_what_the_manual_says()
    {
        _b.Long();
        Assert.True(_b.Cpu.TryWriteMsr(null, Msr.Lstar, 0x1234));
        _b.Cpu.Init();
        var state = _b.Cpu.GetState();
        Assert.Equal((0xFFF0UL, 0xF000, 0xFFFF_0000UL, 2UL), (state.General.Rip, state.Special.Cs.Selector, state.Special.Cs.Base, state.General.Rflags));
        Assert.Equal((0UL, 0UL, 0UL), (state.Special.Efer, state.Special.Cr3, state.Special.Cr4));
        Assert.Equal((ulong)CpuFeatures.Signature, state.General.Rdx);
        Assert.Equal(CodeMode.Bits16, _b.S->Mode);
        Assert.Contains(new MsrValue(Msr.Lstar, 0x1234), state.Msrs); // INIT keeps MSRs
        _b.Cpu.Reset();
        Assert.Contains(new MsrValue(Msr.Lstar, 0), _b.Cpu.GetState().Msrs); // reset does not
        Assert.Equal(0x6000_0010UL, _b.S->Cr0);
        _b.Cpu.StartUp(0x9A);
        Assert.Equal((0x9A00, 0x9_A000UL, 0UL), (_b.S->Cs.Selector, _b.S->SegBase[SoftCpu.SegCs], _b.S->Rip));
    }
}
