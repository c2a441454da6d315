using Xunit;

namespace ActorVmm.Boot.Tests;

/// <summary>linux-loader's cmdline tests by name, and what the guest's own line adds.</summary>
public sealed class CommandLineTests : BootFixture
{
    [Fact]
    public void insert_hello_world()
    {
        var line = new CommandLine(100);
        Assert.Equal([0], line.ToBytes());
        line.Insert("hello", "world");
        Assert.Equal("hello=world", line.ToString());
        Assert.Equal("hello=world\0"u8.ToArray(), line.ToBytes());
    }

    [Fact]
    public void insert_multi()
    {
        var line = new CommandLine(100);
        line.Insert("hello", "world");
        line.Insert("foo", "bar");
        Assert.Equal("hello=world foo=bar", line.ToString());
    }

    [Fact]
    public void insert_space()
    {
        var line = new CommandLine(100);
        Refused("a ", () => line.Insert("a ", "b"));
        Refused("a", () => line.Insert("a", "b b"));
        Refused(" a", () => line.Insert(" a", "b"));
        Assert.Equal(0, line.Length);
    }

    [Fact]
    public void insert_equals()
    {
        var line = new CommandLine(100);
        Refused("key", () => line.Insert("a=", "b"));
        line.Insert("a", "b=c"); // a value may: root=PARTUUID=...
        Assert.Equal("a=b=c", line.ToString());
    }

    [Fact]
    public void insert_emoji()
    {
        var line = new CommandLine(100);
        Refused("character", () => line.Insert("heart", "💖"));
        Refused("character", () => line.Insert("💖", "love"));
        Refused("character", () => line.InsertText("a\nb"));
        Refused("character", () => line.InsertText("nul\0"));
        Assert.Equal(0, line.Length);
    }

    [Fact]
    public void insert_string()
    {
        var line = new CommandLine(13);
        line.InsertText("noapic");
        line.InsertText("nopci");
        Assert.Equal("noapic nopci", line.ToString()); // 12 characters and the NUL
    }

    [Fact]
    public void insert_too_large()
    {
        var line = new CommandLine(4);
        Refused("length", () => line.Insert("hello", "world"));
        Refused("length", () => line.Insert("a", "bc")); // four characters leave no room for the NUL
        line.Insert("a", "b");
        Refused("length", () => line.InsertText("x"));
        Assert.Equal("a=b", line.ToString());
        var wide = new CommandLine(10);
        wide.Insert("ab", "ba");
        Refused("length", () => wide.Insert("c", "das")); // 5 + space + 5 = 11
        wide.Insert("c", "d");
        Assert.Equal("ab=ba c=d", wide.ToString());
    }

    [Fact]
    public void insert_multiple_values()
    {
        var line = new CommandLine(100);
        Refused("foo", () => line.InsertMultiple("foo", []));
        Refused("foo", () => line.InsertMultiple("foo", ["a", ""]));
        line.InsertMultiple("foo", ["bar1", "bar2"]);
        Assert.Equal("foo=bar1,bar2", line.ToString());
    }

    [Theory]
    [InlineData(1u, 0u, 1, null, "virtio_mmio.device=1@0x0:1")]
    [InlineData(4096u, 0xD000_0000u, 5, null, "virtio_mmio.device=4K@0xd0000000:5")]
    [InlineData(0x30_0000u, 0x100u, 2, 0, "virtio_mmio.device=3M@0x100:2:0")]
    [InlineData(0x8000_0000u, 0xABCDu, 23, 42, "virtio_mmio.device=2G@0xabcd:23:42")]
    [InlineData(1025u, 0x10u, 7, null, "virtio_mmio.device=1025@0x10:7")]
    public void add_virtio_mmio_device(uint size, uint address, int irq, int? id, string expected)
    {
        var line = new CommandLine(100);
        line.AddVirtioMmioDevice(size, address, irq, id);
        Assert.Equal(expected, line.ToString());
    }

    [Fact]
    public void add_virtio_mmio_device_without_size()
    {
        var line = new CommandLine(100);
        Refused("virtio_mmio.device", () => line.AddVirtioMmioDevice(0, 0, 0));
    }

    [Theory]
    [InlineData("", "console=ttyS0")]
    [InlineData("panic=1", "panic=1 console=ttyS0")]
    [InlineData("console=ttyS0 quiet", "console=ttyS0 quiet")]
    [InlineData("console=ttyS0,115200n8", "console=ttyS0,115200n8")]
    [InlineData("console=ttyS01 a", "console=ttyS01 a console=ttyS0")]
    [InlineData("dyndbg=\"file a.c +p\" x", "dyndbg=\"file a.c +p\" x console=ttyS0")]
    public void The_serial_console_is_added_once(string user, string expected) =>
        Assert.Equal(expected, CommandLine.ForGuest(user, []).ToString());

    [Fact]
    public void Linux_keeps_2048_bytes_and_so_do_we()
    {
        var user = "console=ttyS0 " + new string('x', 2047 - 14);
        Assert.Equal(2047, CommandLine.ForGuest(user, []).Length);
        Refused("length", () => CommandLine.ForGuest(user + "x", []));
    }
}
