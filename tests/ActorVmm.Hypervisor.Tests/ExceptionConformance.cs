using ActorVmm.Hypervisor.Tests.Subjects;
using ActorVmm.Testing.Guests;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Tests;

public abstract class ExceptionConformance<TSubject> : Conformance<TSubject> where TSubject : IConformanceSubject, new()
{
    /// <summary>The one fault of a program; it goes on behind the faulting instruction.</summary>
    private GuestFault FaultOf(Action<Assembler> act, TinyGuest? guest = null)
    {
        guest ??= Guest();
        guest.Code(c =>
        {
            var after = c.CreateLabel();
            c.ExpectFault(after);
            act(c);
            c.Report(0xBAD);
            c.Label(ref after);
            c.Done();
        }).Start64();
        var run = RunToDone(guest);
        Assert.Empty(run.Reports);
        return Assert.Single(run.Faults);
    }

    [SkippableFact]
    public void Division_by_zero_and_a_quotient_too_large_are_divide_errors_at_the_instruction()
    {
        var fault = FaultOf(c =>
        {
            c.xor(edx, edx);
            c.xor(ecx, ecx);
            c.mov(eax, 1);
            c.div(ecx);
        });
        Assert.Equal((0, 0u), (fault.Vector, fault.ErrorCode));
        Assert.Equal(0, FaultOf(c =>
        {
            c.mov(edx, 5);
            c.mov(ecx, 5);
            c.div(ecx);
        }).Vector);
        Assert.Equal(0, FaultOf(c =>
        {
            c.mov(eax, int.MinValue);
            c.cdq();
            c.mov(ecx, -1);
            c.idiv(ecx);
        }).Vector);
    }

    [SkippableFact]
    public void Ud2_is_an_invalid_opcode_with_rip_at_the_instruction()
    {
        var guest = Guest();
        guest.Place(GuestLayout.Free, c =>
        {
            c.nop();
            c.ud2();
        });
        var fault = FaultOf(c =>
        {
            c.mov(ebx, (uint)GuestLayout.Free);
            c.jmp(rbx);
        }, guest);
        Assert.Equal((6, 0u, GuestLayout.Free + 1), (fault.Vector, fault.ErrorCode, fault.Rip));
    }

    [SkippableFact]
    public void A_lock_prefix_where_none_may_be_is_an_invalid_opcode() => Assert.Equal(6, FaultOf(c => c.db(0xF0, 0x90)).Vector);

    [SkippableFact]
    public void Loading_a_selector_beyond_the_gdt_is_a_protection_fault_that_names_it()
    {
        var fault = FaultOf(c =>
        {
            c.mov(eax, 0x1F8);
            c.mov(ds, eax);
        });
        Assert.Equal((13, 0x1F8u), (fault.Vector, fault.ErrorCode));
    }

    [SkippableFact]
    public void Loading_an_absent_data_segment_is_segment_not_present()
    {
        var fault = FaultOf(c =>
        {
            c.mov(eax, (uint)GuestLayout.AbsentData);
            c.mov(es, eax);
        });
        Assert.Equal((11, (uint)GuestLayout.AbsentData), (fault.Vector, fault.ErrorCode));
    }

    [SkippableFact]
    public void Loading_an_absent_stack_segment_is_a_stack_fault()
    {
        var fault = FaultOf(c =>
        {
            c.mov(eax, (uint)GuestLayout.AbsentData);
            c.mov(ss, eax);
        });
        Assert.Equal((12, (uint)GuestLayout.AbsentData), (fault.Vector, fault.ErrorCode));
    }

    [SkippableFact]
    public void A_stack_access_at_a_noncanonical_address_is_a_stack_fault()
    {
        var guest = Guest();
        guest.SetGate(12, GuestLayout.FaultStubs + (12 * 0x20), ist: 1); // the stack at fault cannot take the frame
        var fault = FaultOf(c =>
        {
            c.mov(rsp, 0x0000_9000_0000_0000);
            c.pop(rax);
        }, guest);
        Assert.Equal((12, 0u), (fault.Vector, fault.ErrorCode));
    }

    [SkippableFact]
    public void A_far_return_to_an_absent_code_segment_is_segment_not_present()
    {
        var fault = FaultOf(c =>
        {
            c.push(GuestLayout.AbsentCode);
            c.push((int)GuestLayout.Code);
            c.db(0x48, 0xCB); // RETF, 64-bit operands
        });
        Assert.Equal((11, (uint)GuestLayout.AbsentCode), (fault.Vector, fault.ErrorCode));
    }

