using Akka.Actor;
using ActorVmm.Actors.Host.Vm.Bus;

namespace ActorVmm.Actors.Tests.Host.Vm.Bus;

public sealed class AddressTableTests
{
    private static AddressTable Table(params AddressRange[] ranges) =>
        AddressTable.Build(ranges.Select((range, i) => new DeviceRoutee(new NamedRef($"dev{i}"), range)), AddressTable.Empty);

    [Fact]
    public void Every_address_of_a_range_finds_its_device_and_its_neighbours_do_not()
    {
        var table = Table(AddressRange.Ports(0x3F8, 8), AddressRange.Ports(0x60, 1), AddressRange.Ports(0x64, 1, deviceOffset: 4));

        Assert.True(table.TryFind(isPort: true, 0x3F8, 1, out var first) && first.Device.Name == "dev0");
        Assert.True(table.TryFind(isPort: true, 0x3FF, 1, out _));
        Assert.True(table.TryFind(isPort: true, 0x64, 1, out var command) && command.Range.DeviceOffset == 4);
        Assert.False(table.TryFind(isPort: true, 0x3F7, 1, out _));
        Assert.False(table.TryFind(isPort: true, 0x400, 1, out _));
        Assert.False(table.TryFind(isPort: true, 0x61, 1, out _));
        Assert.False(table.TryFind(isPort: false, 0x3F8, 1, out _)); // the same number in the other space
    }

    [Fact]
    public void An_access_must_lie_wholly_inside_one_range()
    {
        var table = Table(AddressRange.Mmio(0x1000, 0x10), AddressRange.Mmio(0x1010, 0x10), AddressRange.Mmio(ulong.MaxValue - 3, 4));

        Assert.True(table.TryFind(isPort: false, 0x1008, 8, out _));
        Assert.False(table.TryFind(isPort: false, 0x100C, 8, out _)); // crosses into the next device
        Assert.False(table.TryFind(isPort: false, 0x0FFE, 4, out _)); // begins before
        Assert.True(table.TryFind(isPort: false, ulong.MaxValue - 3, 4, out _));
        Assert.False(table.TryFind(isPort: false, ulong.MaxValue - 1, 4, out _)); // would wrap
    }

    [Theory]
    [InlineData(0x100, 0x10, 0x10F, 1, "port 0x10f-0x10f overlaps")]
    [InlineData(0x100, 0x10, 0x100, 0x10, "overlaps")]
    [InlineData(0x100, 0x10, 0xF0, 0x100, "overlaps")]
    public void Ranges_that_overlap_are_refused_by_name(int first, int firstLength, int second, int secondLength, string expected)
    {
        var refused = Assert.Throws<ArgumentException>(
            () => Table(AddressRange.Ports((ushort)first, firstLength), AddressRange.Ports((ushort)second, secondLength)));

        Assert.Contains(expected, refused.Message, StringComparison.Ordinal);
        Assert.Contains("dev0", refused.Message, StringComparison.Ordinal);
        Assert.Contains("dev1", refused.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(true, 0xFFFFUL, 2UL)]
    [InlineData(true, 0x10UL, 0UL)]
    [InlineData(false, ulong.MaxValue, 2UL)]
    public void A_range_that_is_empty_or_leaves_its_space_is_refused(bool isPort, ulong start, ulong length) =>
        Assert.Throws<ArgumentException>(() => Table(new AddressRange(isPort, start, length)));

    [Fact]
    public void Counters_survive_a_change_of_the_table()
    {
        var device = new DeviceRoutee(new NamedRef("dev"), AddressRange.Ports(0x10, 1));
        var table = AddressTable.Build([device], AddressTable.Empty);
        Assert.True(table.TryFind(isPort: true, 0x10, 1, out var entry));
        entry.Count(isWrite: false);

        var grown = AddressTable.Build([device, new DeviceRoutee(new NamedRef("other"), AddressRange.Ports(0x20, 1))], table);

        Assert.True(grown.TryFind(isPort: true, 0x10, 1, out var kept));
        Assert.Equal(1, kept.Reads);
    }

    /// <summary>A reference with a name and nobody behind it.</summary>
    private sealed class NamedRef(string name) : MinimalActorRef
    {
        public override ActorPath Path { get; } = new RootActorPath(new Address("akka", "test")) / name;
        public override IActorRefProvider Provider => throw new NotSupportedException();
    }
}
