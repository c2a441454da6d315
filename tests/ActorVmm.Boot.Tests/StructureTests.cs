using System.Buffers.Binary;
using Xunit;

namespace ActorVmm.Boot.Tests;

/// <summary>The zero page, hvm_start_info, GDT and page tables, read back as the guest reads them.</summary>
public sealed class StructureTests : BootFixture
{
    private const ulong Page = MemoryLayout.ZeroPage;

    [Fact]
    public void The_zero_page_tells_of_initrd_command_line_ACPI_and_memory()
    {
        var memory = Ram(64);
        var initrd = TestImages.Code(5000, 9);
        var plan = BootLoader.Load(memory, new BootRequest { KernelPath = Write(TestImages.Elf()), InitrdPath = Write(initrd) });

        Assert.Equal(Page, plan.Parameters.Value);
        ulong at = Value<uint>(memory, Page + 0x218);
        Assert.Equal(5000u, Value<uint>(memory, Page + 0x21C));
        Assert.Equal(initrd, Bytes(memory, at, 5000));
        Assert.Equal((64ul << 20) - 0x2000, at); // as high as it goes, page aligned
        Assert.Equal(MemoryLayout.CommandLine, Value<uint>(memory, Page + 0x228));
        Assert.Equal(MemoryLayout.Acpi, Value<ulong>(memory, Page + 0x70));
        Assert.Equal("RSD PTR "u8.ToArray(), Bytes(memory, MemoryLayout.Acpi, 8));
        Assert.Equal(0, Value<byte>(memory, Page + 0x1EF));

        var count = Value<byte>(memory, Page + 0x1E8);
        var entries = Enumerable.Range(0, count).Select(i => Page + 0x2D0 + 20 * (ulong)i).Select(entry =>
            new E820Entry(Value<ulong>(memory, entry), Value<ulong>(memory, entry + 8), (E820Type)Value<uint>(memory, entry + 16)));
        Assert.Equal(plan.MemoryMap, entries);
    }

    [Theory]
    [InlineData(64)]
    [InlineData(3327)]
    [InlineData(3328)]
    [InlineData(3329)]
    [InlineData(8192)]
    public void The_memory_map_has_all_RAM_but_the_last_384_KiB_of_the_first_MiB(int mib)
    {
        var memory = Ram((ulong)mib);
        var plan = BootLoader.Load(memory, new BootRequest { KernelPath = Write(TestImages.Elf()), InitrdPath = Write(new byte[4096]) });
        var ram = plan.MemoryMap.Where(e => e.Type is E820Type.Ram).ToList();
        Assert.Equal(((ulong)mib << 20) - (0x100000 - 0x9FC00), ram.Aggregate(0ul, (sum, e) => sum + e.Size));
        Assert.All(ram, e => Assert.True(memory.Contains(new(e.Start), e.Size)));
        Assert.True(plan.MemoryMap.Zip(plan.MemoryMap.Skip(1)).All(p => p.First.Start + p.First.Size <= p.Second.Start));
        // Every placement outside of the reserved first MiB is RAM of the map; the initrd ends at the limit of 2 GiB or of RAM.
        Assert.All(plan.Placements.Where(p => p.Start.Value >= MemoryLayout.HighMemory), p => Assert.Contains(ram, e =>
            p.Start.Value >= e.Start && p.Start.Value + p.Size <= e.Start + e.Size));
        var initrd = plan.Placements.Single(p => p.Name == "initrd");
        Assert.Equal(Math.Min((ulong)mib << 20, 0x8000_0000) - 4096, initrd.Start.Value);
    }

    [Fact]
    public void No_two_placements_overlap()
    {
        var plan = BootLoader.Load(Ram(), new BootRequest
        {
            KernelPath = Write(TestImages.BzImage()),
            InitrdPath = Write(new byte[123]),
            CpuCount = 4
        });
        Assert.All(plan.Placements.Zip(plan.Placements.Skip(1)),
            p => Assert.True(p.First.Start.Value + p.First.Size <= p.Second.Start.Value));
    }

