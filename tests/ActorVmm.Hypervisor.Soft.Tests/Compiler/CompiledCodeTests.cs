using System.Diagnostics;
using ActorVmm.Hypervisor.Soft.Cpu;
using ActorVmm.Hypervisor.Soft.Tests.SystemSide;
using Iced.Intel;
using Xunit;
using static ActorVmm.Hypervisor.Soft.Tests.SystemSide.SystemBench;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Soft.Tests.Compiler;

/// <summary>
/// What changes under compiled code: the code itself, its mapping, its privilege. Each story runs interpreted, compiled at once, and compiled
/// in the middle, and must end alike.
/// </summary>
public sealed unsafe class CompiledCodeTests
{
    private const ulong PageDirectory = 0x3000, Procedure = 0x1_2000;
    private const long LargePage = 0x87;

    public static TheoryData<int> Thresholds => [0, 1, 5];

    [Theory]
    [MemberData(nameof(Thresholds))]
    public void A_procedure_that_is_rewritten_before_each_call_runs_as_it_was_written_last(int threshold)
    {
        using var b = new SystemBench(threshold).Long();
        b.Place(64, c =>
        {
            c.mov(ebx, 0);
            c.ret();
        }, Procedure);
        b.RunToHalt(64, c =>
        {
            var again = c.CreateLabel();
            c.xor(eax, eax);
            c.mov(ecx, 40);
            c.Label(ref again);
            c.mov(__dword_ptr[Procedure + 1], ecx);
            c.call(Procedure);
            c.add(rax, rbx);
            c.dec(ecx);
            c.jne(again);
            c.hlt();
        });
        Assert.Equal(40UL * 41 / 2, b.S->Regs[0]);
    }

    [Theory]
    [MemberData(nameof(Thresholds))]
    public void A_block_that_rewrites_its_own_next_instruction_runs_the_new_one(int threshold)
    {
        using var b = new SystemBench(threshold).Long();
        b.RunToHalt(64, c =>
        {
            var (again, patched) = (c.CreateLabel(), c.CreateLabel());
            c.xor(eax, eax);
            c.mov(ecx, 40);
            c.Label(ref again);
            c.lea(rdx, __[patched]);
            c.mov(__dword_ptr[rdx + 1], ecx);
            c.Label(ref patched);
            c.mov(ebx, 0x7FFF_FFFF);
            c.add(rax, rbx);
            c.dec(ecx);
            c.jne(again);
            c.hlt();
        });
        Assert.Equal(40UL * 41 / 2, b.S->Regs[0]);
    }

    [Theory]
    [MemberData(nameof(Thresholds))]
    public void Two_mappings_of_a_page_share_code_that_knows_where_it_runs(int threshold)
    {
        using var b = new SystemBench(threshold).Long();
        b.Write(PageDirectory + 8 * 8, (ulong)LargePage); // 16 MiB is address 0 again
        b.Place(64, c =>
        {
            var here = c.CreateLabel();
            c.Label(ref here);
            c.lea(rbx, __[here]);
            c.call(Procedure + 0x80);
            c.ret();
        }, Procedure);
        b.Place(64, c =>
        {
            c.mov(rdx, __[rsp]); // the return address
            c.ret();
        }, Procedure + 0x80);
        b.RunToHalt(64, c =>
        {
            var again = c.CreateLabel();
            c.mov(ecx, 20);
            c.mov(r8, (ulong)Procedure);
            c.mov(r9, Procedure + (16UL << 20));
            c.Label(ref again);
            c.call(r8);
            c.mov(r10, rbx);
            c.mov(r11, rdx);
            c.call(r9);
            c.dec(ecx);
            c.jne(again);
            c.hlt();
        });
        Assert.Equal(16UL << 20, b.S->Regs[3] - b.S->Regs[10]);
        Assert.Equal(16UL << 20, b.S->Regs[2] - b.S->Regs[11]);
    }

