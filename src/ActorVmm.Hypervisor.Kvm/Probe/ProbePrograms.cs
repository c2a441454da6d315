using Iced.Intel;
using static ActorVmm.Hypervisor.Kvm.Probe.ProbeGuest;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Kvm.Probe;

/// <summary>The probe's guests: each proves one thing that an operating system needs.</summary>
internal static class ProbePrograms
{
    private const ulong Free = Handlers + 0x1000;

    public static void Done(Assembler c)
    {
        c.@out(DonePort, al);
        c.hlt();
    }

    public static void Report(Assembler c, AssemblerRegister32 value)
    {
        c.mov(eax, value);
        c.@out(ReportPort, eax);
    }

    public static void ToRing3(Assembler c, int flags = 0x202)
    {
        c.push(UserData | 3);
        c.push((int)UserStack);
        c.push(flags);
        c.push(UserCode64 | 3);
        c.push((int)UserCode);
        c.iretq();
    }

    /// <summary>Ring 3 ends with UD2; its handler reports R8 and R9 and the CS it came from.</summary>
    public static void ReportOnUd2(ProbeGuest guest)
    {
        guest.Place(Free, c =>
        {
            Report(c, r8d);
            Report(c, r9d);
            c.mov(eax, __dword_ptr[rsp + 8]);
            c.@out(ReportPort, eax);
            Done(c);
        });
        guest.Gate(6, Free);
    }

    public static void Ring3(ProbeGuest guest)
    {
        guest.Place(Program, c => ToRing3(c));
        guest.Place(UserCode, c =>
        {
            c.mov(r8d, 0x1234);
            c.ud2();
        });
        ReportOnUd2(guest);
    }

    /// <summary>Ring 3 reads its own CS and SS: where it runs on the host's selectors instead of the guest's, it sees those.</summary>
    public static void Ring3Selectors(ProbeGuest guest)
    {
        guest.Place(Program, c => ToRing3(c));
        guest.Place(UserCode, c =>
        {
            c.mov(r8d, cs);
            c.mov(r9d, ss);
            c.ud2();
        });
        ReportOnUd2(guest);
    }

    public static void Ring3Ports(ProbeGuest guest)
    {
        guest.Place(Program, c => ToRing3(c, 0x3202));
        guest.Place(UserCode, c =>
        {
            c.mov(eax, 0x77);
            c.@out(ReportPort, eax);
            c.@out(DonePort, al);
        });
    }

    public static void Ring3SoftwareInterrupt(ProbeGuest guest)
    {
        guest.Place(Program, c => ToRing3(c));
        guest.Place(UserCode, c =>
        {
            c.@int(0x80);
            c.mov(r9d, 0x22);
            c.ud2();
        });
        guest.Place(Free + 0x200, c =>
        {
            c.mov(r8d, 0x11);
            c.iretq();
        });
        guest.Gate(0x80, Free + 0x200, dpl: 3);
        ReportOnUd2(guest);
    }

    public static void Syscall(ProbeGuest guest)
    {
        guest.Place(Program, c =>
        {
            WriteMsr(c, 0xC000_0081, ((ulong)(UserCode32 | 3) << 48) | ((ulong)KernelCode << 32));
            WriteMsr(c, 0xC000_0082, Free + 0x200);
            WriteMsr(c, 0xC000_0084, 0x200);
            ToRing3(c);
        });
        guest.Place(UserCode, c =>
        {
            c.syscall();
            c.mov(r9d, cs);
            c.ud2();
        });
        guest.Place(Free + 0x200, c =>
        {
            // Where the handler finds itself still in ring 3, SYSRET would only fault: say so instead.
            var wrong = c.CreateLabel();
            c.mov(r8d, cs);
            c.test(r8d, 3);
            c.jne(wrong);
            c.sysretq();
            c.Label(ref wrong);
            c.ud2();
        });
        ReportOnUd2(guest);
    }

