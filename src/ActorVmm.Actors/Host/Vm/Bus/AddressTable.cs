using System.Diagnostics.CodeAnalysis;
using Akka.Routing;

namespace ActorVmm.Actors.Host.Vm.Bus;

/// <summary>
/// Who answers where: an immutable table of disjoint ranges, sorted, one for ports and one for MMIO. Every vCPU reads it without a lock; a
/// change makes a new table.
/// </summary>
public sealed class AddressTable
{
    private readonly Key[] _ports;
    private readonly Key[] _mmio;

    private AddressTable(IEnumerable<Entry> ascending)
    {
        var bySpace = ascending.ToLookup(entry => entry.Range.IsPort, entry => new Key(entry.Range.Start, entry.Range.Last, entry));
        _ports = [.. bySpace[true]];
        _mmio = [.. bySpace[false]];
    }

    /// <summary>Nobody answers anywhere.</summary>
    public static AddressTable Empty { get; } = new([]);

    /// <summary>All entries, ports first, ascending.</summary>
    public IEnumerable<Entry> Entries => _ports.Concat(_mmio).Select(key => key.Entry);

    /// <summary>
    /// The table of these devices. Entries of <paramref name="previous"/> are kept with their counters where device and range are the same.
    /// </summary>
    /// <exception cref="ArgumentException">Two ranges overlap, or one leaves its address space; the message names both.</exception>
    public static AddressTable Build(IEnumerable<DeviceRoutee> devices, AddressTable previous)
    {
        ArgumentNullException.ThrowIfNull(devices);
        ArgumentNullException.ThrowIfNull(previous);
        var known = previous.Entries.ToDictionary(entry => (entry.Device.Actor, entry.Range));
        var entries = devices
            .SelectMany(device => device.Ranges.Select(range => known.GetValueOrDefault((device.Actor, range)) ?? new Entry(range, device)))
            .OrderBy(entry => entry.Range.Start).ToList();

        CheckDisjoint(entries.Select(entry => (entry.Range, entry.Device.Name)));
        return new AddressTable(entries);
    }

    /// <summary>Refuses ranges that overlap or leave their address space.</summary>
    /// <exception cref="ArgumentException">The message names the ranges and their devices.</exception>
    public static void CheckDisjoint(IEnumerable<(AddressRange Range, string Device)> ranges)
    {
        (AddressRange Range, string Device)? before = null;
        foreach (var current in ranges.OrderBy(entry => entry.Range.IsPort).ThenBy(entry => entry.Range.Start))
        {
            if (!current.Range.IsValid)
                throw new ArgumentException(
                    $"{current.Device}: {current.Range} (length {current.Range.Length}) is not inside its address space");
            if (before is { } last && last.Range.Overlaps(current.Range))
                throw new ArgumentException($"{current.Device}: {current.Range} overlaps {last.Range} of {last.Device}");
            before = current;
        }
    }

    /// <summary>Finds who answers for all of [<paramref name="address"/>, +<paramref name="size"/>).</summary>
    public bool TryFind(bool isPort, ulong address, int size, [NotNullWhen(true)] out Entry? found)
    {
        var keys = isPort ? _ports : _mmio;
        int low = 0, high = keys.Length - 1;
        while (low <= high)
        {
            var middle = (low + high) >>> 1;
            ref readonly var key = ref keys[middle];
            if (address < key.First) high = middle - 1;
            else if (address > key.Last) low = middle + 1;
            else { found = key.Entry; return (ulong)(size - 1) <= key.Last - address; }
        }

        found = null;
        return false;
    }

    /// <summary>What the search compares, side by side in memory.</summary>
    private readonly record struct Key(ulong First, ulong Last, Entry Entry);

    /// <summary>One range, its device, and how many accesses the device has handled there.</summary>
    public sealed class Entry(AddressRange range, DeviceRoutee device)
    {
        private long _reads;
        private long _writes;

        public AddressRange Range { get; } = range;
        public DeviceRoutee Device { get; } = device;

        /// <summary>Any thread.</summary>
        public long Reads => Volatile.Read(ref _reads);

        /// <summary>Any thread.</summary>
        public long Writes => Volatile.Read(ref _writes);

        /// <summary>The device's actor; here, so that an exit need not ask the routee for it.</summary>
        internal Akka.Actor.IActorRef Actor { get; } = device.Actor;

        /// <summary>The device's register at <paramref name="address"/>.</summary>
        internal ulong OffsetOf(ulong address) => address - Range.Start + Range.DeviceOffset;

        /// <summary>Only in the device's turn: its mailbox makes sure that there is one writer, so nothing need be interlocked.</summary>
        internal void Count(bool isWrite)
        {
            if (isWrite) Volatile.Write(ref _writes, _writes + 1);
            else Volatile.Write(ref _reads, _reads + 1);
        }
    }
}

/// <summary>A device as the bus's router knows it: its actor, its name, and the ranges it answers for.</summary>
/// <param name="device">The actor.</param>
/// <param name="name">The device's name: an instance that took another's place has a path of its own.</param>
/// <param name="ranges">Where it answers.</param>
public sealed class DeviceRoutee(Akka.Actor.IActorRef device, string name, IReadOnlyList<AddressRange> ranges) : ActorRefRoutee(device)
{
    public DeviceRoutee(Akka.Actor.IActorRef device, params IReadOnlyList<AddressRange> ranges) : this(device, device.Path.Name, ranges) { }

    /// <summary>The device's name.</summary>
    public string Name { get; } = name;

    public IReadOnlyList<AddressRange> Ranges { get; } = ranges;
}
