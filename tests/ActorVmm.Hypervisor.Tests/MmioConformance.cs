using ActorVmm.Hypervisor.Tests.Subjects;
using ActorVmm.Testing.Guests;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Tests;

public abstract class MmioConformance<TSubject> : Conformance<TSubject> where TSubject : IConformanceSubject, new()
{
    private const ulong At = GuestLayout.Mmio;

    private static GuestAccess Read(ulong at, int size, ulong data) => new(0, VcpuExitKind.MmioRead, at, size, data);

    private static GuestAccess Write(ulong at, int size, ulong data) => new(0, VcpuExitKind.MmioWrite, at, size, data);

    private static void Base(Assembler c) => c.mov(ebx, (uint)At);

    [SkippableFact]
    public void Stores_of_every_width_leave_with_address_size_and_value()
    {
        var run = Run(c =>
        {
            Base(c);
            c.mov(rax, 0x8877665544332211);
            c.mov(__byte_ptr[rbx], al);
            c.mov(__word_ptr[rbx + 2], ax);
            c.mov(__dword_ptr[rbx + 4], eax);
            c.mov(__qword_ptr[rbx + 8], rax);
            c.mov(__byte_ptr[rbx + 0x11], ah);
            c.mov(__dword_ptr[rbx + 0x20], 0x5A5A5A5A);
            c.Done();
        });
        Assert.Equal(
        [
            Write(At, 1, 0x11), Write(At + 2, 2, 0x2211), Write(At + 4, 4, 0x44332211), Write(At + 8, 8, 0x8877665544332211),
                Write(At + 0x11, 1, 0x22),
            Write(At + 0x20, 4, 0x5A5A5A5A),
        ], run.Accesses);
    }

    [SkippableFact]
    public void Loads_of_every_width_get_their_answer()
    {
        var guest = Guest().Code(c =>
        {
            Base(c);
            c.mov(rax, 0x1111111111111111);
            c.mov(al, __byte_ptr[rbx]);
            c.ReportRax();
            c.mov(rax, 0x1111111111111111);
            c.mov(ax, __word_ptr[rbx]);
            c.ReportRax();
            c.mov(rax, 0x1111111111111111);
            c.mov(eax, __dword_ptr[rbx]);
            c.ReportRax();
            c.mov(rax, __qword_ptr[rbx]);
            c.ReportRax();
            c.Done();
        }).Start64();
        guest.Answer = _ => 0xF8F7F6F5F4F3F2F1;
        var run = RunToDone(guest);
        Assert.Equal([0x11111111111111F1, 0x111111111111F2F1, 0xF4F3F2F1, 0xF8F7F6F5F4F3F2F1], run.Reports);
        Assert.Equal([1, 2, 4, 8], run.Accesses.Select(access => access.Size));
    }

    [SkippableFact]
    public void Extending_loads_read_their_own_width()
    {
        var guest = Guest().Code(c =>
        {
            Base(c);
            c.movzx(eax, __byte_ptr[rbx]);
            c.ReportRax();
            c.movsx(rax, __byte_ptr[rbx]);
            c.ReportRax();
            c.movsx(rax, __word_ptr[rbx]);
            c.ReportRax();
            c.movsxd(rax, __dword_ptr[rbx]);
            c.ReportRax();
            c.Done();
        }).Start64();
        guest.Answer = _ => 0x8081_8283_8485_8687;
        var run = RunToDone(guest);
        Assert.Equal([0x87, 0xFFFF_FFFF_FFFF_FF87, 0xFFFF_FFFF_FFFF_8687, 0xFFFF_FFFF_8485_8687], run.Reports);
        Assert.Equal([1, 1, 2, 4], run.Accesses.Select(access => access.Size));
    }

    [SkippableFact]
    public void An_instruction_that_reads_and_writes_does_both_in_order()
    {
        var guest = Guest().Code(c =>
        {
            Base(c);
            c.add(__dword_ptr[rbx], 5);
            c.mov(ecx, 0x0F);
            c.or(__byte_ptr[rbx + 8], cl);
            c.inc(__word_ptr[rbx + 16]);
            c.mov(eax, 0x99);
            c.xchg(__dword_ptr[rbx + 24], eax);
            c.ReportEax();
            c.Done();
        }).Start64();
        guest.Answer = _ => 0x70;
        var run = RunToDone(guest);
        Assert.Equal(
        [
            Read(At, 4, 0x70), Write(At, 4, 0x75), Read(At + 8, 1, 0x70), Write(At + 8, 1, 0x7F), Read(At + 16, 2, 0x70), Write(At + 16, 2,
                0x71),
            Read(At + 24, 4, 0x70), Write(At + 24, 4, 0x99),
        ], run.Accesses);
        Assert.Equal([0x70UL], run.Reports);
    }

