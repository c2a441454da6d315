using ActorVmm.Hypervisor.Soft.Cpu;
using Xunit;

namespace ActorVmm.Hypervisor.Soft.Tests.SystemSide;

public sealed unsafe class MsrTests : IDisposable
{
    private const ulong NonCanonical = 0x0000_8000_0000_0000;

    private readonly SystemBench _b = new();

    public void Dispose() => _b.Dispose();

    private ulong Read(uint index)
    {
        Assert.True(_b.Cpu.TryReadMsr(null, index, out var value), $"MSR 0x{index:x}");
        return value;
    }

    [Theory]
    [InlineData(Msr.FsBase)]
    [InlineData(Msr.GsBase)]
    [InlineData(Msr.KernelGsBase)]
    [InlineData(Msr.Lstar)]
    [InlineData(Msr.Cstar)]
    [InlineData(Msr.SysenterEsp)]
    [InlineData(Msr.SysenterEip)]
    public void Addresses_must_be_canonical(uint index)
    {
        Assert.True(_b.Cpu.TryWriteMsr(null, index, 0xFFFF_8000_0000_1000));
        Assert.False(_b.Cpu.TryWriteMsr(null, index, NonCanonical));
        Assert.Equal(0xFFFF_8000_0000_1000UL, Read(index));
    }

    [Theory]
    [InlineData(Msr.Pat, 0x0007_0406_0007_0406UL, 0x0007_0406_0007_0402UL)]
    [InlineData(Msr.MtrrDefType, 0xC06UL, 0x1006UL)]
    [InlineData(Msr.MtrrDefType, 0x800UL, 0x807UL)] // UC- is a PAT type only
    [InlineData(Msr.MtrrFixed4K + 7, 0x0606_0606_0606_0606UL, 0x0606_0306_0606_0606UL)]
    [InlineData(0x200u, 0xC000_0006UL, 1UL << 40)]
    [InlineData(0x20Fu, 0xFF_C000_0800UL, 0x400UL)]
    [InlineData(Msr.Efer, 0x901UL, 2UL)]
    [InlineData(Msr.TscAux, 0xFFFF_FFFFUL, 1UL << 32)]
    [InlineData(Msr.McgStatus, 4UL, 8UL)]
    public void Reserved_values_are_refused_and_change_nothing(uint index, ulong good, ulong bad)
    {
        Assert.True(_b.Cpu.TryWriteMsr(null, index, good));
        Assert.False(_b.Cpu.TryWriteMsr(null, index, bad));
        Assert.Equal(good, Read(index));
    }

    [Theory]
    [InlineData(0x48u)] // SPEC_CTRL
    [InlineData(0x186u)] // performance counters
    [InlineData(0x210u)]
    [InlineData(0x4B56_4D00u)] // KVM clock
    [InlineData(0xC001_0000u)]
    [InlineData(0x1234_5678u)]
    public void What_does_not_exist_is_a_protection_fault(uint index)
    {
        Assert.False(_b.Cpu.TryReadMsr(null, index, out _));
        Assert.False(_b.Cpu.TryWriteMsr(null, index, 0));
    }

    [Theory]
    [InlineData(Msr.MtrrCap)]
    [InlineData(Msr.McgCap)]
    [InlineData(Msr.PlatformId)]
    public void Capabilities_are_read_only(uint index)
    {
        Read(index);
        Assert.False(_b.Cpu.TryWriteMsr(null, index, 0));
    }

    [Fact]
    public void Lma_cannot_be_written()
    {
        Assert.True(_b.Cpu.TryWriteMsr(null, Msr.Efer, EferBits.Lma | EferBits.Sce));
        Assert.Equal(EferBits.Sce, Read(Msr.Efer));
    }

    [Fact]
    public void The_time_stamp_and_its_adjustment_move_together()
    {
        const ulong far = 1UL << 50;
        Assert.True(_b.Cpu.TryWriteMsr(null, Msr.Tsc, far));
        Assert.InRange(Read(Msr.Tsc), far, far + (1UL << 40));
        Assert.Equal(_b.S->TscOffset, Read(Msr.TscAdjust));
        Assert.True(_b.Cpu.TryWriteMsr(null, Msr.TscAdjust, 0));
        Assert.Equal(0UL, _b.S->TscOffset);
        Assert.InRange(Read(Msr.Tsc), 0UL, far - 1);
    }

    [Fact]
    public void The_x2apic_range_opens_with_x2apic_mode()
    {
        Assert.False(_b.Cpu.TryReadMsr(null, 0x802, out _));
        Assert.True(_b.Cpu.TryWriteMsr(null, Msr.ApicBase, Read(Msr.ApicBase) | 0x400));
        Assert.Equal(0UL, Read(0x802));
        Assert.True(_b.Cpu.TryWriteMsr(null, 0x808, 0x50)); // TPR
        Assert.Equal(5UL, _b.Cpu.ReadControl(8));
        Assert.False(_b.Cpu.TryWriteMsr(null, 0x80B, 1)); // EOI takes zero only
        Assert.False(_b.Cpu.TryReadMsr(null, 0x8FF, out _));
    }
}
