using System.IO.Compression;
using ActorVmm.Boot.Kernel;
using ActorVmm.Memory;
using Xunit;

namespace ActorVmm.Boot.Tests;

/// <summary>A kernel is tens of MiB, packed and unpacked; none of that may go through the collected heap of a process with many VMs.</summary>
public sealed class LoaderGarbageTests : BootFixture
{
    [Theory]
    [InlineData(PayloadCompression.Gzip), InlineData(PayloadCompression.Lz4)]
    public void Loading_a_compressed_kernel_leaves_next_to_nothing_to_the_collector(PayloadCompression format)
    {
        const int size = 6 << 20;
        var elf = TestImages.Elf(0x100_0000, size);
        var payload = format is PayloadCompression.Lz4 ? TestImages.WithSize(TestImages.Lz4Frame(elf), elf.Length) : Gzip(elf);
        var path = Path.Combine(Directory.CreateTempSubdirectory("actorvmm-test-").FullName, "bzImage");
        try
        {
            File.WriteAllBytes(path, TestImages.BzImage(payload, initSize: 64 << 20));
            using var memory = GuestMemory.Create(256 << 20);
            var request = new BootRequest { KernelPath = path, Format = KernelFormat.Payload };
            BootLoader.Load(memory, request); // what is made once is there now
            var before = GC.GetAllocatedBytesForCurrentThread();
            BootLoader.Load(memory, request);
            Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 1 << 20);
            Assert.True(memory.TryRead(new GuestAddress(0x100_0000 + size - 8), out ulong last));
            Assert.Equal(BitConverter.ToUInt64(elf.AsSpan(elf.Length - 8)), last);
        }
        finally
        {
            Directory.Delete(Path.GetDirectoryName(path)!, recursive: true);
        }
    }

    private static byte[] Gzip(byte[] content)
    {
        using var packed = new MemoryStream();
        using (var stream = new GZipStream(packed, CompressionLevel.Fastest, leaveOpen: true)) stream.Write(content);
        return packed.ToArray(); // ends in its own size word
    }
}
