using ActorVmm.Hypervisor.Soft.Cpu;
using ActorVmm.Hypervisor.Soft.Tests.SystemSide;
using Iced.Intel;
using Xunit;
using static ActorVmm.Hypervisor.Soft.Tests.SystemSide.SystemBench;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Soft.Tests.Compiler;

/// <summary>Address spaces, PCIDs, global pages, and code that another vCPU writes: through the interpreter, and compiled.</summary>
public sealed unsafe class AddressSpaceTests
{
    private const ulong PageDirectory = 0x3000, Window = 0xC0_0000, SecondPml4 = 0x9000, Procedure = 0x1_2000, Handler = 0x1_4000;
    private const int WindowEntry = 6;
    private const long LargePage = 0x87, GlobalBit = 0x100;

    public static TheoryData<int> Thresholds => [0, 1, 5];

    /// <summary>Two large pages with one procedure each: EBX = 1, EBX = 2. A second set of tables maps the window to the other one.</summary>
    private static SystemBench Two(int threshold, ulong cr4 = 0)
    {
        var b = new SystemBench(threshold).Long();
        for (var n = 1; n <= 2; n++)
        {
            var value = n;
            b.Place(64, c =>
            {
                c.mov(ebx, value);
                c.ret();
            }, (ulong)n * 0x20_0000);
        }
        b.Write(SecondPml4, 0xA007UL);
        b.Write(0xA000, 0xB007UL);
        for (ulong i = 0; i < 8; i++) b.Write(0xB000 + i * 8, i << 21 | 0x87);
        b.Write(PageDirectory + WindowEntry * 8, 0x20_0000 | LargePage);
        b.Write(0xB000 + WindowEntry * 8, 0x40_0000 | LargePage);
        if (cr4 != 0) b.Ok(b.Cpu.WriteControl(4, b.S->Cr4 | cr4));
        return b;
    }

    /// <summary>Ring 3 calls through the window, then asks ring 0 for the other address space; both keep their translations.</summary>
    [Theory]
    [MemberData(nameof(Thresholds))]
    public void With_pcids_each_address_space_keeps_its_own_translations(int threshold)
    {
        using var b = Two(threshold, Cr4Bits.Pcide);
        b.Gate64(0x80, Code64, Handler, dpl: 3);
        b.Gate64(0x81, Code64, Handler + 0x100, dpl: 3);
        b.Place(64, c =>
        {
            c.mov(rdx, cr3);
            c.xor(rdx, (int)(SystemBench.Pml4 ^ SecondPml4) | 3); // PCID 1 and 2
            c.bts(rdx, 63);
            c.mov(cr3, rdx);
            c.iretq();
        }, Handler);
        b.Place(64, c => c.hlt(), Handler + 0x100);
        b.Ok(b.Cpu.WriteControl(3, SystemBench.Pml4 | 1));
        b.Ring3(UserCode64);
        b.RunToHalt(64, c =>
        {
            var again = c.CreateLabel();
            c.xor(eax, eax);
            c.mov(ecx, 100);
            c.mov(r8, Window);
            c.Label(ref again);
            c.call(Window);
            c.add(rax, rbx);
            c.call(r8);
            c.add(rax, rbx);
            c.@int(0x80);
            c.dec(ecx);
            c.jne(again);
            c.@int(0x81);
        });
        Assert.Equal(2UL * 50 * (1 + 2), b.S->Regs[0]);
    }

    /// <summary>The guest changes a mapping and then writes CR3, with PCIDs and without bit 63: what the tables say now holds.</summary>
    [Theory]
    [InlineData(0, false)]
    [InlineData(1, false)]
    [InlineData(5, false)]
    [InlineData(0, true)]
    [InlineData(1, true)]
    [InlineData(5, true)]
    public void A_write_to_cr3_without_bit_63_takes_changed_tables_over(int threshold, bool contexts)
    {
        using var b = Two(threshold, contexts ? Cr4Bits.Pcide : 0);
        b.RunToHalt(64, c => Remap(c, () =>
        {
            c.mov(rdx, cr3);
            c.mov(cr3, rdx);
        }, 0));
        Assert.Equal(20UL * 3, b.S->Regs[0]);
    }

