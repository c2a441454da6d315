using ActorVmm.Hypervisor.Soft.Cpu;
using Xunit;
using static ActorVmm.Hypervisor.Soft.Tests.SystemSide.SystemBench;

namespace ActorVmm.Hypervisor.Soft.Tests.SystemSide;

public sealed unsafe class TransferTests : IDisposable
{
    private const ulong Target = 0x5_0000;

    private readonly SystemBench _b = new();

    public void Dispose() => _b.Dispose();

    [Fact]
    public void Iret_to_compatibility_mode_runs_32_bit_code_on_a_32_bit_stack()
    {
        _b.Long().Ring3(UserCode32);
        Assert.Equal((CodeMode.Bits32, true), (_b.S->Mode, _b.Cpu.LongMode));
        Assert.Equal(UserStack, _b.S->Regs[4]);
    }

    [Theory]
    [InlineData(Code64, Data | 3, Vector.Gp, Data)] // SS's RPL is not CS's
    [InlineData(UserCode64 | 3, Data | 3, Vector.Gp, Data)] // DPL is not RPL
    [InlineData(UserCode64 | 3, 3, Vector.Gp, 0)] // ring 3 needs a stack segment
    [InlineData(Code64 | 3, UserData | 3, Vector.Gp, Code64)]
    [InlineData(Data, Data, Vector.Gp, Data)]
    [InlineData(0, Data, Vector.Gp, 0)]
    public void Iret_checks_both_selectors_before_anything_changes(int cs, int ss, int vector, int code)
    {
        _b.Long().Frame(8, Target, (ulong)cs, 0x202, UserStack, (ulong)ss);
        var before = _b.S->Regs[4];
        Assert.Equal((vector, (uint)code), _b.Fault(_b.Cpu.InterruptReturn(_b.Op, 8)));
        Assert.Equal((before, Code64, 0), (_b.S->Regs[4], _b.S->Cs.Selector, _b.S->Cpl));
    }

    [Fact]
    public void Iret_refuses_a_noncanonical_rip_and_a_nested_task()
    {
        _b.Long().Frame(8, 1UL << 47, Code64, 0x202, Stack, Data);
        Assert.Equal((Vector.Gp, 0u), _b.Fault(_b.Cpu.InterruptReturn(_b.Op, 8)));
        Flags.Set(_b.S, 2 | Flags.Nt);
        Assert.Equal((Vector.Gp, 0u), _b.Fault(_b.Cpu.InterruptReturn(_b.Op, 8)));
    }

    [Theory]
    [InlineData(0, 0x0020_3AD7u, 0x0020_3AD7u)] // ring 0: IOPL and IF too
    [InlineData(3, 0x0020_3AD7u, 0x0020_08D7u)] // ring 3 without I/O privilege: neither
    public void Iret_takes_the_flags_that_the_ring_may_change(int ring, uint image, uint expected)
    {
        _b.Long();
        if (ring == 3) _b.Ring3(UserCode64);
        Flags.Set(_b.S, 2);
        _b.Frame(8, Target, ring == 3 ? UserCode64 | 3u : Code64, image, Stack, ring == 3 ? UserData | 3u : Data);
        _b.Ok(_b.Cpu.InterruptReturn(_b.Op, 8));
        Assert.Equal(expected, Flags.Get(_b.S));
    }

    [Fact]
    public void A_return_to_ring_3_drops_the_kernels_data_segments()
    {
        _b.Protected();
        _b.Ok(_b.Cpu.LoadDataSegment(SoftCpu.SegEs, UserData | 3));
        _b.Ring3(UserCode32);
        Assert.Equal((0, (ushort)(UserData | 3)), (_b.S->Ds.Selector, _b.S->Es.Selector));
        Assert.False(_b.S->Ds.Present);
    }

    [Fact]
    public void Syscall_and_sysret_swap_rings_rip_and_flags()
    {
        _b.Long().Ring3(UserCode64);
        (_b.S->Star, _b.S->Lstar, _b.S->SyscallMask) = ((ulong)(UserCode32 | 3) << 48 | (ulong)Code64 << 32, Target, Flags.If | Flags.Df);
        Flags.Set(_b.S, 0x602);
        (_b.S->Rip, _b.Op->Length) = (0x1_2340, 2);
        _b.Ok(_b.Cpu.Syscall(_b.Op));
        Assert.Equal((0x1_2342UL, 0x602UL, Target, 2u), (_b.S->Regs[1], _b.S->Regs[11], _b.S->Rip, Flags.Get(_b.S)));
        Assert.Equal((0, Code64, Data, CodeMode.Bits64), (_b.S->Cpl, _b.S->Cs.Selector, _b.S->Ss.Selector, _b.S->Mode));
        Assert.Equal(UserStack, _b.S->Regs[4]); // the kernel's business
        _b.Ok(_b.Cpu.Sysret(wide: true));
        Assert.Equal((3, (ushort)(UserCode64 | 3), (ushort)(UserData | 3), 0x602u, 0x1_2342UL),
            (_b.S->Cpl, _b.S->Cs.Selector, _b.S->Ss.Selector, Flags.Get(_b.S), _b.S->Rip));
    }