    public static void Sysenter(ProbeGuest guest)
    {
        guest.Place(Program, c =>
        {
            WriteMsr(c, 0x174, KernelCode);
            WriteMsr(c, 0x175, TrapStack);
            WriteMsr(c, 0x176, Free + 0x200);
            ToRing3(c);
        });
        guest.Place(UserCode, c => c.sysenter());
        guest.Place(Free + 0x200, c =>
        {
            c.mov(eax, cs);
            c.@out(ReportPort, eax);
            Done(c);
        });
    }

    public static void Int3(ProbeGuest guest)
    {
        guest.Place(Program, c =>
        {
            c.xor(r8d, r8d);
            c.int3();
            Report(c, r8d);
            Done(c);
        });
        guest.Place(Free, c =>
        {
            c.inc(r8d);
            c.iretq();
        });
        guest.Gate(3, Free);
    }

    public static void CompareExchange16(ProbeGuest guest) => guest.Place(Program, c =>
    {
        c.xor(eax, eax);
        c.xor(edx, edx);
        c.mov(ebx, 0x1234);
        c.xor(ecx, ecx);
        c.mov(edi, (uint)Data);
        c.@lock.cmpxchg16b(__xmmword_ptr[rdi]);
        c.mov(eax, __dword_ptr[rdi]);
        c.@out(ReportPort, eax);
        Done(c);
    });

    /// <summary>CPUID leaf 1 ECX bit 23, then the instruction.</summary>
    public static void PopulationCount(ProbeGuest guest) => guest.Place(Program, c =>
    {
        c.mov(eax, 0xF0F);
        c.popcnt(eax, eax);
        c.@out(ReportPort, eax);
        Done(c);
    });

    public static void MoveBigEndian(ProbeGuest guest) => guest.Place(Program, c =>
    {
        c.mov(ebx, (uint)Data);
        c.mov(__dword_ptr[rbx], 0x1020304);
        c.movbe(eax, __dword_ptr[rbx]);
        c.@out(ReportPort, eax);
        Done(c);
    });

    /// <summary>The upper half of a time stamp counter that was just set to 2^44.</summary>
    public static void SetTimeStamp(ProbeGuest guest) => guest.Place(Program, c =>
    {
        WriteMsr(c, 0x10, 1UL << 44);
        c.rdtsc();
        Report(c, edx);
        Done(c);
    });

    /// <summary>An interrupt that waits for STI must come two instructions later, not at some later exit.</summary>
    public static void PromptInterrupt(ProbeGuest guest)
    {
        guest.Place(Program, c =>
        {
            EnableLocalApic(c);
            c.xor(r8d, r8d);
            WriteLocalApic(c, 0x300, 0x40000 | 0x43); // to self
            c.sti();
            c.nop();
            c.nop();
            c.cli();
            Report(c, r8d);
            Done(c);
        });
        guest.Place(Free, c =>
        {
            c.mov(r8d, 0x43);
            WriteLocalApic(c, 0xB0, 0);
            c.iretq();
        });
        guest.Gate(0x43, Free);
    }

    public static void Sse(ProbeGuest guest) => guest.Place(Program, c =>
    {
        c.mov(eax, 0x55);
        c.movd(xmm0, eax);
        c.paddd(xmm0, xmm0);
        c.movd(eax, xmm0);
        c.@out(ReportPort, eax);
        Done(c);
    });

    /// <summary>CPUID leaf 1 ECX as ring 0 and then ring 3 see it.</summary>
    public static void CpuidInBothRings(ProbeGuest guest)
    {
        guest.Place(Program, c =>
        {
            c.mov(eax, 1);
            c.cpuid();
            Report(c, ecx);
            ToRing3(c);
        });
        guest.Place(UserCode, c =>
        {
            c.mov(eax, 1);
            c.cpuid();
            c.mov(r8d, ecx);
            c.ud2();
        });
        ReportOnUd2(guest);
    }

