using System.Diagnostics;
using ActorVmm.Boot.Initramfs;
using CsCheck;
using Xunit;

namespace ActorVmm.Boot.Tests.Initramfs;

public sealed class CpioWriterTests : BootFixture
{
    [Fact]
    public void Files_links_and_devices_are_listed_back()
    {
        var archive = Example().ToArray();
        Assert.Equal(0, archive.Length % 512);
        var entries = CpioReader.Read(archive);
        Assert.Equal("bin bin/busybox bin/sh dev dev/console dev/vda init tmp", string.Join(' ', entries.Select(e => e.Name)));
        Assert.Equal([0x41EDu, 0x81EDu, 0xA1FFu, 0x41EDu, 0x2180u, 0x61B0u, 0x81EDu, 0x43FFu], entries.Select(e => e.Mode));
        Assert.Equal("busybox"u8.ToArray(), entries[2].Data);
        Assert.Equal((5u, 1u), (entries[4].Major, entries[4].Minor));
        Assert.Equal((254u, 0u), (entries[5].Major, entries[5].Minor));
        Assert.Equal(new byte[] { 1, 2, 3 }, entries[1].Data);
        Assert.All(entries, e => Assert.Equal(0u, e.Mtime));
        Assert.Equal(Enumerable.Range(1, 8).Select(i => (uint)i), entries.Select(e => e.Inode));
    }

    [Fact]
    public void The_same_content_gives_the_same_bytes_in_any_order()
    {
        var other = new CpioWriter().AddFile("a/b", new byte[] { 1 }).AddFile("a/a", new byte[] { 2 });
        var one = new CpioWriter().AddFile("a/a", new byte[] { 2 }).AddFile("a/b", new byte[] { 1 });
        Assert.Equal(one.ToArray(), other.ToArray());
    }

    [Theory]
    [InlineData("/init")]
    [InlineData("a//b")]
    [InlineData("a/")]
    [InlineData("../etc")]
    [InlineData("a/./b")]
    [InlineData("a\0b")]
    [InlineData("TRAILER!!!")]
    [InlineData("")]
    [InlineData("init")]
    [InlineData("init/x")]
    public void A_path_that_the_kernel_would_read_otherwise_is_refused(string path)
    {
        var writer = new CpioWriter().AddFile("init", default);
        Assert.ThrowsAny<ArgumentException>(() => writer.AddFile(path, default));
        Assert.Equal("init", Assert.Single(CpioReader.Read(writer.ToArray())).Name);
    }

    [Fact]
    public void A_directory_may_be_named_after_what_is_in_it()
    {
        var entries = CpioReader.Read(new CpioWriter().AddFile("root/x", default).AddDirectory("root", 0b111_000_000).ToArray());
        Assert.Equal([("root", 0x41C0u), ("root/x", 0x81A4u)], entries.Select(e => (e.Name, e.Mode)));
    }

    [Fact]
    public void Whatever_is_written_is_read_back()
    {
        var names = Gen.Char["abcxyz.-_0"].Array[1, 12].Select(c => new string(c)).Where(n => n.Trim('.').Length > 0);
        var files = Gen.Select(Gen.Select(names.Array[1, 3], parts => string.Join('/', parts)), Gen.Byte.Array[0, 70]).Array[0, 12];
        files.Sample(list =>
        {
            var writer = new CpioWriter();
            var kept = new Dictionary<string, byte[]>(StringComparer.Ordinal);
            foreach (var (path, data) in list)
            {
                // Not every set of paths is a tree: what the writer refuses must leave it as it was.
                try { writer.AddFile(path, data); }
                catch (ArgumentException) { continue; }
                kept.Add(path, data);
            }
            var read = CpioReader.Read(writer.ToArray());
            var parents = read.Where(e => (e.Mode & 0xF000) == 0x4000).Select(e => e.Name).ToHashSet(StringComparer.Ordinal);
            var regular = read.Where(e => (e.Mode & 0xF000) == 0x8000).ToDictionary(e => e.Name, e => e.Data, StringComparer.Ordinal);
            return regular.Count == kept.Count
                && kept.All(k => regular[k.Key].AsSpan().SequenceEqual(k.Value))
                && read.All(e => !e.Name.Contains('/') || parents.Contains(e.Name[..e.Name.LastIndexOf('/')]))
                && read.Zip(read.Skip(1)).All(p => string.CompareOrdinal(p.First.Name, p.Second.Name) < 0);
        }, iter: 500);
    }

    [ToolFact("cpio")]
    public void Cpio_lists_the_archive()
    {
        var path = Write(Example().ToArray());
        using var process = Process.Start(new ProcessStartInfo("cpio", ["-t", "--quiet", "-F", path])
        {
            RedirectStandardOutput = true,
            UseShellExecute = false,
        })!;
        var listed = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
        Assert.Equal("bin bin/busybox bin/sh dev dev/console dev/vda init tmp", string.Join(' ', listed.Split('\n',
            StringSplitOptions.RemoveEmptyEntries)));
    }

    private static CpioWriter Example() => new CpioWriter()
        .AddFile("init", "#!/bin/sh\n"u8.ToArray(), 0b111_101_101)
        .AddFile("bin/busybox", new byte[] { 1, 2, 3 }, 0b111_101_101)
        .AddSymlink("bin/sh", "busybox")
        .AddDirectory("tmp", 0b1_111_111_111)
        .AddCharacterDevice("dev/console", 5, 1)
        .AddBlockDevice("dev/vda", 254, 0, 0b110_110_000);
}