    [SkippableFact]
    public void A_gate_that_is_absent_faults_with_the_idt_bit_and_one_beyond_the_limit_too()
    {
        var guest = Guest();
        guest.SetGate(0x50, GuestLayout.FaultHandler, present: false);
        var fault = FaultOf(c => c.@int(0x50), guest);
        Assert.Equal((11, (0x50u * 8) | 2), (fault.Vector, fault.ErrorCode));
        fault = FaultOf(c => c.@int(0x51));
        Assert.Equal((13, (0x51u * 8) | 2), (fault.Vector, fault.ErrorCode));
    }

    [SkippableFact]
    public void Int3_is_a_breakpoint_trap_behind_the_instruction()
    {
        Needs("int3");
        var guest = Guest();
        guest.Place(GuestLayout.Free, c => c.int3());
        var fault = FaultOf(c =>
        {
            c.mov(ebx, (uint)GuestLayout.Free);
            c.jmp(rbx);
        }, guest);
        Assert.Equal((3, GuestLayout.Free + 1), (fault.Vector, fault.Rip));
    }

    [SkippableFact]
    public void Software_interrupts_go_through_their_gate_and_come_back()
    {
        var guest = Guest().Code(c =>
        {
            c.mov(ebx, 1);
            c.sti();
            c.@int(0x80);
            c.pushfq();
            c.pop(rax);
            c.ReportEax();
            c.mov(eax, ebx);
            c.ReportEax();
            c.Done();
        });
        guest.Handler(0x80, c =>
        {
            c.mov(ebx, 2);
            c.pushfq();
            c.pop(rax);
            c.ReportEax();
            c.iretq();
        }).Start64();
        var run = RunToDone(guest);
        Assert.Equal(0UL, run.Reports[0] & 0x200); // an interrupt gate clears IF
        Assert.Equal(0x200UL, run.Reports[1] & 0x200); // IRET brings it back
        Assert.Equal(2UL, run.Reports[2]);
    }

    [SkippableFact]
    public void A_trap_gate_leaves_the_interrupt_flag()
    {
        var guest = Guest().Code(c =>
        {
            c.sti();
            c.@int(0x80);
            c.Done();
        });
        guest.Handler(0x80, c =>
        {
            c.pushfq();
            c.pop(rax);
            c.ReportEax();
            c.iretq();
        }, trap: true).Start64();
        Assert.Equal(0x200UL, Assert.Single(RunToDone(guest).Reports) & 0x200);
    }

    [SkippableFact]
    public void The_trap_flag_stops_after_one_instruction_and_says_so_in_dr6()
    {
        var guest = Guest().Code(c =>
        {
            c.xor(ebx, ebx);
            c.pushfq();
            c.or(__dword_ptr[rsp], 0x100);
            c.popfq();
            c.inc(ebx); // the one that is stepped
            c.inc(ebx);
            c.Done();
        });
        guest.Handler(1, c =>
        {
            c.mov(eax, ebx);
            c.ReportEax();
            c.mov(rax, dr6);
            c.ReportEax();
            c.and(__dword_ptr[rsp + 16], ~0x100);
            c.iretq();
        }).Start64();
        var run = RunToDone(guest);
        Assert.Equal(2, run.Reports.Count);
        Assert.Equal(1UL, run.Reports[0]);
        Assert.Equal(0x4000UL, run.Reports[1] & 0x4000);
    }

    [SkippableFact]
    public void A_fault_without_a_usable_gate_becomes_a_double_fault_on_its_own_stack()
    {
        var guest = Guest();
        guest.Code(c =>
        {
            // Two contributory faults: #DE whose gate is not there raises #NP, and both together are a double fault.
            c.xor(ecx, ecx);
            c.div(ecx);
        });
        guest.SetGate(0, GuestLayout.FaultHandler, present: false);
        guest.Handler(8, c =>
        {
            c.mov(rax, rsp);
            c.ReportRax();
            c.mov(eax, __dword_ptr[rsp]);
            c.ReportEax();
            c.Done();
        }, ist: 1).Start64();
        var run = RunToDone(guest);
        Assert.Equal([GuestLayout.IstStack - 48, 0], run.Reports);
    }