    /// <summary>INVPCID types 0 to 3.</summary>
    [Theory]
    [InlineData(0, 0)]
    [InlineData(1, 0)]
    [InlineData(1, 1)]
    [InlineData(1, 2)]
    [InlineData(1, 3)]
    [InlineData(5, 3)]
    public void Invpcid_takes_changed_tables_over(int threshold, int type)
    {
        using var b = Two(threshold, Cr4Bits.Pcide);
        b.Write(0x2_2000UL, 0UL);
        b.Write(0x2_2008UL, Window);
        b.RunToHalt(64, c => Remap(c, () =>
        {
            c.mov(esi, type);
            c.mov(rdx, 0x2_2000UL);
            c.invpcid(rsi, __xmmword_ptr[rdx]);
        }, 0));
        Assert.Equal(20UL * 3, b.S->Regs[0]);
    }

    /// <summary>Forty rounds in which the window leads to one procedure and then the other.</summary>
    private static void Remap(Assembler c, Action flush, long bits)
    {
        var again = c.CreateLabel();
        c.xor(eax, eax);
        c.mov(ecx, 40);
        c.mov(r8, Window);
        c.Label(ref again);
        c.mov(edi, ecx);
        c.and(edi, 1);
        c.inc(edi);
        c.shl(rdi, 21);
        c.or(rdi, (int)(LargePage | bits));
        c.mov(__qword_ptr[PageDirectory + WindowEntry * 8], rdi);
        flush();
        c.call(r8);
        c.add(rax, rbx);
        c.dec(ecx);
        c.jne(again);
        c.hlt();
    }

    public enum Ends
    {
        Page,
        Pge,
    }

    /// <summary>A global translation lives over a write to CR3 and ends with INVLPG or a change of CR4.PGE (SDM Vol. 3 §4.10.2.4, §4.10.4.1).</summary>
    [Theory]
    [InlineData(0, Ends.Page)]
    [InlineData(1, Ends.Page)]
    [InlineData(5, Ends.Page)]
    [InlineData(1, Ends.Pge)]
    public void A_global_page_stays_over_cr3_and_goes_when_it_is_told_to(int threshold, Ends ends)
    {
        using var b = Two(threshold, Cr4Bits.Pge);
        b.RunToHalt(64, c => Remap(c, () =>
        {
            if (ends == Ends.Page)
            {
                c.invlpg(__byte_ptr[r8]);
                return;
            }
            c.mov(rdx, cr4);
            c.xor(rdx, (int)Cr4Bits.Pge);
            c.mov(cr4, rdx);
            c.xor(rdx, (int)Cr4Bits.Pge);
            c.mov(cr4, rdx);
        }, GlobalBit));
        Assert.Equal(20UL * 3, b.S->Regs[0]);

        b.Write(PageDirectory + WindowEntry * 8, 0x20_0000 | LargePage | GlobalBit);
        b.Cpu.FlushPage(Window);
        b.Cpu.Activity = VcpuActivity.Running;
        b.RunToHalt(64, c =>
        {
            c.xor(eax, eax);
            c.mov(r8, Window);
            c.call(r8);
            c.mov(rdi, 0x40_0000L | LargePage | GlobalBit);
            c.mov(__qword_ptr[PageDirectory + WindowEntry * 8], rdi);
            c.mov(rdx, cr3);
            c.mov(cr3, rdx);
            c.call(r8);
            c.hlt();
        });
        Assert.Equal(1UL, b.S->Regs[3]);
    }

