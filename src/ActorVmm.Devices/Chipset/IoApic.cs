using System.Runtime.CompilerServices;

namespace ActorVmm.Devices.Chipset;

/// <summary>The 24 redirection entries as one comparable value.</summary>
[InlineArray(IoApic.Pins)]
public struct RedirectionTable : IEquatable<RedirectionTable>
{
    ulong _entry0;

    public readonly bool Equals(RedirectionTable other) => ((ReadOnlySpan<ulong>)this).SequenceEqual(other);
    public override readonly bool Equals(object? obj) => obj is RedirectionTable other && Equals(other);

    public override readonly int GetHashCode()
    {
        var hash = default(HashCode);
        foreach (var entry in this) hash.Add(entry);
        return hash.ToHashCode();
    }

    public static bool operator ==(RedirectionTable left, RedirectionTable right) => left.Equals(right);
    public static bool operator !=(RedirectionTable left, RedirectionTable right) => !left.Equals(right);
}

/// <summary>The whole state of the I/O APIC.</summary>
/// <param name="Id">APIC ID, 4 bits.</param>
/// <param name="Select">The index register.</param>
/// <param name="Levels">Input levels, pin n in bit n.</param>
/// <param name="Entries">Redirection entries, with remote IRR in bit 14.</param>
public readonly record struct IoApicState(byte Id, byte Select, uint Levels, RedirectionTable Entries);

/// <summary>
/// The 82093AA I/O APIC: 24 inputs, each with a redirection entry. Not thread-safe: the caller holds the chip lock of
/// <see cref="ApicBus"/> around every call.
/// </summary>
public sealed class IoApic : IBusDevice, IDeviceState<IoApicState>
{
    /// <summary>Inputs.</summary>
    public const int Pins = 24;

    /// <summary>Guest physical address on a PC.</summary>
    public const ulong DefaultBase = 0xFEC0_0000;

    /// <summary>Bytes that are decoded from the base.</summary>
    public const int PageSize = 4096;

    const ulong Masked = 1 << 16;
    const ulong LevelTriggered = 1 << 15;
    const ulong RemoteIrr = 1 << 14;
    const ulong Logical = 1 << 11;
    const ulong ReadOnlyBits = RemoteIrr | 1 << 12;
    const ulong WritableBits = 0xFF00_0000_0001_FFFF & ~ReadOnlyBits;
    const uint Version = 0x0017_0011; // 24 entries, version 0x11

    readonly IApicBus _bus;
    RedirectionTable _entries;
    uint _levels;
    byte _select;
    byte _id;

    /// <summary>An I/O APIC at power-on: every entry masked.</summary>
    public IoApic(IApicBus bus)
    {
        _bus = bus;
        Reset();
    }

    /// <inheritdoc/>
    public IoApicState State
    {
        get => new(_id, _select, _levels, _entries);
        set => (_id, _select, _levels, _entries) = (value.Id, value.Select, value.Levels, value.Entries);
    }

    /// <inheritdoc/>
    public void Reset()
    {
        _id = 0;
        _select = 0;
        _levels = 0;
        for (var i = 0; i < Pins; i++) _entries[i] = Masked;
    }

    /// <summary>One redirection entry (82093AA §3.2.4).</summary>
    public ulong Entry(int pin) => _entries[pin];

    /// <summary>Drives an input. An edge on a masked input is lost (82093AA §3.2.4, bit 16); a level waits.</summary>
    /// <param name="pin">0 to 23; others are ignored.</param>
    /// <param name="level">True is asserted, whatever the entry's polarity says: lines are logical levels here.</param>
    public void SetLine(int pin, bool level)
    {
        if ((uint)pin >= Pins) return;
        var bit = 1u << pin;
        var rose = level && (_levels & bit) == 0;
        _levels = level ? _levels | bit : _levels & ~bit;
        if (rose || (level && (_entries[pin] & LevelTriggered) != 0)) Service(pin);
    }

