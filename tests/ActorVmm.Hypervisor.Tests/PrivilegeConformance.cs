using ActorVmm.Hypervisor.Tests.Subjects;
using ActorVmm.Testing.Guests;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Tests;

/// <summary>Ring 3: how to get there, what is forbidden there, and the ways back.</summary>
public abstract class PrivilegeConformance<TSubject> : Conformance<TSubject> where TSubject : IConformanceSubject, new()
{
    private const ulong UserCode = GuestLayout.MappedArea;
    private const ulong UserStack = GuestLayout.MappedArea + 0x10000; // its top
    private const ulong CodePage = GuestLayout.Free, StackPage = GuestLayout.Free + 0x1000;
    private const ulong SyscallEntry = GuestLayout.Free + 0x2000;
    private const uint UserFlags = 0x202; // IF
    private const uint Star = 0xC000_0081, Lstar = 0xC000_0082, SyscallMask = 0xC000_0084;

    /// <summary>A guest that goes to ring 3 by IRETQ and there runs <paramref name="user"/>, after <paramref name="before"/> in ring
    /// 0.</summary>
    private TinyGuest UserGuest(Action<Assembler> user, Action<Assembler>? before = null, uint flags = UserFlags, int bitness = 64)
    {
        Needs("ring3");
        var guest = Guest();
        guest.Map(UserCode, CodePage, PageBits.UserData);
        guest.Map(UserStack - 0x1000, StackPage, PageBits.UserData);
        guest.Place(CodePage, user, bitness, UserCode);
        return guest.Code(c =>
        {
            before?.Invoke(c);
            GoToUser(c, flags);
        });
    }

    /// <summary>
    /// Ring 3 shows R8, R9, R10 and R11 by an invalid opcode, whose handler in ring 0 reports them: not every host lets ring 3 use ports.
    /// </summary>
    private static TinyGuest WithReporter(TinyGuest guest) => guest.Handler(6, c =>
    {
        foreach (var register in new[] { r8, r9, r10, r11 })
        {
            c.mov(rax, register);
            c.ReportRax();
        }
        c.Done();
    });

    private static void GoToUser(Assembler c, uint flags, ulong rip = UserCode)
    {
        c.push(GuestLayout.UserData | 3);
        c.mov(rax, UserStack);
        c.push(rax);
        c.push((int)flags);
        c.push(GuestLayout.UserCode | 3);
        c.mov(rax, rip);
        c.push(rax);
        c.iretq();
    }

    private GuestFault FaultInRing3(Action<Assembler> act, uint flags = UserFlags)
    {
        var guest = UserGuest(c =>
        {
            act(c);
            c.int3(); // another vector than any that is expected
        }, flags: flags).Start64();
        var run = RunTo(GuestEnd.Fault, guest);
        var fault = Assert.Single(run.Faults);
        Assert.Equal(GuestLayout.UserCode | 3, fault.Cs);
        return fault;
    }

    [SkippableFact]
    public void Iret_to_ring_3_loads_selectors_stack_and_flags()
    {
        Needs("ring3-selectors");
        var guest = WithReporter(UserGuest(c =>
        {
            c.mov(r8d, cs);
            c.mov(r9d, ss);
            c.mov(r10, rsp);
            c.pushfq();
            c.pop(r11);
            c.ud2();
        })).Start64();
        var reports = RunToDone(guest).Reports;
        Assert.Equal([GuestLayout.UserCode | 3UL, GuestLayout.UserData | 3UL, UserStack], reports.Take(3));
        Assert.Equal(0x200UL, reports[3] & 0x200);
    }