    [SkippableFact]
    public void An_operand_in_a_register_window_takes_part_in_arithmetic_and_flags()
    {
        var guest = Guest().Code(c =>
        {
            Base(c);
            c.mov(eax, 10);
            c.sub(eax, __dword_ptr[rbx]);
            c.ReportEax();
            c.cmp(__dword_ptr[rbx], 7);
            c.sete(al);
            c.movzx(eax, al);
            c.ReportEax();
            c.test(__byte_ptr[rbx], 8);
            c.setz(al);
            c.movzx(eax, al);
            c.ReportEax();
            c.Done();
        }).Start64();
        guest.Answer = _ => 7;
        Assert.Equal([3UL, 1, 1], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void Rep_movs_from_ram_to_a_device_writes_each_element()
    {
        var guest = Guest();
        for (ulong i = 0; i < 4; i++) guest.Write(GuestLayout.Data + (4 * i), 0xA0u + (uint)i);
        guest.Code(c =>
        {
            c.mov(esi, (uint)GuestLayout.Data);
            c.mov(edi, (uint)At);
            c.mov(ecx, 4);
            c.rep.movsd();
            c.mov(eax, ecx);
            c.ReportEax();
            c.Done();
        }).Start64();
        var run = RunToDone(guest);
        Assert.Equal([Write(At, 4, 0xA0), Write(At + 4, 4, 0xA1), Write(At + 8, 4, 0xA2), Write(At + 12, 4, 0xA3)], run.Accesses);
        Assert.Equal([0UL], run.Reports);
    }

    [SkippableFact]
    public void Rep_movs_from_a_device_to_ram_reads_each_element()
    {
        var guest = Guest().Code(c =>
        {
            c.mov(esi, (uint)At);
            c.mov(edi, (uint)GuestLayout.Data);
            c.mov(ecx, 4);
            c.rep.movsw();
            c.Done();
        }).Start64();
        guest.Answer = read => 0x100 + (read.Address & 0xFF);
        var run = RunToDone(guest);
        Assert.Equal(4, run.Accesses.Count);
        Assert.Equal(0x0106_0104_0102_0100UL, guest.Read<ulong>(GuestLayout.Data));
    }

    [SkippableFact]
    public void Movs_from_a_device_to_a_device_reads_then_writes()
    {
        var guest = Guest().Code(c =>
        {
            c.mov(esi, (uint)At);
            c.mov(edi, (uint)At + 0x1000);
            c.mov(ecx, 2);
            c.rep.movsd();
            c.Done();
        }).Start64();
        guest.Answer = read => read.Address + 1;
        var run = RunToDone(guest);
        Assert.Equal([Read(At, 4, At + 1), Write(At + 0x1000, 4, At + 1), Read(At + 4, 4, At + 5), Write(At + 0x1004, 4, At + 5)],
            run.Accesses);
    }

    [SkippableFact]
    public void Rep_stos_to_a_device_writes_each_element()
    {
        var run = Run(c =>
        {
            c.mov(edi, (uint)At + 0x10);
            c.mov(eax, 0x31323334);
            c.mov(ecx, 3);
            c.rep.stosd();
            c.Done();
        });
        Assert.Equal([Write(At + 0x10, 4, 0x31323334), Write(At + 0x14, 4, 0x31323334), Write(At + 0x18, 4, 0x31323334)], run.Accesses);
    }

    [SkippableFact]
    public void Repe_cmps_and_repne_scas_compare_with_a_device()
    {
        var guest = Guest();
        guest.Write(GuestLayout.Data, 0x0000_0000_0305_0303UL);
        guest.Code(c =>
        {
            c.mov(esi, (uint)GuestLayout.Data);
            c.mov(edi, (uint)At);
            c.mov(ecx, 4);
            c.repe.cmpsb();
            c.mov(eax, ecx);
            c.ReportEax();
            c.Done();
        }).Start64();
        guest.Answer = _ => 3;
        Assert.Equal([1UL], RunToDone(guest).Reports); // equal, equal, different: one is left
    }

    [SkippableFact]
    public void Compare_and_exchange_on_a_device_reads_and_writes_when_equal()
    {
        var guest = Guest().Code(c =>
        {
            Base(c);
            c.mov(eax, 0x70);
            c.mov(ecx, 0x55);
            c.cmpxchg(__dword_ptr[rbx], ecx);
            c.sete(al);
            c.movzx(eax, al);
            c.ReportEax();
            c.Done();
        }).Start64();
        guest.Answer = _ => 0x70;
        var run = RunToDone(guest);
        Assert.Equal([1UL], run.Reports);
        Assert.Equal([Read(At, 4, 0x70), Write(At, 4, 0x55)], run.Accesses);
    }

    [SkippableFact]
    public void A_push_from_a_device_and_a_pop_to_one_move_eight_bytes()
    {
        var guest = Guest().Code(c =>
        {
            Base(c);
            c.push(__qword_ptr[rbx]);
            c.pop(rax);
            c.ReportRax();
            c.Done();
        }).Start64();
        guest.Answer = _ => 0x0102_0304_0506_0708;
        Assert.Equal([0x0102_0304_0506_0708UL], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void An_access_beyond_ram_inside_the_map_exits_and_reads_all_ones_unless_answered()
    {
        var run = Run(c =>
        {
            c.mov(ebx, (uint)GuestLayout.MemorySize);
            c.mov(eax, __dword_ptr[rbx]);
            c.ReportEax();
            c.mov(__dword_ptr[rbx], eax);
            c.Done();
        });
        Assert.Equal([0xFFFFFFFFUL], run.Reports);
        Assert.Equal([Read(GuestLayout.MemorySize, 4, 0xFFFFFFFF), Write(GuestLayout.MemorySize, 4, 0xFFFFFFFF)], run.Accesses);
    }

    [SkippableFact]
    public void Completing_a_pending_load_makes_the_state_whole_without_running_on()
    {
        var guest = Guest().Code(c =>
        {
            Base(c);
            c.mov(eax, __dword_ptr[rbx]);
            c.mov(ecx, 0x77);
            c.ReportEax();
            c.Done();
        }).Start64();
        guest.Answer = _ => 0xBEEF;
        RunTo(GuestEnd.Stopped, guest, stopAt: _ => true);
        var vcpu = guest.Machine.Vcpus[0];
        vcpu.CompletePending();
        var state = vcpu.GetState();
        Assert.Equal(0xBEEFUL, state.General.Rax);
        Assert.Equal(0UL, state.General.Rcx);
        vcpu.SetState(state);
        Assert.Equal([0xBEEFUL], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void Completing_a_read_modify_write_hands_out_its_store_before_the_state_is_whole()
    {
        Action<Iced.Intel.Assembler> code = c =>
        {
            Base(c);
            c.mov(ecx, 0x11);
            c.add(__dword_ptr[rbx], ecx);
            c.setc(al);
            c.movzx(eax, al);
            c.ReportEax();
            c.Done();
        };
        var first = Guest().Code(code).Start64();
        first.Answer = _ => 0xFFFF_FFF0;
        RunTo(GuestEnd.Stopped, first, stopAt: _ => true);
        var vcpu = first.Machine.Vcpus[0];
        Assert.Equal(VcpuExitKind.MmioWrite, vcpu.CompletePending());
        Assert.Equal((At, 4, 1UL), (vcpu.Exit.Address, vcpu.Exit.Size, vcpu.Exit.Data));
        Assert.Equal(VcpuExitKind.None, vcpu.CompletePending());
        Assert.Equal(VcpuExitKind.None, vcpu.CompletePending());
        first.Machine.PauseClock();

        var second = Guest().Code(code).Start64();
        second.Machine.Restore(first.Machine.Save());
        second.Machine.ResumeClock();
        var run = RunToDone(second);
        Assert.Equal([1UL], run.Reports); // the carry of the addition
        Assert.Empty(run.Accesses); // neither made again nor lost
    }

    [SkippableTheory]
    [InlineData(0)] // two halves
    [InlineData(0xFF3)] // across two pages, in pieces of odd lengths
    public void Completing_a_long_store_hands_out_all_of_it_once(int offset)
    {
        var guest = Guest().Code(c =>
        {
            Base(c);
            c.mov(rax, 0x0807060504030201);
            c.movq(xmm0, rax);
            c.mov(rax, 0x100F0E0D0C0B0A09);
            c.movq(xmm1, rax);
            c.punpcklqdq(xmm0, xmm1);
            c.movups(__xmmword_ptr[rbx + offset], xmm0);
            c.ReportRax();
            c.Done();
        }).Start64();
        var first = RunTo(GuestEnd.Stopped, guest, stopAt: _ => true);
        var bytes = new byte[16];
        foreach (var access in first.Accesses) Note(access.Address, access.Size, access.Data);
        var vcpu = guest.Machine.Vcpus[0];
        while (vcpu.CompletePending() is var kind and not VcpuExitKind.None)
        {
            Assert.Equal(VcpuExitKind.MmioWrite, kind);
            Note(vcpu.Exit.Address, vcpu.Exit.Size, vcpu.Exit.Data);
        }
        Assert.Equal(Enumerable.Range(1, 16), bytes.Select(value => (int)value));
        vcpu.SetState(vcpu.GetState());
        var rest = RunToDone(guest);
        Assert.Equal([0x100F0E0D0C0B0A09UL], rest.Reports);
        Assert.Empty(rest.Accesses);

        void Note(ulong address, int size, ulong data)
        {
            for (var i = 0; i < size; i++)
            {
                ref var at = ref bytes[(int)(address - At) - offset + i];
                Assert.Equal(0, at); // each byte once
                at = (byte)(data >> (8 * i));
            }
        }
    }

    [SkippableFact]
    public void A_sixteen_byte_store_arrives_as_two_halves()
    {
        var run = Run(c =>
        {
            Base(c);
            c.mov(rax, 0x1111222233334444);
            c.movq(xmm0, rax);
            c.punpcklqdq(xmm0, xmm0);
            c.movups(__xmmword_ptr[rbx], xmm0);
            c.Done();
        });
        Assert.Equal([Write(At, 8, 0x1111222233334444), Write(At + 8, 8, 0x1111222233334444)], run.Accesses);
    }
}