    /// <summary>
    /// A local APIC finished <paramref name="vector"/>: entries that wait for it may fire again (82093AA §3.2.4, bit 14).
    /// </summary>
    public void EndOfInterrupt(byte vector)
    {
        for (var pin = 0; pin < Pins; pin++)
        {
            ref var entry = ref _entries[pin];
            if ((entry & (LevelTriggered | RemoteIrr)) != (LevelTriggered | RemoteIrr) || (byte)entry != vector) continue;
            entry &= ~RemoteIrr;
            if ((_levels & (1u << pin)) != 0) Service(pin);
        }
    }

    /// <summary>Reads IOREGSEL (0x00) or IOWIN (0x10); anything else is zero.</summary>
    public ulong Read(ulong offset, int size)
    {
        var within = (int)(offset & 0xF);
        if (within >= 4) return 0;
        var value = (offset & ~0xFUL) switch
        {
            0x00 => _select,
            0x10 => ReadSelected(),
            _    => 0u,
        };
        var shifted = (ulong)value >> (8 * within);
        return size >= 4 ? shifted : shifted & ((1UL << (8 * size)) - 1);
    }

    /// <summary>Writes IOREGSEL (its low byte, any size) or IOWIN (32 bits); anything else is ignored.</summary>
    public void Write(ulong offset, int size, ulong value)
    {
        if (offset == 0x00) _select = (byte)value;
        else if (offset == 0x10 && size >= 4) WriteSelected((uint)value);
    }

    public override string ToString()
    {
        var lines = new List<string>();
        for (var pin = 0; pin < Pins; pin++)
        {
            var entry = _entries[pin];
            var high = (_levels & (1u << pin)) != 0;
            if ((entry & Masked) != 0 && !high) continue;
            lines.Add($"{pin}:{entry:x}{(high ? "+" : "")}");
        }

        return $"ioapic id={_id} {(lines.Count == 0 ? "all masked" : string.Join(' ', lines))}";
    }

    uint ReadSelected() => _select switch
    {
        0x00 => (uint)_id << 24,
        0x01 => Version,
        0x02 => (uint)_id << 24, // arbitration ID follows the ID
        >= 0x10 and < 0x10 + 2 * Pins => (uint)(_entries[(_select - 0x10) >> 1] >> ((_select & 1) * 32)),
        _ => 0,
    };

    void WriteSelected(uint value)
    {
        if (_select == 0x00)
        {
            _id = (byte)((value >> 24) & 0xF);
            return;
        }

        if (_select is < 0x10 or >= 0x10 + 2 * Pins) return;
        var pin = (_select - 0x10) >> 1;
        ref var entry = ref _entries[pin];
        entry = (_select & 1) == 0
            ? (entry & (0xFFFF_FFFF_0000_0000 | ReadOnlyBits)) | (value & WritableBits)
            : (entry & 0xFFFF_FFFF) | ((ulong)value << 32 & WritableBits);
        // An edge-triggered entry has no remote IRR: drivers flip the trigger to clear a stuck one.
        if ((entry & LevelTriggered) == 0) entry &= ~RemoteIrr;
        else if ((_levels & (1u << pin)) != 0) Service(pin);
    }

    void Service(int pin)
    {
        ref var entry = ref _entries[pin];
        var level = (entry & LevelTriggered) != 0;
        if ((entry & Masked) != 0 || (level && (entry & RemoteIrr) != 0)) return;
        var mode = (ApicDeliveryMode)((entry >> 8) & 7);
        var logical = (entry & Logical) != 0;
        var destination = (uint)(entry >> 56);
        var accepted = _bus.Deliver(!logical && destination == 0xFF ? uint.MaxValue : destination, logical, mode, (byte)entry, level);
        if (accepted && level && mode is ApicDeliveryMode.Fixed or ApicDeliveryMode.LowestPriority) entry |= RemoteIrr;
    }
}
