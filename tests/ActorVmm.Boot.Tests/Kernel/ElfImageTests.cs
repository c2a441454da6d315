using System.Buffers.Binary;
using ActorVmm.Boot.Kernel;
using Xunit;

namespace ActorVmm.Boot.Tests.Kernel;

/// <summary>linux-loader's ELF tests by name, and what a lying header may try.</summary>
public sealed class ElfImageTests : BootFixture
{
    [Fact]
    public void load_elf()
    {
        var elf = ElfImage.Parse(TestImages.Source(TestImages.Elf(0x100_0020,
            new Segment(TestImages.PtLoad, 0x100_0000, TestImages.Code(0x40)),
            new Segment(TestImages.PtLoad, 0x200_0000, TestImages.Code(0x10), MemorySize: 0x2000),
            new Segment(TestImages.PtLoad, 0x300_0000, []))));
        Assert.Equal(0x100_0020ul, elf.Entry);
        Assert.Equal([(0x40ul, 0x40ul), (0x10ul, 0x2000ul)], elf.Segments.Select(s => (s.FileSize, s.MemorySize)));
        Assert.Null(elf.PvhEntry);
    }

    [Fact]
    public void load_elf_clears_the_bss_behind_the_file_bytes()
    {
        var memory = Ram();
        Assert.True(memory.TrySliceForWrite(new(0x100_0000), 0x3000, out var dirty));
        dirty.Fill(0xCC);
        var path = Write(TestImages.Elf(0x100_0000, new Segment(TestImages.PtLoad, 0x100_0000, TestImages.Code(0x100),
            MemorySize: 0x2000)));
        BootLoader.Load(memory, new BootRequest { KernelPath = path });
        Assert.Equal(TestImages.Code(0x100), Bytes(memory, 0x100_0000, 0x100));
        Assert.Equal(new byte[0x1F00], Bytes(memory, 0x100_0100, 0x1F00));
        Assert.Equal(0xCC, Value<byte>(memory, 0x100_2000));
    }

    [Theory]
    [InlineData(0, 0x7E, "e_ident")]
    [InlineData(4, 1, "EI_CLASS")]
    [InlineData(5, 2, "EI_DATA")]
    [InlineData(16, 1, "e_type")]
    [InlineData(18, 3, "e_machine")]
    [InlineData(54, 32, "e_phentsize")]
    [InlineData(32, 63, "e_phoff")]
    [InlineData(39, 0xFF, "e_phoff")]
    [InlineData(33, 0x70, "e_phoff")]
    [InlineData(56, 0, "e_phnum")]
    public void bad_magic_endian_phoff(int offset, byte value, string field)
    {
        var image = TestImages.Elf();
        image[offset] = value;
        Refused(field, () => ElfImage.Parse(TestImages.Source(image)));
    }

    [Fact]
    public void bad_align()
    {
        var image = TestImages.Elf(0x100_0000, new Segment(TestImages.PtLoad, 0x100_0000, TestImages.Code(0x40)),
            new Segment(TestImages.PtNote, 0, TestImages.PvhNote(0x100_0000), Align: 7));
        Refused("p_align", () => ElfImage.Parse(TestImages.Source(image)));
    }

    [Theory]
    [InlineData(4, 4)]
    [InlineData(8, 4)]
    [InlineData(8, 8)]
    public void The_PVH_note_is_found_behind_others(int size, int align)
    {
        var image = TestImages.Elf(0x100_0000, new Segment(TestImages.PtLoad, 0x100_0000, TestImages.Code(0x40)),
            new Segment(TestImages.PtNote, 0, TestImages.PvhNote(0x100_0010, size, align), Align: (ulong)align));
        Assert.Equal(0x100_0010u, ElfImage.Parse(TestImages.Source(image)).PvhEntry);
    }