    [Fact]
    public void PVH_gets_its_start_info()
    {
        var memory = Ram();
        var plan = BootLoader.Load(memory, new BootRequest
        {
            KernelPath = Write(TestImages.PvhElf()),
            InitrdPath = Write(new byte[777]),
            Format = KernelFormat.Pvh,
        });
        Assert.Equal((EntryProtocol.Pvh32, 0x100_0010ul), (plan.Protocol, plan.Entry.Value));
        var info = plan.Parameters.Value;
        Assert.Equal(0x336EC578u, Value<uint>(memory, info));
        Assert.Equal(1u, Value<uint>(memory, info + 4));
        Assert.Equal(1u, Value<uint>(memory, info + 12));
        var module = Value<ulong>(memory, info + 16);
        Assert.Equal(plan.Placements.Single(p => p.Name == "initrd").Start.Value, Value<ulong>(memory, module));
        Assert.Equal(777ul, Value<ulong>(memory, module + 8));
        Assert.Equal(MemoryLayout.CommandLine, Value<ulong>(memory, info + 24));
        Assert.Equal(MemoryLayout.Acpi, Value<ulong>(memory, info + 32));
        var map = Value<ulong>(memory, info + 40);
        Assert.Equal((uint)plan.MemoryMap.Count, Value<uint>(memory, info + 48));
        for (var i = 0; i < plan.MemoryMap.Count; i++)
        {
            var entry = map + 24 * (ulong)i;
            Assert.Equal(plan.MemoryMap[i],
                new E820Entry(Value<ulong>(memory, entry), Value<ulong>(memory, entry + 8), (E820Type)Value<uint>(memory, entry + 16)));
        }
    }

    [Fact]
    public void PVH_inside_a_bzImage_is_entered_too()
    {
        var plan = BootLoader.Load(Ram(), new BootRequest
        {
            KernelPath = Write(TestImages.BzImageWithElf(TestImages.PvhElf())),
            Format = KernelFormat.Pvh,
        });
        Assert.Equal((EntryProtocol.Pvh32, 0x100_0010ul), (plan.Protocol, plan.Entry.Value));
    }

    [Theory]
    [InlineData(KernelFormat.Pvh, false, "XEN_ELFNOTE_PHYS32_ENTRY")]
    [InlineData(KernelFormat.BzImage, false, "kernel format")]
    [InlineData(KernelFormat.Payload, false, "kernel format")]
    [InlineData(KernelFormat.Elf64, true, "kernel format")]
    public void A_format_that_the_file_is_not_is_refused(KernelFormat format, bool bzImage, string field)
    {
        var path = Write(bzImage ? TestImages.BzImage() : TestImages.Elf());
        Refused(field, () => BootLoader.Load(Ram(), new BootRequest { KernelPath = path, Format = format }));
    }

    [Fact]
    public void A_PVH_entry_outside_of_the_kernel_is_refused() => Refused("PVH entry", () =>
        BootLoader.Load(Ram(), new BootRequest { KernelPath = Write(TestImages.PvhElf(entry: 0x200_0000)), Format = KernelFormat.Pvh }));

    [Fact]
    public void The_page_tables_map_4_GiB_to_themselves()
    {
        var memory = Ram();
        var root = BootLoader.Load(memory, new BootRequest { KernelPath = Write(TestImages.Elf()) }).PageTableRoot.Value;
        foreach (var address in (ulong[])[0, 0x7000, 0x1F_FFFF, 0x20_0000, 0x100_0000, 0x3FFF_FFFF, 0x4000_0000, 0xD000_0000, 0xFEE0_0020,
            0xFFFF_FFFF])
            Assert.Equal(address, Translate(memory, root, address));
        Assert.Null(Translate(memory, root, 0x1_0000_0000));

        static ulong? Translate(ActorVmm.Memory.GuestMemory memory, ulong root, ulong address)
        {
            const ulong Frame = 0x000F_FFFF_FFFF_F000;
            var table = root;
            foreach (var shift in (int[])[39, 30, 21])
            {
                var entry = Value<ulong>(memory, table + (((address >> shift) & 0x1FF) << 3));
                if ((entry & 0b11) != 0b11) return null; // present and writable
                if ((entry & (1 << 7)) != 0) return (entry & Frame) + (address & ((1UL << shift) - 1));
                table = entry & Frame;
            }
            return null;
        }
    }

