using ActorVmm.Hypervisor.Soft.Cpu;
using Xunit;

namespace ActorVmm.Hypervisor.Soft.Tests.SystemSide;

public sealed unsafe class SegmentTests : IDisposable
{
    private readonly SystemBench _b = new();

    public void Dispose() => _b.Dispose();

    [Theory]
    [InlineData(SoftCpu.SegDs, SystemBench.GdtLimit + 1, Vector.Gp, SystemBench.GdtLimit + 1)] // beyond the table
    [InlineData(SoftCpu.SegDs, 0x14, Vector.Gp, 0x14)] // LDT without an LDT
    [InlineData(SoftCpu.SegDs, SystemBench.TaskState, Vector.Gp, SystemBench.TaskState)] // a system segment
    [InlineData(SoftCpu.SegDs, SystemBench.Data | 3, Vector.Gp, SystemBench.Data)] // RPL above DPL
    [InlineData(SoftCpu.SegEs, SystemBench.AbsentData, Vector.Np, SystemBench.AbsentData)]
    [InlineData(SoftCpu.SegSs, SystemBench.AbsentData, Vector.Ss, SystemBench.AbsentData)]
    [InlineData(SoftCpu.SegSs, SystemBench.ReadOnlyData, Vector.Gp, SystemBench.ReadOnlyData)]
    [InlineData(SoftCpu.SegSs, SystemBench.Code64, Vector.Gp, SystemBench.Code64)]
    [InlineData(SoftCpu.SegSs, SystemBench.UserData | 3, Vector.Gp, SystemBench.UserData)] // not our ring
    [InlineData(SoftCpu.SegSs, 3, Vector.Gp, 0)] // null with another RPL
    public void Loads_are_refused_with_the_selector_and_change_nothing(int number, int selector, int vector, int code)
    {
        _b.Long();
        var before = SoftCpu.SegmentOf(_b.S, number);
        Assert.Equal((vector, (uint)code), _b.Fault(_b.Cpu.LoadDataSegment(number, (ushort)selector)));
        Assert.Equal(before, SoftCpu.SegmentOf(_b.S, number));
    }

    [Fact]
    public void A_null_selector_is_fine_for_data_and_in_64_bit_kernels_for_the_stack()
    {
        _b.Long();
        _b.Ok(_b.Cpu.TryWriteMsr(null, Msr.FsBase, 0x1234));
        _b.Ok(_b.Cpu.LoadDataSegment(SoftCpu.SegFs, 0));
        Assert.Equal(0UL, _b.S->SegBase[SoftCpu.SegFs]);
        Assert.False(_b.S->Fs.Present);
        _b.Ok(_b.Cpu.LoadDataSegment(SoftCpu.SegSs, 0));

        using var legacy = new SystemBench();
        legacy.Protected();
        Assert.Equal((Vector.Gp, 0u), legacy.Fault(legacy.Cpu.LoadDataSegment(SoftCpu.SegSs, 0)));
    }

    [Fact]
    public void The_first_load_marks_the_descriptor_accessed()
    {
        _b.Long();
        Assert.Equal(0x92, _b.Read<byte>(SystemBench.Gdt + SystemBench.FreshData + 5));
        _b.Ok(_b.Cpu.LoadDataSegment(SoftCpu.SegDs, SystemBench.FreshData));
        Assert.Equal(0x93, _b.Read<byte>(SystemBench.Gdt + SystemBench.FreshData + 5));
        Assert.Equal(3, _b.S->Ds.Type);
    }

    [Fact]
    public void Real_mode_loads_keep_the_limit()
    {
        _b.Protected();
        _b.Ok(_b.Cpu.WriteControl(0, 0));
        _b.Ok(_b.Cpu.LoadDataSegment(SoftCpu.SegDs, 0xB800));
        Assert.Equal((0xB8000UL, uint.MaxValue), (_b.S->SegBase[SoftCpu.SegDs], _b.S->Ds.Limit));
    }

    [Fact]
    public void The_task_register_wants_an_available_tss_and_makes_it_busy()
    {
        _b.Long(); // has loaded it once
        Assert.Equal(0x8B, _b.Read<byte>(SystemBench.Gdt + SystemBench.TaskState + 5));
        Assert.Equal(SystemType.Tss32Busy, _b.S->Tr.Type);
        Assert.Equal((Vector.Gp, (uint)SystemBench.TaskState), _b.Fault(_b.Cpu.LoadTaskRegister(SystemBench.TaskState)));
        Assert.Equal((Vector.Gp, (uint)SystemBench.Data), _b.Fault(_b.Cpu.LoadTaskRegister(SystemBench.Data)));
        Assert.Equal((Vector.Gp, 0u), _b.Fault(_b.Cpu.LoadTaskRegister(0)));
    }

    [Fact]
    public void A_local_table_of_long_mode_has_a_64_bit_base()
    {
        _b.Write(SystemBench.Gdt + SystemBench.Gate, 0x0000_8200_8000_000FUL);
        _b.Write(SystemBench.Gdt + SystemBench.Gate + 8, 0UL);
        _b.Write(0x8008UL, 0x00CF_9300_0000_FFFFUL);
        _b.Long();
        _b.Ok(_b.Cpu.LoadLdt(SystemBench.Gate));
        _b.Ok(_b.Cpu.LoadDataSegment(SoftCpu.SegEs, 0x0C));
        Assert.Equal((ushort)0x0C, _b.S->Es.Selector);
        Assert.Equal((Vector.Gp, 0x14u), _b.Fault(_b.Cpu.LoadDataSegment(SoftCpu.SegEs, 0x14)));
        _b.Write(SystemBench.Gdt + SystemBench.Gate + 8, 0xFFFF_8000UL);
        _b.Ok(_b.Cpu.LoadLdt(SystemBench.Gate));
        Assert.Equal(0xFFFF_8000_0000_8000UL, _b.S->LdtrBase);
        _b.Ok(_b.Cpu.LoadLdt(0));
        Assert.Equal((Vector.Gp, 0x0Cu), _b.Fault(_b.Cpu.LoadDataSegment(SoftCpu.SegEs, 0x0C)));
    }

    [Theory]
    [InlineData(0x1000u, 4, 0x93, 0xFFFu, false)]
    [InlineData(0xFFCu, 4, 0x93, 0xFFFu, true)]
    [InlineData(0xFFDu, 4, 0x93, 0xFFFu, false)]
    [InlineData(0x1000u, 4, 0x97, 0xFFFu, true)] // expand-down: above the limit is inside
    [InlineData(0xFFFu, 4, 0x97, 0xFFFu, false)]
    [InlineData(0xFFFEu, 4, 0x97, 0xFFFu, false)] // 64 KiB where B is clear
    [InlineData(0xFFFEu, 4, 0x4097, 0xFFFu, true)]
    public void Limits_hold_for_the_last_byte(uint offset, int size, int attributes, uint limit, bool inside) =>
        Assert.Equal(inside, SoftCpu.InSegment(new Segment { Attributes = (ushort)attributes, Limit = limit }, offset, size));
}