    [Fact]
    public void A_PVH_entry_has_four_or_eight_bytes_and_lies_below_4_GiB()
    {
        Refused("n_descsz", () => Parse(TestImages.PvhNote(0x100_0010, size: 6)));
        Refused("XEN_ELFNOTE_PHYS32_ENTRY", () => Parse(TestImages.PvhNote(0x1_0000_0000, size: 8)));

        static ElfImage Parse(byte[] note) => ElfImage.Parse(TestImages.Source(TestImages.Elf(0x100_0000,
            new Segment(TestImages.PtLoad, 0x100_0000, TestImages.Code(0x40)), new Segment(TestImages.PtNote, 0, note, Align: 4))));
    }

    [Theory]
    [InlineData(0, 0xFFFF_FFFFu)] // namesz
    [InlineData(4, 0xFFFF_FFFFu)] // descsz
    [InlineData(4, 0x1000u)]
    public void A_note_that_leaves_its_segment_is_refused(int offset, uint value)
    {
        var note = TestImages.PvhNote(0x100_0010);
        BinaryPrimitives.WriteUInt32LittleEndian(note.AsSpan(offset), value);
        var image = TestImages.Elf(0x100_0000, new Segment(TestImages.PtLoad, 0x100_0000, TestImages.Code(0x40)),
            new Segment(TestImages.PtNote, 0, note, Align: 4));
        Refused("n_descsz", () => ElfImage.Parse(TestImages.Source(image)));
    }

    [Fact]
    public void overflow_loadaddr()
    {
        // p_paddr + p_memsz passes 2^64.
        var image = TestImages.Elf(0x100_0000, new Segment(TestImages.PtLoad, ulong.MaxValue - 0x10, TestImages.Code(0x40)));
        Refused("p_paddr", () => ElfImage.Parse(TestImages.Source(image)));
    }

    [Theory]
    [InlineData(64 + 8, "p_offset")]
    [InlineData(64 + 32, "p_filesz")]
    public void Segment_offsets_and_sizes_that_pass_the_file_are_refused(int at, string field)
    {
        foreach (var value in (ulong[])[0x10_0000, 0x7FFF_FFFF_FFFF_FFFF, ulong.MaxValue])
        {
            var image = TestImages.Elf();
            BinaryPrimitives.WriteUInt64LittleEndian(image.AsSpan(at), value);
            Refused(field, () => ElfImage.Parse(TestImages.Source(image)));
        }
    }

    [Fact]
    public void An_entry_outside_every_segment_or_below_the_load_address_is_refused()
    {
        var outside = Write(TestImages.Elf(0x200_0000, new Segment(TestImages.PtLoad, 0x100_0000, TestImages.Code(0x40))));
        Refused("e_entry", () => BootLoader.Load(Ram(), new BootRequest { KernelPath = outside }));
        var below = Write(TestImages.Elf());
        var refused = Refused("e_entry", () => BootLoader.Load(Ram(), new BootRequest
        {
            KernelPath = below,
            LoadAddress = new(0x200_0000)
        }));
        Assert.Contains("kernel_load_addr", refused.Advice, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0x7000u, "zero page")]
    [InlineData(0x9000u, "page tables")]
    [InlineData(0x20100u, "command line")]
    [InlineData(0xE0000u, "ACPI")]
    [InlineData(0x100u, "BDA")]
    public void A_segment_over_the_loaders_own_structures_is_refused(uint address, string owner)
    {
        var path = Write(TestImages.Elf(address, new Segment(TestImages.PtLoad, address, TestImages.Code(0x10))));
        var refused = Refused("p_paddr", () => BootLoader.Load(Ram(), new BootRequest { KernelPath = path, LoadAddress = new(0) }));
        Assert.Contains(owner, refused.Advice, StringComparison.Ordinal);
    }

    [Fact]
    public void Segments_that_overlap_each_other_are_refused()
    {
        var path = Write(TestImages.Elf(0x100_0000, new Segment(TestImages.PtLoad, 0x100_0000, TestImages.Code(0x40)),
            new Segment(TestImages.PtLoad, 0x100_003F, TestImages.Code(0x40))));
        Refused("p_paddr", () => BootLoader.Load(Ram(), new BootRequest { KernelPath = path }));
    }
}
