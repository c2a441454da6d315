using ActorVmm.Hypervisor.Tests.Subjects;
using ActorVmm.Testing.Guests;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Tests;

/// <summary>Several vCPUs: start-up, interrupts between them, memory they share.</summary>
public abstract class SmpConformance<TSubject> : Conformance<TSubject> where TSubject : IConformanceSubject, new()
{
    private const ulong Apic = GuestLayout.LocalApic;
    private const ulong Trampoline = 0x8000, LongMode = GuestLayout.Free, Counter = GuestLayout.Data, Arrived = GuestLayout.Data + 0x40,
        Flag = GuestLayout.Data + 0x80;

    /// <summary>INIT, then twice SIPI, to all other vCPUs (Intel MP specification §B.4).</summary>
    private static void StartOthers(Assembler c)
    {
        c.MaskPic();
        c.EnableLocalApic();
        c.WriteMmio32(Apic + 0x300, 0xC4500);
        c.WriteMmio32(Apic + 0x300, 0xC4600 | (uint)(Trampoline >> 12));
        c.WriteMmio32(Apic + 0x300, 0xC4600 | (uint)(Trampoline >> 12));
    }

    /// <summary>Real mode to protected mode to long mode, by the guest's own tables; then <see cref="LongMode"/>.</summary>
    private static void PlaceTrampoline(TinyGuest guest)
    {
        const ulong pointer = Trampoline + 0xF00, protectedMode = Trampoline + 0x200;
        guest.Write(pointer, GuestLayout.GdtLimit);
        guest.Write(pointer + 2, (uint)GuestLayout.Gdt);
        guest.Place(Trampoline, c =>
        {
            c.cli();
            c.mov(ax, cs);
            c.mov(ds, ax);
            c.lgdt(__[0xF00]);
            c.mov(eax, cr0);
            c.or(eax, 1);
            c.mov(cr0, eax);
            // JMP FAR ptr16:32 (66 EA): to 32-bit code.
            c.db(0x66, 0xEA);
            c.dd((uint)protectedMode);
            c.dw(GuestLayout.KernelCode32);
        }, bitness: 16, origin: 0);
        guest.Place(protectedMode, c =>
        {
            c.mov(ax, GuestLayout.KernelData);
            c.mov(ds, ax);
            c.mov(es, ax);
            c.mov(ss, ax);
            EnterLongMode(c);
            c.db(0xEA);
            c.dd((uint)LongMode);
            c.dw(GuestLayout.KernelCode);
        }, bitness: 32);
    }

    private static void EnterLongMode(Assembler c)
    {
        c.mov(eax, 0x620);
        c.mov(cr4, eax);
        c.mov(eax, (uint)GuestLayout.Pml4);
        c.mov(cr3, eax);
        c.mov(ecx, 0xC0000080);
        c.rdmsr();
        c.or(eax, 0x901); // NXE, LME, SCE
        c.wrmsr();
        c.mov(eax, cr0);
        c.or(eax, 0x80010001);
        c.mov(cr0, eax);
    }

    private static void WaitFor(Assembler c, ulong at, int atLeast)
    {
        var wait = c.CreateLabel();
        c.Label(ref wait);
        c.pause();
        c.mov(eax, __dword_ptr[at]);
        c.cmp(eax, atLeast);
        c.jb(wait);
    }

    [SkippableFact]
    public void Other_vcpus_wait_for_sipi()
    {
        var guest = Guest(vcpus: 2);
        Assert.Equal(VcpuActivity.WaitForInit, guest.Machine.Vcpus[1].GetState().Activity);
        Assert.Equal(0xFEE00900UL, guest.Machine.Vcpus[0].GetState().Special.ApicBase);
        Assert.Equal(0xFEE00800UL, guest.Machine.Vcpus[1].GetState().Special.ApicBase);
    }