    [Theory]
    [InlineData(EntryProtocol.Linux64)]
    [InlineData(EntryProtocol.Pvh32)]
    public void The_GDT_has_flat_code_at_0x10_and_data_at_0x18(EntryProtocol protocol)
    {
        var gdt = EntryTables.Gdt(protocol);
        Assert.Equal(0ul, BinaryPrimitives.ReadUInt64LittleEndian(gdt));
        Decode(0x10, out var code, out var limit, out var flags);
        Assert.Equal((0x9B, 0xF_FFFFu, protocol is EntryProtocol.Linux64 ? 0b1010 : 0b1100), (code, limit, flags));
        Decode(0x18, out var data, out limit, out flags);
        Assert.Equal((0x93, 0xF_FFFFu, 0b1100), (data, limit, flags));
        Decode(0x20, out var task, out limit, out flags);
        Assert.Equal((0x8B, 0x67u, 0), (task, limit, flags));

        void Decode(int selector, out int access, out uint limit, out int flags)
        {
            var d = BinaryPrimitives.ReadUInt64LittleEndian(gdt.AsSpan(selector));
            access = (int)(d >> 40) & 0xFF;
            limit = (uint)(d & 0xFFFF) | (uint)(d >> 32) & 0xF_0000;
            flags = (int)(d >> 52) & 0xF;
            Assert.Equal(0ul, (d >> 16) & 0xFF_FFFF | (d >> 32) & 0xFF00_0000); // base
        }
    }

    [Fact]
    public void The_BIOS_data_area_points_to_the_EBDA()
    {
        var memory = Ram();
        BootLoader.Load(memory, new BootRequest { KernelPath = Write(TestImages.Elf()) });
        Assert.Equal(MemoryLayout.Ebda, (ulong)Value<ushort>(memory, 0x40E) << 4);
        Assert.Equal(639, Value<ushort>(memory, 0x413));
        Assert.Equal("_MP_"u8.ToArray(), Bytes(memory, MemoryLayout.Ebda, 4));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(255)]
    public void A_CPU_count_that_no_table_can_tell_is_refused(int cpus) =>
        Refused("vcpus", () => BootLoader.Load(Ram(), new BootRequest { KernelPath = Write(TestImages.Elf()), CpuCount = cpus }));

    [Fact]
    public void An_initrd_that_is_empty_missing_or_too_large_is_refused()
    {
        var kernel = Write(TestImages.Elf());
        Refused("initrd size", () => BootLoader.Load(Ram(), new BootRequest { KernelPath = kernel, InitrdPath = Write([]) }));
        Refused("initrd", () => BootLoader.Load(Ram(), new BootRequest
        {
            KernelPath = kernel,
            InitrdPath = Path.Combine(Directory_,
            "no")
        }));
        Refused("initrd size", () => BootLoader.Load(Ram(32), new BootRequest
        {
            KernelPath = kernel,
            InitrdPath = Write(new byte[32 << 20])
        }));
    }

    [Fact]
    public void A_kernel_load_addr_past_RAM_is_refused() => Refused("kernel_load_addr", () =>
        BootLoader.Load(Ram(64), new BootRequest { KernelPath = Write(TestImages.Elf()), LoadAddress = new(64 << 20) }));

    [Fact]
    public void test_memory_constraints() => Refused("size", () =>
    {
        using var small = ActorVmm.Memory.GuestMemory.Create(0x1F_F000); // one page less than 2 MiB
        BootLoader.Load(small, new BootRequest { KernelPath = Write(TestImages.Elf()) });
    });

    [Fact]
    public void What_is_refused_leaves_RAM_untouched()
    {
        var memory = Ram(2);
        Refused("p_paddr", () => BootLoader.Load(memory, new BootRequest { KernelPath = Write(TestImages.Elf()) }));
        Assert.True(memory.TrySlice(new(0), 2 << 20, out var bytes));
        Assert.False(bytes.ContainsAnyExcept((byte)0));
    }
}