    [Theory]
    [MemberData(nameof(Thresholds))]
    public void A_store_through_one_mapping_changes_the_code_of_the_other(int threshold)
    {
        using var b = new SystemBench(threshold).Long();
        b.Write(PageDirectory + 8 * 8, (ulong)LargePage);
        b.Place(64, c =>
        {
            c.mov(ebx, 0);
            c.ret();
        }, Procedure);
        b.RunToHalt(64, c =>
        {
            var again = c.CreateLabel();
            c.xor(eax, eax);
            c.mov(ecx, 40);
            c.mov(r9, Procedure + (16UL << 20));
            c.Label(ref again);
            c.mov(__dword_ptr[r9 + 1], ecx);
            c.call(Procedure);
            c.add(rax, rbx);
            c.dec(ecx);
            c.jne(again);
            c.hlt();
        });
        Assert.Equal(40UL * 41 / 2, b.S->Regs[0]);
    }

    public enum Way
    {
        Jump,
        Call,
        Return,
    }

    public static TheoryData<int, Way, ulong> WaysOut()
    {
        var data = new TheoryData<int, Way, ulong>();
        foreach (var threshold in (int[])[0, 1, 5])
            foreach (var way in Enum.GetValues<Way>())
                foreach (var target in (ulong[])[1UL << 63, 1UL << 63 | 0x10, 0x8000_0000_0000, 0xFFFF_7FFF_FFFF_FFFF])
                    data.Add(threshold, way, target);
        return data;
    }

    /// <summary>Whatever compiled code keeps about jumps, no value in it leads anywhere (SDM Vol. 2, JMP, CALL, RET: #GP(0)).</summary>
    [Theory]
    [MemberData(nameof(WaysOut))]
    public void A_target_that_is_not_canonical_faults_where_the_jump_stands(int threshold, Way way, ulong target)
    {
        const ulong handler = 0x1_8000;
        using var b = new SystemBench(threshold).Long();
        b.Gate64(Vector.Gp, Code64, handler);
        b.Place(64, c =>
        {
            c.pop(rbx); // the error code
            c.mov(rdi, __[rsp]);
            c.mov(rsi, __[rsp + 24]);
            c.mov(__[rsp], r12);
            c.iretq();
        }, handler);
        b.RunToHalt(64, c =>
        {
            var (again, hop, after) = (c.CreateLabel(), c.CreateLabel(), c.CreateLabel());
            c.mov(ecx, 20);
            c.lea(r12, __[after]);
            c.mov(rax, target);
            c.Label(ref again);
            c.mov(rsp, Stack - 64);
            c.mov(__[rsp], rax);
            c.jmp(hop);
            c.Label(ref hop);
            if (way == Way.Jump) c.jmp(rax);
            else if (way == Way.Call) c.call(rax);
            else c.ret();
            c.Label(ref after);
            c.lea(rdx, __[hop]);
            c.sub(rdi, rdx);
            c.or(r14, rdi);
            c.or(r15, rbx);
            c.dec(ecx);
            c.jne(again);
            c.hlt();
        });
        Assert.Equal((0UL, 0UL), (b.S->Regs[14], b.S->Regs[15]));
        Assert.Equal(Stack - 64, b.S->Regs[6]);
    }

    public enum Flush
    {
        Page,
        Cr3,
    }

    /// <summary>Direct and indirect calls and returns across a page whose mapping changes between two procedures.</summary>
    [Theory]
    [InlineData(0, Flush.Page)]
    [InlineData(1, Flush.Page)]
    [InlineData(5, Flush.Page)]
    [InlineData(0, Flush.Cr3)]
    [InlineData(1, Flush.Cr3)]
    [InlineData(5, Flush.Cr3)]
    public void A_changed_mapping_holds_from_the_flush_on(int threshold, Flush flush)
    {
        using var b = new SystemBench(threshold).Long();
        const ulong window = 0xC0_0000; // entry 6
        for (var n = 1; n <= 2; n++)
        {
            var value = n;
            b.Place(64, c =>
            {
                c.mov(ebx, value);
                c.ret();
            }, (ulong)n * 0x20_0000);
        }
        b.RunToHalt(64, c =>
        {
            var (again, inner) = (c.CreateLabel(), c.CreateLabel());
            c.xor(eax, eax);
            c.mov(ecx, 20);
            c.mov(r8, window);
            c.Label(ref again);
            c.mov(edx, ecx);
            c.and(edx, 1);
            c.inc(edx);
            c.shl(rdx, 21);
            c.or(rdx, (int)LargePage);
            c.mov(__qword_ptr[PageDirectory + 6 * 8], rdx);
            if (flush == Flush.Page)
            {
                c.invlpg(__byte_ptr[r8]);
            }
            else
            {
                c.mov(rdx, cr3);
                c.mov(cr3, rdx);
            }
            c.mov(esi, 10);
            c.Label(ref inner);
            c.call(r8);
            c.add(rax, rbx);
            c.call(window);
            c.add(rax, rbx);
            c.dec(esi);
            c.jne(inner);
            c.dec(ecx);
            c.jne(again);
            c.hlt();
        });
        Assert.Equal(10UL * 20 * 3, b.S->Regs[0]); // ten of twenty rounds each call procedure 1 or 2 twenty times
    }

