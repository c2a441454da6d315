using ActorVmm.Hypervisor.Tests.Subjects;
using ActorVmm.Testing.Guests;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Tests;

public abstract class InterruptConformance<TSubject> : Conformance<TSubject> where TSubject : IConformanceSubject, new()
{
    private const ulong Apic = GuestLayout.LocalApic;
    private const byte Vector = 0x40;
    private const uint LvtTimer = 0x320, InitialCount = 0x380, CurrentCount = 0x390, Divide = 0x3E0, Tpr = 0x80, Isr = 0x100, Irr = 0x200;
    private const uint Periodic = 1 << 17, TscDeadlineMode = 2 << 17, Masked = 1 << 16;
    private const ulong LevelTriggered = 1 << 15, PinMasked = 1 << 16;

    /// <summary>A handler that counts in EBX, ends the interrupt, and keeps all other registers.</summary>
    private static void Counting(Assembler c)
    {
        c.push(rax);
        c.push(rdx);
        c.inc(ebx);
        c.EndOfInterrupt();
        c.pop(rdx);
        c.pop(rax);
        c.iretq();
    }

    private static void Prologue(Assembler c)
    {
        c.MaskPic();
        c.EnableLocalApic();
        c.WriteMmio32(Apic + Divide, 0xB); // divide by one
        c.xor(ebx, ebx);
    }

    /// <summary>Halts with interrupts on until EBX reaches <paramref name="count"/>.</summary>
    private static void HaltUntil(Assembler c, int count)
    {
        var wait = c.CreateLabel();
        var done = c.CreateLabel();
        c.Label(ref wait);
        c.cli();
        c.cmp(ebx, count);
        c.jae(done);
        c.sti();
        c.hlt();
        c.jmp(wait);
        c.Label(ref done);
    }

    private static void ReportEbx(Assembler c)
    {
        c.mov(eax, ebx);
        c.ReportEax();
    }

