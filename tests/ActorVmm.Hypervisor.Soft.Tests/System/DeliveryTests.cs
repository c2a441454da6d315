using ActorVmm.Hypervisor.Soft.Cpu;
using Xunit;
using static ActorVmm.Hypervisor.Soft.Tests.SystemSide.SystemBench;

namespace ActorVmm.Hypervisor.Soft.Tests.SystemSide;

public sealed unsafe class DeliveryTests : IDisposable
{
    private const ulong Handler = 0x5_0000;

    private readonly SystemBench _b = new();

    public void Dispose() => _b.Dispose();

    private ulong[] Frame64(ulong at, int count) => [.. Enumerable.Range(0, count).Select(i => _b.Read<ulong>(at + (ulong)i * 8))];

    [Fact]
    public void From_ring_3_the_frame_goes_to_rsp0_with_a_null_stack_segment()
    {
        _b.Long().Ring3(UserCode64).Gate64(Vector.Gp, Code64, Handler);
        _b.S->Rip = 0x1_2345;
        _b.Raise(Vector.Gp, 0x18);
        Assert.Equal([0x18, 0x1_2345, UserCode64 | 3u, 0x1_0202, UserStack, UserData | 3u], Frame64(_b.S->Regs[4], 6)); // RF set: a fault
        Assert.Equal((Stack0 - 48, Handler, 0, (ushort)0, Code64), (_b.S->Regs[4], _b.S->Rip, _b.S->Cpl, _b.S->Ss.Selector, _b.S->Cs.Selector));
        Assert.Equal(0u, Flags.Get(_b.S) & Flags.If);
    }

    [Fact]
    public void In_ring_0_the_stack_is_aligned_and_stays()
    {
        _b.Long().Gate64(0x40, Code64, Handler, type: 15);
        _b.S->Regs[4] = Stack - 5;
        Flags.Set(_b.S, 0x202 | Flags.Tf | Flags.Nt);
        _b.Cpu.DeliverInterrupt(0x40, InterruptKind.External);
        Assert.Equal([Code, Code64, 0x202 | Flags.Tf | Flags.Nt, Stack - 5, Data], Frame64(Stack - 16 - 40, 5));
        Assert.Equal(0x202u, Flags.Get(_b.S)); // a trap gate keeps IF
    }

    [Fact]
    public void An_ist_gate_switches_stacks_within_ring_0_and_keeps_ss()
    {
        _b.Long().Gate64(Vector.Nmi, Code64, Handler, ist: 1);
        _b.Cpu.DeliverInterrupt(Vector.Nmi, InterruptKind.Nmi);
        Assert.Equal((Ist1 - 40, Data), (_b.S->Regs[4], _b.S->Ss.Selector));
        Assert.True(_b.Cpu.NmiMasked);
        _b.Ok(_b.Cpu.InterruptReturn(_b.Op, 8));
        Assert.Equal((Stack, false), (_b.S->Regs[4], _b.Cpu.NmiMasked));
    }

    [Theory]
    [InlineData((int)InterruptKind.Software, 3, true)]
    [InlineData((int)InterruptKind.SoftwareException, 0, false)]
    [InlineData((int)InterruptKind.Software, 0, false)]
    [InlineData((int)InterruptKind.PrivilegedSoftware, 0, true)]
    public void Only_software_interrupts_are_held_to_the_gates_dpl(int kind, int dpl, bool allowed)
    {
        _b.Long().Ring3(UserCode64).Gate64(0x30, Code64, Handler, dpl: dpl);
        var done = _b.Cpu.SoftwareInterrupt(_b.Op, 0x30, (InterruptKind)kind);
        if (allowed) _b.Ok(done);
        else Assert.Equal((Vector.Gp, 0x30u * 8 + 2), _b.Fault(done));
        Assert.Equal(allowed ? 0 : 3, _b.S->Cpl);
    }

    [Theory]
    [InlineData(0, Vector.Np, Vector.Df)] // contributory, contributory
    [InlineData(Vector.Ud, Vector.Np, Vector.Np)] // benign first: one after the other
    [InlineData(Vector.Pf, Vector.Np, Vector.Df)]
    public void A_fault_during_delivery_follows_the_table(int first, int second, int arrives)
    {
        _b.Long().Gate64(first, Code64, Handler, present: false);
        for (var vector = 8; vector < 14; vector++) _b.Gate64(vector, Code64, Handler + (ulong)vector);
        _b.Raise(first);
        Assert.Equal(Abort.None, _b.S->Abort);
        Assert.Equal(Handler + (ulong)arrives, _b.S->Rip);
        Assert.Equal(arrives == Vector.Df ? 0 : (ulong)first * 8 + 3, _b.Read<ulong>(_b.S->Regs[4])); // EXT and IDT
        Assert.Equal(Vector.Np, second);
    }

