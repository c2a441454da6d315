using ActorVmm.Hypervisor.Soft.Cpu;
using Xunit;

namespace ActorVmm.Hypervisor.Soft.Tests.SystemSide;

public sealed unsafe class ControlRegisterTests : IDisposable
{
    private readonly SystemBench _b = new();

    public void Dispose() => _b.Dispose();

    [Theory]
    [InlineData(Cr0Bits.Pg)] // paging without protection
    [InlineData(Cr0Bits.Pe | Cr0Bits.Nw)] // NW without CD
    [InlineData(1UL << 32)]
    public void Cr0_refuses_what_cannot_be(ulong value)
    {
        var before = _b.S->Cr0;
        Assert.Equal((Vector.Gp, 0u), _b.Fault(_b.Cpu.WriteControl(0, value)));
        Assert.Equal(before, _b.S->Cr0);
    }

    [Fact]
    public void Cr0_keeps_et_and_drops_bits_that_do_not_exist()
    {
        _b.Ok(_b.Cpu.WriteControl(0, 0x1FFC_0000 & ~Cr0Bits.Am));
        Assert.Equal(Cr0Bits.Et, _b.S->Cr0);
    }

    [Theory]
    [InlineData(0)] // VME
    [InlineData(11)] // UMIP
    [InlineData(12)] // LA57
    [InlineData(18)] // OSXSAVE
    [InlineData(21)] // SMAP
    [InlineData(63)]
    public void Cr4_refuses_what_is_not_offered(int bit) => Assert.Equal((Vector.Gp, 0u), _b.Fault(_b.Cpu.WriteControl(4, 1UL << bit)));

    [Fact]
    public void Long_mode_begins_with_paging_and_ends_with_it()
    {
        _b.Protected();
        _b.Ok(_b.Cpu.TryWriteMsr(null, Msr.Efer, EferBits.Lme));
        Assert.Equal((Vector.Gp, 0u), _b.Fault(_b.Cpu.WriteControl(0, Cr0Bits.Pe | Cr0Bits.Pg))); // no PAE
        Assert.Equal(EferBits.Lme, _b.S->Efer);
        _b.Ok(_b.Cpu.WriteControl(4, Cr4Bits.Pae));
        _b.Ok(_b.Cpu.WriteControl(3, SystemBench.Pml4));
        _b.Ok(_b.Cpu.WriteControl(0, Cr0Bits.Pe | Cr0Bits.Pg));
        Assert.Equal(EferBits.Lme | EferBits.Lma, _b.S->Efer);
        Assert.Equal(CodeMode.Bits32, _b.S->Mode); // compatibility mode until CS says otherwise

        Assert.False(_b.Cpu.TryWriteMsr(null, Msr.Efer, 0)); // LME is fixed while paging
        Assert.Equal((Vector.Gp, 0u), _b.Fault(_b.Cpu.WriteControl(4, 0))); // and so is PAE
        _b.Ok(_b.Cpu.WriteControl(0, Cr0Bits.Pe));
        Assert.Equal(EferBits.Lme, _b.S->Efer);
    }

    [Fact]
    public void Sixty_four_bit_code_cannot_turn_paging_off_nor_set_reserved_cr3_bits()
    {
        _b.Long();
        Assert.Equal((Vector.Gp, 0u), _b.Fault(_b.Cpu.WriteControl(0, Cr0Bits.Pe)));
        Assert.Equal((Vector.Gp, 0u), _b.Fault(_b.Cpu.WriteControl(3, 1UL << 40)));
        Assert.True(_b.Cpu.LongMode);
    }

    [Fact]
    public void Activation_is_refused_while_cs_claims_to_be_64_bit()
    {
        _b.Protected();
        _b.Ok(_b.Cpu.WriteControl(4, Cr4Bits.Pae));
        _b.Ok(_b.Cpu.TryWriteMsr(null, Msr.Efer, EferBits.Lme));
        _b.Ok(_b.Cpu.FarJump(SystemBench.Code64, 0)); // outside long mode the L bit means nothing
        Assert.Equal((Vector.Gp, 0u), _b.Fault(_b.Cpu.WriteControl(0, Cr0Bits.Pe | Cr0Bits.Pg)));
    }

    [Fact]
    public void Cr8_is_the_task_priority()
    {
        _b.Long();
        _b.Ok(_b.Cpu.WriteControl(8, 9));
        Assert.Equal(9UL, _b.Cpu.ReadControl(8));
        Assert.Equal(9, _b.Cpu.Apic.TaskPriority);
        Assert.Equal((Vector.Gp, 0u), _b.Fault(_b.Cpu.WriteControl(8, 16)));
    }

    [Fact]
    public void Debug_registers_4_and_5_are_6_and_7_until_cr4_de()
    {
        _b.Ok(_b.Cpu.WriteDebug(5, 0x403));
        Assert.True(_b.Cpu.ReadDebug(7, out var value));
        Assert.Equal(0x403UL, value);
        _b.Ok(_b.Cpu.WriteControl(4, Cr4Bits.De));
        Assert.Equal((Vector.Ud, null), _b.Fault(_b.Cpu.ReadDebug(4, out _)));
    }

    [Fact]
    public void General_detect_guards_the_debug_registers_and_yields_to_the_handler()
    {
        _b.Long().Gate64(Vector.Db, SystemBench.Code64, 0x1234);
        _b.Ok(_b.Cpu.WriteDebug(7, 0x2000));
        Assert.Equal((Vector.Db, null), _b.Fault(_b.Cpu.ReadDebug(0, out _)));
        Assert.Equal(0x2000UL, _b.S->Dr[6] & 0x2000);
        _b.Raise(Vector.Db);
        Assert.Equal(0x400UL, _b.S->Dr[7]);
    }

    [Fact]
    public void Reserved_bits_of_debug_registers_stay_what_they_are()
    {
        _b.Ok(_b.Cpu.WriteDebug(6, 0xFFFF_FFFF));
        Assert.Equal(0xFFFF_EFFFUL, _b.S->Dr[6]);
        _b.Ok(_b.Cpu.WriteDebug(6, 0));
        Assert.Equal(0xFFFF_0FF0UL, _b.S->Dr[6]);
        Assert.Equal((Vector.Gp, 0u), _b.Fault(_b.Cpu.WriteDebug(7, 1UL << 32)));
    }
}