    [SkippableTheory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(4)]
    public void Init_and_sipi_start_every_other_vcpu_in_real_mode_at_the_vector(int vcpus)
    {
        var guest = Guest(vcpus);
        guest.EndsWhenHalted = false;
        guest.Place(Trampoline, c =>
        {
            c.xor(ax, ax);
            c.mov(ds, ax);
            c.mov(ax, (ushort)(Arrived >> 4));
            c.mov(ds, ax);
            c.@lock.inc(__dword_ptr[0]);
            c.cli();
            c.hlt();
        }, bitness: 16, origin: 0);
        guest.Code(c =>
        {
            StartOthers(c);
            WaitFor(c, Arrived, vcpus - 1);
            c.ReportEax();
            c.Done();
        }).Start64();
        Assert.Equal([(ulong)vcpus - 1], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void A_second_vcpu_goes_from_real_through_protected_to_long_mode()
    {
        var guest = Guest(vcpus: 2);
        guest.EndsWhenHalted = false;
        PlaceTrampoline(guest);
        guest.Place(LongMode, c =>
        {
            c.mov(rax, 0x1122334455667788);
            c.mov(__qword_ptr[Flag + 8], rax);
            c.mov(eax, 1);
            c.cpuid();
            c.shr(ebx, 24);
            c.mov(__dword_ptr[Flag + 16], ebx);
            c.mov(__dword_ptr[Flag], 1);
            c.cli();
            c.hlt();
        });
        guest.Code(c =>
        {
            StartOthers(c);
            WaitFor(c, Flag, 1);
            c.mov(rax, __qword_ptr[Flag + 8]);
            c.ReportRax();
            c.mov(eax, __dword_ptr[Flag + 16]);
            c.ReportEax();
            c.Done();
        }).Start64();
        Assert.Equal([0x1122334455667788UL, 1], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void Locked_increments_of_two_vcpus_add_up()
    {
        const int rounds = 20_000;
        var guest = Guest(vcpus: 2);
        guest.EndsWhenHalted = false;
        PlaceTrampoline(guest);
        guest.Place(LongMode, c =>
        {
            c.@lock.inc(__dword_ptr[Arrived]);
            WaitFor(c, Flag, 1);
            Count(c);
            c.@lock.inc(__dword_ptr[Arrived]);
            c.cli();
            c.hlt();
        });
        guest.Code(c =>
        {
            StartOthers(c);
            WaitFor(c, Arrived, 1);
            c.mov(__dword_ptr[Flag], 1);
            Count(c);
            WaitFor(c, Arrived, 2);
            c.mov(eax, __dword_ptr[Counter]);
            c.ReportEax();
            c.mov(eax, __dword_ptr[Counter + 8]);
            c.ReportEax();
            c.Done();
        }).Start64();
        Assert.Equal([2UL * rounds * 2, 2UL * rounds], RunToDone(guest).Reports);

        static void Count(Assembler c)
        {
            var again = c.CreateLabel();
            var retry = c.CreateLabel();
            c.mov(ecx, rounds);
            c.Label(ref again);
            c.@lock.inc(__dword_ptr[Counter]);
            c.mov(edx, 1);
            c.@lock.xadd(__dword_ptr[Counter], edx);
            c.Label(ref retry);
            c.mov(eax, __dword_ptr[Counter + 8]);
            c.lea(edx, __[rax + 1]);
            c.@lock.cmpxchg(__dword_ptr[Counter + 8], edx);
            c.jne(retry);
            c.dec(ecx);
            c.jne(again);
        }
    }

    [SkippableFact]
    public void An_interrupt_sent_by_one_vcpu_wakes_the_halted_other()
    {
        var guest = Guest(vcpus: 2);
        guest.EndsWhenHalted = false;
        PlaceTrampoline(guest);
        guest.Write(GuestLayout.Idt - 0x10, (ushort)0xFFF);
        guest.Write(GuestLayout.Idt - 0xE, GuestLayout.Idt);
        guest.Place(LongMode, c =>
        {
            c.mov(rsp, GuestLayout.IstStack);
            c.lidt(__[GuestLayout.Idt - 0x10]);
            c.EnableLocalApic();
            c.mov(__dword_ptr[Arrived], 1);
            var wait = c.CreateLabel();
            c.Label(ref wait);
            c.sti();
            c.hlt();
            c.jmp(wait);
        });
        guest.Handler(0x42, c =>
        {
            c.@lock.inc(__dword_ptr[Flag]);
            c.EndOfInterrupt();
            c.iretq();
        });
        guest.Code(c =>
        {
            StartOthers(c);
            WaitFor(c, Arrived, 1);
            c.WriteMmio32(Apic + 0x310, 1 << 24); // to APIC id 1
            c.WriteMmio32(Apic + 0x300, 0x4042);
            WaitFor(c, Flag, 1);
            c.WriteMmio32(Apic + 0x300, 0xC4042); // to all but self
            WaitFor(c, Flag, 2);
            c.ReportEax();
            c.Done();
        }).Start64();
        Assert.Equal([2UL], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void Stores_of_one_vcpu_are_seen_in_order_by_the_other()
    {
        const int rounds = 20_000;
        var guest = Guest(vcpus: 2);
        guest.EndsWhenHalted = false;
        PlaceTrampoline(guest);
        // Message passing: data before flag; who sees the flag must see the data (x86-TSO).
        guest.Place(LongMode, c =>
        {
            var again = c.CreateLabel();
            c.mov(__dword_ptr[Arrived], 1);
            c.mov(ecx, 1);
            c.Label(ref again);
            c.mov(__dword_ptr[Counter], ecx);
            c.mov(__dword_ptr[Flag], ecx);
            c.inc(ecx);
            c.cmp(ecx, rounds);
            c.jbe(again);
            c.cli();
            c.hlt();
        });
        guest.Code(c =>
        {
            var again = c.CreateLabel();
            var fine = c.CreateLabel();
            StartOthers(c);
            c.xor(ebx, ebx);
            c.Label(ref again);
            c.mov(eax, __dword_ptr[Flag]);
            c.mov(edx, __dword_ptr[Counter]);
            c.cmp(edx, eax);
            c.jae(fine);
            c.inc(ebx);
            c.Label(ref fine);
            c.cmp(eax, rounds);
            c.jb(again);
            c.mov(eax, ebx);
            c.ReportEax();
            c.Done();
        }).Start64();
        Assert.Equal([0UL], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void Init_stops_a_running_vcpu_until_the_next_sipi()
    {
        var guest = Guest(vcpus: 2);
        guest.EndsWhenHalted = false;
        PlaceTrampoline(guest);
        guest.Place(LongMode, c =>
        {
            var spin = c.CreateLabel();
            c.@lock.inc(__dword_ptr[Arrived]);
            c.Label(ref spin);
            c.pause();
            c.jmp(spin);
        });
        guest.Code(c =>
        {
            StartOthers(c);
            WaitFor(c, Arrived, 1);
            StartOthers(c);
            WaitFor(c, Arrived, 2);
            c.ReportEax();
            c.Done();
        }).Start64();
        Assert.Equal([2UL], RunToDone(guest).Reports);
    }
}
