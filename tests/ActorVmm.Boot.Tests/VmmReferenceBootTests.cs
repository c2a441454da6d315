using ActorVmm.Memory;
using Xunit;

namespace ActorVmm.Boot.Tests;

/// <summary>The boot tests of rust-vmm's vmm-reference, each under its own name.</summary>
public sealed class VmmReferenceBootTests : BootFixture
{
    private const ulong Himem = MemoryLayout.HighMemory;
    private const ulong GapStart = GuestMemory.GapStart;
    private const ulong GapEnd = GuestMemory.HighStart;

    [Fact]
    public void test_build_bootparams()
    {
        // The three errors: himem past the end of RAM, himem past the gap, a gap that ends before it starts.
        Refused("himem start", () => E820Map.Build(Himem - 1, Himem, GapStart, GapEnd));
        Refused("himem start", () => E820Map.Build(GapEnd + 1, GapStart + 1, GapStart, GapEnd));
        Refused("gap start", () => E820Map.Build(GapEnd, Himem, GapEnd + 1, GapEnd));

        // RAM on both sides of the gap: one range more than RAM on one side.
        var split = E820Map.Build(GapEnd + 0x1000).Entries;
        var whole = E820Map.Build(GapStart).Entries;
        Assert.Equal(whole.Count + 1, split.Count);
        Assert.Equal(new E820Entry(0, 0x9FC00, E820Type.Ram), whole[0]);
        Assert.Equal(new E820Entry(Himem, GapStart - Himem, E820Type.Ram), whole[^1]);
        Assert.Equal(new E820Entry(Himem, GapStart - Himem, E820Type.Ram), split[^2]);
        Assert.Equal(new E820Entry(GapEnd, 0x1000, E820Type.Ram), split[^1]);

        // Header defaults.
        var page = BootParams.ForElf().Bytes;
        Assert.Equal((0x55, 0xAA), (page[0x1FE], page[0x1FF]));
        Assert.Equal("HdrS"u8, page.Slice(0x202, 4));
        Assert.Equal(0xFF, page[0x210]);
        Assert.Equal(0x0100_0000, BitConverter.ToInt32(page[0x230..]));
    }

    [Fact]
    public void test_add_e820_entry()
    {
        var map = new E820Map();
        for (ulong i = 0; i < E820Map.Capacity; i++) map.Add(i << 12, 0x1000, E820Type.Ram);
        Refused("e820_entries", () => map.Add(0x100_0000, 0x1000, E820Type.Ram));
        Assert.Equal(128, map.Entries.Count);
    }

    [Fact]
    public void test_compute_kernel_load_addr()
    {
        // ELF: RIP = e_entry. bzImage: RIP = load address + 0x200.
        Assert.Equal(new GuestAddress(0x100_0040), Load(Elf(0x100_0040)).Entry);
        Assert.Equal(new GuestAddress(0x10_0200), Load(Write(TestImages.BzImage())).Entry);

        // Out of RAM, both ways.
        Refused("p_paddr", () => Load(Write(TestImages.Elf(address: 0x1000_0000))));
        var far = TestImages.BzImage();
        BitConverter.TryWriteBytes(far.AsSpan(0x214), 0x1000_0000);
        Refused("p_paddr", () => Load(Write(far)));
    }

    [Fact]
    public void test_load_kernel()
    {
        var elf = Ram();
        var plan = BootLoader.Load(elf, new BootRequest { KernelPath = Elf(0x100_0000) });
        Assert.Equal((KernelFormat.Elf64, EntryProtocol.Linux64), (plan.Format, plan.Protocol));
        Assert.Equal(new GuestAddress(0x100_0000), plan.Entry);
        Assert.Equal(0, Value<byte>(elf, MemoryLayout.ZeroPage + 0x1F1)); // no setup header to copy
        Assert.Equal(TestImages.Code(0x300), Bytes(elf, 0x100_0000, 0x300));

        var bz = Ram();
        var image = TestImages.BzImage();
        plan = BootLoader.Load(bz, new BootRequest { KernelPath = Write(image) });
        Assert.Equal(KernelFormat.BzImage, plan.Format);
        Assert.Equal(image[0x400..], Bytes(bz, 0x10_0000, image.Length - 0x400));
        Assert.Equal(1, Value<byte>(bz, MemoryLayout.ZeroPage + 0x1F1));
        Assert.Equal(0x20F, Value<ushort>(bz, MemoryLayout.ZeroPage + 0x206));
        Assert.Equal(0x10_0000u, Value<uint>(bz, MemoryLayout.ZeroPage + 0x214));
    }

    [Fact]
    public void test_load_kernel_errors()
    {
        Assert.Equal("missing", Refused("kernel", () => Load(Path.Combine(Directory_, "absent"))).Value);
        Assert.Contains("bzImage", Refused("size", () => Load(Write([]))).Advice, StringComparison.Ordinal);
        Assert.Equal("a directory", Refused("kernel", () => Load(Directory_)).Value);
    }

    [Fact]
    public void test_cmdline_updates()
    {
        var memory = Ram();
        var plan = BootLoader.Load(memory, new BootRequest
        {
            KernelPath = Elf(0x100_0000),
            CommandLine = "panic=1 pci=off",
            VirtioMmio = [new VirtioMmioSlot(new GuestAddress(0xD000_0000), 0x1000, 5)],
        });
        const string Expected = "panic=1 pci=off console=ttyS0 virtio_mmio.device=4K@0xd0000000:5";
        Assert.Equal(Expected, plan.CommandLine);
        Assert.Equal([.. System.Text.Encoding.ASCII.GetBytes(Expected), 0], Bytes(memory, 0x20000, Expected.Length + 1));
        Assert.Equal(0x20000u, Value<uint>(memory, MemoryLayout.ZeroPage + 0x228));
    }

    private BootPlan Load(string path) => BootLoader.Load(Ram(), new BootRequest { KernelPath = path });

    private string Elf(ulong entry) =>
        Write(TestImages.Elf(entry, new Segment(TestImages.PtLoad, 0x100_0000, TestImages.Code(0x300))));
}
