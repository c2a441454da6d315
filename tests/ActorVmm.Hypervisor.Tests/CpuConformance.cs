using ActorVmm.Hypervisor.Tests.Subjects;
using ActorVmm.Testing.Guests;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Tests;

/// <summary>Modes, CPUID, time stamp, code that changes itself.</summary>
public abstract class CpuConformance<TSubject> : Conformance<TSubject> where TSubject : IConformanceSubject, new()
{
    [SkippableFact]
    public void A_guest_switches_from_flat_32_bit_mode_to_64_bit_by_itself()
    {
        var guest = Guest();
        guest.Write(GuestLayout.Gdt - 0x10, GuestLayout.GdtLimit);
        guest.Write(GuestLayout.Gdt - 0xE, (uint)GuestLayout.Gdt);
        guest.Place(GuestLayout.Code, c =>
        {
            c.mov(eax, 0x11223344);
            c.@out((byte)GuestLayout.ReportPort, eax);
            c.lgdt(__[(uint)GuestLayout.Gdt - 0x10]);
            c.mov(eax, 0x620);
            c.mov(cr4, eax);
            c.mov(eax, (uint)GuestLayout.Pml4);
            c.mov(cr3, eax);
            c.mov(ecx, 0xC0000080);
            c.rdmsr();
            c.or(eax, 0x100);
            c.wrmsr();
            c.mov(eax, cr0);
            c.or(eax, 0x80000001);
            c.mov(cr0, eax);
            c.rdmsr(); // LMA is set by now
            c.and(eax, 0x400);
            c.@out((byte)GuestLayout.ReportPort, eax);
            c.db(0xEA);
            c.dd((uint)GuestLayout.Free);
            c.dw(GuestLayout.KernelCode);
        }, bitness: 32);
        guest.Place(GuestLayout.Free, c =>
        {
            c.mov(rax, 0x5566778899AABBCC);
            c.ReportRax();
            c.Done();
        });
        guest.Start32();
        Assert.Equal([0x11223344UL, 0x400, 0x5566778899AABBCC], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void Compatibility_mode_runs_32_bit_code_under_long_mode_and_returns()
    {
        var guest = Guest();
        guest.Place(GuestLayout.Free, c =>
        {
            c.mov(eax, 0xFFFFFFFF);
            c.inc(eax); // one byte 40: INC in 32-bit code, a prefix in 64-bit code
            c.sete(al);
            c.movzx(eax, al);
            c.@out((byte)GuestLayout.ReportPort, eax);
            c.db(0xEA);
            c.dd((uint)GuestLayout.Free + 0x100);
            c.dw(GuestLayout.KernelCode);
        }, bitness: 32);
        guest.Place(GuestLayout.Free + 0x100, c =>
        {
            c.mov(rax, 0x1_0000_0001);
            c.ReportRax();
            c.Done();
        });
        guest.Code(c =>
        {
            c.push(GuestLayout.KernelCode32);
            c.push((int)GuestLayout.Free);
            c.db(0x48, 0xCB);
        }).Start64();
        Assert.Equal([1UL, 0x1_0000_0001], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void Cpuid_names_a_vendor_and_offers_what_a_64_bit_system_needs()
    {
        var (max, ebxValue, ecxValue, edxValue) = Cpuid(0);
        Assert.InRange(max, 7u, 0x40u);
        var vendor = System.Text.Encoding.ASCII.GetString([.. BitConverter.GetBytes(ebxValue), .. BitConverter.GetBytes(edxValue),
            .. BitConverter.GetBytes(ecxValue)]);
        Assert.Matches("^[A-Za-z ]{12}$", vendor);
        var features = Cpuid(1);
        const uint needed = 1 << 0 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 9 | 1 << 15 | 1 << 24 | 1 << 25 | 1 << 26; // FPU PSE TSC MSR PAE CX8 APIC CMOV FXSR SSE SSE2
        Assert.Equal(needed, features.Edx & needed);
        Assert.Equal(0u, features.Ebx >> 24);
        Assert.Equal(1u << 31, features.Ecx & (1u << 31)); // under a hypervisor
        const uint extended = 1 << 11 | 1 << 20 | 1 << 29; // SYSCALL NX LM
        Assert.Equal(extended, Cpuid(0x8000_0001).Edx & extended);
        Assert.InRange(Cpuid(0x8000_0008).Eax & 0xFF, 36u, 52u);
    }

    [SkippableTheory]
    [InlineData(1, 0, 23, "popcnt")]
    [InlineData(1, 0, 13, "cmpxchg16b")]
    [InlineData(1, 0, 0, "sse3")]
    [InlineData(1, 0, 9, "ssse3")]
    [InlineData(1, 0, 19, "sse4.1")]
    [InlineData(1, 0, 20, "sse4.2")]
    [InlineData(1, 0, 22, "movbe")]
    [InlineData(1, 0, 30, "rdrand")]
    [InlineData(0x80000001, 0, 0, "lahf")]
    public void A_feature_that_cpuid_offers_executes_and_one_it_does_not_offer_is_undefined(uint leaf, uint subleaf, int ecxBit,
        string feature)
    {
        if (feature is "movbe" or "popcnt" or "cmpxchg16b") Needs(feature);
        var offered = (Cpuid(leaf, subleaf).Ecx & (1u << ecxBit)) != 0;
        var guest = Guest().Code(c =>
        {
            var after = c.CreateLabel();
            c.ExpectFault(after);
            c.mov(ebx, (uint)GuestLayout.Data);
            c.mov(eax, 0x0F0F);
            switch (feature)
            {
                case "popcnt": c.popcnt(eax, eax); break;
                case "cmpxchg16b": c.cmpxchg16b(__xmmword_ptr[rbx]); break;
                case "sse3": c.haddps(xmm0, xmm0); break;
                case "ssse3": c.pabsb(xmm0, xmm0); break;
                case "sse4.1": c.pmulld(xmm0, xmm0); break;
                case "sse4.2": c.crc32(eax, eax); break;
                case "movbe": c.movbe(eax, __dword_ptr[rbx]); break;
                case "rdrand": c.rdrand(eax); break;
                default: c.lahf(); break;
            }
            c.Report(1);
            c.Label(ref after);
            c.Done();
        }).Start64();
        var run = RunToDone(guest);
        if (offered) Assert.Equal([1UL], run.Reports);
        else if (run.Faults.Count > 0) Assert.Equal(6, Assert.Single(run.Faults).Vector);
        // Hardware may execute what a hypervisor hides: without a trap for it, that is no error of ours.
        else Assert.Equal("kvm", Subject.Hypervisor.Name);
    }

    [SkippableFact]
    public void Compare_and_exchange_of_sixteen_bytes_stores_on_equality_and_loads_otherwise()
    {
        if ((Cpuid(1).Ecx & (1 << 13)) == 0) Skip.If(true, "CPUID offers no CMPXCHG16B");
        var guest = Guest();
        guest.Write(GuestLayout.Data, 0x11UL);
        guest.Write(GuestLayout.Data + 8, 0x22UL);
        guest.Code(c =>
        {
            c.mov(edi, (uint)GuestLayout.Data);
            c.mov(eax, 0x11);
            c.mov(edx, 0x22);
            c.mov(ebx, 0x33);
            c.mov(ecx, 0x44);
            c.@lock.cmpxchg16b(__xmmword_ptr[rdi]);
            c.sete(r8b);
            c.@lock.cmpxchg16b(__xmmword_ptr[rdi]); // differs now
            c.sete(r9b);
            c.ReportRax();
            c.mov(rax, rdx);
            c.ReportRax();
            c.movzx(eax, r8b);
            c.ReportEax();
            c.movzx(eax, r9b);
            c.ReportEax();
            c.Done();
        }).Start64();
        Assert.Equal([0x33UL, 0x44, 1, 0], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void The_time_stamp_counter_never_goes_back_and_advances()
    {
        var run = Run(c =>
        {
            var again = c.CreateLabel();
            c.xor(ebx, ebx);
            c.xor(edi, edi);
            c.mov(esi, 200);
            c.Label(ref again);
            c.rdtsc();
            c.shl(rdx, 32);
            c.or(rax, rdx);
            c.cmp(rax, rbx);
            c.adc(edi, 0); // counts the times it was below
            c.mov(rbx, rax);
            c.dec(esi);
            c.jne(again);
            c.mov(eax, edi);
            c.ReportEax();
            c.rdtsc();
            c.shl(rdx, 32);
            c.or(rax, rdx);
            c.ReportRax();
            c.Done();
        });
        Assert.Equal(0UL, run.Reports[0]);
        Assert.True(run.Reports[1] > 0);
    }

    [SkippableFact]
    public void The_time_stamp_counter_can_be_set()
    {
        Needs("tsc-write");
        var run = Run(c =>
        {
            c.WriteMsr(0x10, 0x1000_0000_0000);
            c.rdtsc();
            c.mov(eax, edx);
            c.ReportEax();
            c.Done();
        });
        Assert.InRange(run.Reports[0], 0x1000UL, 0x1010UL);
    }

    [SkippableFact]
    public void Code_that_changes_itself_runs_as_changed()
    {
        var guest = Guest();
        guest.Place(GuestLayout.Free, c =>
        {
            c.mov(eax, 1); // B8 imm32
            c.ret();
        });
        guest.Code(c =>
        {
            var again = c.CreateLabel();
            c.mov(ebx, (uint)GuestLayout.Free);
            c.mov(esi, 50);
            c.xor(edi, edi);
            c.Label(ref again);
            c.call(rbx);
            c.add(edi, eax);
            c.inc(__dword_ptr[rbx + 1]); // the immediate
            c.dec(esi);
            c.jne(again);
            c.mov(eax, edi);
            c.ReportEax();
            c.Done();
        }).Start64();
        Assert.Equal([1275UL], RunToDone(guest).Reports); // 1 + 2 + ... + 50
    }

    [SkippableFact]
    public void Code_changed_through_another_mapping_of_its_page_runs_as_changed()
    {
        var guest = Guest();
        guest.Map(GuestLayout.MappedArea, GuestLayout.Free, PageBits.KernelData);
        guest.Map(GuestLayout.MappedArea + 0x3000, GuestLayout.Free, PageBits.KernelData);
        guest.Place(GuestLayout.Free, c =>
        {
            c.mov(eax, 7);
            c.ret();
        });
        guest.Code(c =>
        {
            var again = c.CreateLabel();
            c.mov(rbx, GuestLayout.MappedArea);
            c.mov(rbp, GuestLayout.MappedArea + 0x3000);
            c.mov(esi, 20);
            c.xor(edi, edi);
            c.Label(ref again);
            c.call(rbx);
            c.add(edi, eax);
            c.mov(__byte_ptr[rbp + 1], 9);
            c.call(rbx);
            c.add(edi, eax);
            c.mov(__byte_ptr[rbp + 1], 7);
            c.dec(esi);
            c.jne(again);
            c.mov(eax, edi);
            c.ReportEax();
            c.Done();
        }).Start64();
        Assert.Equal([320UL], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void An_instruction_that_changes_the_one_right_behind_it_in_a_loop_is_obeyed()
    {
        var guest = Guest();
        const ulong at = GuestLayout.Free;
        guest.Place(at, c =>
        {
            c.mov(__byte_ptr[rbp], bl); // 88 5D 00: three bytes, patches the opcode at at+3
            c.nop(); // at + 3: becomes STC (F9), then CLC (F8)
            c.ret();
        });
        guest.Code(c =>
        {
            c.mov(ebp, (uint)at + 3);
            c.mov(esi, (uint)at);
            c.mov(ebx, 0xF9); // STC
            c.clc();
            c.call(rsi);
            c.setb(al);
            c.movzx(eax, al);
            c.ReportEax();
            c.mov(ebx, 0xF8); // CLC
            c.stc();
            c.call(rsi);
            c.setb(al);
            c.movzx(eax, al);
            c.ReportEax();
            c.Done();
        }).Start64();
        Assert.Equal([1UL, 0], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void Writes_by_a_device_to_code_are_obeyed()
    {
        var guest = Guest();
        guest.Place(GuestLayout.Free, c =>
        {
            c.mov(eax, 1);
            c.ret();
        });
        guest.Actions[1] = () => guest.Write(GuestLayout.Free + 1, 0x77u);
        guest.Code(c =>
        {
            c.mov(ebx, (uint)GuestLayout.Free);
            c.call(rbx);
            c.ReportEax();
            c.Act(1);
            c.call(rbx);
            c.ReportEax();
            c.Done();
        }).Start64();
        Assert.Equal([1UL, 0x77], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void Fs_and_gs_bases_come_from_their_msrs()
    {
        var guest = Guest();
        guest.Write(GuestLayout.Data + 0x10, 0xF5u);
        guest.Write(GuestLayout.Data + 0x110, 0x65u);
        guest.Code(c =>
        {
            c.WriteMsr(0xC000_0100, GuestLayout.Data);
            c.WriteMsr(0xC000_0101, GuestLayout.Data + 0x100);
            c.mov(eax, __dword_ptr.fs[0x10]);
            c.ReportEax();
            c.mov(eax, __dword_ptr.gs[0x10]);
            c.ReportEax();
            c.Done();
        }).Start64();
        Assert.Equal([0xF5UL, 0x65], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void Vector_registers_survive_exits()
    {
        var run = Run(c =>
        {
            c.mov(eax, 0x1234);
            c.movd(xmm7, eax);
            c.@out(0x80, al);
            c.movd(eax, xmm7);
            c.ReportEax();
            c.Done();
        });
        Assert.Equal([0x1234UL], run.Reports);
    }
}