    [SkippableFact]
    public void A_one_shot_timer_wakes_hlt_exactly_once()
    {
        var guest = Guest().Code(c =>
        {
            Prologue(c);
            c.WriteMmio32(Apic + LvtTimer, Vector);
            c.WriteMmio32(Apic + InitialCount, 20_000);
            HaltUntil(c, 1);
            c.ReadMmio32(Apic + CurrentCount);
            c.ReportEax();
            ReportEbx(c);
            c.Done();
        });
        guest.Handler(Vector, Counting).Start64();
        Assert.Equal([0UL, 1], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void A_periodic_timer_goes_on_by_itself()
    {
        var guest = Guest().Code(c =>
        {
            Prologue(c);
            c.WriteMmio32(Apic + LvtTimer, Vector | Periodic);
            c.WriteMmio32(Apic + InitialCount, 1_000_000);
            HaltUntil(c, 3);
            c.WriteMmio32(Apic + InitialCount, 0);
            ReportEbx(c);
            c.Done();
        });
        guest.Handler(Vector, Counting).Start64();
        Assert.InRange(Assert.Single(RunToDone(guest).Reports), 3UL, 1000UL); // two ticks may come at once on a busy host
    }

    [SkippableFact]
    public void A_tsc_deadline_fires_when_the_tsc_has_passed_it_and_disarms()
    {
        if ((Cpuid(1).Ecx & (1 << 24)) == 0) Skip.If(true, "CPUID offers no TSC deadline timer");
        var guest = Guest().Code(c =>
        {
            Prologue(c);
            c.WriteMmio32(Apic + LvtTimer, Vector | TscDeadlineMode);
            c.mfence();
            c.rdtsc();
            c.shl(rdx, 32);
            c.or(rax, rdx);
            c.add(rax, 2_000_000);
            c.mov(r12, rax);
            c.mov(rdx, rax);
            c.shr(rdx, 32);
            c.mov(ecx, 0x6E0);
            c.wrmsr();
            HaltUntil(c, 1);
            c.rdtsc();
            c.shl(rdx, 32);
            c.or(rax, rdx);
            c.cmp(rax, r12);
            c.setae(al);
            c.movzx(eax, al);
            c.ReportEax();
            c.ReadMsr(0x6E0);
            c.ReportRax();
            c.Done();
        });
        guest.Handler(Vector, Counting).Start64();
        Assert.Equal([1UL, 0], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void A_masked_timer_counts_but_does_not_interrupt()
    {
        var guest = Guest().Code(c =>
        {
            Prologue(c);
            c.WriteMmio32(Apic + LvtTimer, Vector | Masked);
            c.WriteMmio32(Apic + InitialCount, 1000);
            c.sti();
            var wait = c.CreateLabel();
            c.Label(ref wait);
            c.ReadMmio32(Apic + CurrentCount);
            c.test(eax, eax);
            c.jne(wait);
            ReportEbx(c);
            c.Done();
        });
        guest.Handler(Vector, Counting).Start64();
        Assert.Equal([0UL], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void An_edge_on_an_ioapic_pin_interrupts_once_however_long_the_line_stays_up()
    {
        var guest = Guest().Code(c =>
        {
            Prologue(c);
            c.WriteIoApic(10, Vector);
            c.Act(1);
            HaltUntil(c, 1);
            c.Act(2); // up again without having been down: no edge
            c.sti();
            c.nop();
            c.nop();
            c.cli();
            ReportEbx(c);
            c.Act(3); // down and up: an edge
            HaltUntil(c, 2);
            ReportEbx(c);
            c.Done();
        });
        guest.Actions[1] = () => guest.Machine.SetInterruptLine(10, true);
        guest.Actions[2] = () => guest.Machine.SetInterruptLine(10, true);
        guest.Actions[3] = () =>
        {
            guest.Machine.SetInterruptLine(10, false);
            guest.Machine.SetInterruptLine(10, true);
        };
        guest.Handler(Vector, Counting).Start64();
        Assert.Equal([1UL, 2], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void A_level_triggered_line_interrupts_again_after_the_end_of_interrupt_until_it_falls()
    {
        Needs("level-lines");
        var guest = Guest().Code(c =>
        {
            Prologue(c);
            c.WriteIoApic(11, Vector | LevelTriggered);
            c.Act(1);
            HaltUntil(c, 3);
            c.sti();
            c.nop();
            c.nop();
            c.cli();
            ReportEbx(c);
            c.Done();
        });
        guest.Actions[1] = () => guest.Machine.SetInterruptLine(11, true);
        guest.Actions[2] = () => guest.Machine.SetInterruptLine(11, false);
        guest.Handler(Vector, c =>
        {
            var up = c.CreateLabel();
            c.push(rax);
            c.push(rdx);
            c.inc(ebx);
            c.cmp(ebx, 3);
            c.jne(up);
            c.Act(2); // the third time the device is satisfied
            c.Label(ref up);
            c.EndOfInterrupt();
            c.pop(rdx);
            c.pop(rax);
            c.iretq();
        }).Start64();
        Assert.Equal([3UL], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void A_masked_pin_delivers_a_level_when_it_is_unmasked()
    {
        Needs("level-lines");
        var guest = Guest().Code(c =>
        {
            Prologue(c);
            c.WriteIoApic(11, Vector | LevelTriggered | PinMasked);
            c.Act(1);
            c.sti();
            c.nop();
            c.cli();
            ReportEbx(c);
            c.WriteIoApic(11, Vector | LevelTriggered);
            HaltUntil(c, 1);
            ReportEbx(c);
            c.Done();
        });
        guest.Actions[1] = () => guest.Machine.SetInterruptLine(11, true);
        guest.Actions[2] = () => guest.Machine.SetInterruptLine(11, false);
        guest.Handler(Vector, c =>
        {
            c.push(rax);
            c.push(rdx);
            c.inc(ebx);
            c.Act(2);
            c.EndOfInterrupt();
            c.pop(rdx);
            c.pop(rax);
            c.iretq();
        }).Start64();
        Assert.Equal([0UL, 1], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void The_interval_timer_reaches_the_cpu_through_the_8259_and_lint0()
    {
        var guest = Guest().Code(c =>
        {
            c.xor(ebx, ebx);
            // 8259: vectors from 0x20, all but input 0 masked (8259A data sheet, initialization).
            c.OutByte(0x20, 0x11);
            c.OutByte(0x21, 0x20);
            c.OutByte(0x21, 0x04);
            c.OutByte(0x21, 0x01);
            c.OutByte(0x21, 0xFE);
            c.OutByte(0xA1, 0xFF);
            c.EnableLocalApic();
            c.WriteMmio32(Apic + 0x350, 0x700); // LINT0: ExtINT
            // 8254 counter 0, rate generator, 2386 ticks: 2 ms.
            c.OutByte(0x43, 0x34);
            c.OutByte(0x40, 0x52);
            c.OutByte(0x40, 0x09);
            HaltUntil(c, 3);
            ReportEbx(c);
            c.Done();
        });
        guest.Handler(0x20, c =>
        {
            c.push(rax);
            c.inc(ebx);
            c.OutByte(0x20, 0x20); // end of interrupt
            c.pop(rax);
            c.iretq();
        }).Start64();
        Assert.InRange(Assert.Single(RunToDone(guest).Reports), 3UL, 1000UL);
    }

    [SkippableFact]
    public void The_interval_timer_reaches_the_cpu_through_ioapic_pin_2_and_no_other()
    {
        var guest = Guest().Code(c =>
        {
            Prologue(c);
            c.xor(esi, esi);
            c.WriteIoApic(0, Vector + 1);
            c.WriteIoApic(2, Vector);
            // 8254 counter 0, rate generator, 2386 ticks: 2 ms.
            c.OutByte(0x43, 0x34);
            c.OutByte(0x40, 0x52);
            c.OutByte(0x40, 0x09);
            HaltUntil(c, 3);
            ReportEbx(c);
            c.mov(eax, esi);
            c.ReportEax();
            c.Done();
        });
        guest.Handler(Vector, Counting).Handler(Vector + 1, c =>
        {
            c.push(rax);
            c.push(rdx);
            c.inc(esi);
            c.inc(ebx); // so that a timer on the wrong pin fails the test instead of keeping it waiting
            c.EndOfInterrupt();
            c.pop(rdx);
            c.pop(rax);
            c.iretq();
        }).Start64();
        var reports = RunToDone(guest).Reports;
        Assert.InRange(reports[0], 3UL, 1000UL);
        Assert.Equal(0UL, reports[1]);
    }

    [SkippableFact]
    public void Line_0_is_ioapic_pin_2_and_line_2_is_none()
    {
        var guest = Guest().Code(c =>
        {
            Prologue(c);
            c.WriteIoApic(2, Vector);
            c.Act(1);
            c.sti();
            c.nop();
            c.nop();
            c.cli();
            ReportEbx(c);
            c.Act(2);
            HaltUntil(c, 1);
            ReportEbx(c);
            c.Done();
        });
        guest.Actions[1] = () => guest.Machine.SetInterruptLine(2, true);
        guest.Actions[2] = () => guest.Machine.SetInterruptLine(0, true);
        guest.Handler(Vector, Counting).Start64();
        Assert.Equal([0UL, 1], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void A_line_reaches_the_8259_too()
    {
        var guest = Guest().Code(c =>
        {
            c.xor(ebx, ebx);
            c.OutByte(0x20, 0x11);
            c.OutByte(0x21, 0x20);
            c.OutByte(0x21, 0x04);
            c.OutByte(0x21, 0x01);
            c.OutByte(0x21, 0xEF); // input 4
            c.OutByte(0xA1, 0xFF);
            c.EnableLocalApic();
            c.WriteMmio32(Apic + 0x350, 0x700);
            c.Act(1);
            HaltUntil(c, 1);
            ReportEbx(c);
            c.Done();
        });
        guest.Actions[1] = () => guest.Machine.SetInterruptLine(4, true);
        guest.Handler(0x24, c =>
        {
            c.push(rax);
            c.inc(ebx);
            c.OutByte(0x20, 0x20);
            c.pop(rax);
            c.iretq();
        }).Start64();
        Assert.Equal([1UL], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void Sti_holds_interrupts_off_for_one_instruction()
    {
        Needs("prompt-interrupts");
        var guest = Guest().Code(c =>
        {
            Prologue(c);
            c.WriteIoApic(10, Vector);
            c.Act(1);
            c.sti();
            c.mov(ecx, 1); // in the shadow: comes before the interrupt
            c.mov(ecx, 2);
            c.Done();
        });
        guest.Actions[1] = () => guest.Machine.SetInterruptLine(10, true);
        guest.Handler(Vector, c =>
        {
            c.mov(eax, ecx);
            c.ReportEax();
            c.Done();
        }).Start64();
        Assert.Equal([1UL], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void Mov_ss_holds_interrupts_off_for_one_instruction()
    {
        Needs("prompt-interrupts");
        var guest = Guest().Code(c =>
        {
            Prologue(c);
            c.WriteIoApic(10, Vector);
            c.mov(esi, ss);
            c.Act(1);
            c.xor(ecx, ecx);
            // MOV SS stands in the shadow of STI and casts one of its own (SDM Vol. 3 §6.8.3): one INC comes before the interrupt.
            c.sti();
            c.mov(ss, esi);
            c.inc(ecx);
            c.inc(ecx);
            c.Done();
        });
        guest.Actions[1] = () => guest.Machine.SetInterruptLine(10, true);
        guest.Handler(Vector, c =>
        {
            c.mov(eax, ecx);
            c.ReportEax();
            c.Done();
        }).Start64();
        Assert.Equal([1UL], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void A_self_interrupt_waits_for_the_interrupt_flag()
    {
        var guest = Guest().Code(c =>
        {
            Prologue(c);
            c.WriteMmio32(Apic + 0x300, 0x40000 | Vector); // ICR: self, fixed
            ReportEbx(c);
            c.ReadMmio32(Apic + Irr + 0x20);
            c.ReportEax();
            HaltUntil(c, 1);
            ReportEbx(c);
            c.Done();
        });
        guest.Handler(Vector, Counting).Start64();
        Assert.Equal([0UL, 1, 1], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void A_higher_priority_interrupt_nests_and_a_lower_one_waits_for_the_end()
    {
        Needs("prompt-interrupts");
        var guest = Guest().Code(c =>
        {
            Prologue(c);
            c.WriteMmio32(Apic + 0x300, 0x40000 | 0x50);
            HaltUntil(c, 3);
            c.Done();
        });
        guest.Handler(0x50, c =>
        {
            c.inc(ebx);
            c.Report(0x50);
            c.WriteMmio32(Apic + 0x300, 0x40000 | 0x41); // lower class: waits
            c.WriteMmio32(Apic + 0x300, 0x40000 | 0x61); // higher: nests
            c.sti();
            c.nop();
            c.nop();
            c.cli();
            c.ReadMmio32(Apic + Isr + 0x20); // vectors 0x40 to 0x5f in service
            c.ReportEax();
            c.Report(0x5E);
            c.EndOfInterrupt();
            c.iretq();
        });
        foreach (var vector in new byte[] { 0x41, 0x61 })
        {
            guest.Handler(vector, c =>
            {
                c.inc(ebx);
                c.Report(vector);
                c.EndOfInterrupt();
                c.iretq();
            });
        }
        guest.Start64();
        Assert.Equal([0x50UL, 0x61, 1 << 0x10, 0x5E, 0x41], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void The_task_priority_holds_back_its_class_and_below_and_cr8_is_the_same_register()
    {
        var guest = Guest().Code(c =>
        {
            Prologue(c);
            c.WriteMmio32(Apic + Tpr, 0x50);
            c.mov(rax, cr8);
            c.ReportEax();
            c.WriteMmio32(Apic + 0x300, 0x40000 | Vector);
            c.sti();
            c.nop();
            c.nop();
            c.cli();
            ReportEbx(c);
            c.mov(eax, 3);
            c.mov(cr8, rax);
            c.ReadMmio32(Apic + Tpr);
            c.ReportEax();
            HaltUntil(c, 1);
            ReportEbx(c);
            c.Done();
        });
        guest.Handler(Vector, Counting).Start64();
        Assert.Equal([5UL, 0, 0x30, 1], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void An_nmi_comes_through_with_interrupts_off_and_wakes_hlt()
    {
        var guest = Guest().Code(c =>
        {
            Prologue(c);
            c.cli();
            c.Act(1);
            c.nop();
            ReportEbx(c);
            c.Done();
        });
        guest.Actions[1] = () => guest.Machine.SendNmi(0);
        guest.Handler(2, c =>
        {
            c.inc(ebx);
            c.iretq();
        }).Start64();
        Assert.Equal([1UL], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void A_second_nmi_waits_for_the_iret_of_the_first()
    {
        Needs("prompt-interrupts");
        var guest = Guest().Code(c =>
        {
            Prologue(c);
            c.Act(1);
            c.nop();
            c.nop();
            ReportEbx(c);
            c.Done();
        });
        guest.Actions[1] = () => guest.Machine.SendNmi(0);
        guest.Handler(2, c =>
        {
            var second = c.CreateLabel();
            c.inc(ebx);
            c.cmp(ebx, 2);
            c.je(second);
            c.Act(1);
            c.nop();
            c.nop();
            ReportEbx(c); // still one
            c.Label(ref second);
            c.iretq();
        }).Start64();
        Assert.Equal([1UL, 2], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void A_message_signalled_interrupt_arrives_with_its_vector()
    {
        var guest = Guest().Code(c =>
        {
            Prologue(c);
            c.Act(1);
            HaltUntil(c, 1);
            ReportEbx(c);
            c.Done();
        });
        guest.Actions[1] = () => guest.Machine.SendMsi(0xFEE0_0000, Vector);
        guest.Handler(Vector, Counting).Start64();
        Assert.Equal([1UL], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void A_halted_vcpu_wakes_for_a_line_raised_by_another_thread()
    {
        var guest = Guest().Code(c =>
        {
            Prologue(c);
            c.WriteIoApic(10, Vector);
            c.Act(1);
            HaltUntil(c, 1);
            ReportEbx(c);
            c.Done();
        });
        Thread? other = null;
        guest.Actions[1] = () =>
        {
            other = new Thread(() => guest.Machine.SetInterruptLine(10, true)) { IsBackground = true };
            other.Start();
        };
        guest.Handler(Vector, Counting).Start64();
        Assert.Equal([1UL], RunToDone(guest).Reports);
        other!.Join();
    }

    [SkippableFact]
    public void X2apic_mode_moves_the_registers_to_msrs()
    {
        if ((Cpuid(1).Ecx & (1 << 21)) == 0) Skip.If(true, "CPUID offers no x2APIC");
        var guest = Guest().Code(c =>
        {
            Prologue(c);
            c.ReadMsr(0x1B);
            c.bts(rax, 10);
            c.mov(rdx, rax);
            c.shr(rdx, 32);
            c.wrmsr();
            c.ReadMsr(0x802); // id
            c.ReportRax();
            c.ReadMsr(0x803); // version
            c.and(eax, 0xF0);
            c.ReportEax();
            c.WriteMsr(0x80F, 0x1FF);
            c.WriteMsr(0x83F, Vector); // SELF IPI
            var wait = c.CreateLabel();
            c.sti();
            c.Label(ref wait);
            c.test(ebx, ebx);
            c.je(wait);
            ReportEbx(c);
            c.Done();
        });
        guest.Handler(Vector, c =>
        {
            c.inc(ebx);
            c.push(rax);
            c.push(rcx);
            c.push(rdx);
            c.WriteMsr(0x80B, 0);
            c.pop(rdx);
            c.pop(rcx);
            c.pop(rax);
            c.iretq();
        }).Start64();
        Assert.Equal([0UL, 0x10, 1], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void A_halt_with_interrupts_off_is_reported()
    {
        var guest = Guest().Code(c =>
        {
            c.cli();
            c.hlt();
        }).Start64();
        RunTo(GuestEnd.Halted, guest);
    }

    [SkippableFact]
    public void The_local_apic_tells_its_id_version_and_the_boot_processor()
    {
        var guest = Guest().Code(c =>
        {
            c.ReadMmio32(Apic + 0x20);
            c.shr(eax, 24);
            c.ReportEax();
            c.ReadMsr(0x1B);
            c.and(eax, 0xFFFFF900);
            c.ReportEax();
            c.Done();
        }).Start64();
        Assert.Equal([0UL, 0xFEE00900], RunToDone(guest).Reports);
    }
}
