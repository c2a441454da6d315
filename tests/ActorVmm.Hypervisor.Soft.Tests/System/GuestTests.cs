using ActorVmm.Hypervisor.Soft.Cpu;
using Xunit;
using static ActorVmm.Hypervisor.Soft.Tests.SystemSide.SystemBench;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Soft.Tests.SystemSide;

/// <summary>
/// System instructions through the decoder and the run loop, in the modes that the shared conformance suite does not enter.
/// </summary>
public sealed unsafe class GuestTests : IDisposable
{
    private const ulong Results = 0x7_0000;

    private readonly SystemBench _b = new();

    public void Dispose() => _b.Dispose();

    [Fact]
    public void Real_mode_calls_its_interrupt_and_far_procedures()
    {
        _b.Place(16, c =>
        {
            c.mov(bx, 0x1234);
            c.iret();
        }, 0x9000);
        _b.Place(16, c =>
        {
            c.add(bx, 1);
            c.retf();
        }, 0x9100);
        _b.Write(0x21UL * 4, 0x0900_0000u);
        _b.S->IdtLimit = 0x3FF;
        _b.S->Regs[4] = 0x8000;
        _b.Ok(_b.Cpu.FarJump(0, 0x7000));
        _b.RunToHalt(16, c =>
        {
            c.@int(0x21);
            c.call(0x910, 0);
            c.push(bx);
            c.pop(es);
            c.mov(ax, es);
            c.hlt();
        }, at: 0x7000);
        Assert.Equal((0x1235UL, 0x1235UL, 0x12350UL), (_b.S->Regs[0] & 0xFFFF, _b.S->Regs[3] & 0xFFFF, _b.S->SegBase[SoftCpu.SegEs]));
    }

    [Fact]
    public void A_kernel_walks_from_real_mode_to_long_mode_by_its_own_instructions()
    {
        _b.Write(0x7800UL, (ushort)GdtLimit);
        _b.Write(0x7802UL, (uint)Gdt);
        _b.Ok(_b.Cpu.FarJump(0, 0x7000));
        _b.Place(32, c =>
        {
            c.mov(ax, Data);
            c.mov(ds, ax);
            c.mov(ss, ax);
            c.mov(eax, (uint)Cr4Bits.Pae);
            c.mov(cr4, eax);
            c.mov(eax, (uint)Pml4);
            c.mov(cr3, eax);
            c.mov(ecx, Msr.Efer);
            c.rdmsr();
            c.or(eax, (int)EferBits.Lme);
            c.wrmsr();
            c.mov(eax, cr0);
            c.or(eax, unchecked((int)Cr0Bits.Pg));
            c.mov(cr0, eax);
            c.db(0xEA, 0x00, 0x00, 0x03, 0x00, (byte)Code64, 0x00); // JMP FAR 08:30000
        }, 0x2_0000);
        _b.Place(64, c =>
        {
            c.mov(rax, 0x1122_3344_5566_7788);
            c.mov(ecx, Msr.Efer);
            c.mov(rbx, rax);
            c.rdmsr();
            c.hlt();
        }, 0x3_0000);
        _b.RunToHalt(16, c =>
        {
            c.db(0x66, 0x0F, 0x01, 0x16, 0x00, 0x78); // LGDT [7800], 32-bit operand
            c.mov(eax, cr0);
            c.or(eax, 1);
            c.mov(cr0, eax);
            c.db(0x66, 0xEA, 0x00, 0x00, 0x02, 0x00, (byte)Code32, 0x00); // JMP FAR 18:20000
        }, at: 0x7000);
        Assert.Equal((0x1122_3344_5566_7788UL, EferBits.Lme | EferBits.Lma), (_b.S->Regs[3], _b.S->Regs[0]));
        Assert.Equal(CodeMode.Bits64, _b.S->Mode);
    }

    [Fact]
    public void Lar_lsl_verr_and_verw_answer_with_zf()
    {
        _b.Protected().RunToHalt(32, c =>
        {
            var n = 0UL;
            void Note()
            {
                c.setz(dl);
                c.mov(__byte_ptr[Results + n++], dl);
            }
            c.mov(eax, UserData);
            c.lsl(ebx, eax);
            Note();
            c.lar(ecx, eax);
            Note();
            c.verw(ax);
            Note();
            c.mov(eax, Code32);
            c.verw(ax); // code cannot be written
            Note();
            c.verr(ax);
            Note();
            c.mov(eax, 0x800);
            c.lsl(ebx, eax); // no such descriptor: EBX stays
            Note();
            c.hlt();
        });
        Assert.Equal([1, 1, 1, 0, 1, 0], Enumerable.Range(0, 6).Select(i => (int)_b.Read<byte>(Results + (ulong)i)));
        Assert.Equal((0xFFFF_FFFFUL, 0x00C0_F300UL), (_b.S->Regs[3], _b.S->Regs[1]));
    }

