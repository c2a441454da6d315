using System.Runtime.InteropServices;
using ActorVmm.Hypervisor.Soft.Tests.SystemSide;
using Xunit;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Soft.Tests.Compiler;

/// <summary>Machine code has limits: none may be had, or not enough.</summary>
public sealed unsafe class RefusedCodeTests
{
    private static void Loop(Iced.Intel.Assembler c)
    {
        var again = c.CreateLabel();
        c.mov(ecx, 200);
        c.Label(ref again);
        c.add(rax, rcx);
        c.dec(ecx);
        c.jne(again);
        c.hlt();
    }

    /// <summary>More than any host maps: the refusal is the kernel's own.</summary>
    [Fact]
    public void Where_executable_memory_is_refused_the_machine_says_so_once_and_interprets()
    {
        using var b = new SystemBench(settings: new SoftOptions(CompileThreshold: 1, CodeBytes: 1L << 60), vcpus: 2).Long();
        Assert.Null(b.Cpu.Tier);
        var note = Assert.Single(b.Machine.Notes);
        Assert.Contains("was refused (error ", note, StringComparison.Ordinal);
        Assert.Contains("interpreted only", b.Vcpu.Counters, StringComparison.Ordinal);
        b.RunToHalt(64, Loop);
        Assert.Equal(200UL * 201 / 2, b.S->Regs[0]);
    }

    [Fact]
    public void On_a_host_that_is_not_x64_the_machine_says_so_once_and_interprets()
    {
        using var b = new SystemBench(settings: new SoftOptions(CompileThreshold: 1) { Host = Architecture.Arm64 }, vcpus: 2).Long();
        Assert.Null(b.Cpu.Tier);
        Assert.Contains("the host is Arm64, not x64", Assert.Single(b.Machine.Notes), StringComparison.Ordinal);
        Assert.Contains("interpreted only", b.Vcpu.Counters, StringComparison.Ordinal);
        b.RunToHalt(64, Loop);
        Assert.Equal(200UL * 201 / 2, b.S->Regs[0]);
    }

    [Fact]
    public void Where_it_is_offered_there_is_nothing_to_say()
    {
        using var b = new SystemBench(compileThreshold: 1);
        Assert.NotNull(b.Cpu.Tier);
        Assert.Empty(b.Machine.Notes);
    }

    /// <summary>Procedures enough to fill a MiB of machine code more than once; each adds its number.</summary>
    [Fact]
    public void When_the_code_cache_is_full_it_begins_anew_within_its_limit()
    {
        const int procedures = 6000;
        const ulong first = 0x10_0000;
        using var b = new SystemBench(settings: new SoftOptions(CompileThreshold: 1, CodeBytes: 1 << 20)).Long();
        b.Place(64, c =>
        {
            for (var n = 1; n <= procedures; n++)
            {
                var (label, end) = (c.CreateLabel(), c.CreateLabel());
                c.Label(ref label);
                c.add(rax, n);
                c.mov(__[0x2_1000UL], rax);
                c.test(rax, rax);
                c.je(end);
                c.add(__qword_ptr[0x2_1008UL], 1);
                c.Label(ref end);
                c.inc(rbx);
            }
            c.ret();
        }, first);
        b.RunToHalt(64, c =>
        {
            var again = c.CreateLabel();
            c.xor(eax, eax);
            c.xor(ebx, ebx);
            c.mov(ecx, 3);
            c.Label(ref again);
            c.call(first);
            c.dec(ecx);
            c.jne(again);
            c.hlt();
        });
        Assert.Equal(3UL * procedures * (procedures + 1) / 2, b.S->Regs[0]);
        Assert.Equal(3UL * procedures, b.S->Regs[3]);
        Assert.InRange(b.Cpu.Tier!.UsedBytes, 1UL, 1UL << 20);
        Assert.DoesNotContain(" 0 times all", b.Vcpu.Counters, StringComparison.Ordinal);
    }
}
