using System.Buffers.Binary;
using ActorVmm.Boot.Kernel;
using Xunit;

namespace ActorVmm.Boot.Tests.Kernel;

public sealed class PayloadTests : BootFixture
{
    public static TheoryData<PayloadCompression, byte[]> Vectors => new()
    {
        { PayloadCompression.Gzip, PayloadVectors.Gzip() }, // ends in its own size word
        { PayloadCompression.Xz, TestImages.WithSize(PayloadVectors.XzX86(), 4800) },
        { PayloadCompression.Zstd, TestImages.WithSize(PayloadVectors.Zstd(), 4800) },
        { PayloadCompression.Bzip2, TestImages.WithSize(PayloadVectors.Bzip2(), 4800) },
        { PayloadCompression.Lzma, TestImages.WithSize(PayloadVectors.Lzma(), 4800) },
        { PayloadCompression.Lz4, TestImages.WithSize(PayloadVectors.Lz4Legacy(), 4800) },
    };

    [Theory]
    [MemberData(nameof(Vectors))]
    public void Every_format_of_the_kernel_build_is_unpacked(PayloadCompression format, byte[] payload)
    {
        Assert.Equal(format, Payload.Detect(payload));
        Assert.Equal(PayloadVectors.Content(), Payload.Unpack("image", payload, limit: 4800));
    }

    [Theory]
    [MemberData(nameof(Vectors))]
    public void A_stream_that_gives_more_than_it_claims_is_refused(PayloadCompression format, byte[] payload)
    {
        BinaryPrimitives.WriteInt32LittleEndian(payload.AsSpan(payload.Length - 4), 4799);
        Assert.Contains($"{format}", Refused("payload", () => Payload.Unpack("image", payload, 1 << 20)).Value, StringComparison.Ordinal);
    }

    [Theory]
    [MemberData(nameof(Vectors))]
    public void A_stream_that_gives_less_than_it_claims_is_refused(PayloadCompression format, byte[] payload)
    {
        BinaryPrimitives.WriteInt32LittleEndian(payload.AsSpan(payload.Length - 4), 4801);
        Assert.Contains($"{format}", Refused("payload", () => Payload.Unpack("image", payload, 1 << 20)).Value, StringComparison.Ordinal);
    }

    [Theory]
    [MemberData(nameof(Vectors))]
    public void A_stream_cut_in_half_is_refused(PayloadCompression format, byte[] payload)
    {
        var cut = TestImages.WithSize(payload[..(payload.Length / 2)], 4800);
        Assert.Contains($"{format}", Refused("payload", () => Payload.Unpack("image", cut, 1 << 20)).Value, StringComparison.Ordinal);
    }

    [Theory]
    [MemberData(nameof(Vectors))]
    public void A_size_beyond_the_limit_is_refused_before_anything_is_unpacked(PayloadCompression format, byte[] payload)
    {
        var refused = Refused("payload size", () => Payload.Unpack("image", payload, limit: 4799));
        Assert.Equal("0x12c0", refused.Value);
        BinaryPrimitives.WriteUInt32LittleEndian(payload.AsSpan(payload.Length - 4), 0xFFFF_FFFF);
        Refused("payload size", () => Payload.Unpack($"{format}", payload, limit: ulong.MaxValue));
    }

    [Fact]
    public void A_lzma_stream_that_knows_its_size_is_unpacked_too()
    {
        var lzma = PayloadVectors.Lzma();
        Assert.Equal(-1, BinaryPrimitives.ReadInt64LittleEndian(lzma.AsSpan(5)));
        BinaryPrimitives.WriteInt64LittleEndian(lzma.AsSpan(5), 4800);
        Assert.Equal(PayloadVectors.Content(), Payload.Unpack("image", TestImages.WithSize(lzma, 4800), 4800));
    }

    [Fact]
    public void LZ4_blocks_of_8_MiB_follow_one_another()
    {
        var content = new byte[(8 << 20) + 12345];
        for (var i = 0; i < content.Length; i += 97) content[i] = (byte)(i >> 8);
        Assert.Equal(content, Payload.Unpack("image", TestImages.WithSize(TestImages.Lz4Frame(content), content.Length), 1 << 30));
    }

    [Fact]
    public void LZO_and_the_unknown_are_refused_by_name()
    {
        Assert.Equal("LZO", Refused("payload", () => Payload.Unpack("image", [0x89, 0x4C, 0x5A, .. new byte[60]], 1 << 20)).Value);
        Refused("payload magic", () => Payload.Unpack("image", TestImages.Code(64), 1 << 20));
    }

    [Fact]
    public void The_kernel_inside_a_bzImage_is_loaded_and_entered_as_ELF()
    {
        var memory = Ram();
        var plan = BootLoader.Load(memory, new BootRequest { KernelPath = Write(TestImages.BzImageWithElf(TestImages.Elf())) });
        Assert.Equal((KernelFormat.Payload, EntryProtocol.Linux64), (plan.Format, plan.Protocol));
        Assert.Equal(0x100_0000ul, plan.Entry.Value);
        Assert.Equal(TestImages.Code(0x300), Bytes(memory, 0x100_0000, 0x300));
        Assert.Equal(0x20F, Value<ushort>(memory, MemoryLayout.ZeroPage + 0x206)); // the image's header, not one of ours
        Assert.Empty(plan.Notes);
    }

    [Fact]
    public void Auto_leaves_a_payload_it_cannot_unpack_to_the_guest_and_says_why()
    {
        var path = Write(TestImages.BzImage(payload: TestImages.Code(64)));
        var plan = BootLoader.Load(Ram(), new BootRequest { KernelPath = path });
        Assert.Equal(KernelFormat.BzImage, plan.Format);
        Assert.Contains("payload magic", Assert.Single(plan.Notes), StringComparison.Ordinal);
        Refused("payload magic", () => BootLoader.Load(Ram(), new BootRequest { KernelPath = path, Format = KernelFormat.Payload }));
    }

    [Fact]
    public void Auto_refuses_a_payload_of_a_known_format_that_is_damaged()
    {
        var image = TestImages.BzImageWithElf(TestImages.Elf());
        // The size word at the payload's end (payload_offset counts from behind the setup sectors) claims one byte less than there is.
        var end = (image[0x1F1] + 1) * 512 + BitConverter.ToInt32(image, 0x248) + BitConverter.ToInt32(image, 0x24C);
        BinaryPrimitives.WriteInt32LittleEndian(image.AsSpan(end - 4), BitConverter.ToInt32(image, end - 4) - 1);
        Refused("payload", () => BootLoader.Load(Ram(), new BootRequest { KernelPath = Write(image) }));
    }

    [Theory]
    [InlineData(0x248, 0x1000_0000u)]
    [InlineData(0x24C, 0xFFFF_FFFFu)]
    [InlineData(0x248, 0xFFFF_FFF0u)]
    public void A_payload_outside_of_the_kernel_is_refused(int at, uint value)
    {
        var image = TestImages.BzImageWithElf(TestImages.Elf());
        BinaryPrimitives.WriteUInt32LittleEndian(image.AsSpan(at), value);
        Refused("payload_offset", () => BootLoader.Load(Ram(), new BootRequest
        {
            KernelPath = Write(image),
            Format = KernelFormat.Payload
        }));
    }
}
