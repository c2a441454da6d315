using ActorVmm.Hypervisor.Soft.Cpu;
using ActorVmm.Hypervisor.Soft.Tests.SystemSide;
using ActorVmm.Memory;
using Iced.Intel;
using Xunit;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Soft.Tests.Compiler;

/// <summary>The debug mode in which both tiers run each block: what it must see, and what it must not disturb.</summary>
public sealed unsafe class LockStepTests
{
    private const ulong Procedure = 0x1_2000, Target = 0x2_1000;

    /// <summary>Registers, flags, memory by stores and string instructions, the stack, a fault with its handler.</summary>
    private static void Work(Assembler c)
    {
        var again = c.CreateLabel();
        c.mov(ecx, 30);
        c.mov(r8, Target);
        c.Label(ref again);
        c.lea(rdi, __[r8 + rcx * 8]);
        c.add(__qword_ptr[rdi], rcx);
        c.mov(rax, rdi);
        c.imul(rax, rax, 17);
        c.push(rcx);
        c.mov(ecx, 5);
        c.rep.stosb();
        c.pop(rcx);
        c.call(Procedure);
        c.@lock.inc(__qword_ptr[r8 + 0x800]);
        c.adc(rbx, rax);
        c.dec(ecx);
        c.jne(again);
        c.hlt();
    }

    private static void Place(SystemBench b) => b.Place(64, c =>
    {
        c.rol(rbx, 3);
        c.movq(xmm1, rbx);
        c.paddq(xmm1, xmm1);
        c.movdqu(__[r8 + 0xFF8], xmm1); // across two pages
        c.ret();
    }, Procedure);

    [Fact]
    public void A_run_in_lock_step_ends_as_any_other_and_compares_each_block()
    {
        (ulong, ulong, ulong, ulong, ulong) Story(int threshold, bool lockStep)
        {
            using var b = new SystemBench(threshold, lockStep).Long();
            b.S->Cr4 |= Cr4Bits.OsFxsr;
            Place(b);
            b.RunToHalt(64, Work);
            if (lockStep)
            {
                Assert.True(b.Cpu.LockStep!.Compared > 60, b.Cpu.LockStep.ToString());
                Assert.True(b.Cpu.LockStep.Instructions > 300);
            }
            return (b.S->Regs[3], b.S->Regs[7], b.Read<ulong>(Target + 0x800), b.Read<ulong>(Target + 0xFF8), b.Cpu.Retired);
        }

        var plain = Story(0, lockStep: false);
        Assert.Equal(plain, Story(1, lockStep: true));
        Assert.Equal(plain, Story(3, lockStep: true));
        Assert.Equal(30UL, plain.Item3);
    }

    public enum Change
    {
        Register,
        Memory,
        Count,
    }

    /// <summary>The interpreter's copy of a block is falsified: the comparison must say so, and where.</summary>
    [Theory]
    [InlineData(Change.Register, "RAX 0x")]
    [InlineData(Change.Memory, "memory at guest physical 0x21000: 06 and 05")]
    [InlineData(Change.Count, "instructions left")]
    public void A_difference_stops_the_machine_and_names_the_block(Change change, string expected)
    {
        using var b = new SystemBench(compileThreshold: 1, lockStep: true).Long();
        b.Place(64, c =>
        {
            c.mov(eax, 5);
            c.mov(__dword_ptr[Target], eax);
            c.mov(eax, 7);
            c.jmp(Procedure + 0x100);
        }, Procedure);
        b.Place(64, c => c.hlt(), Procedure + 0x100);
        b.S->Rip = Procedure;
        Assert.Equal(VcpuExitKind.Halted, b.Vcpu.Run());

        var block = Compiled(b, Procedure);
        var copy = Block.Ops(block->Interpreted);
        switch (change)
        {
            case Change.Register: copy[3].Imm = 8; break;
            case Change.Memory: copy[1].Imm = 6; break;
            default: copy[4].Fn = &Miscount; break;
        }
        b.Cpu.Activity = VcpuActivity.Running;
        b.S->Rip = Procedure;
        Assert.Equal(VcpuExitKind.Failed, b.Vcpu.Run());
        Assert.Contains(expected, b.Vcpu.Exit.Detail, StringComparison.Ordinal);
        Assert.Contains("0x12000", b.Vcpu.Exit.Detail, StringComparison.Ordinal);
        Assert.Contains("mov eax", b.Vcpu.Exit.Detail, StringComparison.Ordinal);
    }

    private static void Miscount(CpuState* s, Op* op)
    {
        s->Budget--;
        ControlOps.Jump(s, op);
    }

    private static Block* Compiled(SystemBench b, ulong physical)
    {
        for (var block = b.S->BlockHash[BlockCache.Hash(physical, CodeMode.Bits64)]; block != null; block = block->HashNext)
            if (block->Physical == physical && block->Code != null) return block;
        throw new InvalidOperationException("the block was not compiled");
    }

    [Fact]
    public void It_needs_virtual_time()
    {
        using var memory = GuestMemory.Create(1 << 20);
        var options = new MachineOptions(memory, 1) { LockStep = true };
        Assert.Contains("clock = virtual", Assert.Throws<HypervisorException>(() => new SoftHypervisor().CreateMachine(options)).Message,
            StringComparison.Ordinal);
    }
}