    [SkippableFact]
    public void A_page_fault_on_the_stack_of_a_page_fault_is_a_double_fault()
    {
        var guest = Guest().Code(c =>
        {
            c.mov(rsp, GuestLayout.MappedArea);
            c.mov(rbx, GuestLayout.MappedArea);
            c.mov(eax, __dword_ptr[rbx]);
        });
        guest.Handler(8, c =>
        {
            c.mov(rax, cr2);
            c.ReportRax();
            c.Done();
        }, ist: 1).Start64();
        var cr2Value = Assert.Single(RunToDone(guest).Reports);
        Assert.InRange(cr2Value, GuestLayout.MappedArea - 0x1000, GuestLayout.MappedArea);
    }

    [SkippableFact]
    public void A_triple_fault_is_a_shutdown()
    {
        var guest = Guest().Code(c => c.ud2());
        guest.Start64(change: state => state with { Special = state.Special with { Idt = new TableRegister(0, 0) } });
        RunTo(GuestEnd.Shutdown, guest);
    }

    [SkippableFact]
    public void A_machine_runs_again_after_shutdown_and_reset()
    {
        var guest = Guest().Code(c => c.ud2());
        guest.Start64(change: state => state with { Special = state.Special with { Idt = new TableRegister(0, 0) } });
        RunTo(GuestEnd.Shutdown, guest);
        guest.Machine.Reset();
        guest.Code(c =>
        {
            c.Report(0x51);
            c.Done();
        }).Start64();
        Assert.Equal([0x51UL], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void Reading_and_writing_an_unknown_msr_are_protection_faults()
    {
        var fault = FaultOf(c =>
        {
            c.mov(ecx, 0x1234_5678);
            c.rdmsr();
        });
        Assert.Equal((13, 0u), (fault.Vector, fault.ErrorCode));
        Assert.Equal(13, FaultOf(c => c.WriteMsr(0x1234_5678, 1)).Vector);
    }

    [SkippableFact]
    public void A_noncanonical_value_for_lstar_is_a_protection_fault() =>
        Assert.Equal(13, FaultOf(c => c.WriteMsr(0xC000_0082, 0x0000_9000_0000_0000)).Vector);

    [SkippableFact]
    public void Reserved_bits_of_cr4_and_paging_without_protection_are_protection_faults()
    {
        Assert.Equal(13, FaultOf(c =>
        {
            c.mov(rax, cr4);
            c.bts(rax, 31);
            c.mov(cr4, rax);
        }).Vector);
        Assert.Equal(13, FaultOf(c =>
        {
            c.mov(rax, cr0);
            c.btr(rax, 0);
            c.mov(cr0, rax);
        }).Vector);
    }

    [SkippableFact]
    public void The_resume_flag_is_set_in_the_frame_of_a_fault()
    {
        var fault = FaultOf(c => c.ud2());
        Assert.Equal(0x10000UL, fault.Rflags & 0x10000);
    }

    [SkippableFact]
    public void An_sse_instruction_with_ts_set_is_device_not_available()
    {
        var guest = Guest().Code(c =>
        {
            var after = c.CreateLabel();
            c.ExpectFault(after);
            c.mov(rax, cr0);
            c.or(eax, 8);
            c.mov(cr0, rax);
            c.movd(xmm0, eax);
            c.Label(ref after);
            c.clts();
            c.Done();
        }).Start64();
        Assert.Equal(7, Assert.Single(RunToDone(guest).Faults).Vector);
    }

    [SkippableFact]
    public void Iretq_restores_flags_and_stack_of_the_interrupted_program()
    {
        var run = Run(c =>
        {
            var target = c.CreateLabel();
            c.mov(rbx, rsp);
            c.push(GuestLayout.KernelData);
            c.push(rbx);
            c.push(0x8D7); // OF, SF, ZF, AF, PF, CF and the fixed bit
            c.push(GuestLayout.KernelCode);
            c.lea(rax, __[target]);
            c.push(rax);
            c.iretq();
            c.Label(ref target);
            c.pushfq();
            c.pop(rax);
            c.ReportEax();
            c.cmp(rsp, rbx);
            c.sete(al);
            c.movzx(eax, al);
            c.ReportEax();
            c.Done();
        });
        Assert.Equal([0x8D7UL, 1], run.Reports);
    }
}