    [Fact]
    public void A_page_fault_while_delivering_a_general_protection_fault_is_a_page_fault()
    {
        _b.Long().Gate64(Vector.Pf, Code64, Handler, ist: 1);
        _b.Gate64(Vector.Gp, Code64, Handler + 8);
        _b.S->Regs[4] = 0x4000_0000; // not mapped
        _b.Raise(Vector.Gp, 0);
        Assert.Equal((Handler, 0x4000_0000UL - 8), (_b.S->Rip, _b.S->Cr2));
        Assert.Equal(2UL, _b.Read<ulong>(_b.S->Regs[4])); // a supervisor write; no EXT bit in a page fault
    }

    [Fact]
    public void A_third_fault_shuts_down()
    {
        _b.Long().S->IdtLimit = 0;
        _b.Raise(Vector.Ud);
        Assert.Equal(Abort.Shutdown, _b.S->Abort);
    }

    [Fact]
    public void Handlers_must_be_64_bit_code()
    {
        _b.Long().Gate64(0x30, Code32, Handler);
        Assert.Equal((Vector.Gp, (uint)Code32), _b.Fault(_b.Cpu.SoftwareInterrupt(_b.Op, 0x30, InterruptKind.Software)));
        _b.Gate64(0x30, 0, Handler);
        Assert.Equal((Vector.Gp, 0u), _b.Fault(_b.Cpu.SoftwareInterrupt(_b.Op, 0x30, InterruptKind.Software)));
        _b.Gate64(0x30, Code64, Handler, type: SystemType.TaskGate);
        Assert.Equal((Vector.Gp, 0x30u * 8 + 2), _b.Fault(_b.Cpu.SoftwareInterrupt(_b.Op, 0x30, InterruptKind.Software)));
    }

    [Fact]
    public void Protected_mode_switches_to_the_stack_of_its_tss_and_back()
    {
        _b.Protected().Ring3(UserCode32).Gate32(Vector.Gp, Code32, Handler);
        _b.S->Rip = 0x1_2345;
        _b.Raise(Vector.Gp, 0x18);
        var frame = Enumerable.Range(0, 6).Select(i => _b.Read<uint>(Stack0 - 24 + (ulong)i * 4)).ToArray();
        Assert.Equal([0x18, 0x1_2345, UserCode32 | 3u, 0x1_0202, (uint)UserStack, UserData | 3u], frame);
        Assert.Equal((Stack0 - 24, Data, 0), (_b.S->Regs[4], _b.S->Ss.Selector, _b.S->Cpl));
        _b.S->Regs[4] += 4;
        _b.Ok(_b.Cpu.InterruptReturn(_b.Op, 4));
        Assert.Equal((UserStack, (ushort)(UserData | 3), 3, 0x1_2345UL), (_b.S->Regs[4], _b.S->Ss.Selector, _b.S->Cpl, _b.S->Rip));
    }

    [Fact]
    public void A_bad_stack_in_the_tss_is_an_invalid_tss_fault()
    {
        _b.Protected().Ring3(UserCode32).Gate32(0x30, Code32, Handler, dpl: 3);
        _b.Write(Tss + 8, (uint)UserData);
        Assert.Equal((Vector.Ts, (uint)UserData), _b.Fault(_b.Cpu.SoftwareInterrupt(_b.Op, 0x30, InterruptKind.Software)));
        Assert.Equal(3, _b.S->Cpl);
    }

    [Fact]
    public void Sixteen_bit_gates_push_words()
    {
        _b.Protected().Gate32(0x30, Code32, 0x1234, type: SystemType.InterruptGate16);
        _b.Ok(_b.Cpu.SoftwareInterrupt(_b.Op, 0x30, InterruptKind.Software));
        Assert.Equal((Stack - 6, 0x1234UL), (_b.S->Regs[4], _b.S->Rip));
        Assert.Equal(Code32, _b.Read<ushort>(Stack - 4));
    }

    [Fact]
    public void Real_mode_goes_through_the_vector_table()
    {
        (_b.S->IdtBase, _b.S->IdtLimit) = (0, 0x3FF);
        _b.Write(0x21UL * 4, 0x1234_0010u);
        _b.S->Regs[4] = 0xABCD_1000;
        Flags.Set(_b.S, 0x202 | Flags.Tf);
        (_b.S->Rip, _b.S->Cs.Selector) = (0x77, 0xF000);
        _b.Ok(_b.Cpu.SoftwareInterrupt(_b.Op, 0x21, InterruptKind.Software));
        Assert.Equal((0xABCD_0FFAUL, 0x10UL, 0x12340UL), (_b.S->Regs[4], _b.S->Rip, _b.S->SegBase[SoftCpu.SegCs]));
        Assert.Equal((0x77, 0xF000, 0x302), (_b.Read<ushort>(0xFFA), _b.Read<ushort>(0xFFC), _b.Read<ushort>(0xFFE)));
        Assert.Equal(2u, Flags.Get(_b.S));
        _b.Ok(_b.Cpu.InterruptReturn(_b.Op, 2));
        Assert.Equal((0xABCD_1000UL, 0x77UL, 0xF_0000UL, 0x302u), (_b.S->Regs[4], _b.S->Rip, _b.S->SegBase[SoftCpu.SegCs], Flags.Get(_b.S)));
    }
}
