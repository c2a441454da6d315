using ActorVmm.Hypervisor.Soft.Cpu;
using ActorVmm.Hypervisor.Soft.Tests.SystemSide;
using Iced.Intel;
using Xunit;
using static ActorVmm.Hypervisor.Soft.Tests.SystemSide.SystemBench;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Soft.Tests.Compiler;

/// <summary>
/// Strings, vectors and divisions where compiled code must hand over to tier 0 in the middle: each story runs interpreted, compiled at once
/// and compiled on the way, and ends in the same registers, flags, memory and count of instructions.
/// </summary>
public sealed unsafe class CompiledGroupsTests
{
    private const ulong Handler = 0x1_8000, Data = 0x8_0000, Other = 0x9_0000, PageTable = 0x7000, PageDirectory = 0x3000;
    private const ulong Window = 0xC0_0000; // entry 6 of the page directory: 4 KiB pages, of which some are absent

    /// <summary>Runs a story at each threshold; what it leaves is compared word by word.</summary>
    private static void SameAtEachThreshold(Action<SystemBench> prepare, Action<Assembler> code, params ulong[] memory)
    {
        ulong[] Story(int threshold)
        {
            using var b = new SystemBench(threshold).Long();
            int[] faults = [Vector.De, Vector.Nm, Vector.Ud, Vector.Gp, Vector.Pf, Vector.Xm];
            foreach (var vector in faults) b.Gate64(vector, Code64, Handler);
            b.Place(64, c => c.hlt(), Handler);
            b.S->Cr4 |= VectorGuard.Cr4Osfxsr | VectorGuard.Cr4Osxmmexcpt;
            for (ulong n = 0; n < 0x4000; n += 8) b.Write(Data + n, n * 0x9E37_79B9_7F4A_7C15);
            prepare(b);
            b.RunToHalt(64, code);
            Assert.True(threshold == 0 || b.Cpu.Tier!.Compilations > 0);
            var left = new List<ulong>();
            for (var n = 0; n < 16; n++) left.Add(b.S->Regs[n]);
            for (var n = 0; n < 32; n++) left.Add(b.S->Xmm[n]);
            left.AddRange([b.S->Mxcsr, Flags.Get(b.S), b.S->Cr2, b.S->Rip, b.Cpu.Retired]);
            // An exception's frame, where there was one.
            for (ulong at = 8; at <= 0x40; at += 8) left.Add(b.Read<ulong>(Stack - at));
            foreach (var at in memory)
                for (ulong n = 0; n < 0x200; n += 8) left.Add(b.Read<ulong>(at + n));
            return [.. left];
        }

        var interpreted = Story(0);
        Assert.Equal(interpreted, Story(1));
        Assert.Equal(interpreted, Story(4));
    }

    private static void Repeat(Assembler c, int times, Action body)
    {
        var again = c.CreateLabel();
        c.mov(r15d, times);
        c.Label(ref again);
        body();
        c.dec(r15d);
        c.jne(again);
        c.hlt();
    }

    /// <summary>Two pages of the window lead to RAM, the one behind them nowhere.</summary>
    private static void MapWindow(SystemBench b)
    {
        b.Write(PageDirectory + 6 * 8, PageTable | 7);
        b.Write(PageTable, Other | 7);
        b.Write(PageTable + 8, (Other + 0x1000) | 7);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(3)]
    [InlineData(13)]
    public void A_repeated_move_faults_at_the_element_that_cannot_be_stored(int skew) => SameAtEachThreshold(MapWindow, c => Repeat(c, 30, () =>
    {
        // Ever nearer to the page that is absent; the last rounds reach into it.
        c.mov(rsi, Data + (ulong)skew);
        c.mov(edi, 0x2000 - 300);
        c.sub(edi, r15d);
        c.add(rdi, (int)Window);
        c.mov(ecx, 300);
        c.add(ecx, r15d);
        c.mov(eax, r15d);
        c.cmp(eax, 5);
        c.setb(dl);
        c.movzx(edx, dl);
        c.add(ecx, edx);
        c.rep.movsb();
        c.lea(rbx, __[rdi + rcx]);
    }), Other + 0x1E00);

    [Fact]
    public void A_repeated_comparison_stops_where_its_elements_differ_and_faults_behind_the_last_page() => SameAtEachThreshold(MapWindow, c =>
    {
        c.mov(rsi, Data);
        c.mov(edi, (int)Window);
        c.mov(ecx, 0x400);
        c.rep.movsq();
        Repeat(c, 40, () =>
        {
            c.mov(rsi, Data);
            c.mov(edi, (int)Window);
            c.mov(ecx, r15d);
            c.and(ecx, 7); // none at all, too
            c.cmp(r15d, 3);
            c.repe.cmpsw();
            c.setbe(r8b);
            c.mov(ecx, 0x300);
            c.mov(eax, r15d);
            c.mov(edi, (int)Window);
            c.repne.scasb();
            c.sete(r9b);
            c.pushfq();
            c.pop(r10);
            c.lea(r11, __[rdi + rcx]);
            // From the fifth-last round on over the end.
            c.mov(eax, r15d);
            c.mov(ebx, 5);
            c.xor(edx, edx);
            c.div(ebx);
            c.cmp(eax, 1);
            c.sbb(ecx, ecx);
            c.and(ecx, 0x400);
            c.add(ecx, 0x20);
            c.mov(edi, (int)Window + 0x1FC0);
            c.mov(rsi, Data + 0x1FC0);
            c.repe.cmpsb();
        });
    }, Other);

