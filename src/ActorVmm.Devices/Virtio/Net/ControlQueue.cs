using ActorVmm.Devices.Virtio.Queue;

namespace ActorVmm.Devices.Virtio.Net;

/// <summary>The control queue (virtio 1.2 §5.1.6.5): class, command, its data; one byte of answer.</summary>
internal sealed class ControlQueue(NetDevice device)
{
    private const byte Ok = 0, Error = 1;
    private const int HeaderLength = 2;

    public void Serve()
    {
        if (device.ControlVirtQueue is not { } queue) return;
        while (queue.TryTake(out var chain))
        {
            device.Counters.Add(NetCounter.Commands);
            var done = !chain.IsSuspect && Execute(chain);
            if (!done) device.Counters.Add(NetCounter.BadCommands);
            device.Port.StateChanged();
            var answered = chain.TryWrite(0, done ? Ok : Error);
            queue.Complete(chain, answered ? 1u : 0);
        }
    }

    private bool Execute(DescriptorChain chain)
    {
        Span<byte> header = stackalloc byte[HeaderLength];
        if (!chain.TryRead(0, header)) return false;
        return (header[0], header[1]) switch
        {
            (0, var mode) => SetReceiveMode(chain, mode),
            (1, 0) => device.Has(NetFeatures.ControlReceive) && SetTables(chain),
            (1, 1) => device.Has(NetFeatures.ControlMac) && SetMac(chain),
            (4, 0) => device.Has(NetFeatures.MultiQueue) && SetPairs(chain),
            (5, 0) => device.Has(NetFeatures.ControlGuestOffloads) && SetOffloads(chain),
            _ => false,
        };
    }

    private bool SetReceiveMode(DescriptorChain chain, byte mode)
    {
        if (!device.Has(mode < 2 ? NetFeatures.ControlReceive : NetFeatures.ControlReceiveExtra)) return false;
        if (!chain.TryRead<byte>(HeaderLength, out var value) || value > 1) return false;
        var on = value == 1;
        ref var filter = ref device.Saved.Filter;
        switch (mode)
        {
            case 0: filter.Promiscuous = on; return true;
            case 1: filter.AllMulticast = on; return true;
            case 2: filter.AllUnicast = on; return true;
            case 3: filter.NoMulticast = on; return true;
            case 4: filter.NoUnicast = on; return true;
            case 5: filter.NoBroadcast = on; return true;
            default: return false;
        }
    }

    /// <summary>Two tables, unicast and multicast: a count of 32 bits, then that many addresses.</summary>
    private bool SetTables(DescriptorChain chain)
    {
        var filter = device.Saved.Filter;
        ulong at = HeaderLength;
        if (!TryReadTable(chain, ref at, ref filter, multicast: false) || !TryReadTable(chain, ref at, ref filter, multicast: true)) return false;
        device.Saved.Filter = filter; // both or none
        return true;
    }

    private static bool TryReadTable(DescriptorChain chain, ref ulong at, ref ReceiveFilter filter, bool multicast)
    {
        if (!chain.TryRead<uint>(at, out var count)) return false;
        at += sizeof(uint);
        var length = (ulong)count * MacAddress.Length;
        if (length > chain.ReadableLength - at) return false;
        filter.Clear(multicast);
        if (count > ReceiveFilter.TableSize)
        {
            filter.Overflow(multicast);
        }
        else
        {
            Span<byte> mac = stackalloc byte[MacAddress.Length];
            for (ulong i = 0; i < count; i++)
            {
                if (!chain.TryRead(at + i * MacAddress.Length, mac)) return false;
                filter.Add(multicast, MacAddress.From(mac));
            }
        }
        at += length;
        return true;
    }

    private bool SetMac(DescriptorChain chain)
    {
        Span<byte> bytes = stackalloc byte[MacAddress.Length];
        if (!chain.TryRead(HeaderLength, bytes)) return false;
        var mac = MacAddress.From(bytes);
        if (mac.IsGroup) return false;
        device.Saved.Mac = mac;
        return true;
    }

    private bool SetPairs(DescriptorChain chain)
    {
        if (!chain.TryRead<ushort>(HeaderLength, out var pairs) || pairs < 1 || pairs > device.Pairs) return false;
        device.Saved.Pairs = pairs;
        device.Configure();
        return true;
    }

    private bool SetOffloads(DescriptorChain chain)
    {
        if (!chain.TryRead<ulong>(HeaderLength, out var wanted)) return false;
        // Only what was negotiated may be switched, and only as a whole that makes sense (§5.1.6.5.6).
        const ulong Switchable = NetFeatures.GuestChecksum | NetFeatures.GuestTso4 | NetFeatures.GuestTso6 | NetFeatures.GuestEcn
            | NetFeatures.GuestUfo;
        if ((wanted & ~(Switchable & device.Negotiated)) != 0 || !NetFeatures.AreConsistent(wanted)) return false;
        device.Saved.Offloads = NetFeatures.Receive(wanted);
        device.Configure();
        return true;
    }
}