    [Fact]
    public void Cr3_and_cr4_keep_the_rules_of_pcids()
    {
        using var b = Two(threshold: 0);
        Assert.Equal((Vector.Gp, 0u), b.Fault(b.Cpu.WriteControl(3, SystemBench.Pml4 | 1UL << 63))); // no PCIDs yet
        b.Ok(b.Cpu.WriteControl(3, SystemBench.Pml4 | 0x18));
        Assert.Equal((Vector.Gp, 0u), b.Fault(b.Cpu.WriteControl(4, b.S->Cr4 | Cr4Bits.Pcide))); // CR3[11:0] is not 0
        b.Ok(b.Cpu.WriteControl(3, SystemBench.Pml4));
        b.Ok(b.Cpu.WriteControl(4, b.S->Cr4 | Cr4Bits.Pcide));
        b.Ok(b.Cpu.WriteControl(3, SystemBench.Pml4 | 5 | 1UL << 63));
        Assert.Equal(SystemBench.Pml4 | 5, b.S->Cr3); // bit 63 is not kept
        using var legacy = new SystemBench().Protected();
        Assert.Equal((Vector.Gp, 0u), legacy.Fault(legacy.Cpu.WriteControl(4, Cr4Bits.Pcide)));
    }

    /// <summary>One vCPU rewrites the procedure that the other calls all the time, and waits until it is seen; on threads, and in turns.</summary>
    [Theory]
    [InlineData(0, ClockMode.Host)]
    [InlineData(1, ClockMode.Host)]
    [InlineData(5, ClockMode.Host)]
    [InlineData(0, ClockMode.Virtual)]
    [InlineData(1, ClockMode.Virtual)]
    public void Code_that_one_vcpu_rewrites_is_what_the_other_runs(int threshold, ClockMode mode)
    {
        const ulong seen = 0x2_1000, other = 0x1_8000, rounds = 40;
        using var b = new SystemBench(threshold, vcpus: 2, mode: mode).Long();
        b.Place(64, c =>
        {
            c.mov(ebx, 0);
            c.ret();
        }, Procedure);
        b.Place(64, c =>
        {
            var again = c.CreateLabel();
            c.Label(ref again);
            c.call(Procedure);
            c.mov(__[seen], rbx);
            c.cmp(ebx, (int)rounds);
            c.jne(again);
            c.hlt();
        }, other);
        var state = b.Vcpu.GetState();
        var second = b.Machine.Vcpus[1];
        var own = second.GetState();
        second.SetState(state with
        {
            General = state.General with { Rip = other, Rsp = Stack - 0x800 },
            Special = state.Special with { ApicBase = own.Special.ApicBase },
            Lapic = own.Lapic,
            Activity = VcpuActivity.Running,
        });
        b.Place(64, c =>
        {
            var (again, wait) = (c.CreateLabel(), c.CreateLabel());
            c.mov(ecx, 1);
            c.Label(ref again);
            c.mov(__dword_ptr[Procedure + 1], ecx);
            c.Label(ref wait);
            c.cmp(__[seen], rcx);
            c.jne(wait);
            c.inc(ecx);
            c.cmp(ecx, (int)rounds);
            c.jle(again);
            c.hlt();
        }, SystemBench.Code);
        b.S->Rip = SystemBench.Code;

        // Both run until both have halted; one that has may have to hand its turn over, so it goes on until it is kicked.
        using var halted = new CountdownEvent(2);
        var threads = b.Machine.Vcpus.Select(vcpu => new Thread(() =>
        {
            while (vcpu.Run() is var kind and not VcpuExitKind.Kicked)
            {
                if (kind != VcpuExitKind.Halted) throw new InvalidOperationException(vcpu.Exit.ToString());
                halted.Signal();
            }
        })).ToList();
        threads.ForEach(thread => thread.Start());
        var done = halted.Wait(TimeSpan.FromSeconds(60));
        foreach (var vcpu in b.Machine.Vcpus) vcpu.Kick();
        Assert.All(threads, thread => Assert.True(thread.Join(TimeSpan.FromSeconds(90))));
        Assert.True(done);
        Assert.Equal(rounds, b.Read<ulong>(seen));
    }
}
