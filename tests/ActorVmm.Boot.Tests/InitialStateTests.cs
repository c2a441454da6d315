using System.Buffers.Binary;
using ActorVmm.Actors;
using ActorVmm.Hypervisor;
using Xunit;

namespace ActorVmm.Boot.Tests;

public sealed class InitialStateTests : BootFixture
{
    [Fact]
    public void Linux64_starts_in_long_mode_with_the_zero_page_in_RSI()
    {
        var plan = BootLoader.Load(Ram(), new BootRequest { KernelPath = Write(TestImages.Elf()) });
        var state = InitialState.For(AtReset(), plan);
        Assert.Equal(0x100_0000ul, state.General.Rip);
        Assert.Equal((0x7000ul, 0x8FF0ul, 0x8FF0ul, 2ul), (state.General.Rsi, state.General.Rsp, state.General.Rbp, state.General.Rflags));
        Assert.Equal((0ul, 0ul), (state.General.Rbx, state.General.Rdx)); // nothing of the reset state remains
        Assert.Equal((0x8000_0011ul, 0x20ul, 0x500ul, 0x9000ul),
            (state.Special.Cr0, state.Special.Cr4, state.Special.Efer, state.Special.Cr3));
        Assert.Equal((ushort)0x10, state.Special.Cs.Selector);
        Assert.True(state.Special.Cs is { Long: true, Db: false, Type: 0xB, Limit: 0xFFFF_FFFF, Base: 0, Present: true });
        Assert.All(DataSegments(state), s => Assert.True(s is { Selector: 0x18, Type: 0x3, Limit: 0xFFFF_FFFF, Base: 0, Present: true }));
        Assert.True(state.Special.Tr is { Selector: 0x20, Type: 0xB, System: true, Present: true, Limit: 0x67 });
        Assert.Equal(new TableRegister(0x500, 0x2F), state.Special.Gdt);
        Assert.Equal(0xFEE0_0900ul, state.Special.ApicBase);
        Assert.Equal(VcpuActivity.Running, state.Activity);
    }

    [Fact]
    public void Pvh32_starts_in_flat_protected_mode_with_the_start_info_in_EBX()
    {
        var plan = BootLoader.Load(Ram(), new BootRequest { KernelPath = Write(TestImages.PvhElf()), Format = KernelFormat.Pvh });
        var state = InitialState.For(AtReset(), plan);
        Assert.Equal((0x100_0010ul, 0x6000ul, 2ul), (state.General.Rip, state.General.Rbx, state.General.Rflags));
        Assert.Equal((0x11ul, 0ul, 0ul, 0ul), (state.Special.Cr0, state.Special.Cr4, state.Special.Efer, state.Special.Cr3));
        Assert.True(state.Special.Cs is { Long: false, Db: true, Type: 0xB, Limit: 0xFFFF_FFFF, Base: 0, Present: true });
        Assert.All(DataSegments(state), s => Assert.True(s is { Db: true, Limit: 0xFFFF_FFFF, Base: 0, Present: true }));
    }

    [Theory]
    [InlineData(KernelFormat.Elf64)]
    [InlineData(KernelFormat.Pvh)]
    public void test_kvm_segment_parse_and_test_write_table(KernelFormat format)
    {
        // Each segment's hidden part is what the processor would read from the GDT in RAM, so that a reload changes nothing.
        var memory = Ram();
        var plan = BootLoader.Load(memory, new BootRequest { KernelPath = Write(TestImages.PvhElf()), Format = format });
        var state = InitialState.For(AtReset(), plan);
        Assert.Equal(EntryTables.Gdt(plan.Protocol), Bytes(memory, plan.GdtBase.Value, plan.GdtLimit + 1));
        Assert.All([state.Special.Cs, .. DataSegments(state), state.Special.Tr], s => Assert.Equal(Descriptor(s.Selector), s));

        SegmentState Descriptor(ushort selector)
        {
            Assert.True(selector + 7 <= plan.GdtLimit);
            var d = Value<ulong>(memory, plan.GdtBase.Value + selector);
            var g = (d & (1ul << 55)) != 0;
            var limit = (uint)(d & 0xFFFF) | (uint)(d >> 32) & 0xF_0000;
            return new SegmentState(selector, (d >> 16) & 0xFF_FFFF | (d >> 32) & 0xFF00_0000, g ? (limit << 12) | 0xFFF : limit,
                Type: (byte)((d >> 40) & 0xF), Present: (d & (1ul << 47)) != 0, Dpl: (byte)((d >> 45) & 3), System: (d & (1ul << 44)) == 0,
                Long: (d & (1ul << 53)) != 0, Db: (d & (1ul << 54)) != 0, Granularity: g);
        }
    }

    [Fact]
    public void Control_words_are_at_their_defaults_and_test_delivery_mode()
    {
        var reset = AtReset();
        var state = InitialState.For(reset, BootLoader.Load(Ram(), new BootRequest { KernelPath = Write(TestImages.Elf()) }));
        Assert.Equal(0x37F, BinaryPrimitives.ReadUInt16LittleEndian(state.Xsave));
        Assert.Equal(0x1F80u, BinaryPrimitives.ReadUInt32LittleEndian(state.Xsave.AsSpan(24)));
        Assert.Equal(3ul, BinaryPrimitives.ReadUInt64LittleEndian(state.Xsave.AsSpan(512)));
        Assert.Equal(reset.Xsave.Length, state.Xsave.Length);
        // Bits 10:8 change, the mask stays as it was (guest ABI 3.4: 0x700 and 0x10400 on the boot processor).
        Assert.Equal(0x700u, BinaryPrimitives.ReadUInt32LittleEndian(state.Lapic.AsSpan(0x350)));
        Assert.Equal(0x10400u, BinaryPrimitives.ReadUInt32LittleEndian(state.Lapic.AsSpan(0x360)));
        Assert.Equal(0x10000u, BinaryPrimitives.ReadUInt32LittleEndian(reset.Lapic.AsSpan(0x360))); // its owner's page is not written
    }

    private static SegmentState[] DataSegments(VcpuState state) =>
        [state.Special.Ds, state.Special.Es, state.Special.Fs, state.Special.Gs, state.Special.Ss];

    private static VcpuState AtReset()
    {
        var real = new SegmentState(0, 0, 0xFFFF, 3, true, 0, false, false, false, false);
        var lapic = new byte[1024];
        lapic[0x362] = 1;
        var xsave = new byte[4096];
        Array.Fill(xsave, (byte)0xEE);
        return new VcpuState
        {
            General = new GeneralRegisters { Rip = 0xFFF0, Rdx = 0x600, Rbx = 7 },
            Special = new SpecialRegisters
            {
                Cs = real with { Selector = 0xF000, Base = 0xFFFF_0000, Type = 0xB },
                Ds = real,
                Es = real,
                Fs = real,
                Gs = real,
                Ss = real,
                Tr = real,
                Ldt = real,
                Gdt = new TableRegister(0, 0xFFFF),
                Idt = new TableRegister(0, 0xFFFF),
                Cr0 = 0x6000_0010,
                ApicBase = 0xFEE0_0900,
            },
            Xsave = xsave,
            Lapic = lapic,
        };
    }
}
