using ActorVmm.Hypervisor.Tests.Subjects;
using ActorVmm.Testing.Guests;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Tests;

public abstract class PortIoConformance<TSubject> : Conformance<TSubject> where TSubject : IConformanceSubject, new()
{
    [SkippableFact]
    public void Out_leaves_with_port_size_and_value()
    {
        var run = Run(c =>
        {
            c.mov(eax, 0x12345678);
            c.mov(dx, 0x1234);
            c.@out(dx, al);
            c.@out(dx, ax);
            c.@out(dx, eax);
            c.@out(0x80, al);
            c.Done();
        });
        Assert.Equal(
        [
            new(0, VcpuExitKind.PortWrite, 0x1234, 1, 0x78),
            new(0, VcpuExitKind.PortWrite, 0x1234, 2, 0x5678),
            new(0, VcpuExitKind.PortWrite, 0x1234, 4, 0x12345678),
            new(0, VcpuExitKind.PortWrite, 0x80, 1, 0x78),
        ], run.Accesses);
    }

    [SkippableFact]
    public void In_changes_only_the_register_part_it_names_and_a_dword_clears_the_upper_half()
    {
        var guest = Guest().Code(c =>
        {
            c.mov(rax, 0x1122334455667788);
            c.mov(dx, 0x1234);
            c.@in(al, dx);
            c.ReportRax();
            c.mov(rax, 0x1122334455667788);
            c.@in(ax, dx);
            c.ReportRax();
            c.mov(rax, 0x1122334455667788);
            c.@in(eax, dx);
            c.ReportRax();
            c.@in(al, 0x71);
            c.ReportEax();
            c.Done();
        }).Start64();
        guest.Answer = read => read.Size switch { 1 => read.Address == 0x71 ? 0x42u : 0xA1u, 2 => 0xB2B1, _ => 0xC4C3C2C1 };
        var run = RunToDone(guest);
        Assert.Equal([0x11223344556677A1, 0x112233445566B2B1, 0xC4C3C2C1, 0xC4C3C242], run.Reports);
    }

    [SkippableFact]
    public void Unanswered_ports_read_as_all_ones()
    {
        var run = Run(c =>
        {
            c.xor(eax, eax);
            c.mov(dx, 0x5678);
            c.@in(eax, dx);
            c.ReportEax();
            c.Done();
        });
        Assert.Equal([0xFFFFFFFFUL], run.Reports);
    }

    [SkippableTheory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(4)]
    public void Rep_outs_leaves_one_exit_per_element_in_order(int size)
    {
        var guest = Guest();
        for (ulong i = 0; i < 32; i++) guest.Write(GuestLayout.Data + i, (byte)(0x10 + i));
        guest.Code(c =>
        {
            c.mov(esi, (uint)GuestLayout.Data);
            c.mov(ecx, 5);
            c.mov(dx, 0x300);
            if (size == 1) c.rep.outsb();
            else if (size == 2) c.rep.outsw();
            else c.rep.outsd();
            c.mov(rax, rsi);
            c.ReportRax();
            c.mov(rax, rcx);
            c.ReportRax();
            c.Done();
        }).Start64();
        var run = RunToDone(guest);
        var expected = Enumerable.Range(0, 5).Select(i =>
        {
            ulong value = 0;
            for (var b = 0; b < size; b++) value |= (ulong)(0x10 + (i * size) + b) << (8 * b);
            return new GuestAccess(0, VcpuExitKind.PortWrite, 0x300, size, value);
        });
        Assert.Equal(expected, run.Accesses);
        Assert.Equal([GuestLayout.Data + (5 * (ulong)size), 0], run.Reports);
    }

    [SkippableTheory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(4)]
    public void Rep_ins_asks_once_per_element_and_stores_in_order(int size)
    {
        var guest = Guest();
        var next = 0u;
        guest.Answer = _ => 0x01010101 * ++next;
        guest.Code(c =>
        {
            c.mov(edi, (uint)GuestLayout.Data);
            c.mov(ecx, 7);
            c.mov(dx, 0x300);
            if (size == 1) c.rep.insb();
            else if (size == 2) c.rep.insw();
            else c.rep.insd();
            c.mov(rax, rdi);
            c.ReportRax();
            c.Done();
        }).Start64();
        var run = RunToDone(guest);
        Assert.Equal(7, run.Accesses.Count);
        Assert.All(run.Accesses, access => Assert.Equal((VcpuExitKind.PortRead, 0x300UL, size), (access.Kind, access.Address,
            access.Size)));
        for (var i = 0; i < 7 * size; i++) Assert.Equal((i / size) + 1, guest.Read<byte>(GuestLayout.Data + (ulong)i));
        Assert.Equal([GuestLayout.Data + (7 * (ulong)size)], run.Reports);
    }

    [SkippableFact]
    public void Ins_with_the_direction_flag_goes_down()
    {
        var guest = Guest();
        var next = 0u;
        guest.Answer = _ => ++next;
        guest.Code(c =>
        {
            c.mov(edi, (uint)GuestLayout.Data + 8);
            c.mov(ecx, 3);
            c.mov(dx, 0x300);
            c.std();
            c.rep.insb();
            c.cld();
            c.Done();
        }).Start64();
        RunToDone(guest);
        Assert.Equal([3, 2, 1], new[] { guest.Read<byte>(GuestLayout.Data + 6), guest.Read<byte>(GuestLayout.Data + 7),
            guest.Read<byte>(GuestLayout.Data + 8) });
    }

    [SkippableFact]
    public void A_string_that_is_interrupted_by_a_state_save_goes_on_from_the_next_element()
    {
        var guest = Guest();
        var next = 0u;
        guest.Answer = _ => ++next;
        guest.Code(c =>
        {
            c.mov(edi, (uint)GuestLayout.Data);
            c.mov(ecx, 9);
            c.mov(dx, 0x300);
            c.rep.insb();
            c.mov(rax, rdi);
            c.ReportRax();
            c.mov(rax, rcx);
            c.ReportRax();
            c.Done();
        }).Start64();
        var seen = 0;
        RunTo(GuestEnd.Stopped, guest, stopAt: _ => ++seen == 4);
        var vcpu = guest.Machine.Vcpus[0];
        vcpu.CompletePending();
        var state = vcpu.GetState();
        vcpu.SetState(state);
        var run = RunToDone(guest);
        Assert.Equal([GuestLayout.Data + 9, 0], run.Reports);
        Assert.Equal(Enumerable.Range(1, 9), Enumerable.Range(0, 9).Select(i => (int)guest.Read<byte>(GuestLayout.Data + (ulong)i)));
    }

    [SkippableFact]
    public void Completing_a_pending_read_makes_the_state_whole_without_running_on()
    {
        var guest = Guest().Code(c =>
        {
            c.mov(dx, 0x300);
            c.@in(eax, dx);
            c.mov(ebx, 0x77);
            c.ReportEax();
            c.Done();
        }).Start64();
        guest.Answer = _ => 0xCAFE;
        RunTo(GuestEnd.Stopped, guest, stopAt: _ => true);
        var vcpu = guest.Machine.Vcpus[0];
        vcpu.CompletePending();
        var state = vcpu.GetState();
        Assert.Equal(0xCAFEUL, state.General.Rax);
        Assert.Equal(0UL, state.General.Rbx);
        Assert.Equal(GuestLayout.Code + 5, state.General.Rip); // after MOV DX (4 bytes) and IN (1)
        Assert.Equal([0xCAFEUL], RunToDone(guest).Reports);
    }
}