    /// <summary>A procedure maps other code where its call stands, and returns there.</summary>
    [Theory]
    [InlineData(0, Flush.Page)]
    [InlineData(1, Flush.Page)]
    [InlineData(5, Flush.Page)]
    [InlineData(0, Flush.Cr3)]
    [InlineData(1, Flush.Cr3)]
    [InlineData(5, Flush.Cr3)]
    public void A_return_finds_what_is_mapped_behind_its_call_by_then(int threshold, Flush flush)
    {
        using var b = new SystemBench(threshold).Long();
        const ulong window = 0xC0_0000; // entry 6
        for (var n = 1; n <= 2; n++)
        {
            var value = n;
            b.Place(64, c =>
            {
                c.call(r10);
                c.add(rax, value);
                c.jmp(r12);
            }, (ulong)n * 0x20_0000);
        }
        b.Write(PageDirectory + 6 * 8, 0x20_0000UL | (ulong)LargePage);
        b.Place(64, c =>
        {
            c.test(ecx, 3); // now and then it stays as it is
            var same = c.CreateLabel();
            c.je(same);
            c.xor(__qword_ptr[PageDirectory + 6 * 8], 0x60_0000);
            if (flush == Flush.Page)
            {
                c.invlpg(__byte_ptr[r8]);
            }
            else
            {
                c.mov(rdx, cr3);
                c.mov(cr3, rdx);
            }
            c.Label(ref same);
            c.ret();
        }, Procedure);
        b.RunToHalt(64, c =>
        {
            var (again, after) = (c.CreateLabel(), c.CreateLabel());
            c.xor(eax, eax);
            c.mov(ecx, 80);
            c.mov(r8, window);
            c.mov(r10, (ulong)Procedure);
            c.lea(r12, __[after]);
            c.Label(ref again);
            c.jmp(r8);
            c.Label(ref after);
            c.dec(ecx);
            c.jne(again);
            c.hlt();
        });
        var (sum, now) = (0, 1);
        for (var round = 80; round > 0; round--) sum += now = round % 4 == 0 ? now : 3 - now;
        Assert.Equal((ulong)sum, b.S->Regs[0]);
    }

    /// <summary>Addresses that no call pushed, 0 among them, with what is known of returns fresh, full and emptied.</summary>
    [Theory]
    [MemberData(nameof(Thresholds))]
    public void A_return_without_a_call_goes_where_the_stack_says(int threshold)
    {
        using var b = new SystemBench(threshold).Long();
        b.Place(64, c =>
        {
            c.inc(rax);
            c.jmp(r12);
        }, 0);
        b.Place(64, c => c.ret(), Procedure);
        b.RunToHalt(64, c =>
        {
            var (again, back, chain) = (c.CreateLabel(), c.CreateLabel(), c.CreateLabel());
            c.xor(eax, eax);
            c.mov(ecx, 40);
            c.lea(r12, __[back]);
            c.Label(ref again);
            c.push(0);
            c.ret();
            c.Label(ref back);
            c.call(Procedure); // its slot is the one of the next RET
            c.lea(rdx, __[chain]);
            c.push(rdx);
            c.push((int)Procedure);
            c.ret();
            c.Label(ref chain);
            c.add(rax, 0x100);
            c.test(ecx, 3);
            var keep = c.CreateLabel();
            c.jne(keep);
            c.mov(rdx, cr3);
            c.mov(cr3, rdx);
            c.Label(ref keep);
            c.dec(ecx);
            c.jne(again);
            c.hlt();
        });
        Assert.Equal(40UL * 0x101, b.S->Regs[0]);
        Assert.Equal(Stack, b.S->Regs[4]);
    }