    public static void TimerInterrupt(ProbeGuest guest)
    {
        guest.Place(Program, c =>
        {
            EnableLocalApic(c);
            WriteLocalApic(c, 0x3E0, 0xB);
            WriteLocalApic(c, 0x320, 0x40);
            WriteLocalApic(c, 0x380, 50_000);
            c.sti();
            c.hlt();
            Report(c, r8d);
            Done(c);
        });
        guest.Place(Free, c =>
        {
            c.mov(r8d, 0x40);
            WriteLocalApic(c, 0xB0, 0);
            c.iretq();
        });
        guest.Gate(0x40, Free);
    }

    /// <summary>INIT and SIPI wake the second vCPU in real mode; it writes a word that the first waits for.</summary>
    public static void SecondVcpu(ProbeGuest guest)
    {
        guest.Place(Program, c =>
        {
            EnableLocalApic(c);
            WriteLocalApic(c, 0x310, 1 << 24);
            WriteLocalApic(c, 0x300, 0x4500);
            WriteLocalApic(c, 0x310, 1 << 24);
            WriteLocalApic(c, 0x300, 0x4600 | (uint)(ApCode >> 12));
            var wait = c.CreateLabel();
            c.Label(ref wait);
            c.pause();
            c.mov(eax, __dword_ptr[Data]);
            c.test(eax, eax);
            c.je(wait);
            c.@out(ReportPort, eax);
            Done(c);
        });
        guest.Place(ApCode, c =>
        {
            c.mov(ax, (ushort)(Data >> 4));
            c.mov(ds, ax);
            c.mov(__word_ptr[0], 0x5151);
            c.hlt();
        }, bitness: 16);
    }

    /// <summary>vCPU 0 sends a vector to vCPU 1, which sleeps, and waits for the word that its handler writes.</summary>
    public static void Ipi(ProbeGuest guest)
    {
        const byte vector = 0x42;
        guest.SecondProgram = UserCode;
        guest.Place(Program, c =>
        {
            EnableLocalApic(c);
            Await(Data);
            WriteLocalApic(c, 0x310, 1 << 24); // to the APIC with number 1
            WriteLocalApic(c, 0x300, 0x4000 | vector);
            Await(Data + 4);
            c.@out(ReportPort, eax);
            Done(c);

            void Await(ulong at)
            {
                var wait = c.CreateLabel();
                c.Label(ref wait);
                c.pause();
                c.mov(eax, __dword_ptr[at]);
                c.test(eax, eax);
                c.je(wait);
            }
        });
        guest.Place(UserCode, c =>
        {
            EnableLocalApic(c);
            c.mov(eax, 1);
            c.mov(__dword_ptr[Data], eax);
            var sleep = c.CreateLabel();
            c.Label(ref sleep);
            c.sti();
            c.hlt();
            c.jmp(sleep);
        });
        guest.Place(Free, c =>
        {
            c.mov(eax, vector);
            c.mov(__dword_ptr[Data + 4], eax);
            WriteLocalApic(c, 0xB0, 0);
            c.iretq();
        });
        guest.Gate(vector, Free);
    }

    /// <summary>A loop of two instructions, <paramref name="rounds"/> times, between two reports.</summary>
    public static void SpeedInRing0(ProbeGuest guest, uint rounds) => guest.Place(Program, c => Loop(c, rounds, () => Done(c)));

    public static void SpeedInRing3(ProbeGuest guest, uint rounds)
    {
        guest.Place(Program, c => ToRing3(c));
        guest.Place(UserCode, c => Loop(c, rounds, () => c.ud2()));
        ReportOnUd2(guest);
    }

    /// <summary>So many exits in a row.</summary>
    public static void Exits(ProbeGuest guest, uint rounds) => guest.Place(Program, c =>
    {
        var again = c.CreateLabel();
        c.mov(ecx, rounds);
        c.Label(ref again);
        c.@out(IdlePort, al);
        c.dec(ecx);
        c.jne(again);
        Done(c);
    });