    [Fact]
    public void Bound_and_arpl_do_what_old_programs_expect()
    {
        _b.Protected().Gate32(Vector.Br, Code32, 0x5_0000);
        _b.Place(32, c => c.hlt(), 0x5_0000);
        _b.Write(Results, 10);
        _b.Write(Results + 4, 20);
        _b.RunToHalt(32, c =>
        {
            c.mov(eax, 0x28);
            c.mov(ecx, 3);
            c.arpl(ax, cx);
            c.setz(bl);
            c.mov(edx, 20);
            c.bound(edx, __dword_ptr[Results]);
            c.mov(edx, 21);
            c.bound(edx, __dword_ptr[Results]);
            c.hlt();
        });
        Assert.Equal((0x2BUL, 1UL, 0x5_0001UL), (_b.S->Regs[0] & 0xFFFF, _b.S->Regs[3] & 0xFF, _b.S->Rip));
        Assert.Equal(Stack - 12, _b.S->Regs[4]); // #BR has no error code
    }

    [Fact]
    public void Far_pointers_load_segment_and_offset_together()
    {
        _b.Write(Results, 0x1234_5678u);
        _b.Write(Results + 4, UserData);
        _b.Protected().RunToHalt(32, c =>
        {
            c.les(ebx, __fword_ptr[Results]);
            c.hlt();
        });
        Assert.Equal((0x1234_5678UL, UserData), (_b.S->Regs[3], _b.S->Es.Selector));
    }

    [Fact]
    public void Fs_and_gs_bases_move_by_their_own_instructions_once_cr4_says_so()
    {
        _b.Long().Gate64(Vector.Ud, Code64, 0x5_0000);
        _b.Place(64, c =>
        {
            c.mov(rax, cr4);
            c.or(eax, (int)Cr4Bits.FsGsBase);
            c.mov(cr4, rax);
            c.iretq();
        }, 0x5_0000);
        _b.RunToHalt(64, c =>
        {
            c.mov(rbx, 0xFFFF_8000_1234_0000);
            c.wrgsbase(rbx); // #UD once, then again with the bit set
            c.rdgsbase(rcx);
            c.swapgs();
            c.rdgsbase(rdx);
            c.mov(eax, 0xFFFF_FFFF);
            c.wrfsbase(eax);
            c.rdfsbase(rsi);
            c.hlt();
        });
        Assert.Equal((0xFFFF_8000_1234_0000UL, 0UL, 0xFFFF_FFFFUL), (_b.S->Regs[1], _b.S->Regs[2], _b.S->Regs[6]));
    }

    [Fact]
    public void Hints_and_reserved_nops_do_nothing()
    {
        _b.Long().RunToHalt(64, c =>
        {
            c.mov(eax, 7);
            c.endbr64();
            c.pause();
            c.db(0xF3, 0x48, 0x0F, 0x1E, 0xC8); // RDSSPQ RAX: a NOP without shadow stacks
            c.prefetcht0(__byte_ptr[rax]);
            c.lfence();
            c.mfence();
            c.db(0x0F, 0x1F, 0x44, 0x00, 0x00);
            c.hlt();
        });
        Assert.Equal(7UL, _b.S->Regs[0]);
    }

    [Theory]
    [InlineData("0F01D0")] // XGETBV
    [InlineData("0F01C8")] // MONITOR
    [InlineData("0F01C1")] // VMCALL
    [InlineData("0F01CB")] // STAC
    [InlineData("0F3F")]
    [InlineData("0F0B")]
    public void What_is_not_offered_is_an_invalid_opcode(string bytes)
    {
        _b.Long().Gate64(Vector.Ud, Code64, 0x5_0000);
        _b.Place(64, c => c.hlt(), 0x5_0000);
        _b.RunToHalt(64, c =>
        {
            c.db(Convert.FromHexString(bytes));
            c.hlt();
        });
        Assert.Equal(0x5_0001UL, _b.S->Rip);
        Assert.Equal(SystemBench.Code, _b.Read<ulong>(_b.S->Regs[4])); // the fault is at the instruction
    }
}
