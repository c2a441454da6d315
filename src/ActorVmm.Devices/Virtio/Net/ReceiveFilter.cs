using System.Runtime.CompilerServices;

namespace ActorVmm.Devices.Virtio.Net;

/// <summary>Which packets the driver wants (virtio 1.2 §5.1.6.5.1 and .2). A value: part of the state that a restarted device resumes from.</summary>
internal struct ReceiveFilter
{
    /// <summary>Addresses per table; where the driver has more, all of that kind are let in, as the specification allows.</summary>
    public const int TableSize = 32;

    public bool Promiscuous, AllMulticast, AllUnicast, NoMulticast, NoUnicast, NoBroadcast;
    private ushort _unicastCount, _multicastCount;
    private Table _unicast, _multicast;

    [InlineArray(TableSize)]
    private struct Table
    {
        private ulong _first;
    }

    /// <summary>As after reset: everything is let in until the driver says what it wants.</summary>
    public static ReceiveFilter PowerOn => new() { Promiscuous = true };

    public void Clear(bool multicast)
    {
        if (multicast) _multicastCount = 0;
        else _unicastCount = 0;
    }

    /// <summary>Adds an address; the count stays above the table's size once there are too many.</summary>
    public void Add(bool multicast, MacAddress mac)
    {
        if (multicast)
        {
            if (_multicastCount < TableSize) _multicast[_multicastCount] = mac.Value;
            _multicastCount = (ushort)Math.Min(_multicastCount + 1, TableSize + 1);
        }
        else
        {
            if (_unicastCount < TableSize) _unicast[_unicastCount] = mac.Value;
            _unicastCount = (ushort)Math.Min(_unicastCount + 1, TableSize + 1);
        }
    }

    /// <summary>There are more addresses than the table holds.</summary>
    public void Overflow(bool multicast)
    {
        if (multicast) _multicastCount = TableSize + 1;
        else _unicastCount = TableSize + 1;
    }

    /// <summary>True where a saved value can be right.</summary>
    public readonly bool IsSound => _unicastCount <= TableSize + 1 && _multicastCount <= TableSize + 1;

    public readonly bool Accepts(MacAddress destination, MacAddress own)
    {
        if (Promiscuous) return true;
        if (destination == MacAddress.Broadcast) return !NoBroadcast;
        if (destination.IsGroup) return !NoMulticast && (AllMulticast || Holds(_multicast, _multicastCount, destination));
        return !NoUnicast && (destination == own || AllUnicast || Holds(_unicast, _unicastCount, destination));
    }

    private static bool Holds(in Table table, ushort count, MacAddress mac)
    {
        if (count > TableSize) return true;
        for (var i = 0; i < count; i++)
            if (table[i] == mac.Value) return true;
        return false;
    }
}