    /// <summary>A store to <paramref name="address"/>, then an exit, so that the doorbell can be read.</summary>
    public static void Doorbell(ProbeGuest guest, ulong address) => guest.Place(Program, c =>
    {
        c.mov(ebx, (uint)address);
        c.mov(eax, 1);
        c.mov(__dword_ptr[rbx], eax);
        Done(c);
    });

    /// <summary>Asks the host (idle port) to raise an interrupt with vector 0x41, and waits for it.</summary>
    public static void InterruptFromHost(ProbeGuest guest)
    {
        guest.Place(Program, c =>
        {
            EnableLocalApic(c);
            c.@out(IdlePort, al);
            c.sti();
            c.hlt();
            Report(c, r8d);
            Done(c);
        });
        guest.Place(Free, c =>
        {
            c.mov(r8d, 0x41);
            c.iretq();
        });
        guest.Gate(0x41, Free);
    }

    /// <summary>
    /// The host raises a level-triggered line of the IOAPIC (idle port, 1) and takes it back from within the handler (idle port, 0), so many
    /// times. Reports how often the handler ran, and how often the local APIC did not show the interrupt as in service while it ran.
    /// </summary>
    public static void LevelInterrupts(ProbeGuest guest, int pin, uint rounds)
    {
        const byte vector = 0x44;
        guest.Place(Program, c =>
        {
            c.mov(al, 0xFF); // the line goes to the 8259 too
            c.@out(0x21, al);
            c.@out(0xA1, al);
            EnableLocalApic(c);
            WriteIoApic(c, 0x10 + ((uint)pin * 2), vector | (1 << 15));
            c.xor(r8d, r8d);
            c.xor(r9d, r9d);
            c.mov(r10d, rounds);
            var round = c.CreateLabel();
            var wait = c.CreateLabel();
            c.Label(ref round);
            c.mov(r11d, r8d);
            c.mov(al, 1);
            c.@out(IdlePort, al);
            c.Label(ref wait);
            c.sti();
            c.hlt();
            c.cli();
            c.cmp(r8d, r11d);
            c.je(wait);
            // One that came twice comes now, if not before.
            c.sti();
            c.nop();
            c.nop();
            c.cli();
            c.dec(r10d);
            c.jne(round);
            Report(c, r8d);
            Report(c, r9d);
            Done(c);
        });
        guest.Place(Free, c =>
        {
            var inService = c.CreateLabel();
            c.inc(r8d);
            c.mov(edx, (uint)LocalApic + 0x100 + (vector / 32 * 0x10)); // ISR
            c.mov(eax, __dword_ptr[rdx]);
            c.test(eax, 1 << (vector % 32));
            c.jne(inService);
            c.inc(r9d);
            c.Label(ref inService);
            c.xor(eax, eax);
            c.@out(IdlePort, al);
            WriteLocalApic(c, 0xB0, 0);
            c.iretq();
        });
        guest.Gate(vector, Free);
    }

    private static void WriteIoApic(Assembler c, uint register, uint value)
    {
        c.mov(edx, (uint)IoApic);
        c.mov(eax, register);
        c.mov(__dword_ptr[rdx], eax);
        c.mov(eax, value);
        c.mov(__dword_ptr[rdx + 0x10], eax);
    }

    private static void Loop(Assembler c, uint rounds, Action end)
    {
        var again = c.CreateLabel();
        c.mov(ecx, rounds);
        c.Label(ref again);
        c.dec(ecx);
        c.jne(again);
        end();
    }

    private static void WriteMsr(Assembler c, uint index, ulong value)
    {
        c.mov(ecx, index);
        c.mov(eax, (uint)value);
        c.mov(edx, (uint)(value >> 32));
        c.wrmsr();
    }

    private static void EnableLocalApic(Assembler c) => WriteLocalApic(c, 0xF0, 0x1FF);

    private static void WriteLocalApic(Assembler c, uint register, uint value)
    {
        c.mov(edx, (uint)LocalApic + register);
        c.mov(eax, value);
        c.mov(__dword_ptr[rdx], eax);
    }
}