    [SkippableFact]
    public void An_exception_in_ring_3_enters_ring_0_on_the_stack_of_the_tss()
    {
        var guest = UserGuest(c => c.ud2());
        guest.Handler(6, c =>
        {
            c.mov(rax, rsp);
            c.ReportRax();
            c.mov(eax, cs);
            c.ReportEax();
            c.mov(rax, __qword_ptr[rsp + 24]); // the user's RSP
            c.ReportRax();
            c.mov(rax, __qword_ptr[rsp + 8]); // and CS
            c.ReportRax();
            c.Done();
        }).Start64();
        Assert.Equal([GuestLayout.TrapStack - 40, GuestLayout.KernelCode, UserStack, GuestLayout.UserCode | 3UL], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void An_ist_gate_takes_its_own_stack_also_from_ring_3()
    {
        var guest = UserGuest(c => c.ud2());
        guest.Handler(6, c =>
        {
            c.mov(rax, rsp);
            c.ReportRax();
            c.Done();
        }, ist: 1).Start64();
        Assert.Equal([GuestLayout.IstStack - 40], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void A_software_interrupt_from_ring_3_needs_a_gate_that_allows_it_and_returns()
    {
        Needs("int-from-ring3");
        var guest = WithReporter(UserGuest(c =>
        {
            c.mov(r8d, 1);
            c.@int(0x80);
            c.mov(r9d, cs);
            c.ud2();
        }));
        guest.Handler(0x80, c =>
        {
            c.mov(r8d, 7);
            c.iretq();
        }, dpl: 3).Start64();
        Assert.Equal([7UL, GuestLayout.UserCode | 3UL], RunToDone(guest).Reports.Take(2));
    }

    [SkippableFact]
    public void A_software_interrupt_from_ring_3_through_a_ring_0_gate_is_a_protection_fault()
    {
        Needs("int-from-ring3");
        var fault = FaultInRing3(c => c.@int(0x20));
        Assert.Equal((13, (0x20u * 8) | 2), (fault.Vector, fault.ErrorCode));
    }

    [SkippableFact]
    public void Privileged_instructions_in_ring_3_are_protection_faults()
    {
        foreach (var act in new Action<Assembler>[]
        {
            c => c.hlt(), c => c.mov(rax, cr0), c => c.mov(cr3, rax), c => c.wrmsr(), c => c.rdmsr(), c => c.lgdt(__[rsp - 16]), c =>
                c.invlpg(__byte_ptr[rsp]),
            c => c.clts(), c => c.wbinvd(), c => c.mov(rax, dr7), c => c.ltr(ax), c => c.lmsw(ax),
        })
        {
            var fault = FaultInRing3(act);
            Assert.Equal((13, 0u), (fault.Vector, fault.ErrorCode));
        }
    }

    [SkippableFact]
    public void Cli_and_sti_in_ring_3_need_iopl()
    {
        Assert.Equal(13, FaultInRing3(c => c.cli(), flags: 0x202).Vector);
        Assert.Equal(13, FaultInRing3(c => c.sti(), flags: 0x202).Vector);
    }

    [SkippableFact]
    public void Popf_in_ring_3_leaves_iopl_and_without_iopl_the_interrupt_flag()
    {
        var guest = UserGuest(c =>
        {
            c.push(0x3000);
            c.popfq();
            c.pushfq();
            c.pop(rax);
            c.ud2();
        }, flags: 0x202);
        guest.Handler(6, c =>
        {
            c.ReportEax();
            c.Done();
        }).Start64();
        Assert.Equal([0x202UL], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void Ports_in_ring_3_are_free_with_iopl_3()
    {
        Needs("ring3-io");
        var guest = UserGuest(c =>
        {
            c.Report(0x99);
            c.Done();
        }, flags: 0x3202).Start64();
        Assert.Equal([0x99UL], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void Ports_in_ring_3_without_iopl_obey_the_bitmap_of_the_tss()
    {
        Needs("ring3-io");
        var guest = UserGuest(c =>
        {
            c.mov(eax, 0x5A);
            c.mov(dx, 0x1F0);
            c.@out(dx, al);
            c.mov(dx, 0x1F1);
            c.@out(dx, al);
        }, flags: 0x202);
        guest.AllowPort(0x1F0);
        guest.Start64();
        var run = RunTo(GuestEnd.Fault, guest);
        Assert.Equal([new(0, VcpuExitKind.PortWrite, 0x1F0, 1, 0x5A)], run.Accesses);
        var fault = Assert.Single(run.Faults);
        Assert.Equal((13, 0u), (fault.Vector, fault.ErrorCode));
    }

    [SkippableFact]
    public void A_wide_port_access_needs_every_bit_of_its_width()
    {
        Needs("ring3-io");
        var guest = UserGuest(c =>
        {
            c.mov(dx, 0x1F0);
            c.@in(ax, dx);
            c.@in(eax, dx);
        }, flags: 0x202);
        guest.AllowPort(0x1F0);
        guest.AllowPort(0x1F1);
        guest.AllowPort(0x1F2);
        guest.Start64();
        var run = RunTo(GuestEnd.Fault, guest);
        Assert.Equal(2, Assert.Single(run.Accesses).Size);
        Assert.Equal(13, Assert.Single(run.Faults).Vector);
    }

    [SkippableFact]
    public void User_accesses_to_supervisor_pages_set_the_user_bit_of_the_error_code()
    {
        var fault = FaultInRing3(c =>
        {
            c.mov(ebx, (uint)GuestLayout.Data);
            c.mov(eax, __dword_ptr[rbx]);
        });
        Assert.Equal((14, 5u, GuestLayout.Data), (fault.Vector, fault.ErrorCode, fault.Cr2));
        fault = FaultInRing3(c =>
        {
            c.mov(ebx, (uint)GuestLayout.Data);
            c.mov(__dword_ptr[rbx], eax);
        });
        Assert.Equal((14, 7u), (fault.Vector, fault.ErrorCode));
        fault = FaultInRing3(c =>
        {
            c.mov(rbx, UserStack + 0x10_0000);
            c.mov(__dword_ptr[rbx], eax);
        });
        Assert.Equal((14, 6u), (fault.Vector, fault.ErrorCode));
    }

    [SkippableFact]
    public void Syscall_saves_rip_and_flags_masks_them_and_enters_ring_0_without_a_stack_switch()
    {
        Needs("syscall");
        var guest = UserGuest(c =>
        {
            c.syscall();
            c.ud2();
        }, before: c => WriteSyscallMsrs(c, SyscallEntry));
        guest.Place(SyscallEntry, c =>
        {
            c.mov(rax, rsp);
            c.mov(rsp, GuestLayout.TrapStack);
            c.push(rax);
            c.mov(rax, rcx);
            c.ReportRax();
            c.mov(rax, r11);
            c.ReportRax();
            c.pushfq();
            c.pop(rax);
            c.and(eax, 0x200);
            c.ReportEax();
            c.mov(eax, cs);
            c.ReportEax();
            c.mov(eax, ss);
            c.ReportEax();
            c.pop(rax);
            c.ReportRax();
            c.Done();
        });
        guest.Start64();
        Assert.Equal([UserCode + 2, UserFlags, 0, GuestLayout.KernelCode, GuestLayout.KernelData, UserStack], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void Sysret_returns_to_ring_3_with_the_saved_rip_and_flags()
    {
        Needs("syscall");
        var guest = WithReporter(UserGuest(c =>
        {
            c.mov(r8d, 5);
            c.syscall();
            c.mov(r9d, cs);
            c.mov(r10d, ss);
            c.pushfq();
            c.pop(r11);
            c.ud2();
        }, before: c => WriteSyscallMsrs(c, SyscallEntry)));
        guest.Place(SyscallEntry, c =>
        {
            c.inc(r8d);
            c.sysretq();
        });
        guest.Start64();
        Assert.Equal([6UL, GuestLayout.UserCode | 3UL, GuestLayout.UserData | 3UL, UserFlags], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void Syscall_without_its_enable_bit_is_an_invalid_opcode()
    {
        Needs("syscall");
        var guest = UserGuest(c => c.syscall());
        guest.Start64(change: state => state with { Special = state.Special with { Efer = state.Special.Efer & ~1UL } });
        Assert.Equal(6, Assert.Single(RunTo(GuestEnd.Fault, guest).Faults).Vector);
    }

    [SkippableFact]
    public void Sysenter_and_sysexit_go_to_ring_0_and_back()
    {
        Needs("sysenter");
        var guest = WithReporter(UserGuest(c =>
        {
            c.mov(rcx, UserStack);
            var back = c.CreateLabel();
            c.lea(rdx, __[back]);
            c.sysenter();
            c.Label(ref back);
            c.mov(r10d, cs);
            c.mov(r11, rsp);
            c.ud2();
        }, before: c =>
        {
            c.WriteMsr(0x174, GuestLayout.KernelCode);
            c.WriteMsr(0x175, GuestLayout.TrapStack);
            c.WriteMsr(0x176, SyscallEntry);
        }));
        guest.Place(SyscallEntry, c =>
        {
            c.mov(r8, rsp);
            c.mov(r9d, cs);
            c.sysexitq();
        });
        guest.Start64();
        // SYSEXIT to 64-bit code: CS is SYSENTER_CS + 32 (SDM Vol. 2 SYSEXIT).
        Assert.Equal([GuestLayout.TrapStack, GuestLayout.KernelCode, (GuestLayout.KernelCode + 32UL) | 3, UserStack],
            RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void Swapgs_exchanges_the_gs_base_with_its_msr()
    {
        var guest = Guest();
        guest.Write(GuestLayout.Data, 0xAAAAu);
        guest.Write(GuestLayout.Data + 0x100, 0xBBBBu);
        guest.Code(c =>
        {
            c.WriteMsr(0xC000_0101, GuestLayout.Data);
            c.WriteMsr(0xC000_0102, GuestLayout.Data + 0x100);
            c.mov(eax, __dword_ptr.gs[0]);
            c.ReportEax();
            c.swapgs();
            c.mov(eax, __dword_ptr.gs[0]);
            c.ReportEax();
            c.ReadMsr(0xC000_0102);
            c.ReportRax();
            c.Done();
        }).Start64();
        Assert.Equal([0xAAAAUL, 0xBBBB, GuestLayout.Data], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void Alignment_check_faults_only_in_ring_3_with_am_and_ac()
    {
        var guest = UserGuest(c =>
        {
            c.mov(rbx, UserStack - 0x7F);
            c.mov(eax, __dword_ptr[rbx]);
        }, flags: UserFlags | 0x40000);
        guest.Start64(change: state => state with { Special = state.Special with { Cr0 = state.Special.Cr0 | 0x40000 } });
        var fault = Assert.Single(RunTo(GuestEnd.Fault, guest).Faults);
        Assert.Equal((17, 0u), (fault.Vector, fault.ErrorCode));
    }

    [SkippableFact]
    public void A_timer_interrupt_is_taken_in_ring_3_and_returns_there()
    {
        var guest = UserGuest(c =>
        {
            var wait = c.CreateLabel();
            c.Label(ref wait);
            c.test(r8d, r8d);
            c.je(wait);
            c.ud2();
        }, before: c =>
        {
            c.MaskPic();
            c.EnableLocalApic();
            c.WriteMmio32(GuestLayout.LocalApic + 0x3E0, 0xB);
            c.WriteMmio32(GuestLayout.LocalApic + 0x320, 0x40);
            c.WriteMmio32(GuestLayout.LocalApic + 0x380, 100_000);
            c.xor(r8d, r8d);
        });
        WithReporter(guest).Handler(0x40, c =>
        {
            c.mov(r8d, __dword_ptr[rsp + 8]); // the interrupted CS
            c.push(rax);
            c.push(rdx);
            c.EndOfInterrupt();
            c.pop(rdx);
            c.pop(rax);
            c.iretq();
        }).Start64();
        Assert.Equal(GuestLayout.UserCode | 3UL, RunToDone(guest).Reports[0]);
    }

    private static void WriteSyscallMsrs(Assembler c, ulong entry)
    {
        c.WriteMsr(Star, ((ulong)(GuestLayout.UserCode32 | 3) << 48) | ((ulong)GuestLayout.KernelCode << 32));
        c.WriteMsr(Lstar, entry);
        c.WriteMsr(SyscallMask, 0x200);
    }
}