    [Fact]
    public void Sysret_without_rex_enters_compatibility_mode_and_syscall_comes_back_by_cstar()
    {
        _b.Long();
        (_b.S->Star, _b.S->Cstar) = ((ulong)(UserCode32 | 3) << 48 | (ulong)Code64 << 32, Target);
        (_b.S->Regs[1], _b.S->Regs[11]) = (0xDEAD_0001_2340, 0x202);
        _b.Ok(_b.Cpu.Sysret(wide: false));
        Assert.Equal((CodeMode.Bits32, 0x1_2340UL), (_b.S->Mode, _b.S->Rip));
        _b.Ok(_b.Cpu.Syscall(_b.Op));
        Assert.Equal((CodeMode.Bits64, Target), (_b.S->Mode, _b.S->Rip));
    }

    [Fact]
    public void Fast_calls_keep_their_conditions()
    {
        _b.Long();
        _b.S->Regs[1] = 1UL << 47;
        Assert.Equal((Vector.Gp, 0u), _b.Fault(_b.Cpu.Sysret(wide: true)));
        Assert.Equal((Vector.Gp, 0u), _b.Fault(_b.Cpu.Sysenter())); // SYSENTER_CS is null
        Assert.Equal((Vector.Gp, 0u), _b.Fault(_b.Cpu.Sysexit(wide: false)));
        _b.Ring3(UserCode64);
        Assert.Equal((Vector.Gp, 0u), _b.Fault(_b.Cpu.Sysret(wide: true)));
        _b.S->Efer &= ~EferBits.Sce;
        Assert.Equal((Vector.Ud, null), _b.Fault(_b.Cpu.Syscall(_b.Op)));
        Assert.Equal((Vector.Ud, null), _b.Fault(_b.Cpu.Sysret(wide: true)));
    }

    [Fact]
    public void A_call_gate_leads_inward_and_a_far_return_back_out()
    {
        _b.Long();
        _b.Write(Gdt + Gate, GateDescriptor(Code64, Target, SystemType.CallGate32, dpl: 3, present: true));
        _b.Write(Gdt + Gate + 8, 0UL);
        _b.Ring3(UserCode64);
        (_b.S->Rip, _b.Op->Length) = (0x1_2340, 3);
        _b.Ok(_b.Cpu.FarCall(_b.Op, Gate | 3, 0xBAD, 8));
        Assert.Equal((0, Target, Stack0 - 32, (ushort)0), (_b.S->Cpl, _b.S->Rip, _b.S->Regs[4], _b.S->Ss.Selector));
        _b.Ok(_b.Cpu.FarReturn(_b.Op, 8, 0));
        Assert.Equal((3, 0x1_2343UL, UserStack, (ushort)(UserData | 3)), (_b.S->Cpl, _b.S->Rip, _b.S->Regs[4], _b.S->Ss.Selector));
    }

    [Fact]
    public void A_legacy_call_gate_copies_its_parameters_in_order()
    {
        _b.Protected();
        _b.Write(Gdt + Gate, GateDescriptor(Code32, Target, SystemType.CallGate32, dpl: 3, present: true, parameters: 2));
        _b.Ring3(UserCode32);
        _b.Frame(4, 0x111, 0x222);
        _b.Ok(_b.Cpu.FarCall(_b.Op, Gate | 3, 0, 4));
        var frame = Enumerable.Range(0, 6).Select(i => _b.Read<uint>(_b.S->Regs[4] + (ulong)i * 4)).ToArray();
        Assert.Equal([(uint)Code, UserCode32 | 3u, 0x111, 0x222, (uint)UserStack - 8, UserData | 3u], frame);
        _b.Ok(_b.Cpu.FarReturn(_b.Op, 4, 8));
        Assert.Equal(UserStack, _b.S->Regs[4]);
    }

    [Theory]
    [InlineData(Data, Vector.Gp, Data)]
    [InlineData(TaskState, Vector.Gp, TaskState)] // task switches are not offered
    [InlineData(UserCode64 | 3, Vector.Gp, UserCode64)]
    [InlineData(0, Vector.Gp, 0)]
    public void Far_jumps_are_refused(int selector, int vector, int code)
    {
        _b.Long();
        Assert.Equal((vector, (uint)code), _b.Fault(_b.Cpu.FarJump((ushort)selector, Target)));
        Assert.Equal(Code64, _b.S->Cs.Selector);
    }

    [Fact]
    public void Conforming_code_runs_at_the_callers_level()
    {
        _b.Long().Ring3(UserCode32);
        _b.Ok(_b.Cpu.FarJump(Conforming, Target));
        Assert.Equal((3, (ushort)(Conforming | 3)), (_b.S->Cpl, _b.S->Cs.Selector));
    }
}
