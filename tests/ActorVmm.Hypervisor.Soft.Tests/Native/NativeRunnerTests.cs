using ActorVmm.Hypervisor.Soft.Tests.Differential;
using Iced.Intel;
using Xunit;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Soft.Tests.Native;

/// <summary>The oracle itself: known answers from the host's CPU.</summary>
public sealed class NativeRunnerTests
{
    [Fact]
    public void All_registers_memory_and_vectors_go_in_and_come_out()
    {
        var test = Case(a => a.nop());
        new InputGenerator(new Rng(1), new KnownRegisters()).Fill(test.Input);
        test.Input.Rip = test.CodeAddress;

        NativeRunner.Instance.Run([test]);

        Assert.Equal(3, test.Native.Vector);
        Assert.Equal(test.CodeAddress + 2, test.Native.Rip);
        Assert.Equal(test.Input.Gpr, test.Native.Gpr);
        Assert.Equal(test.Input.Rflags & 0xCD5, test.Native.Rflags & 0xCD5);
        Assert.Equal(test.Input.Memory, test.Native.Memory);
        Assert.Equal(test.Input.Fx.AsSpan(160, 256), test.Native.Fx.AsSpan(160, 256));
        Assert.Equal(test.Input.Mxcsr, test.Native.Mxcsr);
        Assert.Equal(test.Input.FpuTag, test.Native.FpuTag);
    }

    [Fact]
    public void A_division_by_zero_is_reported_at_its_instruction()
    {
        var test = Case(a => { a.xor(ecx, ecx); a.div(ecx); });
        NativeRunner.Instance.Run([test]);
        Assert.Equal((0, test.CodeAddress + 2), (test.Native.Vector, test.Native.Rip));
    }

    [Theory]
    [InlineData(Layout.UnmappedPage, false, 4)]
    [InlineData(Layout.UnmappedPage, true, 6)]
    [InlineData(Layout.ReadOnlyPage, true, 7)]
    public void A_page_fault_gives_address_and_error_code(ulong address, bool write, ulong error)
    {
        var test = Case(a =>
        {
            a.mov(rax, address + 5);
            if (write) a.mov(__byte_ptr[rax], cl);
            else a.mov(cl, __byte_ptr[rax]);
        });
        NativeRunner.Instance.Run([test]);
        Assert.Equal((14, error, address + 5), (test.Native.Vector, test.Native.ErrorCode, test.Native.FaultAddress));
    }

    [Fact]
    public void Faults_and_ends_follow_one_another_in_one_batch()
    {
        var cases = Enumerable.Range(0, Layout.BatchSize).Select(slot => Case(a =>
        {
            if (slot % 3 == 1) a.ud2();
            a.mov(eax, slot);
            if (slot % 3 == 2) a.hlt();
        }, slot)).ToArray();
        NativeRunner.Instance.Run(cases);
        Assert.All(cases, test => Assert.Equal((test.Slot % 3) switch { 1 => 6, 2 => 13, _ => 3 }, test.Native.Vector));
        Assert.All(cases, test => Assert.Equal(test.Slot % 3 == 1 ? 0UL : (ulong)test.Slot, test.Native.Gpr[0]));
    }

    private static TestCase Case(Action<Assembler> emit, int slot = 0)
    {
        var test = new TestCase(0, slot);
        var assembler = new Assembler(64);
        emit(assembler);
        assembler.int3();
        using var stream = new MemoryStream();
        assembler.Assemble(new StreamCodeWriter(stream), test.CodeAddress);
        test.Code = stream.ToArray();
        test.Input.Rip = test.CodeAddress;
        test.Input.Rflags = 0x202;
        test.Input.Gpr[4] = Layout.Scratch + 0x1000;
        test.Input.Mxcsr = 0x1F80;
        test.Input.FpuControl = 0x37F;
        return test;
    }
}
