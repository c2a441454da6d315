using ActorVmm.Hypervisor.Soft.Cpu;
using CsCheck;
using Xunit;

namespace ActorVmm.Hypervisor.Soft.Tests.SystemSide;

public sealed class DescriptorTests
{
    [Fact]
    public void Fields_lie_where_the_manual_draws_them() =>
        Gen.Select(Gen.UInt, Gen.UInt[0, 0xFFFFF], Gen.Int[0, 15], Gen.Int[0, 3], Gen.Bool).Sample((address, limit, type, dpl, pages) =>
        {
            // SDM Vol. 3 figure 3-8.
            var raw = limit & 0xFFFF | (ulong)(address & 0xFF_FFFF) << 16 | (ulong)(type | 0x10 | dpl << 5 | 0x80) << 40 |
                (ulong)(limit >> 16) << 48 | (pages ? 1UL << 55 : 0) | (ulong)(address >> 24) << 56;
            var descriptor = new Descriptor(raw);
            Assert.Equal(address, descriptor.Base);
            Assert.Equal(pages ? limit << 12 | 0xFFF : limit, descriptor.Limit);
            Assert.Equal((type, dpl, true, true), (descriptor.Type, descriptor.Dpl, descriptor.Present, descriptor.IsCodeOrData));
            var segment = descriptor.ToSegment(0x1B);
            Assert.Equal((type, dpl, true, descriptor.Limit, (ushort)0x1B), (segment.Type, segment.Dpl, segment.Present, segment.Limit, segment.Selector));
        });

    [Theory]
    [InlineData(0b0000, false, true, false)] // read-only data
    [InlineData(0b0010, false, true, true)] // writable data
    [InlineData(0b0110, false, true, true)] // expand-down
    [InlineData(0b1000, true, false, false)] // execute-only
    [InlineData(0b1010, true, true, false)] // readable code
    [InlineData(0b1110, true, true, false)] // conforming
    public void What_a_type_allows(int type, bool code, bool readable, bool writable)
    {
        var descriptor = new Descriptor((ulong)(type | 0x90) << 40);
        Assert.Equal((code, readable, writable), (descriptor.IsCode, descriptor.IsReadable, descriptor.IsWritableData));
        Assert.Equal(type == 0b1110, descriptor.IsConforming);
    }

    [Fact]
    public void A_system_descriptor_is_neither_code_nor_data()
    {
        var descriptor = new Descriptor((ulong)(0x80 | SystemType.InterruptGate32) << 40);
        Assert.False(descriptor.IsCodeOrData || descriptor.IsCode || descriptor.IsWritableData || descriptor.IsReadable || descriptor.IsConforming);
    }
}