    /// <summary>Whoever allocates may be the one to collect garbage: that would stop the vCPU for many times as long as any block takes.</summary>
    [Fact]
    public void Neither_translating_nor_compiling_allocates()
    {
        const ulong second = SystemBench.Code + 0x8000;
        const int blocks = 200;
        using var b = new SystemBench(1).Long();
        static void Program(Assembler c)
        {
            c.mov(r9, SystemBench.Code);
            c.lea(r8, __[rsp - 0x1000]);
            for (var n = 0; n < blocks; n++)
            {
                var (next, over) = (c.CreateLabel(), c.CreateLabel());
                c.mov(rax, __[r8 + 8 * n]);
                c.add(rax, n);
                c.mov(__[r8 + 8 * n], rax);
                c.push(rax);
                c.fninit(); // left to tier 0
                c.pop(rdx);
                c.cmp(rdx, rax);
                c.jne(over);
                c.call(next);
                c.Label(ref over);
                c.nop();
                c.Label(ref next);
                c.add(rsp, 8);
                c.inc(r10);
            }
            c.hlt();
        }
        b.RunToHalt(64, Program);
        b.Place(64, Program, second);
        b.Cpu.Activity = VcpuActivity.Running;
        b.S->Rip = second;
        var compiled = b.Cpu.Tier!.Compilations;
        var before = GC.GetAllocatedBytesForCurrentThread();
        var exit = b.Vcpu.Run();
        var allocated = GC.GetAllocatedBytesForCurrentThread() - before;
        Assert.Equal(VcpuExitKind.Halted, exit);
        Assert.Equal(2UL * blocks, b.S->Regs[10]);
        Assert.True(b.Cpu.Tier.Compilations - compiled >= blocks, $"{b.Cpu.Tier.Compilations - compiled} blocks compiled");
        Assert.Equal(0, allocated);
    }

    [Theory]
    [MemberData(nameof(Thresholds))]
    public void A_device_that_writes_into_code_changes_it(int threshold)
    {
        using var b = new SystemBench(threshold).Long();
        b.Place(64, c =>
        {
            c.mov(ebx, 1);
            c.ret();
        }, Procedure);
        void Caller(Assembler c)
        {
            var again = c.CreateLabel();
            c.xor(eax, eax);
            c.mov(ecx, 20);
            c.Label(ref again);
            c.call(Procedure);
            c.add(rax, rbx);
            c.dec(ecx);
            c.jne(again);
            c.hlt();
        }
        b.RunToHalt(64, Caller);
        Assert.Equal(20UL, b.S->Regs[0]);
        b.Write(Procedure + 1, 3u);
        b.Cpu.Activity = VcpuActivity.Running;
        b.S->Rip = SystemBench.Code;
        Assert.Equal(VcpuExitKind.Halted, b.Vcpu.Run());
        Assert.Equal(60UL, b.S->Regs[0]);
    }

    /// <summary>A load in the middle of a block faults after it has succeeded often; flags of the ADD before it are still only remembered.</summary>
    [Fact]
    public void A_fault_in_compiled_code_shows_the_state_of_its_instruction()
    {
        (ulong, ulong, ulong, ulong, ulong, ulong) Story(int threshold)
        {
            using var b = new SystemBench(threshold).Long();
            b.Gate64(Vector.Pf, Code64, 0x1_8000);
            b.Place(64, c => c.hlt(), 0x1_8000);
            b.RunToHalt(64, c =>
            {
                var again = c.CreateLabel();
                c.mov(rdx, 0xFF_F000UL - 16 * 0x1000);
                c.mov(r9, 0x7FFF_FFFF_FFFF_FFF0);
                c.Label(ref again);
                c.add(r9, 1);
                c.mov(r10, __[rdx + 0x2000]); // beyond 16 MiB from the fifteenth round on
                c.add(rdx, 0x1000);
                c.inc(r11);
                c.jmp(again);
            });
            var frame = b.S->Regs[4]; // error code, RIP, CS, RFLAGS, RSP
            return (b.S->Cr2, b.Read<ulong>(frame + 8), b.Read<ulong>(frame + 24), b.S->Regs[9], b.S->Regs[11], b.Cpu.Retired);
        }

        var interpreted = Story(0);
        Assert.Equal(0x100_0000UL, interpreted.Item1);
        Assert.Equal(interpreted, Story(1));
        Assert.Equal(interpreted, Story(5));
    }