    [Fact]
    public void Strings_go_down_where_the_direction_flag_says_so() => SameAtEachThreshold(_ => { }, c => Repeat(c, 20, () =>
    {
        c.mov(rsi, Data + 0x1000);
        c.mov(rdi, Other + 0x1000);
        c.mov(ecx, 0x30);
        c.std();
        c.rep.movsd();
        c.lodsq();
        c.stosw();
        c.cld();
        c.movsb();
        c.mov(ecx, 9);
        c.rep.stosq();
        c.lodsd();
        c.mov(ecx, 5);
        c.rep.lodsw();
        c.cmpsb();
        c.setb(r8b);
        c.scasq();
        c.adc(r9, 1);
    }), Other + 0xF00, Other + 0x1000);

    [Theory]
    [InlineData(1)]
    [InlineData(7)]
    [InlineData(200)]
    public void An_overlapping_repeated_move_repeats_its_pattern(int distance) => SameAtEachThreshold(_ => { }, c => Repeat(c, 12, () =>
    {
        c.mov(rsi, Data + 0x101);
        c.lea(rdi, __[rsi + distance]);
        c.mov(ecx, 250);
        c.rep.movsb();
        c.mov(rsi, Data + 0x801);
        c.lea(rdi, __[rsi - distance]);
        c.mov(ecx, 60);
        c.rep.movsd();
    }), Data + 0x100, Data + 0x700);

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(4)]
    public void A_repeated_store_over_the_own_block_runs_what_it_wrote(int threshold)
    {
        using var b = new SystemBench(threshold).Long();
        b.RunToHalt(64, c =>
        {
            var (again, patched) = (c.CreateLabel(), c.CreateLabel());
            c.xor(r8d, r8d);
            c.mov(r15d, 30);
            c.Label(ref again);
            c.lea(rdi, __[patched]);
            c.inc(rdi);
            c.mov(eax, r15d);
            c.mov(ecx, 2);
            c.rep.stosb(); // both low bytes of the immediate
            c.Label(ref patched);
            c.mov(ebx, 0x10000);
            c.add(r8, rbx);
            c.dec(r15d);
            c.jne(again);
            c.hlt();
        });
        Assert.Equal((30UL * 31 / 2 * 0x101) + (30 * 0x10000), b.S->Regs[8]);
    }

    [Theory]
    [InlineData(0x1F80u)]
    [InlineData(0x7F80u)] // towards zero
    [InlineData(0xBFC0u)] // down, tiny numbers are zero
    public void Rounding_and_sticky_flags_are_the_guests(uint mxcsr) => SameAtEachThreshold(b =>
    {
        b.Write(Other, mxcsr);
        b.Write(Other + 8, 0x1F80u);
        b.Write(Other + 16, 0.1);
        b.Write(Other + 24, double.Epsilon);
        b.Write(Other + 32, -3.0);
    }, c => Repeat(c, 20, () =>
    {
        c.mov(rbp, Other);
        c.ldmxcsr(__dword_ptr[rbp]);
        c.cvtsi2sd(xmm0, r15);
        c.mulsd(xmm0, __qword_ptr[rbp + 16]);
        c.movsd(xmm1, __qword_ptr[rbp + 24]);
        c.addsd(xmm1, xmm1);
        c.sqrtsd(xmm2, __qword_ptr[rbp + 32]);
        c.cvtsd2si(rax, xmm0);
        c.cvtsd2ss(xmm3, xmm0);
        c.stmxcsr(__dword_ptr[rbp + 64]);
        c.ldmxcsr(__dword_ptr[rbp + 8]);
        c.mulsd(xmm15, xmm0);
        c.divpd(xmm14, xmm0);
        c.comisd(xmm0, __qword_ptr[rbp + 32]);
        c.seta(bl);
        c.ucomisd(xmm2, xmm0);
        c.setp(bh);
        c.stmxcsr(__dword_ptr[rbp + 68]);
        c.pushfq();
        c.pop(rdx);
    }), Other);

    [Fact]
    public void An_unmasked_exception_is_raised_at_its_instruction() => SameAtEachThreshold(b =>
    {
        b.Write(Other, 0x1F80u & ~0x200u); // division by zero
        b.Write(Other + 16, 7.0);
        b.Write(Other + 24, 0.0);
    }, c => Repeat(c, 20, () =>
    {
        c.mov(rbp, Other);
        c.ldmxcsr(__dword_ptr[rbp]);
        c.cvtsi2sd(xmm0, r15);
        c.addpd(xmm1, xmm0);
        c.subsd(xmm0, __qword_ptr[rbp + 16]);
        c.movapd(xmm4, xmm1);
        c.divsd(xmm4, xmm0); // by zero in the fourteenth round
        c.inc(r8);
    }));

    /// <summary>A block ends after 48 instructions, wherever that is.</summary>
    [Fact]
    public void Vectors_go_on_from_block_to_block_without_a_jump() => SameAtEachThreshold(_ => { }, c => Repeat(c, 20, () =>
    {
        c.movd(xmm0, r15d);
        for (var n = 0; n < 60; n++)
        {
            c.paddd(xmm0, xmm1);
            c.pshufd(xmm1, xmm0, 0x39);
            c.pxor(xmm14, xmm1);
        }
        c.movq(rax, xmm14);
    }));

    [Theory]
    [InlineData(Cr0Bits.Ts)]
    [InlineData(Cr0Bits.Em)]
    public void Vectors_that_the_system_withholds_fault(ulong bit) => SameAtEachThreshold(_ => { }, c =>
    {
        var (again, use) = (c.CreateLabel(), c.CreateLabel());
        c.mov(r15d, 20);
        c.Label(ref again);
        c.cmp(r15d, 3);
        c.jne(use);
        c.mov(rax, cr0);
        c.or(rax, (int)bit);
        c.mov(cr0, rax);
        c.Label(ref use);
        c.inc(r8);
        c.paddd(xmm1, xmm2);
        c.pcmpeqb(xmm2, xmm2);
        c.psubb(xmm3, xmm2);
        c.dec(r15d);
        c.jne(again);
        c.hlt();
    });

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    public void A_misaligned_vector_operand_faults_where_alignment_is_asked_for(int kind) => SameAtEachThreshold(_ => { }, c => Repeat(c, 20, () =>
    {
        c.xor(eax, eax);
        c.cmp(r15d, 4);
        c.sete(al);
        c.mov(rdi, Data + 0x200);
        c.add(rdi, rax);
        c.movups(xmm1, __xmmword_ptr[rdi + 3]);
        c.paddq(xmm9, xmm1);
        c.movlhps(xmm14, xmm9);
        c.movdqu(__xmmword_ptr[rdi + 0x55], xmm14);
        if (kind == 0) c.pxor(xmm3, __xmmword_ptr[rdi]);
        else c.movaps(__xmmword_ptr[rdi], xmm9);
    }), Data + 0x200);

    [Fact]
    public void Divisions_whose_quotient_does_not_fit_fault() => SameAtEachThreshold(_ => { }, c => Repeat(c, 40, () =>
    {
        c.mov(eax, 1000);
        c.cdq();
        c.mov(ebx, r15d);
        c.sub(ebx, 5);
        c.cmp(r15d, 7);
        c.idiv(ebx); // by zero in the 36th round
        c.adc(r8d, eax);
        c.add(r9d, edx);
        c.movzx(eax, r15b);
        c.mov(ah, 0);
        c.mov(cl, 3);
        c.div(cl);
        c.add(r10w, ax);
        c.mov(rdx, -1);
        c.mov(rax, -77777);
        c.idiv(r15);
        c.add(r11, rax);
        c.xor(edx, edx);
        c.div(r15);
        c.add(r12, rax);
    }));

    [Fact]
    public void Locked_forms_leave_the_flags_of_their_results() => SameAtEachThreshold(_ => { }, c => Repeat(c, 20, () =>
    {
        c.mov(rdi, Data + 0x40);
        foreach (var step in (Action[])
        [
            () => c.@lock.inc(__dword_ptr[rdi]), () => c.@lock.dec(__byte_ptr[rdi + 4]), () => c.@lock.neg(__qword_ptr[rdi + 8]),
            () => c.@lock.not(__word_ptr[rdi + 16]), () => c.@lock.adc(__dword_ptr[rdi + 20], eax),
            () => c.@lock.sbb(__qword_ptr[rdi + 24], 5), () => c.@lock.bts(__qword_ptr[rdi + 32], r15),
            () => c.@lock.btr(__dword_ptr[rdi + 40], 7), () => c.@lock.btc(__word_ptr[rdi + 44], 3),
            () => c.@lock.btc(__dword_ptr[rdi], r13d), () => c.@lock.cmpxchg8b(__qword_ptr[rdi + 48]),
            () => c.@lock.cmpxchg16b(__xmmword_ptr[rdi + 64]), () => c.@lock.xadd(__word_ptr[rdi + 80], cx),
            () => c.bt(__qword_ptr[rdi], r13), () => c.shld(r9, r8, 5), () => c.shrd(r9d, r8d, cl), () => c.rcr(r9, 1),
            () => c.rcl(__byte_ptr[rdi], 3), () => c.ror(__qword_ptr[rdi], cl), () => c.shr(__dword_ptr[rdi + 4], 3), () => c.cmc(),
            () => c.sahf(), () => c.neg(__dword_ptr[rdi]), () => c.popcnt(r10, r9), () => c.and(ah, 0x5A), () => c.rol(bh, cl),
        ])
        {
            step();
            c.pushfq();
            c.pop(r14);
            c.adc(r11, r14);
            c.lahf();
            step();
            c.setb(bl);
            c.lea(r8, __[r8 + rbx + 3]);
            c.movzx(r13d, r8b); // a bit number that stays in the data
        }
    }), Data);
}
