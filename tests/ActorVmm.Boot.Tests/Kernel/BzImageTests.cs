using System.Buffers.Binary;
using ActorVmm.Boot.Kernel;
using Xunit;

namespace ActorVmm.Boot.Tests.Kernel;

public sealed class BzImageTests : BootFixture
{
    [Fact]
    public void load_bz()
    {
        var header = BzImage.Parse(TestImages.Source(TestImages.BzImage(payload: TestImages.Code(64))));
        Assert.Equal(0x20F, header.Version);
        Assert.Equal(0x400ul, header.SetupSize);
        Assert.Equal(0x440ul, header.KernelSize);
        Assert.Equal(0x10_0000u, header.Code32Start);
        Assert.Equal(0x7FFF_FFFFu, header.InitrdAddressMax);
        Assert.Equal(2047u, header.CommandLineMax);
        Assert.Equal((0x400u, 64u), header.Payload);
        Assert.Equal((0x100_0000ul, 0x10_0000u), (header.PreferredAddress, header.InitSize));
        Assert.True(header.Has64BitEntry);
    }

    [Fact]
    public void Only_the_header_that_the_image_declares_is_copied()
    {
        // boot.rst: from 0x1f1 to 0x202 + the byte at 0x201; what follows in the file is code.
        var image = TestImages.BzImage();
        image.AsSpan(0x26C, 0x24).Fill(0xEE);
        var memory = Ram();
        BootLoader.Load(memory, new BootRequest { KernelPath = Write(image) });
        Assert.Equal(image[0x21C..0x228], Bytes(memory, MemoryLayout.ZeroPage + 0x21C, 12));
        Assert.Equal(image[0x230..0x26C], Bytes(memory, MemoryLayout.ZeroPage + 0x230, 0x3C));
        Assert.Equal(new byte[0x24], Bytes(memory, MemoryLayout.ZeroPage + 0x26C, 0x24));
        Assert.Equal(0, Value<byte>(memory, MemoryLayout.ZeroPage + 0x1EF)); // sentinel
        Assert.Equal(0xFF, Value<byte>(memory, MemoryLayout.ZeroPage + 0x210));
    }

    [Fact]
    public void invalid_bzimage_underflow()
    {
        var image = TestImages.BzImage();
        image[0x1F1] = 200; // setup code longer than the file
        Refused("setup_sects", () => BzImage.Parse(TestImages.Source(image)));
        image[0x1F1] = 0;   // means 4: 2560 bytes, the file has 2048
        Refused("setup_sects", () => BzImage.Parse(TestImages.Source(image)));
        Refused("size", () => BzImage.Parse(TestImages.Source(new byte[0x267])));
    }

    [Theory]
    [InlineData(0x202, 0u, "header")]
    [InlineData(0x1FE, 0x1234u, "boot_flag")]
    [InlineData(0x206, 0x1FFu, "version")]
    [InlineData(0x1F4, 0x0010_0000u, "syssize")]
    [InlineData(0x201, 0x6482_6448u, "jump")]
    public void A_header_that_is_no_bzImages_is_refused(int at, uint value, string field)
    {
        var image = TestImages.BzImage();
        if (at is 0x1FE or 0x206) BinaryPrimitives.WriteUInt16LittleEndian(image.AsSpan(at), (ushort)value);
        else if (at == 0x201) image[at] = 0xF0;
        else BinaryPrimitives.WriteUInt32LittleEndian(image.AsSpan(at), value);
        Refused(field, () => BzImage.Parse(TestImages.Source(image)));
    }

    [Fact]
    public void A_zImage_is_refused()
    {
        var image = TestImages.BzImage();
        image[0x211] = 0;
        Refused("loadflags", () => BzImage.Parse(TestImages.Source(image)));
    }

    [Fact]
    public void A_kernel_without_the_64_bit_entry_is_refused()
    {
        var image = TestImages.BzImage();
        image[0x236] = 0;
        Refused("version", () => BootLoader.Load(Ram(), new BootRequest { KernelPath = Write(image) }));
    }

    [Fact]
    public void A_load_address_above_code32_start_is_refused() =>
        Refused("code32_start", () => BootLoader.Load(Ram(), new BootRequest
        {
            KernelPath = Write(TestImages.BzImage()),
            LoadAddress = new(0x20_0000),
        }));

    [Fact]
    public void The_room_the_kernel_unpacks_into_must_be_RAM() =>
        Refused("init_size", () =>
            BootLoader.Load(Ram(64), new BootRequest { KernelPath = Write(TestImages.BzImage(initSize: 64 << 20)) }));

    [Fact]
    public void The_initrd_stays_clear_of_the_room_the_kernel_unpacks_into()
    {
        // 64 MiB of RAM, the kernel uses [1 MiB, 16 MiB + 47 MiB): the top MiB remains.
        var image = Write(TestImages.BzImage(initSize: 47 << 20));
        var plan = BootLoader.Load(Ram(64), new BootRequest { KernelPath = image, InitrdPath = Write(new byte[1 << 20]) });
        Assert.Equal(63ul << 20, plan.Placements.Single(p => p.Name == "initrd").Start.Value);
        Refused("initrd size", () => BootLoader.Load(Ram(64), new BootRequest
        {
            KernelPath = image,
            InitrdPath = Write(new byte[(1 << 20) + 1])
        }));
    }

    [Fact]
    public void A_short_command_line_limit_of_the_image_is_kept()
    {
        var image = TestImages.BzImage();
        BinaryPrimitives.WriteUInt32LittleEndian(image.AsSpan(0x238), 20);
        var path = Write(image);
        Refused("length", () => BootLoader.Load(Ram(), new BootRequest { KernelPath = path, CommandLine = "console=ttyS0 panic=1" }));
        Assert.Equal("console=ttyS0 quiet1", BootLoader.Load(Ram(), new BootRequest
        {
            KernelPath = path,
            CommandLine = "console=ttyS0 quiet1"
        }).CommandLine);
    }
}