    /// <summary>Each store may fault, so the flags before it are all kept; PUSHF shows them.</summary>
    [Fact]
    public void Flags_that_instructions_change_in_part_are_put_together_again()
    {
        ulong[] Story(int threshold)
        {
            using var b = new SystemBench(threshold).Long();
            b.RunToHalt(64, c =>
            {
                var again = c.CreateLabel();
                c.mov(esi, 64);
                c.mov(rdi, 0x2_1000UL);
                c.mov(r13, 0x8123_4567_89AB_CDEF);
                c.Label(ref again);
                foreach (var step in (Action[])
                [
                    () => c.inc(r12), () => c.bt(r13, rsi), () => c.dec(r12d), () => c.rol(r13, 3), () => c.inc(r12), () => c.ror(r13d, 7),
                    () => c.bt(r13d, 5), () => c.inc(r12w), () => c.dec(r12),
                    () => c.rol(r13w, 1), () => c.bt(r12, 2), () => c.adc(r13, r12), () => c.sbb(r12d, 7),
                ])
                {
                    step();
                    c.mov(__[rdi], r12);
                    c.pushfq();
                    c.pop(__qword_ptr[rdi + 8]);
                    step();
                    c.mov(__[rdi + 16], r13);
                    c.add(rdi, 24);
                }
                c.rol(r13, 9);
                c.dec(esi);
                c.jne(again);
                c.hlt();
            });
            return [.. Enumerable.Range(0, 64 * 13 * 3).Select(n => b.Read<ulong>(0x2_1000 + (ulong)n * 8)), b.S->Regs[12], b.S->Regs[13], b.Cpu.Retired];
        }

        var interpreted = Story(0);
        Assert.Equal(interpreted, Story(1));
        Assert.Equal(interpreted, Story(7));
    }

    [Fact]
    public void Garbage_collections_get_in_while_compiled_code_runs()
    {
        using var b = new SystemBench(compileThreshold: 1).Long();
        b.Place(64, c =>
        {
            var again = c.CreateLabel();
            c.Label(ref again);
            c.inc(rax);
            c.mov(__[0x2_1000UL], rax);
            c.jmp(again);
        }, SystemBench.Code);
        b.S->Rip = SystemBench.Code;
        var vcpu = new Thread(() => b.Vcpu.Run());
        vcpu.Start();
        Assert.True(SpinWait.SpinUntil(() => b.Read<ulong>(0x2_1000) > 1_000_000, TimeSpan.FromSeconds(90)));
        var pauses = new double[41];
        for (var i = 0; i < pauses.Length; i++)
        {
            var started = Stopwatch.GetTimestamp();
            GC.Collect(0, GCCollectionMode.Forced, blocking: true);
            pauses[i] = Stopwatch.GetElapsedTime(started).TotalMilliseconds;
        }
        b.Vcpu.Kick();
        Assert.True(vcpu.Join(TimeSpan.FromSeconds(90)));
        Assert.Equal(VcpuExitKind.Kicked, b.Vcpu.Exit.Kind);
        Array.Sort(pauses);
        Assert.True(pauses[pauses.Length / 2] < 10, $"median pause {pauses[pauses.Length / 2]} ms");
    }

    [Fact]
    public void The_counters_tell_what_was_compiled()
    {
        using var b = new SystemBench(compileThreshold: 1).Long();
        b.RunToHalt(64, c =>
        {
            c.mov(eax, 1);
            c.add(eax, eax);
            c.mov(ebx, eax);
            c.hlt();
        });
        Assert.True(b.Cpu.Tier!.Compilations > 0);
        Assert.Contains("compiled", b.Vcpu.Counters, StringComparison.Ordinal);
        Assert.InRange(b.Cpu.Tier.UsedBytes, 1UL, b.Cpu.Tier.LimitBytes);
        Assert.Contains("longest pauses", b.Vcpu.Counters, StringComparison.Ordinal);
    }
}
